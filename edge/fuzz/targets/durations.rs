//! See `postern_fuzz::durations`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_fuzz::durations(bytes));

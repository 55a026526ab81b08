//! See `postern_fuzz::paths`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_fuzz::paths(bytes));

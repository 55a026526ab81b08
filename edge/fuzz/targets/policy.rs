//! See `postern_fuzz::policy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| postern_fuzz::policy(bytes));

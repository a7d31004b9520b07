//! A text of anybody as a return-path token, and a file of token keys.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::token(data));

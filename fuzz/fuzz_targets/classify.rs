//! Replies of anybody, and own rules: each has one verdict, at every stage.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::classify(data));

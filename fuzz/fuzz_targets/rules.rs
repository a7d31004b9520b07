//! Files of reply rules and provider rules: good, or refused with a reason and a remedy for each error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::rules(data));

//! A config file: good, or refused with a reason and a remedy for each error.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::config(data));

//! MX records and addresses of anybody: an order of hosts without ourselves.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::routing(data));

//! A message that came home, after one octet for its envelope.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::feedback_report(data));

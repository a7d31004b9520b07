//! A DMARC or TLS report, packed or not, after one octet for its type.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::feedback_aggregate(data));

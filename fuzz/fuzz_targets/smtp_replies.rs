//! Octets of a host as replies: any reads give the same ones, and each of them has a rule.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::smtp_replies(data));

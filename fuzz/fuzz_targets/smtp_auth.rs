//! Octets of a client that may log in: the result does not depend on the reads, and nobody is let in without a verdict.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::smtp_auth(data));

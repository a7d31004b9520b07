//! Replies of a host to one transaction: each recipient has a fate, and none is accepted without a 2yz for the message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::smtp_client(data));

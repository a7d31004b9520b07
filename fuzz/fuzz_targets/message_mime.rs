//! A message re-encoded: any cuts give the same, and what comes out can be carried.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::message_mime(data));

//! A notification from hostile replies, names and messages: a clean message.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::message_dsn(data));

//! A header block: stamped clean, or refused; its event is one line of JSON.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::message_stamp(data));

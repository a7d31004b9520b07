//! Any octets where the current event file should be: the writer starts, and no event is lost.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::event_files(data));

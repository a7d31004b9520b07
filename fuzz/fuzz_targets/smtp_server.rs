//! Octets of a client as a session of the server machine: the result does not depend on the reads, no message is passed on unclean.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::smtp_server(data));

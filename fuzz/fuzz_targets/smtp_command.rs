//! A command line, or an address: refused with a reason, or free of anything that ends a line.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| posthaste_fuzz::smtp_command(data));

//! The SMTP protocol without I/O (RFC 5321 and extensions): bytes and replies in, bytes and actions out.

pub mod client;

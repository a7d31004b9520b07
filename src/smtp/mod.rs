//! The SMTP protocol without I/O (RFC 5321): bytes and facts in, actions out.
//!
//! [`framing`] cuts a stream of octets into command lines and message data, [`command`] parses the lines, [`sasl`] is
//! the server's side of AUTH, [`server`] is the machine of the receiving side and [`client`] that of the sending side. Promises: nothing here opens a socket,
//! reads a clock or draws a random number; the same octets give the same actions however they are cut into reads.

mod base64;
pub mod client;
pub mod command;
mod command_params;
pub mod framing;
pub mod sasl;
pub mod secret;
pub mod server;

//! The sending side of SMTP, sans-IO: what to write, and what the peer's replies mean for each recipient.
//!
//! - [`ReplyParser`] cuts replies from the bytes of a peer that may be hostile; surplus bytes wait for the next reply.
//! - [`Capabilities`] is what the EHLO reply offered.
//! - [`command`] writes commands. Nothing that a message or a config holds can end a command line early.
//! - [`DotStuffer`] makes message data out of bodies that come in parts.
//! - [`Machine`] runs one mail transaction: MAIL, RCPT, DATA or BDAT, the final reply.
//! - [`Credentials`] is SMTP AUTH for smart hosts.
//!
//! Promises: no reply that a peer can send makes a recipient "accepted" unless a 2yz stands for the complete message;
//! a transaction whose final dot went out and has no usable reply is [`RecipientResult::Ambiguous`], never anything
//! else. Does not: read clocks, sockets or randomness; retry; judge replies (that is `policy`).

mod auth;
mod capabilities;
pub mod command;
mod dot_stuffing;
mod machine;
mod outcome;
mod reply_parser;
mod sanitise;
mod transaction;

#[cfg(test)]
mod machine_tests;

pub use super::secret::Secret;
pub use crate::types::Stage;
pub use auth::{Credentials, CredentialsError, Mechanism};
pub use capabilities::{Capabilities, Extension, Limits, SizeLimit};
pub use command::{EhloName, EhloNameError};
pub use dot_stuffing::DotStuffer;
pub use machine::{Framing, Machine, Options, PIPELINE_COMMANDS_MAX, Step};
pub use outcome::{After, Loss, LossReason, Outcome, RecipientResult};
pub use reply_parser::{REPLY_BYTES_MAX, REPLY_LINES_MAX, ReplyError, ReplyParser};
pub use sanitise::sanitise;
pub use transaction::Transaction;

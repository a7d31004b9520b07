//! What each fuzz target does with its input, as plain functions: cargo-fuzz calls them from `fuzz_targets/`, and
//! `tests/it/fuzz_seeds.rs` includes this file to run them on `seeds/` and on mutations of these, in every test run.
//!
//! Each function takes any octets and returns, or panics where a promise of the code under test does not hold.

mod client;
mod config;
mod dns;
mod event_files;
mod feedback;
mod message;
mod mime;
mod octets;
mod routing;
mod rules;
mod server;
mod token;

pub use client::{smtp_client, smtp_replies};
pub use config::config;
pub use dns::dns_answer;
pub use event_files::event_files;
pub use feedback::{feedback_aggregate, feedback_report};
pub use message::{message_dsn, message_stamp};
pub use mime::message_mime;
pub use routing::routing;
pub use rules::{classify, rules};
pub use server::{smtp_auth, smtp_command, smtp_server};
pub use token::token;

/// A function that takes any octets.
pub type Body = fn(&[u8]);

/// Every body by the name of its target and of its directory in `seeds/`. `queue_format` has its own file and its seeds
/// in `queue-format/tests/golden`.
pub const BODIES: &[(&str, Body)] = &[
    ("smtp_server", smtp_server),
    ("smtp_auth", smtp_auth),
    ("smtp_command", smtp_command),
    ("smtp_replies", smtp_replies),
    ("smtp_client", smtp_client),
    ("message_stamp", message_stamp),
    ("message_dsn", message_dsn),
    ("message_mime", message_mime),
    ("config", config),
    ("event_files", event_files),
    ("dns_answer", dns_answer),
    ("routing", routing),
    ("rules", rules),
    ("classify", classify),
    ("token", token),
    ("feedback_report", feedback_report),
    ("feedback_aggregate", feedback_aggregate),
];

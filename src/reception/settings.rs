//! What an administrator can set about reception. Validated by `daemon`; defaults are those of config.toml.example.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::message::mime::EightBitBodies;
pub use crate::message::stamp::{EightBitHeaders, FromRule, Submitted};
pub use crate::smtp::server::{Hygiene, LongLines};

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Name in logs, metrics and events.
    pub name: String,
    /// Where it listens; an IPv6 address listens on IPv6 only.
    pub address: SocketAddr,
    /// Clear, STARTTLS offered, or TLS from the first byte.
    pub tls: ListenerTls,
    /// Where clients may log in.
    pub auth: ListenerAuth,
    /// What for.
    pub takes: ListenerTakes,
}

/// What a listener takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerTakes {
    /// Mail of applications, to be sent.
    #[default]
    Messages,
    /// Mail for us, from anybody: bounces, complaints and the like.
    Feedback,
}

/// When a listener offers AUTH, if anybody can log in at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ListenerAuth {
    /// Under TLS only.
    #[default]
    Tls,
    /// In clear too: on loopback addresses only.
    Clear,
    /// Never.
    Never,
}

/// How a listener uses TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerTls {
    /// Never.
    None,
    /// STARTTLS is offered (RFC 3207).
    StartTls(CertificateFiles),
    /// TLS before the greeting (RFC 8314 §3).
    Implicit(CertificateFiles),
}

/// PEM files; read at start and on every reload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key: PKCS#8, PKCS#1 or SEC1.
    pub key: PathBuf,
}

/// Limits and behaviour shared by all listeners.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Our name in the greeting, in `Received`, and in generated ids.
    pub hostname: String,
    /// Open client connections in all. Above: 421 4.3.2.
    pub connections_max: usize,
    /// Open connections of one client address (IPv6: its /64). Above: 421 4.7.0.
    pub connections_per_client_max: usize,
    /// TLS handshakes a second of one client that lead to no message; five seconds' worth at once. More wait.
    pub handshakes_per_client_rate_max: u32,
    /// The same of all clients from which no message came lately.
    pub handshakes_rate_max: u32,
    /// Transactions (MAIL) in one connection. Above: 421 4.7.0.
    pub transactions_max: u32,
    /// Refused or unknown commands in one connection. Above: 421 4.7.0.
    pub errors_max: u32,
    /// Commands that carry nothing (NOOP, RSET, VRFY, HELP, EHLO) between two accepted messages. Above: 421 4.7.0.
    pub idle_commands_max: u32,
    /// Recipients of one message. Above: 452 4.5.3.
    pub recipients_max: usize,
    /// Octets of a message. Above: 552 5.3.4 "Message is too long."
    pub message_bytes_max: u64,
    /// Octets of a header block. Above: 552 5.3.4.
    pub header_bytes_max: usize,
    /// `Received` fields before a loop is assumed: 554 5.4.6.
    pub hops_max: usize,
    /// Bare CR, bare LF, NUL.
    pub hygiene: Hygiene,
    /// Lines above 998 octets: the body re-encoded and the header folded, or 550 5.6.11.
    pub long_lines: LongLines,
    /// Octets above 127 in a body: re-encoded before it is signed, or sent as they came.
    pub eight_bit_bodies: EightBitBodies,
    /// Header fields with octets above 127, from clients that did not ask for SMTPUTF8.
    pub eight_bit_headers: EightBitHeaders,
    /// What `From` must be.
    pub from: FromRule,
    /// A `Date` that came.
    pub date: Submitted,
    /// A `Message-ID` that came.
    pub message_id: Submitted,
    /// Whether `Received` names the client's address and HELO name.
    pub received_shows_client: bool,
    /// Between commands (RFC 5321 §4.5.3.2.7: 5 minutes). Then 451 4.4.2 "Timeout waiting for data from client."
    pub command_timeout: Duration,
    /// Between two blocks of message data (RFC 5321 §4.5.3.2.5 and 6).
    pub data_timeout: Duration,
    /// From connect to the end of a session.
    pub session_timeout: Duration,
    /// Memory for messages that are being received, all sessions together. Full: readers wait. Fixed at start.
    pub memory_bytes_max: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "localhost".to_owned(),
            connections_max: 2_000,
            connections_per_client_max: 500,
            handshakes_per_client_rate_max: 20,
            handshakes_rate_max: 100,
            transactions_max: 10_000,
            errors_max: 20,
            idle_commands_max: 100,
            recipients_max: 50,
            message_bytes_max: 40 * 1024 * 1024,
            header_bytes_max: 256 * 1024,
            hops_max: 50,
            hygiene: Hygiene::Refuse,
            long_lines: LongLines::Encode,
            eight_bit_bodies: EightBitBodies::Encode,
            eight_bit_headers: EightBitHeaders::Encode,
            from: FromRule::Require,
            date: Submitted::Keep,
            message_id: Submitted::Keep,
            received_shows_client: true,
            command_timeout: Duration::from_secs(300),
            data_timeout: Duration::from_secs(180),
            session_timeout: Duration::from_secs(3_600),
            memory_bytes_max: 512 * 1024 * 1024,
        }
    }
}

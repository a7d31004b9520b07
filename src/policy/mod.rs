//! Pure decisions: what a reply means, and when to try again.
//!
//! Promises: no clock, no randomness, no I/O: time and seeds are arguments, so that the same input gives the same
//! decision, and four days of retries are a table test. Does not: keep state (`scheduler` and `queue` do).

pub mod classify;
pub mod fault;
mod hint;
mod phrase;
mod replies;
pub mod retry;
pub mod verdict;

pub use classify::{Rules, classify};
pub use fault::Fault;
pub use verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope, Verdict};

/// Where in a session a reply came (RFC 5321 §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// TCP connect, before any octet.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the handshake.
    Tls,
    /// AUTH with a smart host.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA, before the message.
    Data,
    /// The final dot, or BDAT LAST.
    Dot,
}

impl Stage {
    /// A bit of its own, for sets.
    pub(crate) const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Before MAIL: a reply here says something of the host and of our address, never of a recipient or a message.
    pub const fn is_session(self) -> bool {
        matches!(self, Stage::Connect | Stage::Greeting | Stage::Ehlo | Stage::Tls | Stage::Auth)
    }
}

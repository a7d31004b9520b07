//! The steps of an SMTP session, from the side of the client (RFC 5321 §3).

use std::fmt;

/// A step of a connection. A reply says something of the host at `Connect` to `Auth`, of sender and source at `Mail`, of
/// the recipient at `Rcpt`, of the content at `Data` and `Dot`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// TCP connect.
    Connect,
    /// The greeting.
    Greeting,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the handshake.
    Tls,
    /// AUTH.
    Auth,
    /// MAIL, and the RSET in front of it.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA, and the message data up to its end.
    Data,
    /// The final dot, or the last BDAT.
    Dot,
}

impl Stage {
    /// All, in the order of a session.
    pub const ALL: [Stage; 9] = [
        Stage::Connect,
        Stage::Greeting,
        Stage::Ehlo,
        Stage::Tls,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Dot,
    ];

    /// A bit of its own, for sets.
    pub const fn bit(self) -> u16 {
        1 << self as u16
    }

    /// Before MAIL: a reply here says something of the host and of our address, never of a recipient or a message.
    pub const fn is_session(self) -> bool {
        matches!(self, Stage::Connect | Stage::Greeting | Stage::Ehlo | Stage::Tls | Stage::Auth)
    }

    /// As events and logs name it.
    pub const fn name(self) -> &'static str {
        match self {
            Stage::Connect => "connect",
            Stage::Greeting => "greeting",
            Stage::Ehlo => "ehlo",
            Stage::Tls => "tls",
            Stage::Auth => "auth",
            Stage::Mail => "mail",
            Stage::Rcpt => "rcpt",
            Stage::Data => "data",
            Stage::Dot => "dot",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

//! The envelope of a message (RFC 5321 §2.3.1) with the parameters of the DSN extension (RFC 3461).

use super::{EmailAddress, ReversePath};

/// What MAIL and RCPT said: routing is by this alone, never by header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// MAIL FROM.
    pub reverse_path: ReversePath,
    /// RCPT TO, in order; duplicates already removed.
    pub recipients: Vec<Recipient>,
    /// BODY= (RFC 6152).
    pub body: BodyKind,
    /// SMTPUTF8 (RFC 6531) was asked for.
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub ret: Option<DsnReturn>,
    /// ENVID= (RFC 3461 §4.4), xtext decoded: printable ASCII.
    pub envid: Option<Box<str>>,
}

/// One RCPT TO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipient {
    /// The forward path.
    pub address: EmailAddress,
    /// NOTIFY= (RFC 3461 §4.1); `None` where the client did not say.
    pub notify: Option<Notify>,
    /// ORCPT= (RFC 3461 §4.2).
    pub orcpt: Option<OriginalRecipient>,
}

/// ORCPT: address type and xtext-decoded address (printable ASCII), such as `rfc822` and `user@example.com`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginalRecipient {
    /// Such as `rfc822` or `utf-8`.
    pub address_type: Box<str>,
    /// The address, decoded.
    pub address: Box<str>,
}

/// The set of NOTIFY keywords. NEVER is the empty set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Notify(u8);

impl Notify {
    /// `NOTIFY=NEVER`.
    pub const NEVER: Notify = Notify(0);
    /// `SUCCESS`.
    pub const SUCCESS: Notify = Notify(1);
    /// `FAILURE`.
    pub const FAILURE: Notify = Notify(2);
    /// `DELAY`.
    pub const DELAY: Notify = Notify(4);

    /// The set from its stored bits; unknown bits give `None`.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        if bits <= 7 { Some(Self(bits)) } else { None }
    }

    /// The bits to store: SUCCESS 1, FAILURE 2, DELAY 4.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Notify) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` is asked for.
    pub const fn contains(self, other: Notify) -> bool {
        self.0 & other.0 == other.0 && other.0 != 0
    }
}

/// How much of the message a failure DSN returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DsnReturn {
    /// `RET=FULL`.
    Full,
    /// `RET=HDRS`.
    Headers,
}

/// What the body holds (RFC 6152; BINARYMIME is not offered).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BodyKind {
    /// Only US-ASCII.
    #[default]
    SevenBit,
    /// Octets above 127 occur.
    EightBitMime,
}

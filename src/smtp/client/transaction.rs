//! What one mail transaction is to carry.

use crate::types::{BodyKind, DsnReturn, Recipient, ReversePath};

/// One mail transaction (RFC 5321 §3.3), without its body.
#[derive(Clone, Copy, Debug)]
pub struct Transaction<'a> {
    /// MAIL FROM.
    pub reverse_path: &'a ReversePath,
    /// RCPT TO, in the order of the results. A peer's LIMITS RCPTMAX is for the caller to keep.
    pub recipients: &'a [Recipient],
    /// 8-bit bodies are declared where the peer offers 8BITMIME and sent as they are where it does not, which nearly
    /// every peer takes. A 7-bit downgrade belongs in front of signing, so it is not done here.
    pub body: BodyKind,
    /// The header block needs SMTPUTF8. Addresses are looked at here, so this is not needed for them; and it should not be
    /// set merely because the submitting client announced it.
    pub smtputf8: bool,
    /// RET=, sent where the peer offers DSN.
    pub ret: Option<DsnReturn>,
    /// ENVID=, not encoded; sent where the peer offers DSN.
    pub envid: Option<&'a str>,
    /// Octets of header block and body, before dot-stuffing (RFC 1870 §3). BDAT sends exactly that many.
    pub body_bytes: u64,
}

impl Transaction<'_> {
    /// Whether the reverse-path or the header block needs SMTPUTF8: then no recipient can do without.
    pub fn message_needs_smtputf8(&self) -> bool {
        self.smtputf8 || self.reverse_path.mailbox().is_some_and(|address| address.needs_smtputf8())
    }

    /// Whether MAIL must carry SMTPUTF8 (RFC 6531 §3.4).
    pub fn uses_smtputf8(&self) -> bool {
        self.message_needs_smtputf8() || self.recipients.iter().any(|to| to.address.needs_smtputf8())
    }
}

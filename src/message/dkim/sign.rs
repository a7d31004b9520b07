//! The signature fields of one message.

use std::sync::Arc;

use mail_auth::common::crypto::SigningKey;
use mail_auth::common::headers::{Writable, Writer};
use mail_auth::dkim::{Canonicalization, Signature};

use super::super::header::{Field, Fields};
use super::{BodyHash, BodyHasher, Key};
use crate::types::{Domain, Timestamp};

/// Fields that are signed, one instance more than there is: a second one, added on the way, breaks the signature.
const OVERSIGNED: &[&str] = &[
    "From",
    "Sender",
    "Reply-To",
    "To",
    "Cc",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "List-Unsubscribe",
    "List-Unsubscribe-Post",
    "Feedback-ID",
];

/// Fields that are signed where they stand (RFC 6376 §5.4.1); hops and lists may add more of them.
const SIGNED: &[&str] = &[
    "In-Reply-To",
    "References",
    "Content-Disposition",
    "Content-ID",
    "Content-Description",
    "Resent-Date",
    "Resent-From",
    "Resent-To",
    "Resent-Cc",
    "Resent-Message-ID",
    "List-ID",
    "List-Help",
    "List-Subscribe",
    "List-Post",
    "List-Owner",
    "List-Archive",
    "Auto-Submitted",
    "Precedence",
    "CFBL-Address",
    "CFBL-Feedback-ID",
];

/// Instances of one name of [`SIGNED`] that are signed, from the bottom up (RFC 6376 §5.4.2); `h=` stays short whatever a client sends.
const INSTANCES_MAX: usize = 8;

/// Who signs: a domain, and a key that it publishes under a selector.
#[derive(Clone, Debug)]
pub struct Signer {
    /// `d=`.
    pub domain: Domain,
    /// `s=`.
    pub selector: Domain,
    /// The private key.
    pub key: Arc<Key>,
}

/// The key did not sign.
#[derive(Debug, thiserror::Error)]
#[error("the DKIM key {selector}._domainkey.{domain} cannot sign: {reason}")]
pub struct SignError {
    domain: Domain,
    selector: Domain,
    reason: String,
}

/// One `DKIM-Signature` field for each signer, in order, to be put in front of the message. `blocks` are its header fields as
/// they will be sent, in order, in one or several pieces that end with whole fields; an empty line ends a piece.
pub fn sign(blocks: &[&[u8]], body: BodyHash, at: Timestamp, signers: &[Arc<Signer>]) -> Result<Vec<u8>, SignError> {
    let mut out = Vec::with_capacity(1_024 * signers.len());
    if signers.is_empty() {
        return Ok(out);
    }
    let fields: Vec<Field<'_>> = blocks.iter().flat_map(|block| Fields::new(block)).collect();
    let chosen = Chosen::of(&fields);
    for signer in signers {
        let key = &signer.key.inner;
        let mut signature = Signature {
            v: 1,
            a: key.algorithm(),
            d: signer.domain.as_str().to_owned(),
            s: signer.selector.as_str().to_owned(),
            h: chosen.names.clone(),
            bh: body.as_bytes().to_vec(),
            t: at.millis() / 1_000,
            ch: Canonicalization::Relaxed,
            cb: Canonicalization::Relaxed,
            ..Signature::default()
        };
        let text = SignedText { fields: &chosen.canonical, signature: &signature };
        signature.b = key.sign(text).map_err(|error| SignError {
            domain: signer.domain.clone(),
            selector: signer.selector.clone(),
            reason: error.to_string(),
        })?;
        signature.write(&mut out, true);
    }
    Ok(out)
}

/// The same for a whole message, whose header block with its empty line takes `header_bytes`. Puts the fields in front of it; returns
/// how many octets that are.
pub fn sign_message(
    message: &mut Vec<u8>,
    header_bytes: usize,
    at: Timestamp,
    signers: &[Arc<Signer>],
) -> Result<usize, SignError> {
    let (header, body) = message.split_at_checked(header_bytes).unwrap_or((message, &[]));
    let mut hasher = BodyHasher::default();
    hasher.push(body);
    let fields = sign(&[header], hasher.finish(), at, signers)?;
    let count = fields.len();
    message.splice(..0, fields);
    Ok(count)
}

/// The fields that are signed: `h=`, and their canonical form in the same order.
struct Chosen {
    names: Vec<String>,
    canonical: Vec<u8>,
}

impl Chosen {
    fn of(fields: &[Field<'_>]) -> Self {
        let mut chosen = Chosen { names: Vec::with_capacity(32), canonical: Vec::with_capacity(2_048) };
        for (names, extra) in [(OVERSIGNED, true), (SIGNED, false)] {
            for name in names {
                let instances = fields.iter().rev().filter(|field| field.name().eq_ignore_ascii_case(name.as_bytes()));
                // All of them where one more is signed: else that one would be one that is there.
                for field in instances.take(if extra { usize::MAX } else { INSTANCES_MAX }) {
                    chosen.names.push((*name).to_owned());
                    canonicalize(field, &mut chosen.canonical);
                }
                if extra {
                    chosen.names.push((*name).to_owned());
                }
            }
        }
        chosen
    }
}

/// Relaxed form of a field (RFC 6376 §3.4.2). Ours, since mail-auth 0.13 takes form feeds for white space, too.
fn canonicalize(field: &Field<'_>, out: &mut Vec<u8>) {
    out.extend(field.name().iter().map(u8::to_ascii_lowercase));
    out.push(b':');
    let mut space = false;
    let value_at = out.len();
    let value = field.after_colon().strip_suffix(b"\r\n").unwrap_or(field.after_colon());
    let mut rest = value.iter();
    while let Some(byte) = rest.next() {
        match byte {
            b'\r' if rest.as_slice().first() == Some(&b'\n') => {
                rest.next();
            }
            b' ' | b'\t' => space = out.len() > value_at,
            _ => {
                if std::mem::take(&mut space) {
                    out.push(b' ');
                }
                out.push(*byte);
            }
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// What a key signs (RFC 6376 §3.7): the canonical fields, then the signature's own field with an empty `b=`.
struct SignedText<'a> {
    fields: &'a [u8],
    signature: &'a Signature,
}

impl Writable for SignedText<'_> {
    fn write(self, writer: &mut impl Writer) {
        writer.write(self.fields);
        self.signature.write(writer, false);
    }
}

#[cfg(test)]
#[path = "sign_tests.rs"]
mod tests;

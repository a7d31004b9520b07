//! Opaque signed tokens: the local part of a return path, and what a one-click unsubscribe link carries.
//!
//! A token says which message, and for which of its recipients, and proves that we wrote it:
//!
//! | octets | what |
//! |---|---|
//! | 0 | the id of its key |
//! | 1..23 | the message id; its first six octets are the time of acceptance, which is the token's time |
//! | 23..25 | index of the recipient, big-endian; 0xffff: the whole message |
//! | 25..35 | the first 80 bits of HMAC-SHA-256 over the purpose and all octets before |
//!
//! As text it is base32 (RFC 4648) in lower case: 56 characters without any to spare, which leaves room in a local part of 64
//! for those who put something before it. It is read in any mix of cases, since hosts on the way may change it.
//!
//! Promises: the same message, recipient and keys give the same token, in every attempt and after every restart, also where a
//! newer key has come meanwhile: the key is that of the time of acceptance. A token for one purpose is none for another.
//! MACs are compared in constant time. 80 bits are what RFC 2104 §5 asks for at least: forging one token takes 2^79 tries at a
//! server that answers each. Does not: read clock or disk; keys come from a [`KeyRing`].

mod ring;
#[cfg(test)]
mod tests;

use std::time::Duration;

use aws_lc_rs::{constant_time, hmac};
use data_encoding::BASE32_NOPAD;

use crate::types::{MessageId, Timestamp};

pub use ring::{KEYS_MAX, KeyRing, KeyRingError, Rotated, RotationPlan, SECRET_BYTES, Secret};

/// Characters of a token.
pub const TOKEN_CHARS: usize = 56;

/// A token may be this much older in the future: clocks of servers that share keys differ by less.
const AHEAD_MAX: Duration = Duration::from_secs(3_600);

const CONTENT_BYTES: usize = 1 + MessageId::BYTES + 2;
const MAC_BYTES: usize = 10;
const TOKEN_BYTES: usize = CONTENT_BYTES + MAC_BYTES;
/// No message has that many recipients.
const WHOLE_MESSAGE: u16 = u16::MAX;

/// No character holds bits that mean nothing: so a token has one spelling, but for its case.
const _: () = assert!(TOKEN_BYTES * 8 == TOKEN_CHARS * 5 && TOKEN_CHARS <= 64);

/// What a token is for. A MAC covers it, so that no token serves another purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The local part of the reverse-path that hosts see.
    ReturnPath,
    /// A one-click unsubscribe link (RFC 8058).
    Unsubscribe,
    /// What a complaint quotes (`CFBL-Feedback-ID`, RFC 9477): whoever reads the message can use it, and only to complain.
    Complaint,
}

impl Purpose {
    const fn label(self) -> &'static [u8] {
        match self {
            Purpose::ReturnPath => b"posthaste return path\0",
            Purpose::Unsubscribe => b"posthaste unsubscribe\0",
            Purpose::Complaint => b"posthaste complaint\0",
        }
    }
}

/// For whom a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addressee {
    /// The recipient with this index, below 65,535.
    Recipient(u16),
    /// All recipients of the message.
    Message,
}

impl Addressee {
    /// The recipient with this index; the whole message where it is above what a token can name.
    pub fn recipient(index: usize) -> Self {
        u16::try_from(index).ok().filter(|index| *index != WHOLE_MESSAGE).map_or(Self::Message, Self::Recipient)
    }
}

/// What a token says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenContent {
    /// Which message.
    pub id: MessageId,
    /// For whom.
    pub addressee: Addressee,
}

/// Why a text is not a token that counts. None of them is a reason to tell a stranger more than that it is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not 56 characters of base32: somebody else's address.
    #[error("not a token")]
    Malformed,
    /// Its key is gone, or was never ours.
    #[error("the token's key {0} is not known")]
    UnknownKey(u8),
    /// Not written by us, not for this purpose, or changed since.
    #[error("the token is forged or damaged")]
    Forged,
    /// It was ours, longer ago than tokens count.
    #[error("the token has expired")]
    Expired,
    /// It is ours, and its time has not come: a clock is wrong, here or where it was made.
    #[error("the token is from the future")]
    FromTheFuture,
}

/// One key, ready to use.
#[derive(Clone)]
struct TokenKey {
    id: u8,
    created_at: Timestamp,
    key: hmac::Key,
}

/// The keys of tokens, at least one, oldest first. Shows no secret. The memory of a key is wiped when it goes.
#[derive(Clone)]
pub struct TokenKeys(Vec<TokenKey>);

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (key.id, key.created_at))).finish()
    }
}

impl TokenKeys {
    /// How many.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The key for tokens of this time: the newest that was there, or the oldest.
    fn at(&self, time: Timestamp) -> &TokenKey {
        let newest = self.0.iter().rev().find(|key| key.created_at <= time);
        newest.or(self.0.first()).expect("a ring has a key")
    }

    fn with_id(&self, id: u8) -> Option<&TokenKey> {
        self.0.iter().find(|key| key.id == id)
    }
}

/// The token for a message and an addressee: 56 characters of `a-z2-7`.
pub fn mint(keys: &TokenKeys, purpose: Purpose, id: MessageId, addressee: Addressee) -> String {
    let key = keys.at(id.accepted_at());
    let recipient = match addressee {
        Addressee::Recipient(index) => index,
        Addressee::Message => WHOLE_MESSAGE,
    };
    let mut octets = Vec::with_capacity(TOKEN_BYTES);
    octets.push(key.id);
    octets.extend_from_slice(id.as_bytes());
    octets.extend_from_slice(&recipient.to_be_bytes());
    let mac = mac(key, purpose, &octets);
    octets.extend_from_slice(&mac);
    let mut text = BASE32_NOPAD.encode(&octets);
    text.make_ascii_lowercase();
    text
}

/// What a token says, if it is one of ours for this purpose and not older than `lifetime`.
pub fn verify(
    keys: &TokenKeys,
    purpose: Purpose,
    text: &str,
    now: Timestamp,
    lifetime: Duration,
) -> Result<TokenContent, TokenError> {
    let mut chars: [u8; TOKEN_CHARS] = text.as_bytes().try_into().map_err(|_| TokenError::Malformed)?;
    chars.make_ascii_uppercase();
    let mut octets = [0; TOKEN_BYTES];
    BASE32_NOPAD.decode_mut(&chars, &mut octets).map_err(|_| TokenError::Malformed)?;
    let (content, stated) = octets.split_at(CONTENT_BYTES);
    let malformed = TokenError::Malformed;
    let (key_id, rest) = content.split_first().ok_or(malformed)?;
    let (id, recipient) = rest.split_first_chunk::<{ MessageId::BYTES }>().ok_or(malformed)?;
    let recipient = u16::from_be_bytes(recipient.try_into().map_err(|_| malformed)?);
    let key = keys.with_id(*key_id).ok_or(TokenError::UnknownKey(*key_id))?;
    constant_time::verify_slices_are_equal(&mac(key, purpose, content), stated).map_err(|_| TokenError::Forged)?;
    let id = MessageId::from_bytes(*id);
    let made_at = id.accepted_at();
    if made_at > now.plus(AHEAD_MAX) {
        return Err(TokenError::FromTheFuture);
    }
    if now.since(made_at) > lifetime {
        return Err(TokenError::Expired);
    }
    let addressee = if recipient == WHOLE_MESSAGE { Addressee::Message } else { Addressee::Recipient(recipient) };
    Ok(TokenContent { id, addressee })
}

fn mac(key: &TokenKey, purpose: Purpose, content: &[u8]) -> [u8; MAC_BYTES] {
    let mut context = hmac::Context::with_key(&key.key);
    context.update(purpose.label());
    context.update(content);
    let tag = context.sign();
    *tag.as_ref().first_chunk().expect("a tag of SHA-256 has 32 octets")
}

//! The keys of tokens as they are kept: a text of one line a key, and when keys come and go.
//!
//! ```text
//! # posthaste token keys, version 1
//! 0 2026-11-22T08:50:16.000Z 64 hex digits of the secret, 16 of the check
//! end 1
//! ```
//! The check is a MAC of id and time under the key, so that a digit that was changed is noticed; the last line is there so that
//! a missing line is. Promises: ids differ, times rise; an id is used again only when no token of its last owner counts any more. Does
//! not: touch the disk (`daemon::token_keys` does), or show a secret anywhere but in [`KeyRing::to_text`].

use std::fmt;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use zeroize::Zeroizing;

use super::{TokenKey, TokenKeys};
use crate::types::Timestamp;

/// Octets of a secret: the length of its hash (RFC 2104 §3).
pub const SECRET_BYTES: usize = 32;

/// The octets of a new key, drawn by the caller.
pub type Secret = Zeroizing<[u8; SECRET_BYTES]>;

/// Ids are one octet. Full: no new key is made, the newest stays in use and a warning says so.
pub const KEYS_MAX: usize = 256;

/// An old key is kept this much longer: servers that share keys look for new ones once an hour.
const SLACK: Duration = Duration::from_secs(86_400);

const FIRST_LINE: &str = "# posthaste token keys, version ";
const VERSION: &str = "1";
const CHECK_BYTES: usize = 8;
const CHECK_LABEL: &[u8] = b"posthaste token key\0";

/// When keys come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationPlan {
    /// A new key is made when the newest is older.
    pub key_age_max: Duration,
    /// A key is kept until tokens of it are older.
    pub token_lifetime: Duration,
}

/// What a rotation changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rotated {
    /// The id of the new key.
    pub added: Option<u8>,
    /// The ids of those that went.
    pub dropped: Vec<u8>,
    /// A new key is wanted and has no id.
    pub is_full: bool,
}

impl Rotated {
    /// Whether there is something to write.
    pub fn is_change(&self) -> bool {
        self.added.is_some() || !self.dropped.is_empty()
    }
}

/// Why a text holds no keys.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyRingError {
    /// Its first line is another.
    #[error("it does not begin as a file of token keys does")]
    NotKeys,
    /// A newer release wrote it.
    #[error("it has version {0}, this posthaste knows version 1: start a newer one")]
    Version(String),
    /// A line says something else than it should.
    #[error("line {number}: {what}")]
    Line {
        /// From 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Its last line is missing.
    #[error("it is cut off: the line \"end\" is missing")]
    Cut,
}

struct Entry {
    id: u8,
    created_at: Timestamp,
    /// Boxed, so that a list that grows leaves no copy behind.
    secret: Box<Secret>,
}

/// See the module. Secrets are wiped when it goes.
pub struct KeyRing(Vec<Entry>);

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|entry| (entry.id, entry.created_at))).finish()
    }
}

impl KeyRing {
    /// A ring of one new key.
    pub fn new(now: Timestamp, secret: Secret) -> Self {
        Self(vec![Entry { id: 0, created_at: now, secret: Box::new(secret) }])
    }

    /// Ids and times of its keys, oldest first.
    pub fn keys(&self) -> impl ExactSizeIterator<Item = (u8, Timestamp)> {
        self.0.iter().map(|entry| (entry.id, entry.created_at))
    }

    /// The keys, ready to use.
    pub fn to_keys(&self) -> TokenKeys {
        let keys = self.0.iter().map(|entry| TokenKey {
            id: entry.id,
            created_at: entry.created_at,
            key: hmac::Key::new(hmac::HMAC_SHA256, &**entry.secret),
        });
        TokenKeys(keys.collect())
    }

    /// Drops the keys of which no token counts any more, and adds one where the newest is too old. Whoever shares the ring
    /// and has not seen the new key yet goes on with the one before, which all know.
    pub fn rotate(&mut self, now: Timestamp, plan: RotationPlan, fresh: impl FnOnce() -> Secret) -> Rotated {
        let kept_for = plan.token_lifetime.saturating_add(SLACK);
        // A key serves until the next one comes.
        let ends: Vec<Timestamp> = self.0.iter().skip(1).map(|next| next.created_at.plus(kept_for)).collect();
        let over = ends.iter().take_while(|end| **end < now).count();
        let dropped = self.0.drain(..over).map(|entry| entry.id).collect();
        let mut rotated = Rotated { added: None, dropped, is_full: false };
        let newest = self.0.last().map_or((u8::MAX, Timestamp::EPOCH), |entry| (entry.id, entry.created_at));
        if now.since(newest.1) <= plan.key_age_max {
            return rotated;
        }
        let ids = (1..=u8::MAX).map(|step| newest.0.wrapping_add(step));
        let free = ids.into_iter().find(|id| self.0.iter().all(|entry| entry.id != *id));
        rotated.is_full = free.is_none();
        if let Some(id) = free {
            self.0.push(Entry { id, created_at: now, secret: Box::new(fresh()) });
            rotated.added = Some(id);
        }
        rotated
    }

    /// The text to keep. It holds the secrets, and is wiped when it goes.
    pub fn to_text(&self) -> Zeroizing<String> {
        // With room for all, so that no copy is left behind by growing.
        let mut text = Zeroizing::new(String::with_capacity(256 + self.0.len() * 160));
        text.push_str(FIRST_LINE);
        text.push_str(VERSION);
        text.push_str("\n# Secret. Kept by posthaste: id, time, key, check. Whoever has it can forge return paths.\n");
        for entry in &self.0 {
            let secret = Zeroizing::new(HEXLOWER.encode(&**entry.secret));
            let check = HEXLOWER.encode(&check(entry));
            let line = [&entry.id.to_string(), " ", &entry.created_at.to_iso8601(), " ", &*secret, " ", &check, "\n"];
            line.into_iter().for_each(|part| text.push_str(part));
        }
        text.push_str(&format!("end {}\n", self.0.len()));
        text
    }

    /// The ring in a text. An error shows nothing of it.
    pub fn parse(text: &str) -> Result<Self, KeyRingError> {
        let mut lines = (1..).zip(text.lines());
        let version = lines.next().and_then(|(_, line)| line.strip_prefix(FIRST_LINE)).ok_or(KeyRingError::NotKeys)?;
        if version != VERSION {
            return Err(KeyRingError::Version(version.chars().take(20).filter(|c| c.is_ascii_graphic()).collect()));
        }
        let mut ring = Self(Vec::new());
        for (number, line) in lines.by_ref().filter(|(_, line)| !line.starts_with('#')) {
            let wrong = |what| KeyRingError::Line { number, what };
            if let Some(count) = line.strip_prefix("end ") {
                if count.parse() != Ok(ring.0.len()) || ring.0.is_empty() {
                    return Err(wrong("another number of keys stands before it"));
                }
                let behind = lines.next();
                return behind.map_or(Ok(ring), |(number, _)| {
                    Err(KeyRingError::Line { number, what: "nothing may stand behind the line \"end\"" })
                });
            }
            let entry = parse_entry(line).ok_or_else(|| wrong("it is not a key, or its check does not fit"))?;
            if ring.0.iter().any(|other| other.id == entry.id) {
                return Err(wrong("an earlier key has the same id"));
            }
            if ring.0.last().is_some_and(|before| before.created_at >= entry.created_at) {
                return Err(wrong("an earlier key is as new or newer"));
            }
            ring.0.push(entry);
        }
        Err(KeyRingError::Cut)
    }
}

fn parse_entry(line: &str) -> Option<Entry> {
    let mut words = line.split(' ');
    let id = words.next()?.parse().ok()?;
    let created_at = Timestamp::parse_iso8601(words.next()?)?;
    let digits = words.next().filter(|digits| digits.len() == 2 * SECRET_BYTES)?;
    let mut secret = Box::new(Zeroizing::new([0; SECRET_BYTES]));
    HEXLOWER.decode_mut(digits.as_bytes(), &mut **secret).ok()?;
    let entry = Entry { id, created_at, secret };
    let is_right = words.next() == Some(&*HEXLOWER.encode(&check(&entry))) && words.next().is_none();
    is_right.then_some(entry)
}

fn check(entry: &Entry) -> [u8; CHECK_BYTES] {
    let key = hmac::Key::new(hmac::HMAC_SHA256, &**entry.secret);
    let mut context = hmac::Context::with_key(&key);
    context.update(CHECK_LABEL);
    context.update(&[entry.id]);
    context.update(&entry.created_at.millis().to_be_bytes());
    *context.sign().as_ref().first_chunk().expect("a tag of SHA-256 has 32 octets")
}

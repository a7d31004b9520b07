//! What is to be done with a message: what a scan ends with and a rewrite begins with.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use super::super::header;
use super::EightBitBodies;
use super::part_header::{self, Edits};

/// What of a body other hosts may not carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Dirt {
    /// Octets above 127.
    pub eight_bit: bool,
    /// Lines above 998 octets.
    pub long_line: bool,
}

impl Dirt {
    pub(super) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl std::ops::BitOrAssign for Dirt {
    fn bitor_assign(&mut self, other: Self) {
        self.eight_bit |= other.eight_bit;
        self.long_line |= other.long_line;
    }
}

/// Why something stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// In `multipart/signed` or `multipart/encrypted`.
    Signed,
    /// In `message/partial`, `message/external-body` or another `message/*`.
    MessageType,
    /// In a part whose encoding is not one of RFC 2045.
    UnknownEncoding,
    /// In a multipart without a boundary, or with one that readers may read differently.
    NoBoundary,
    /// In a multipart whose boundary stands nowhere: some readers show all of it.
    NoParts,
    /// In a part with `Content-Type` or `Content-Transfer-Encoding` twice.
    RepeatedField,
    /// In a field of a part's header that cannot be encoded or folded.
    HeaderField,
    /// In an attached message that begins with a line of an mbox file.
    MboxLine,
    /// Behind a part's header of more than 64 KiB, or in it.
    HeaderTooLong,
    /// Behind the first 1,000 parts.
    TooManyParts,
    /// In a part more than 32 deep.
    TooDeep,
}

impl Reason {
    const ALL: usize = 11;

    /// For logs and people.
    pub fn text(self) -> &'static str {
        match self {
            Reason::Signed => "is signed or encrypted",
            Reason::MessageType => "is of a message type that allows no encoding",
            Reason::UnknownEncoding => "has an encoding that is unknown",
            Reason::NoBoundary => "is a multipart without a usable boundary",
            Reason::NoParts => "is a multipart whose boundary stands nowhere",
            Reason::RepeatedField => "has Content-Type or Content-Transfer-Encoding twice",
            Reason::HeaderField => "is a header field that cannot be encoded or folded",
            Reason::MboxLine => "begins with a line of an mbox file",
            Reason::HeaderTooLong => "has a header of more than 64 KiB",
            Reason::TooManyParts => "comes after 1000 parts",
            Reason::TooDeep => "is more than 32 parts deep",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}

/// What stays for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remaining {
    /// Why.
    pub reason: Reason,
    /// What.
    pub dirt: Dirt,
}

/// What becomes of a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Body {
    Keep,
    QuotedPrintable { is_text: bool },
    Base64,
    ReflowQuotedPrintable,
    RewrapBase64,
    Margins { preamble: bool, epilogue: bool },
}

/// What is to be done with a message or part.
#[derive(Clone, Copy, Debug)]
pub(super) struct EntityPlan {
    pub(super) body: Body,
    pub(super) edits: Edits,
}

impl EntityPlan {
    pub(super) const KEEP: Self = Self {
        body: Body::Keep,
        edits: Edits { encoding: None, charset: None, mime_version: false, ends: false, tidy: None },
    };

    pub(super) fn edits_header(&self) -> bool {
        let Edits { encoding, charset, mime_version, ends, tidy } = self.edits;
        encoding.is_some() || charset.is_some() || mime_version || ends || tidy.is_some()
    }

    fn is_keep(&self) -> bool {
        self.body == Body::Keep && !self.edits_header()
    }
}

/// What is to be done with a message: [`super::Scanner::finish`] makes it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Plan {
    /// By the number of the entity; empty where nothing is to be done.
    pub(super) entities: Arc<[EntityPlan]>,
    /// More than the header of the message changes.
    rewrites_body: bool,
    pub(super) remaining: Vec<Remaining>,
    pub(super) found: Dirt,
    pub(super) left: Dirt,
}

impl Plan {
    pub(super) fn new(entities: &[EntityPlan], remaining: Vec<Remaining>, found: Dirt, left: Dirt) -> Self {
        let is_kept = entities.iter().all(EntityPlan::is_keep);
        let rewrites_body = entities
            .split_first()
            .is_some_and(|(message, others)| message.body != Body::Keep || !others.iter().all(EntityPlan::is_keep));
        assert!(remaining.len() <= Reason::ALL, "what remains is listed by reason");
        Self { entities: if is_kept { [].into() } else { entities.into() }, rewrites_body, remaining, found, left }
    }

    /// The body goes out as it came, and needs no [`super::Rewriter`]. In the header of the message a label may still change, as
    /// [`Self::header`] does.
    pub fn is_clean(&self) -> bool {
        !self.rewrites_body
    }

    /// What the body has, as it came.
    pub fn found(&self) -> Dirt {
        self.found
    }

    /// What the body has when the plan is done. `eight_bit` is false where any host can carry it without 8BITMIME.
    pub fn left(&self) -> Dirt {
        self.left
    }

    /// Whether the body is 7-bit when the plan is done: `BODY=7BIT` (RFC 6152 §3).
    pub fn is_seven_bit(&self) -> bool {
        !self.left.eight_bit
    }

    /// What could not be helped: one for each reason. Empty where [`super::EightBitBodies::Pass`] is why octets stay.
    pub fn remaining(&self) -> &[Remaining] {
        &self.remaining
    }

    /// The header block of the message, given as it was to the scanner, with its MIME fields changed as needed; all else in
    /// it stays. Where something changes, the header ends with an empty line; octets of the body that stood in `block` (where it
    /// has none) follow it if the plan is clean, else [`super::Rewriter`] writes them.
    pub fn header<'a>(&self, block: &'a [u8]) -> Cow<'a, [u8]> {
        match self.entities.first() {
            None => Cow::Borrowed(block),
            Some(message) => {
                let mut edited = part_header::edit(block, &message.edits);
                if self.is_clean() {
                    edited.extend_from_slice(header::split(block).1);
                }
                Cow::Owned(edited)
            }
        }
    }

    pub(super) fn entity(&self, number: usize) -> EntityPlan {
        self.entities.get(number).copied().unwrap_or(EntityPlan::KEEP)
    }
}

/// What is written down of what remains, one line a reason.
#[derive(Debug)]
pub(super) struct Leftovers {
    pub(super) eight_bit: EightBitBodies,
    pub(super) remaining: Vec<Remaining>,
    pub(super) left: Dirt,
}

impl Leftovers {
    pub(super) fn note(&mut self, reason: Reason, dirt: Dirt) {
        self.left |= dirt;
        let eight_bit = dirt.eight_bit && self.eight_bit == EightBitBodies::Encode;
        let dirt = Dirt { eight_bit, ..dirt };
        if dirt.is_none() {
            return;
        }
        match self.remaining.iter_mut().find(|remaining| remaining.reason == reason) {
            Some(remaining) => remaining.dirt |= dirt,
            None => self.remaining.push(Remaining { reason, dirt }),
        }
    }
}

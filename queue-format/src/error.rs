//! What can be wrong with stored bytes, one variant for each reaction.

use std::fmt;

/// The kinds of record. The number is the first byte of each record and never gets another meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecordKind {
    /// [`MessageRecord`](crate::MessageRecord).
    Message = 1,
    /// [`RecipientState`](crate::RecipientState).
    Recipient = 2,
    /// [`DueEntry`](crate::DueEntry).
    Due = 3,
    /// [`HoldEntry`](crate::HoldEntry).
    Hold = 4,
    /// [`OutboxRecord`](crate::OutboxRecord).
    Outbox = 5,
    /// A body, or one part of it: [`encode_body`](crate::encode_body).
    Body = 6,
    /// [`encode_meta_number`](crate::encode_meta_number).
    MetaNumber = 7,
    /// [`encode_meta_text`](crate::encode_meta_text).
    MetaText = 8,
    /// [`SuppressionRecord`](crate::SuppressionRecord).
    Suppression = 9,
    /// [`CounterRecord`](crate::CounterRecord).
    Counter = 10,
    /// [`LaneRecord`](crate::LaneRecord).
    Lane = 11,
    /// [`HistoryRecord`](crate::HistoryRecord).
    History = 12,
    /// [`SourceLifeRecord`](crate::SourceLifeRecord).
    SourceLife = 13,
    /// [`SentRecord`](crate::SentRecord).
    Sent = 14,
    /// [`ReputationRecord`](crate::ReputationRecord).
    Reputation = 15,
}

impl RecordKind {
    /// Every kind, in the order of their numbers.
    pub const ALL: [RecordKind; 15] = [
        RecordKind::Message,
        RecordKind::Recipient,
        RecordKind::Due,
        RecordKind::Hold,
        RecordKind::Outbox,
        RecordKind::Body,
        RecordKind::MetaNumber,
        RecordKind::MetaText,
        RecordKind::Suppression,
        RecordKind::Counter,
        RecordKind::Lane,
        RecordKind::History,
        RecordKind::SourceLife,
        RecordKind::Sent,
        RecordKind::Reputation,
    ];

    /// The first byte of a record of this kind.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The layout version that this release writes. It reads this one and all before it.
    pub const fn version(self) -> u8 {
        match self {
            RecordKind::Message => 4,
            RecordKind::Due | RecordKind::Hold => 3,
            RecordKind::Lane => 2,
            _ => 1,
        }
    }
}

impl fmt::Display for RecordKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecordKind::Message => "message",
            RecordKind::Recipient => "recipient state",
            RecordKind::Due => "due",
            RecordKind::Hold => "hold",
            RecordKind::Outbox => "outbox",
            RecordKind::Body => "body",
            RecordKind::MetaNumber => "meta number",
            RecordKind::MetaText => "meta text",
            RecordKind::Suppression => "suppression",
            RecordKind::Counter => "counter",
            RecordKind::Lane => "lane",
            RecordKind::History => "history",
            RecordKind::SourceLife => "source life",
            RecordKind::Sent => "sent",
            RecordKind::Reputation => "reputation",
        })
    }
}

/// Why bytes are not the record that the caller expects. No variant holds content of a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The record is sound and was written by another release. Refuse to start and change nothing: the data is good, the
    /// program is the wrong one.
    #[error(
        "{record} record has layout version {found}, this release reads version {supported}: \
         start a release of posthaste that reads version {found}"
    )]
    UnsupportedVersion {
        /// What was expected.
        record: RecordKind,
        /// The version byte of the record.
        found: u8,
        /// [`RecordKind::version`].
        supported: u8,
    },
    /// The store as a whole was written by another release. Refuse to start and change nothing.
    #[error(
        "the queue has format version {found}, this release reads version {supported}: \
         start a release of posthaste that reads version {found}"
    )]
    UnsupportedFormat {
        /// The stored number.
        found: u64,
        /// [`FORMAT_VERSION`](crate::FORMAT_VERSION).
        supported: u32,
    },
    /// Shorter than the six bytes that every record starts with: damaged on disk. Set the record aside, report it, go
    /// on with the others.
    #[error("{record} record is damaged: {len_bytes} bytes are too few for any record")]
    TooShort {
        /// What was expected.
        record: RecordKind,
        /// Length of the input.
        len_bytes: usize,
    },
    /// The bytes are not those that were written: damaged on disk or in memory. Set the record aside, report it, go on
    /// with the others.
    #[error(
        "{record} record of {len_bytes} bytes is damaged: its checksum says {stored:08x}, its content {computed:08x}"
    )]
    Checksum {
        /// What was expected.
        record: RecordKind,
        /// Length of the input.
        len_bytes: usize,
        /// The CRC-32C in the record.
        stored: u32,
        /// The CRC-32C of what it should cover.
        computed: u32,
    },
    /// A sound record of another kind: it stands under a wrong key or in a wrong column family. Our bug, or the store was
    /// edited: report it and stop.
    #[error("expected a {expected} record (type {}), found record type {found}", expected.code())]
    WrongRecord {
        /// What was expected.
        expected: RecordKind,
        /// The type byte of the record.
        found: u8,
    },
    /// The checksum is right and the content breaks the layout: a bug of the release that wrote it. Set the record aside
    /// and report the bug.
    #[error("{record} record: {field} at byte {at_byte}: {problem}")]
    Malformed {
        /// What was expected.
        record: RecordKind,
        /// The field, as FORMAT.md names it.
        field: &'static str,
        /// Where it starts, counted from the first byte of the record.
        at_byte: usize,
        /// What is wrong with it.
        problem: Problem,
    },
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The field, or the length that it claims, goes beyond the input.
    #[error("goes beyond the end of the record")]
    BeyondEnd,
    /// Bytes follow the last field.
    #[error("bytes follow the last field")]
    TrailingBytes,
    /// Not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A variable-length number that is longer than it needs to be.
    #[error("number is not in its shortest form")]
    NotShortest,
    /// A number above what the field can hold, or a code that this version does not define.
    #[error("value is outside of its range")]
    OutOfRange,
}

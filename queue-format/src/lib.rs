//! The byte layout of every record in the posthaste queue.
//!
//! A record goes in as a struct and comes out as bytes, and back; keys go in as numbers and ids and come out so that
//! their byte order is the order of time. FORMAT.md shows each layout byte by byte.
//!
//! Promises:
//! - A change of any one byte of a stored record is noticed by its checksum (CRC-32C).
//! - A value has exactly one encoding: what decodes, encodes to the same bytes again.
//! - Decoding never panics, reads each byte once, and allocates at most [`ALLOCATED_PER_INPUT_BYTE_MAX`] bytes for each
//!   byte of input, whatever the input claims about itself.
//! - What one release wrote, later releases read: the golden files of every version stay in the tests.
//!
//! Does not: read or write anything, know column families, or judge whether the values make sense together beyond what
//! a reader needs to be safe.

mod body;
mod counter;
mod due;
mod error;
mod frame;
mod history;
mod keys;
mod lane;
mod message;
mod meta;
mod outbox;
mod recipient;
mod reputation;
mod sent;
mod source;
mod suppression;
mod warmup;
mod wire;

pub use body::{BODY_OVERHEAD_BYTES, decode_body, encode_body};
pub use counter::{CounterRecord, decode_counter, encode_counter};
pub use due::{DueEntry, DueEntryRef, HoldEntry};
pub use error::{FormatError, Problem, RecordKind};
pub use history::HistoryRecord;
pub use keys::{
    BODY_PART_KEY_BYTES, COUNTER_KEY_BYTES, COUNTER_QUOTA, COUNTER_REPORT, DUE_KEY_BYTES, HISTORY_KEY_BYTES,
    HISTORY_NAMES_BYTES, HOLD_KEY_BYTES, ID_BYTES, LANE_KEY_BYTES, OUTBOX_KEY_BYTES, RECIPIENT_KEY_BYTES,
    REPUTATION_KEY_BYTES, SENT_KEY_BYTES, SENT_MARK_KEY_BYTES, SOURCE_KEY_BYTES, SUPPRESSION_ADDRESS_BYTES,
    SUPPRESSION_KEY_BYTES, SUPPRESSION_LIST_BYTES, body_part_key, body_part_range, counter_key, counter_range, due_key,
    due_range, fnv1a, history_key, history_range, hold_key, hold_range, outbox_key, outbox_range, parse_body_part_key,
    parse_counter_key, parse_due_key, parse_history_key, parse_hold_key, parse_outbox_key, parse_recipient_header_key,
    parse_recipient_key, parse_sent_key, parse_suppression_key, recipient_header_key, recipient_key, recipient_range,
    reputation_key, sent_before, sent_key, sent_mark_key, sent_range, source_key, suppression_key, suppression_range,
};
pub use lane::{LaneBlock, LaneConnections, LaneCounts, LaneLearning, LaneRecord, LaneSlow, LaneTold};
pub use message::{MessageRecord, RecipientEntry, Ret};
pub use meta::{check_format_version, decode_meta_number, decode_meta_text, encode_meta_number, encode_meta_text};
pub use outbox::{OutboxRecord, OutboxRecordRef};
pub use recipient::{RecipientOutcome, RecipientState};
pub use reputation::{ReputationPause, ReputationRecord};
pub use sent::{SentRecord, SentRecordRef};
pub use source::SourceLifeRecord;
pub use suppression::SuppressionRecord;
pub use warmup::{LaneWarmup, LaneWarmupDay, WARMUP_PARTS_MAX};
pub use wire::ALLOCATED_PER_INPUT_BYTE_MAX;

/// The version of the store as a whole: it rises with any change of a record or a key. The queue keeps it as a meta
/// number and asks [`check_format_version`] before it touches anything else.
pub const FORMAT_VERSION: u32 = 5;

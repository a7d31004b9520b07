//! The record of a counter: what one scope used in one minute. Rewritten by each batch that adds to it.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_varint};

const KIND: RecordKind = RecordKind::Counter;

/// What one scope used in one minute; both stand in its [`counter_key`](crate::counter_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CounterRecord {
    /// Of which the key holds only a hash.
    pub scope: String,
    /// How much.
    pub count: u64,
}

impl CounterRecord {
    /// At least as many bytes as [`CounterRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + 2 * VARINT_BYTES_MAX + self.scope.len()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_counter(&self.scope, self.count, out);
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (scope, count) = decode_counter(bytes)?;
        Ok(Self { scope: scope.to_owned(), count })
    }
}

/// Appends the record of a counter.
pub fn encode_counter(scope: &str, count: u64, out: &mut Vec<u8>) {
    out.reserve(FRAME_BYTES + 2 * VARINT_BYTES_MAX + scope.len());
    frame::write(KIND, out, |out| {
        put_varint(out, count);
        put_text(out, scope);
    });
}

/// Scope and count of a record, all of whose bytes are given.
pub fn decode_counter(bytes: &[u8]) -> Result<(&str, u64), FormatError> {
    let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
    let count = fields.varint("count")?;
    let scope = fields.text("scope")?;
    fields.end()?;
    Ok((scope, count))
}

//! The life of a source of a managed pool: in use or not, and since when. Rewritten as that changes.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

const KIND: RecordKind = RecordKind::SourceLife;

/// See the module. A hash of the name stands in its [`source_key`](crate::source_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceLifeRecord {
    /// Name of the source.
    pub source: String,
    /// The number of its life. The format does not judge it.
    pub life: u8,
    /// Since when.
    pub since_ms: u64,
    /// Days in a row on which its pool had little to send.
    pub low_days: u32,
}

impl SourceLifeRecord {
    /// At least as many bytes as [`SourceLifeRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + 1 + 8 + 2 * VARINT_BYTES_MAX + self.source.len()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(self.life);
            put_u64(out, self.since_ms);
            put_varint(out, self.low_days.into());
            put_text(out, &self.source);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let record = Self {
            life: fields.byte("life")?,
            since_ms: fields.u64("since_ms")?,
            low_days: fields.varint_u32("low_days")?,
            source: fields.string("source")?,
        };
        fields.end()?;
        Ok(record)
    }
}

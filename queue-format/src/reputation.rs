//! What is kept of the reputation of a scope: how it stands, whether it is paused, and what is forgiven. Rewritten as that
//! changes; what was counted stands in counters.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

const KIND: RecordKind = RecordKind::Reputation;

const PAUSED: u8 = 1;

/// See the module. A hash of the scope stands in its [`reputation_key`](crate::reputation_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReputationRecord {
    /// Kind and name.
    pub scope: String,
    /// The number of its level. The format does not judge it.
    pub level: u8,
    /// Since when.
    pub since_ms: u64,
    /// What was counted up to this hour (Unix time / 1 h) is not judged any more; 0: everything is.
    pub forgiven_through: u32,
    /// Whether nothing of it is accepted.
    pub pause: Option<ReputationPause>,
}

/// A pause of a scope.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReputationPause {
    /// The number of who paused it. The format does not judge it.
    pub by: u8,
    /// Since when.
    pub since_ms: u64,
    /// Why, for people.
    pub reason: String,
}

impl ReputationRecord {
    /// At least as many bytes as [`ReputationRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        let pause = self.pause.as_ref().map_or(0, |pause| 9 + VARINT_BYTES_MAX + pause.reason.len());
        FRAME_BYTES + 10 + 2 * VARINT_BYTES_MAX + self.scope.len() + pause
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(if self.pause.is_some() { PAUSED } else { 0 });
            out.push(self.level);
            put_u64(out, self.since_ms);
            put_varint(out, self.forgiven_through.into());
            put_text(out, &self.scope);
            if let Some(pause) = &self.pause {
                out.push(pause.by);
                put_u64(out, pause.since_ms);
                put_text(out, &pause.reason);
            }
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let flags = fields.byte("flags")?;
        if flags & !PAUSED != 0 {
            return Err(fields.out_of_range("flags"));
        }
        let mut record = Self {
            level: fields.byte("level")?,
            since_ms: fields.u64("since_ms")?,
            forgiven_through: fields.varint_u32("forgiven_through")?,
            scope: fields.string("scope")?,
            pause: None,
        };
        if flags & PAUSED != 0 {
            let (by, since_ms) = (fields.byte("by")?, fields.u64("paused_since_ms")?);
            record.pause = Some(ReputationPause { by, since_ms, reason: fields.string("reason")? });
        }
        fields.end()?;
        Ok(record)
    }
}

//! An entry of a suppression list: an address that mail is held back from, and why.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64};

const KIND: RecordKind = RecordKind::Suppression;

/// An entry; which list it is on stands in its [`suppression_key`](crate::suppression_key) too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SuppressionRecord {
    /// The code of its reason. The format does not judge it.
    pub reason: u8,
    /// Unix milliseconds of its last change.
    pub updated_at_ms: u64,
    /// The name of the tenant or the configuration set whose list it is on; empty: the global one.
    pub scope: String,
    /// The address as it was given.
    pub address: String,
    /// Where it came from, in words; may be empty.
    pub origin: String,
}

impl SuppressionRecord {
    /// At least as many bytes as [`SuppressionRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + 1 + 8 + 3 * VARINT_BYTES_MAX + self.scope.len() + self.address.len() + self.origin.len()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(self.reason);
            put_u64(out, self.updated_at_ms);
            put_text(out, &self.scope);
            put_text(out, &self.address);
            put_text(out, &self.origin);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let record = Self {
            reason: fields.byte("reason")?,
            updated_at_ms: fields.u64("updated_at_ms")?,
            scope: fields.string("scope")?,
            address: fields.string("address")?,
            origin: fields.string("origin")?,
        };
        fields.end()?;
        Ok(record)
    }
}

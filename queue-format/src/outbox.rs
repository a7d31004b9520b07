//! An event that waits until the event files hold it.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_bytes, put_varint};

const KIND: RecordKind = RecordKind::Outbox;

/// An event; its id is in [`outbox_key`](crate::outbox_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxRecord {
    /// The code of its kind. The format does not judge it.
    pub kind: u8,
    /// Where in `json` the digits of its id belong; at most `json.len()`.
    pub id_at: u32,
    /// Its text without the id. Any bytes: the format does not look inside.
    pub json: Vec<u8>,
}

/// An [`OutboxRecord`] whose text stays where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OutboxRecordRef<'a> {
    /// The code of its kind. The format does not judge it.
    pub kind: u8,
    /// Where in `json` the digits of its id belong; at most `json.len()`.
    pub id_at: u32,
    /// Its text without the id. Any bytes: the format does not look inside.
    pub json: &'a [u8],
}

impl<'a> OutboxRecordRef<'a> {
    /// At least as many bytes as [`OutboxRecordRef::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + 1 + 2 * VARINT_BYTES_MAX + self.json.len()
    }

    /// Appends the record.
    ///
    /// # Panics
    /// Where `id_at` is beyond `json`: such a record could not be read again.
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert!(
            u64::from(self.id_at) <= self.json.len() as u64,
            "event id at byte {} of {}",
            self.id_at,
            self.json.len()
        );
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(self.kind);
            put_varint(out, u64::from(self.id_at));
            put_bytes(out, self.json);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let record =
            Self { kind: fields.byte("kind")?, id_at: fields.varint_u32("id_at")?, json: fields.bytes("json")? };
        if u64::from(record.id_at) > record.json.len() as u64 {
            return Err(fields.out_of_range("id_at"));
        }
        fields.end()?;
        Ok(record)
    }

    /// The same with a text of its own.
    pub fn into_owned(self) -> OutboxRecord {
        OutboxRecord { kind: self.kind, id_at: self.id_at, json: self.json.to_vec() }
    }
}

impl OutboxRecord {
    /// The same without a text of its own.
    pub fn borrowed(&self) -> OutboxRecordRef<'_> {
        OutboxRecordRef { kind: self.kind, id_at: self.id_at, json: &self.json }
    }

    /// At least as many bytes as [`OutboxRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        self.borrowed().encoded_len_hint()
    }

    /// Appends the record.
    ///
    /// # Panics
    /// Where `id_at` is beyond `json`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.borrowed().encode(out);
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        OutboxRecordRef::decode(bytes).map(OutboxRecordRef::into_owned)
    }
}

//! Entries of the due index (a message waits for its next attempt at one destination) and of the hold index.
//!
//! A due entry has all that the scheduler needs to queue the message, so that it need not read the message record.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

/// The first version of both with `source`.
const VERSION_SOURCE: u8 = 2;
/// The first version of both with flags and `set`.
const VERSION_WARMUP: u8 = 3;

const FLAG_PREFERS_WARMING: u8 = 1;

/// One message waits for one destination; its time, id and group are in [`due_key`](crate::due_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DueEntry {
    /// The destination.
    pub domain: String,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
    /// Attempts so far at this destination.
    pub attempts: u32,
    /// The pool of sources it goes out from.
    pub pool: String,
    /// Whose message it is.
    pub tenant: String,
    /// Its priority as a number; 0: not said.
    pub priority: u8,
    /// The source that it keeps, as a greylisted message does; empty: any of the pool.
    pub source: String,
    /// It goes by a source that warms up, where one has room.
    pub prefers_warming: bool,
    /// Its configuration set, if that warms up; empty: none.
    pub set: String,
}

/// A [`DueEntry`] whose texts stay where they are: paging in the index allocates nothing for them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DueEntryRef<'a> {
    /// The destination.
    pub domain: &'a str,
    /// Unix milliseconds.
    pub expires_at_ms: u64,
    /// Attempts so far at this destination.
    pub attempts: u32,
    /// The pool of sources it goes out from.
    pub pool: &'a str,
    /// Whose message it is.
    pub tenant: &'a str,
    /// Its priority as a number; 0: not said.
    pub priority: u8,
    /// The source that it keeps, as a greylisted message does; empty: any of the pool.
    pub source: &'a str,
    /// It goes by a source that warms up, where one has room.
    pub prefers_warming: bool,
    /// Its configuration set, if that warms up; empty: none.
    pub set: &'a str,
}

/// A due entry that an administrator took out of the schedule; its id and group are in [`hold_key`](crate::hold_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HoldEntry {
    /// What comes back when it is released.
    pub due: DueEntry,
    /// Unix milliseconds: when it was due.
    pub due_at_ms: u64,
    /// Unix milliseconds: since when it is held.
    pub held_at_ms: u64,
    /// Why, in the words of whoever held it.
    pub reason: String,
}

impl<'a> DueEntryRef<'a> {
    /// At least as many bytes as [`DueEntryRef::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + self.payload_len_hint()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(RecordKind::Due, out, |out| self.put(out));
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let (version, payload) = frame::open_any(RecordKind::Due, bytes)?;
        let mut fields = Fields::new(RecordKind::Due, payload);
        let entry = Self::take(&mut fields, version)?;
        fields.end()?;
        Ok(entry)
    }

    /// The same with texts of its own.
    pub fn into_owned(self) -> DueEntry {
        DueEntry {
            domain: self.domain.to_owned(),
            expires_at_ms: self.expires_at_ms,
            attempts: self.attempts,
            pool: self.pool.to_owned(),
            tenant: self.tenant.to_owned(),
            priority: self.priority,
            source: self.source.to_owned(),
            prefers_warming: self.prefers_warming,
            set: self.set.to_owned(),
        }
    }

    fn payload_len_hint(&self) -> usize {
        let texts = self.domain.len() + self.pool.len() + self.tenant.len() + self.source.len() + self.set.len();
        2 + 8 + 6 * VARINT_BYTES_MAX + texts
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.push(self.priority);
        put_u64(out, self.expires_at_ms);
        put_varint(out, u64::from(self.attempts));
        put_text(out, self.domain);
        put_text(out, self.pool);
        put_text(out, self.tenant);
        put_text(out, self.source);
        out.push(if self.prefers_warming { FLAG_PREFERS_WARMING } else { 0 });
        put_text(out, self.set);
    }

    fn take(fields: &mut Fields<'a>, version: u8) -> Result<Self, FormatError> {
        let mut entry = Self {
            priority: fields.byte("priority")?,
            expires_at_ms: fields.u64("expires_at_ms")?,
            attempts: fields.varint_u32("attempts")?,
            domain: fields.text("domain")?,
            pool: fields.text("pool")?,
            tenant: fields.text("tenant")?,
            source: if version < VERSION_SOURCE { "" } else { fields.text("source")? },
            ..Self::default()
        };
        if version >= VERSION_WARMUP {
            let flags = fields.byte("due flags")?;
            if flags & !FLAG_PREFERS_WARMING != 0 {
                return Err(fields.out_of_range("due flags"));
            }
            entry.prefers_warming = flags & FLAG_PREFERS_WARMING != 0;
            entry.set = fields.text("set")?;
        }
        Ok(entry)
    }
}

impl DueEntry {
    /// The same without texts of its own.
    pub fn borrowed(&self) -> DueEntryRef<'_> {
        DueEntryRef {
            domain: &self.domain,
            expires_at_ms: self.expires_at_ms,
            attempts: self.attempts,
            pool: &self.pool,
            tenant: &self.tenant,
            priority: self.priority,
            source: &self.source,
            prefers_warming: self.prefers_warming,
            set: &self.set,
        }
    }

    /// At least as many bytes as [`DueEntry::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        self.borrowed().encoded_len_hint()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.borrowed().encode(out);
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        DueEntryRef::decode(bytes).map(DueEntryRef::into_owned)
    }
}

impl HoldEntry {
    /// At least as many bytes as [`HoldEntry::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        FRAME_BYTES + 2 * 8 + VARINT_BYTES_MAX + self.reason.len() + self.due.borrowed().payload_len_hint()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(RecordKind::Hold, out, |out| {
            put_u64(out, self.due_at_ms);
            put_u64(out, self.held_at_ms);
            put_text(out, &self.reason);
            self.due.borrowed().put(out);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (version, payload) = frame::open_any(RecordKind::Hold, bytes)?;
        let mut fields = Fields::new(RecordKind::Hold, payload);
        let entry = Self {
            due_at_ms: fields.u64("due_at_ms")?,
            held_at_ms: fields.u64("held_at_ms")?,
            reason: fields.string("reason")?,
            due: DueEntryRef::take(&mut fields, version)?.into_owned(),
        };
        fields.end()?;
        Ok(entry)
    }
}

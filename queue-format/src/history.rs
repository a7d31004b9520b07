//! A row of the history: what one source sent to one site on one day. Rewritten as the day goes on, then kept.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_varint};

const KIND: RecordKind = RecordKind::History;

const PROVIDER: u8 = 1;
const CAP: u8 = 1 << 1;
const POSITION: u8 = 1 << 2;
const ALL: u8 = (1 << 3) - 1;

/// A row; its day, and a hash of source and site, stand in its [`history_key`](crate::history_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistoryRecord {
    /// Name of the source.
    pub source: String,
    /// Name of the site; empty: all sites together that have no row of their own.
    pub site: String,
    /// The provider whose site it is.
    pub provider: Option<String>,
    /// Messages sent.
    pub sent: u32,
    /// Taken by the host.
    pub delivered: u32,
    /// Deferred by the host.
    pub deferred: u32,
    /// Bounced, by the number of the class, which rises. The format does not judge the numbers.
    pub bounced: Vec<(u8, u32)>,
    /// Complaints.
    pub complained: u32,
    /// Blocks.
    pub blocked: u32,
    /// The cap of the day, where there was one.
    pub cap: Option<u32>,
    /// How far the source was in its plan there.
    pub position: Option<u32>,
}

impl HistoryRecord {
    /// At least as many bytes as [`HistoryRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        let texts = self.source.len() + self.site.len() + self.provider.as_ref().map_or(0, String::len);
        FRAME_BYTES + 1 + 11 * VARINT_BYTES_MAX + texts + self.bounced.len() * (1 + VARINT_BYTES_MAX)
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| self.put(out));
    }

    fn put(&self, out: &mut Vec<u8>) {
        assert!(self.bounced.is_sorted_by(|left, right| left.0 < right.0), "the classes of bounces do not rise");
        let flags =
            [(self.provider.is_some(), PROVIDER), (self.cap.is_some(), CAP), (self.position.is_some(), POSITION)];
        out.push(flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
        put_text(out, &self.source);
        put_text(out, &self.site);
        self.provider.iter().for_each(|provider| put_text(out, provider));
        put_varint(out, self.sent.into());
        put_varint(out, self.delivered.into());
        put_varint(out, self.deferred.into());
        put_varint(out, self.bounced.len() as u64);
        for (class, count) in &self.bounced {
            out.push(*class);
            put_varint(out, (*count).into());
        }
        put_varint(out, self.complained.into());
        put_varint(out, self.blocked.into());
        self.cap.iter().for_each(|cap| put_varint(out, (*cap).into()));
        self.position.iter().for_each(|position| put_varint(out, (*position).into()));
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let flags = fields.byte("flags")?;
        if flags & !ALL != 0 {
            return Err(fields.out_of_range("flags"));
        }
        let has = |flag| flags & flag != 0;
        let record = Self {
            source: fields.string("source")?,
            site: fields.string("site")?,
            provider: has(PROVIDER).then(|| fields.string("provider")).transpose()?,
            sent: fields.varint_u32("sent")?,
            delivered: fields.varint_u32("delivered")?,
            deferred: fields.varint_u32("deferred")?,
            bounced: take_bounced(&mut fields)?,
            complained: fields.varint_u32("complained")?,
            blocked: fields.varint_u32("blocked")?,
            cap: has(CAP).then(|| fields.varint_u32("cap")).transpose()?,
            position: has(POSITION).then(|| fields.varint_u32("position")).transpose()?,
        };
        fields.end()?;
        Ok(record)
    }
}

/// Classes must rise: so each has one count, and a row one encoding.
fn take_bounced(fields: &mut Fields<'_>) -> Result<Vec<(u8, u32)>, FormatError> {
    let len = fields.count("bounced", 2)?;
    let mut bounced: Vec<(u8, u32)> = Vec::with_capacity(len);
    for _ in 0..len {
        let class = fields.byte("class")?;
        if bounced.last().is_some_and(|(last, _)| *last >= class) {
            return Err(fields.out_of_range("class"));
        }
        bounced.push((class, fields.varint_u32("bounces")?));
    }
    Ok(bounced)
}

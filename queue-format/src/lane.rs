//! The record of a lane: what was learned of a source at a site, what was sent there lately, and how far its warm-up is.
//! Rewritten as that changes.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::warmup::LaneWarmup;
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

const KIND: RecordKind = RecordKind::Lane;

const CONNECTIONS: u16 = 1;
const CEILING: u16 = 1 << 1;
const MESSAGES: u16 = 1 << 2;
const UNREACHABLE: u16 = 1 << 3;
const FEWER: u16 = 1 << 4;
const SLOW: u16 = 1 << 5;
const SUSPENDED: u16 = 1 << 6;
const BLOCK: u16 = 1 << 7;
const RETURNED: u16 = 1 << 8;
const TOLD: u16 = 1 << 9;
const RULE: u16 = 1 << 10;
const LAST: u16 = 1 << 11;
const WARMUP: u16 = 1 << 12;
/// Of version 1.
const ALL_OF_1: u16 = (1 << 12) - 1;
const ALL: u16 = (1 << 13) - 1;

/// A lane; its key is a hash of the two names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneRecord {
    /// Name of the source.
    pub source: String,
    /// Name of the site.
    pub site: String,
    /// When this was made.
    pub saved_at_ms: u64,
    /// Made at an orderly stop.
    pub is_last: bool,
    /// Learned connections.
    pub connections: Option<LaneConnections>,
    /// Learned messages on one connection.
    pub messages: Option<LaneLearning>,
    /// Failures to reach the site, one after the other.
    pub failures: u32,
    /// Connections by the ramp after a recovery; 0: no ramp.
    pub ramp: u32,
    /// Unreachable until then.
    pub unreachable_until_ms: Option<u64>,
    /// At most so many connections, until then.
    pub fewer: Option<(u32, u64)>,
    /// At most so many messages in a time.
    pub slow: Option<LaneSlow>,
    /// Nothing until then.
    pub suspended_until_ms: Option<u64>,
    /// Blocked, now or lately.
    pub block: Option<LaneBlock>,
    /// What it was told last.
    pub told: Option<LaneTold>,
    /// Messages that may have been sent beyond `counts`.
    pub outstanding: u32,
    /// What was sent lately.
    pub counts: Vec<LaneCounts>,
    /// Its warm-up, where it has a plan. Since version 2.
    pub warmup: Option<LaneWarmup>,
}

/// Learned connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneConnections {
    /// How many it may have.
    pub window: u32,
    /// When the host last refused one.
    pub refused_at_ms: u64,
    /// How many the host let in then.
    pub ceiling: Option<LaneLearning>,
}

/// A number that a host taught.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneLearning {
    /// The number.
    pub count: u32,
    /// Until then nothing above it is tried.
    pub held_until_ms: u64,
    /// How often it was found right again.
    pub level: u8,
}

/// At most so many messages in a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneSlow {
    /// How many.
    pub count: u32,
    /// In which time.
    pub per_ms: u64,
    /// Until then.
    pub until_ms: u64,
}

/// A block, or the memory of one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneBlock {
    /// Its end.
    pub until_ms: u64,
    /// How long it lasts.
    pub lasts_ms: u64,
    /// When it was over for good.
    pub returned_at_ms: Option<u64>,
}

/// A reply that made something of a lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneTold {
    /// What. The format does not judge it.
    pub mode: u8,
    /// The rule.
    pub rule: Option<String>,
    /// The reply.
    pub words: String,
}

/// What was sent in the last times of one limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// The time of the limit.
    pub span_ms: u64,
    /// Into parts of which length it is cut.
    pub part_ms: u64,
    /// The end of the newest part.
    pub newest_end_ms: u64,
    /// Messages in each part, newest first.
    pub counts: Vec<u32>,
}

impl LaneRecord {
    /// At least as many bytes as [`LaneRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        let texts = self.source.len() + self.site.len();
        let told = self.told.as_ref().map_or(0, |told| told.words.len() + told.rule.as_ref().map_or(0, String::len));
        let counts: usize = self.counts.iter().map(|counts| (4 + counts.counts.len()) * VARINT_BYTES_MAX).sum();
        let warmup = self.warmup.as_ref().map_or(0, LaneWarmup::encoded_len_hint);
        FRAME_BYTES + 2 + 10 * 8 + 3 + 14 * VARINT_BYTES_MAX + texts + told + counts + warmup
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| self.put(out));
    }

    fn flags(&self) -> u16 {
        let ceiling = self.connections.is_some_and(|connections| connections.ceiling.is_some());
        let returned = self.block.is_some_and(|block| block.returned_at_ms.is_some());
        let rule = self.told.as_ref().is_some_and(|told| told.rule.is_some());
        let flags = [
            (self.connections.is_some(), CONNECTIONS),
            (ceiling, CEILING),
            (self.messages.is_some(), MESSAGES),
            (self.unreachable_until_ms.is_some(), UNREACHABLE),
            (self.fewer.is_some(), FEWER),
            (self.slow.is_some(), SLOW),
            (self.suspended_until_ms.is_some(), SUSPENDED),
            (self.block.is_some(), BLOCK),
            (returned, RETURNED),
            (self.told.is_some(), TOLD),
            (rule, RULE),
            (self.is_last, LAST),
            (self.warmup.is_some(), WARMUP),
        ];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
    }

    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.flags().to_le_bytes());
        put_u64(out, self.saved_at_ms);
        put_text(out, &self.source);
        put_text(out, &self.site);
        if let Some(connections) = &self.connections {
            put_varint(out, connections.window.into());
            put_u64(out, connections.refused_at_ms);
            connections.ceiling.iter().for_each(|ceiling| put_learning(out, ceiling));
        }
        self.messages.iter().for_each(|messages| put_learning(out, messages));
        put_varint(out, self.failures.into());
        put_varint(out, self.ramp.into());
        self.unreachable_until_ms.iter().for_each(|until| put_u64(out, *until));
        if let Some((connections, until_ms)) = self.fewer {
            put_varint(out, connections.into());
            put_u64(out, until_ms);
        }
        if let Some(slow) = &self.slow {
            put_varint(out, slow.count.into());
            put_varint(out, slow.per_ms);
            put_u64(out, slow.until_ms);
        }
        self.suspended_until_ms.iter().for_each(|until| put_u64(out, *until));
        if let Some(block) = &self.block {
            put_u64(out, block.until_ms);
            put_varint(out, block.lasts_ms);
            block.returned_at_ms.iter().for_each(|at| put_u64(out, *at));
        }
        if let Some(told) = &self.told {
            out.push(told.mode);
            told.rule.iter().for_each(|rule| put_text(out, rule));
            put_text(out, &told.words);
        }
        put_varint(out, self.outstanding.into());
        put_varint(out, self.counts.len() as u64);
        for counts in &self.counts {
            put_varint(out, counts.span_ms);
            put_varint(out, counts.part_ms);
            put_u64(out, counts.newest_end_ms);
            put_varint(out, counts.counts.len() as u64);
            counts.counts.iter().for_each(|count| put_varint(out, (*count).into()));
        }
        self.warmup.iter().for_each(|warmup| warmup.put(out));
    }

    /// Reads the record that `bytes` hold, all of them, of any version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (version, payload) = frame::open_any(KIND, bytes)?;
        let mut fields = Fields::new(KIND, payload);
        let all = if version < 2 { ALL_OF_1 } else { ALL };
        let flags = u16::from_le_bytes([fields.byte("flags")?, fields.byte("flags")?]);
        let needs = |flag, needed| flags & flag == 0 || flags & needed != 0;
        if flags & !all != 0 || !needs(CEILING, CONNECTIONS) || !needs(RETURNED, BLOCK) || !needs(RULE, TOLD) {
            return Err(fields.out_of_range("flags"));
        }
        let record = Self::take(flags, &mut fields)?;
        fields.end()?;
        Ok(record)
    }

    /// The fields in the order in which they stand.
    fn take(flags: u16, fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let has = |flag| flags & flag != 0;
        Ok(Self {
            is_last: has(LAST),
            saved_at_ms: fields.u64("saved_at_ms")?,
            source: fields.string("source")?,
            site: fields.string("site")?,
            connections: has(CONNECTIONS).then(|| take_connections(fields, has(CEILING))).transpose()?,
            messages: has(MESSAGES).then(|| take_learning(fields, "messages")).transpose()?,
            failures: fields.varint_u32("failures")?,
            ramp: fields.varint_u32("ramp")?,
            unreachable_until_ms: has(UNREACHABLE).then(|| fields.u64("unreachable_until_ms")).transpose()?,
            fewer: has(FEWER).then(|| take_fewer(fields)).transpose()?,
            slow: has(SLOW).then(|| take_slow(fields)).transpose()?,
            suspended_until_ms: has(SUSPENDED).then(|| fields.u64("suspended_until_ms")).transpose()?,
            block: has(BLOCK).then(|| take_block(fields, has(RETURNED))).transpose()?,
            told: has(TOLD).then(|| take_told(fields, has(RULE))).transpose()?,
            outstanding: fields.varint_u32("outstanding")?,
            counts: take_counts(fields)?,
            warmup: has(WARMUP).then(|| LaneWarmup::take(fields)).transpose()?,
        })
    }
}

fn put_learning(out: &mut Vec<u8>, learning: &LaneLearning) {
    put_varint(out, learning.count.into());
    put_u64(out, learning.held_until_ms);
    out.push(learning.level);
}

fn take_learning(fields: &mut Fields<'_>, name: &'static str) -> Result<LaneLearning, FormatError> {
    Ok(LaneLearning {
        count: fields.varint_u32(name)?,
        held_until_ms: fields.u64("held_until_ms")?,
        level: fields.byte("level")?,
    })
}

fn take_connections(fields: &mut Fields<'_>, has_ceiling: bool) -> Result<LaneConnections, FormatError> {
    Ok(LaneConnections {
        window: fields.varint_u32("window")?,
        refused_at_ms: fields.u64("refused_at_ms")?,
        ceiling: has_ceiling.then(|| take_learning(fields, "ceiling")).transpose()?,
    })
}

fn take_fewer(fields: &mut Fields<'_>) -> Result<(u32, u64), FormatError> {
    Ok((fields.varint_u32("fewer")?, fields.u64("until_ms")?))
}

fn take_slow(fields: &mut Fields<'_>) -> Result<LaneSlow, FormatError> {
    Ok(LaneSlow {
        count: fields.varint_u32("slow")?,
        per_ms: fields.varint("per_ms")?,
        until_ms: fields.u64("until_ms")?,
    })
}

fn take_block(fields: &mut Fields<'_>, has_returned: bool) -> Result<LaneBlock, FormatError> {
    Ok(LaneBlock {
        until_ms: fields.u64("until_ms")?,
        lasts_ms: fields.varint("lasts_ms")?,
        returned_at_ms: has_returned.then(|| fields.u64("returned_at_ms")).transpose()?,
    })
}

fn take_told(fields: &mut Fields<'_>, has_rule: bool) -> Result<LaneTold, FormatError> {
    Ok(LaneTold {
        mode: fields.byte("mode")?,
        rule: has_rule.then(|| fields.string("rule")).transpose()?,
        words: fields.string("words")?,
    })
}

fn take_counts(fields: &mut Fields<'_>) -> Result<Vec<LaneCounts>, FormatError> {
    // A limit's counts take eleven bytes at least, one count takes one.
    let len = fields.count("limits", 11)?;
    let mut all = Vec::with_capacity(len);
    for _ in 0..len {
        let span_ms = fields.varint("span_ms")?;
        let part_ms = fields.varint("part_ms")?;
        let newest_end_ms = fields.u64("newest_end_ms")?;
        let len = fields.count("counts", 1)?;
        let counts = (0..len).map(|_| fields.varint_u32("count")).collect::<Result<_, _>>()?;
        all.push(LaneCounts { span_ms, part_ms, newest_end_ms, counts });
    }
    Ok(all)
}

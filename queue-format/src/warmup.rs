//! The warm-up of a lane, as a section of its record: how far it is in its plan, what of today's cap it used, what holds it
//! back, and what hosts said of the last 24 hours.
//!
//! Does not: judge whether position, hour or mode mean anything; whoever restores a lane from it does.

use crate::error::FormatError;
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

const HELD_TODAY: u16 = 1;
const UNTIL: u16 = 1 << 1;
const STEPPED_BACK: u16 = 1 << 2;
const FROZEN: u16 = 1 << 3;
const CAP: u16 = 1 << 4;
const BEFORE: u16 = 1 << 5;
const BEFORE_CAP: u16 = 1 << 6;
const BEFORE_HELD: u16 = 1 << 7;
const AHEAD: u16 = 1 << 8;
const PAUSED: u16 = 1 << 9;
const SENT: u16 = 1 << 10;
const REASON: u16 = 1 << 11;
const ALL: u16 = (1 << 12) - 1;

/// Parts of the times that the brake looks at. More are never written, and a record with more does not decode.
pub const WARMUP_PARTS_MAX: usize = 8;

/// See the module. Since version 2 of the record.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneWarmup {
    /// Name of the plan.
    pub plan: String,
    /// How far it is in the plan: a day or a stage, from 1.
    pub position: u32,
    /// Messages of this day at most; `None`: no limit.
    pub cap: Option<u32>,
    /// The day that the counts are of: Unix time / 24 h.
    pub day: u32,
    /// Messages of this day.
    pub used: u32,
    /// The hour that `used_this_hour` is of: Unix time / 1 h.
    pub hour: u32,
    /// Messages of this hour.
    pub used_this_hour: u32,
    /// Of the messages of this day, those that hosts took.
    pub delivered_today: u32,
    /// Something held it back on this day, so that it does not advance at its end.
    pub held_today: bool,
    /// The day before, as far as it was kept.
    pub before: Option<LaneWarmupDay>,
    /// A day to come, by a clock that was set back since, and messages of it.
    pub ahead: Option<(u32, u32)>,
    /// What it is doing. The format does not judge it.
    pub mode: u8,
    /// An operator holds its position.
    pub paused: bool,
    /// Since when it does that.
    pub since_ms: u64,
    /// Until when, where that is known.
    pub until_ms: Option<u64>,
    /// Why, in words.
    pub reason: Option<String>,
    /// When the last message went out.
    pub last_sent_at_ms: Option<u64>,
    /// When it began, or its position was set.
    pub set_at_ms: u64,
    /// When a block last set it back.
    pub stepped_back_at_ms: Option<u64>,
    /// When it was last frozen.
    pub frozen_at_ms: Option<u64>,
    /// Freezes that followed each other closely.
    pub freezes: u8,
    /// The end of the newest part.
    pub newest_end_ms: u64,
    /// Sent, deferred, bounced, complained in each part, newest first; at most [`WARMUP_PARTS_MAX`].
    pub parts: Vec<[u32; 4]>,
}

/// A day of a warm-up that is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneWarmupDay {
    /// Unix time / 24 h.
    pub day: u32,
    /// How far it was in the plan.
    pub position: u32,
    /// Messages of that day at most; `None`: no limit.
    pub cap: Option<u32>,
    /// Messages of that day.
    pub used: u32,
    /// Of these, those that hosts took.
    pub delivered: u32,
    /// Something held it back on that day.
    pub held: bool,
}

impl LaneWarmup {
    /// At least as many bytes as [`LaneWarmup::put`] appends.
    pub(crate) fn encoded_len_hint(&self) -> usize {
        let texts = self.plan.len() + self.reason.as_ref().map_or(0, String::len);
        4 + 7 * 8 + (17 + 4 * self.parts.len()) * VARINT_BYTES_MAX + texts
    }

    fn flags(&self) -> u16 {
        let flags = [
            (self.held_today, HELD_TODAY),
            (self.until_ms.is_some(), UNTIL),
            (self.stepped_back_at_ms.is_some(), STEPPED_BACK),
            (self.frozen_at_ms.is_some(), FROZEN),
            (self.cap.is_some(), CAP),
            (self.before.is_some(), BEFORE),
            (self.before.is_some_and(|before| before.cap.is_some()), BEFORE_CAP),
            (self.before.is_some_and(|before| before.held), BEFORE_HELD),
            (self.ahead.is_some(), AHEAD),
            (self.paused, PAUSED),
            (self.last_sent_at_ms.is_some(), SENT),
            (self.reason.is_some(), REASON),
        ];
        flags.into_iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum()
    }

    /// Appends the section.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        assert!(self.parts.len() <= WARMUP_PARTS_MAX, "{} parts of a warm-up's brake", self.parts.len());
        out.extend_from_slice(&self.flags().to_le_bytes());
        put_text(out, &self.plan);
        put_varint(out, self.position.into());
        self.cap.iter().for_each(|cap| put_varint(out, (*cap).into()));
        for number in [self.day, self.used, self.hour, self.used_this_hour, self.delivered_today] {
            put_varint(out, number.into());
        }
        if let Some(LaneWarmupDay { day, position, cap, used, delivered, held: _ }) = self.before {
            put_varint(out, day.into());
            put_varint(out, position.into());
            cap.iter().for_each(|cap| put_varint(out, (*cap).into()));
            put_varint(out, used.into());
            put_varint(out, delivered.into());
        }
        if let Some((day, used)) = self.ahead {
            put_varint(out, day.into());
            put_varint(out, used.into());
        }
        out.push(self.mode);
        put_u64(out, self.since_ms);
        self.until_ms.iter().for_each(|until| put_u64(out, *until));
        self.reason.iter().for_each(|reason| put_text(out, reason));
        self.last_sent_at_ms.iter().for_each(|at| put_u64(out, *at));
        put_u64(out, self.set_at_ms);
        self.stepped_back_at_ms.iter().for_each(|at| put_u64(out, *at));
        self.frozen_at_ms.iter().for_each(|at| put_u64(out, *at));
        out.push(self.freezes);
        put_u64(out, self.newest_end_ms);
        put_varint(out, self.parts.len() as u64);
        self.parts.iter().flatten().for_each(|count| put_varint(out, (*count).into()));
    }

    /// Takes the section, whose fields stand in this order.
    pub(crate) fn take(fields: &mut Fields<'_>) -> Result<Self, FormatError> {
        let flags = u16::from_le_bytes([fields.byte("warm-up flags")?, fields.byte("warm-up flags")?]);
        let has = |flag| flags & flag != 0;
        let day_without = !has(BEFORE) && (has(BEFORE_CAP) || has(BEFORE_HELD));
        if flags & !ALL != 0 || day_without {
            return Err(fields.out_of_range("warm-up flags"));
        }
        Ok(Self {
            held_today: has(HELD_TODAY),
            paused: has(PAUSED),
            plan: fields.string("plan")?,
            position: fields.varint_u32("position")?,
            cap: has(CAP).then(|| fields.varint_u32("cap")).transpose()?,
            day: fields.varint_u32("day")?,
            used: fields.varint_u32("used")?,
            hour: fields.varint_u32("hour")?,
            used_this_hour: fields.varint_u32("used_this_hour")?,
            delivered_today: fields.varint_u32("delivered_today")?,
            before: has(BEFORE).then(|| take_day(fields, has(BEFORE_CAP), has(BEFORE_HELD))).transpose()?,
            ahead: has(AHEAD)
                .then(|| Ok((fields.varint_u32("ahead day")?, fields.varint_u32("ahead used")?)))
                .transpose()?,
            mode: fields.byte("warm-up mode")?,
            since_ms: fields.u64("since_ms")?,
            until_ms: has(UNTIL).then(|| fields.u64("until_ms")).transpose()?,
            reason: has(REASON).then(|| fields.string("reason")).transpose()?,
            last_sent_at_ms: has(SENT).then(|| fields.u64("last_sent_at_ms")).transpose()?,
            set_at_ms: fields.u64("set_at_ms")?,
            stepped_back_at_ms: has(STEPPED_BACK).then(|| fields.u64("stepped_back_at_ms")).transpose()?,
            frozen_at_ms: has(FROZEN).then(|| fields.u64("frozen_at_ms")).transpose()?,
            freezes: fields.byte("freezes")?,
            newest_end_ms: fields.u64("newest_end_ms")?,
            parts: take_parts(fields)?,
        })
    }
}

fn take_day(fields: &mut Fields<'_>, has_cap: bool, held: bool) -> Result<LaneWarmupDay, FormatError> {
    Ok(LaneWarmupDay {
        day: fields.varint_u32("before day")?,
        position: fields.varint_u32("before position")?,
        cap: has_cap.then(|| fields.varint_u32("before cap")).transpose()?,
        used: fields.varint_u32("before used")?,
        delivered: fields.varint_u32("before delivered")?,
        held,
    })
}

fn take_parts(fields: &mut Fields<'_>) -> Result<Vec<[u32; 4]>, FormatError> {
    let len = fields.count("parts", 4)?;
    if len > WARMUP_PARTS_MAX {
        return Err(fields.out_of_range("parts"));
    }
    let mut part = || {
        let [mut sent, mut deferred, mut bounced, mut complained] = [0; 4];
        for count in [&mut sent, &mut deferred, &mut bounced, &mut complained] {
            *count = fields.varint_u32("part")?;
        }
        Ok([sent, deferred, bounced, complained])
    };
    (0..len).map(|_| part()).collect()
}

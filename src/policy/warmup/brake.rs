//! What the receivers said in the last 24 hours, and whether that is reason to go slower, or not at all.
//!
//! Counted in eight parts of three hours, so that a day of trouble is forgotten bit by bit. Below a number of messages the counts say
//! nothing.

use std::time::Duration;

use super::change::{grouped, percent};
use super::warming::Tally;
use crate::types::Timestamp;

const PARTS: usize = 8;
const PART_MS: u64 = 3 * 3_600_000;
/// How far back it looks.
pub(super) const WINDOW: Duration = Duration::from_secs(24 * 3_600);
/// A freeze lasts no longer, however often it doubled.
pub(super) const FROZEN_MAX: Duration = Duration::from_secs(48 * 3_600);
/// No threshold waits longer, and none needs more messages.
const DWELL_MAX: Duration = Duration::from_secs(24 * 3_600);

/// Of 1,000 messages sent in 24 hours so many may be; more is too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Deferred by the host.
    pub deferred: u32,
    /// Refused for good.
    pub bounced: u32,
    /// Complained about.
    pub complained: u32,
}

/// What slows a lane, what freezes it, and what ends that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Above one of these it is slowed. Not above half of each: it recovers.
    pub slow: Limits,
    /// Above one of these a slowed one is frozen.
    pub freeze: Limits,
    /// Fewer messages in 24 hours say nothing.
    pub messages_min: u32,
    /// Fewer complaints in 24 hours freeze nothing: a single one slows at most.
    pub freeze_complaints_min: u32,
    /// It is slowed for at least this time.
    pub dwell: Duration,
    /// A freeze lasts so long; twice as long each time that one follows another within 7 days, up to 48 hours.
    pub frozen_for: Duration,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            slow: Limits { deferred: 100, bounced: 50, complained: 1 },
            freeze: Limits { deferred: 300, bounced: 100, complained: 3 },
            messages_min: 100,
            freeze_complaints_min: 2,
            dwell: Duration::from_secs(3_600),
            frozen_for: Duration::from_secs(6 * 3_600),
        }
    }
}

impl Thresholds {
    /// What does not hold of it, in words.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        let Self { slow, freeze, .. } = self;
        let pairs =
            [(slow.deferred, freeze.deferred), (slow.bounced, freeze.bounced), (slow.complained, freeze.complained)];
        if pairs.iter().any(|(slow, freeze)| *slow == 0 || *freeze > 1_000) {
            return Err("each is 1 to 1000 of 1000 messages");
        }
        if pairs.iter().any(|(slow, freeze)| slow > freeze) {
            return Err("what freezes must not be below what slows");
        }
        if self.messages_min == 0 {
            return Err("at least 1 message is needed to say something");
        }
        if self.dwell > DWELL_MAX {
            return Err("it is slowed for up to 24 hours before it may recover");
        }
        if self.frozen_for.is_zero() || self.frozen_for > FROZEN_MAX {
            return Err("a freeze lasts above 0 and up to 48 hours");
        }
        Ok(())
    }

    /// Why to slow down.
    pub(super) fn slows(&self, counts: &Counts) -> Option<Box<str>> {
        self.above(counts, &self.slow, 1)
    }

    /// Why to freeze.
    pub(super) fn freezes(&self, counts: &Counts) -> Option<Box<str>> {
        self.above(counts, &self.freeze, self.freeze_complaints_min)
    }

    /// Whether it is well again.
    pub(super) fn recovers(&self, counts: &Counts) -> bool {
        let within = |count: u32, limit: u32| u64::from(count) * 2_000 <= u64::from(counts.sent) * u64::from(limit);
        counts.sent >= self.messages_min
            && within(counts.deferred, self.slow.deferred)
            && within(counts.bounced, self.slow.bounced)
            && within(counts.complained, self.slow.complained)
    }

    /// Whether there is too little to say anything.
    pub(super) fn says_nothing(&self, counts: &Counts) -> bool {
        counts.sent < self.messages_min
    }

    /// The first limit that is passed, in words.
    fn above(&self, counts: &Counts, limits: &Limits, complaints_min: u32) -> Option<Box<str>> {
        if self.says_nothing(counts) {
            return None;
        }
        let complained = if counts.complained < complaints_min { 0 } else { counts.complained };
        let rates = [
            ("complaints", complained, limits.complained),
            ("bounces", counts.bounced, limits.bounced),
            ("deferrals", counts.deferred, limits.deferred),
        ];
        let sent = u64::from(counts.sent);
        let is_above = |count: u32, limit: u32| u64::from(count) * 1_000 > sent * u64::from(limit);
        let (what, count, limit) = rates.into_iter().find(|(_, count, limit)| is_above(*count, *limit))?;
        let (rate, limit) = (percent(count.into(), sent), percent(limit.into(), 1_000));
        Some(format!("{what} {rate} of {} messages in 24 hours, above {limit}", grouped(counts.sent)).into())
    }
}

/// What happened in the last 24 hours. Stays at the largest number instead of overflowing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) sent: u32,
    pub(super) deferred: u32,
    pub(super) bounced: u32,
    pub(super) complained: u32,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            sent: self.sent.saturating_add(other.sent),
            deferred: self.deferred.saturating_add(other.deferred),
            bounced: self.bounced.saturating_add(other.bounced),
            complained: self.complained.saturating_add(other.complained),
        }
    }
}

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Brake {
    /// Newest first.
    parts: [Counts; PARTS],
    /// The number of the newest part.
    newest: u32,
}

impl Brake {
    /// As it was kept, of a time that is not after `now`.
    pub(super) fn restore(newest_end: Timestamp, parts: &[[u32; 4]], now: Timestamp) -> Self {
        let mut brake = Self::default();
        for (place, part) in brake.parts.iter_mut().zip(parts) {
            let [sent, deferred, bounced, complained] = *part;
            *place = Counts { sent, deferred, bounced, complained };
        }
        brake.newest = part_of(newest_end).saturating_sub(1).min(part_of(now));
        brake
    }

    /// What is to be kept: the end of the newest part, and the parts.
    pub(super) fn state(&self) -> (Timestamp, Vec<[u32; 4]>) {
        let part = |part: &Counts| [part.sent, part.deferred, part.bounced, part.complained];
        let mut parts: Vec<_> = self.parts.iter().map(part).collect();
        while parts.last() == Some(&[0; 4]) {
            parts.pop();
        }
        (Timestamp::from_millis((u64::from(self.newest) + 1) * PART_MS), parts)
    }

    pub(super) fn add(&mut self, tally: &Tally, now: Timestamp) {
        self.move_on(now);
        let Tally { sent, deferred, bounced, complained, delivered: _ } = *tally;
        if let Some(part) = self.parts.first_mut() {
            *part = part.plus(Counts { sent, deferred, bounced, complained });
        }
    }

    pub(super) fn counts(&mut self, now: Timestamp) -> Counts {
        self.move_on(now);
        self.parts.iter().copied().fold(Counts::default(), Counts::plus)
    }

    pub(super) fn clear(&mut self) {
        self.parts = Default::default();
    }

    /// The clock was set back to `now`: what is from later is from now.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        self.newest = self.newest.min(part_of(now));
    }

    fn move_on(&mut self, now: Timestamp) {
        let steps = part_of(now).saturating_sub(self.newest);
        let steps_seen = usize::try_from(steps).unwrap_or(PARTS).min(PARTS);
        self.parts.rotate_right(steps_seen);
        self.parts.iter_mut().take(steps_seen).for_each(|part| *part = Counts::default());
        self.newest += steps;
    }
}

fn part_of(now: Timestamp) -> u32 {
    u32::try_from(now.millis() / PART_MS).unwrap_or(u32::MAX)
}

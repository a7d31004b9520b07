//! How many messages went out in the last second, minute, hour or day, so that the *receiver* never sees more in any such time.
//!
//! The time is cut into parts. A message counts from when it is taken until it is done, and then for a whole time from the end of the
//! part in which it was done. Whenever in between the receiver counted it: any two messages that it counts within one
//! time are both counted here when the second one is taken. The price: on average half a part of the time.

use std::time::Duration;

use super::super::limits::Span;
use super::super::rate::{Meter, Rate};
use crate::types::{CountsState, Timestamp};

/// A limit lets a tenth of its messages go at once, where they are paced.
const BURST_PART: u32 = 10;

/// Parts of a time, and how long each is.
const fn parts_of(span: Span) -> (usize, u64) {
    match span {
        Span::Second => (20, 50),
        Span::Minute => (20, 3_000),
        Span::Hour => (30, 120_000),
        Span::Day => (24, 3_600_000),
    }
}

/// What was sent in the last time of one kind. Times are in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Counter {
    /// Ring of the parts: as many as the time has, and the one that is running.
    parts: Box<[u32]>,
    newest_end_ms: u64,
    meter: Meter,
    total: u32,
    newest: u8,
    span: Span,
}

impl Counter {
    /// Nothing was sent.
    pub(super) fn new(span: Span, now: Timestamp) -> Self {
        let (parts, part_ms) = parts_of(span);
        let newest_end_ms = now.millis().saturating_add(part_ms);
        let parts = vec![0; parts + 1].into_boxed_slice();
        Self { parts, newest_end_ms, meter: Meter::default(), total: 0, newest: 0, span }
    }

    /// As it was kept. Counts of parts of another length than today's go into the next one of today's.
    pub(super) fn restore(span: Span, state: &CountsState, now: Timestamp) -> Self {
        let mut counter = Self::new(span, now);
        let (_, part_ms) = parts_of(span);
        let same = state.part == Duration::from_millis(part_ms);
        if same {
            counter.newest_end_ms = state.newest_end.millis().min(counter.newest_end_ms);
        }
        let old_part_ms = u64::try_from(state.part.as_millis()).unwrap_or(u64::MAX);
        for (count, age) in state.counts.iter().zip(0_u64..) {
            let end_ms = state.newest_end.millis().saturating_sub(old_part_ms.saturating_mul(age));
            counter.put(end_ms, *count);
        }
        counter.advance(now);
        counter
    }

    /// Into the part that ends then, or the next one that does.
    fn put(&mut self, end_ms: u64, count: u32) {
        let (_, part_ms) = parts_of(self.span);
        let back = usize::try_from(self.newest_end_ms.saturating_sub(end_ms) / part_ms).unwrap_or(usize::MAX);
        if back < self.parts.len() {
            let at = (usize::from(self.newest) + self.parts.len() - back) % self.parts.len();
            if let Some(part) = self.parts.get_mut(at) {
                *part = part.saturating_add(count);
                self.total = self.total.saturating_add(count);
            }
        }
    }

    /// What is to be kept.
    pub(super) fn state(&self) -> CountsState {
        let len = self.parts.len();
        let newest_first = (0..len).map(|back| (usize::from(self.newest) + len - back) % len);
        let mut counts: Vec<u32> = newest_first.filter_map(|at| self.parts.get(at).copied()).collect();
        while counts.last() == Some(&0) {
            counts.pop();
        }
        let newest_end = Timestamp::from_millis(self.newest_end_ms);
        CountsState {
            span: self.span.duration(),
            part: Duration::from_millis(parts_of(self.span).1),
            newest_end,
            counts,
        }
    }

    pub(super) fn span(&self) -> Span {
        self.span
    }

    /// Moves on to `now`: what is older than the time goes.
    pub(super) fn advance(&mut self, now: Timestamp) {
        let Some(late_ms) = now.millis().checked_sub(self.newest_end_ms) else { return };
        let (_, part_ms) = parts_of(self.span);
        let steps = late_ms / part_ms + 1;
        self.newest_end_ms += steps * part_ms;
        for _ in 0..steps.min(self.parts.len() as u64) {
            let next = usize::from(self.newest) + 1;
            let next = if next == self.parts.len() { 0 } else { next };
            self.newest = u8::try_from(next).expect("no time has 256 parts");
            if let Some(part) = self.parts.get_mut(next) {
                self.total -= std::mem::take(part);
            }
        }
    }

    /// So many came to their end now.
    pub(super) fn add(&mut self, count: u32) {
        if let Some(part) = self.parts.get_mut(usize::from(self.newest)) {
            let before = *part;
            *part = part.saturating_add(count).min(u32::MAX - (self.total - before));
            self.total += *part - before;
        }
    }

    /// How many more may be taken under this limit, while so many are in flight.
    pub(super) fn room(&self, limit: u32, in_flight: u32) -> u32 {
        limit.saturating_sub(self.total).saturating_sub(in_flight)
    }

    /// When there is room by time alone; [`Timestamp::MAX`] where what is in flight must end first.
    pub(super) fn room_at(&self, limit: u32, in_flight: u32) -> Timestamp {
        let (_, part_ms) = parts_of(self.span);
        let len = self.parts.len();
        let mut total = self.total;
        // Oldest first: the oldest part goes when the newest one ends.
        for step in 0..len {
            let at = (usize::from(self.newest) + 1 + step) % len;
            total -= self.parts.get(at).copied().unwrap_or(0);
            if total.saturating_add(in_flight) < limit {
                return Timestamp::from_millis(self.newest_end_ms.saturating_add(step as u64 * part_ms));
            }
        }
        Timestamp::MAX
    }

    /// Counts as many as the limit allows as sent now: nobody knows how many were.
    pub(super) fn fill(&mut self, limit: u32) {
        // Whatever is known of before: that ends to count sooner.
        self.add(limit);
    }

    /// Whether nothing counts any more, and no pace has to be kept.
    pub(super) fn is_empty(&self, now: Timestamp) -> bool {
        let span_ms = u64::try_from(self.span.duration().as_millis()).unwrap_or(u64::MAX);
        let is_over = self.total == 0 || now.millis() >= self.newest_end_ms.saturating_add(span_ms);
        is_over && self.meter.is_idle(micros(now))
    }

    /// How many may go now at an even pace, or else when one may.
    pub(super) fn paced(&self, limit: u32, now: Timestamp) -> Result<u32, Timestamp> {
        let rate = self.rate(limit);
        match self.meter.free(rate, micros(now)) {
            0 => {
                let wait = self.meter.wait(rate, 1, micros(now));
                // Up to a whole millisecond: at the time that is named it goes.
                let wait_ms = u64::try_from(wait.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX);
                Err(now.plus(Duration::from_millis(wait_ms.max(1))))
            }
            free => Ok(free),
        }
    }

    /// Takes so many from the pace.
    pub(super) fn pace(&mut self, limit: u32, count: u32, now: Timestamp) {
        self.meter.take(self.rate(limit), count, micros(now));
    }

    /// Gives so many back to the pace.
    pub(super) fn give_back(&mut self, limit: u32, count: u32) {
        self.meter.give_back(self.rate(limit), count);
    }

    fn rate(&self, limit: u32) -> Rate {
        Rate::per(limit, self.span.duration(), (limit / BURST_PART).max(1))
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.newest_end_ms = self.newest_end_ms.saturating_sub(u64::try_from(by.as_millis()).unwrap_or(u64::MAX));
        self.meter.clock_went_back(by);
    }

    /// Octets on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        std::mem::size_of_val(&*self.parts)
    }
}

fn micros(time: Timestamp) -> u64 {
    time.millis().saturating_mul(1_000)
}

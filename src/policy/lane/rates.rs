//! How many messages a lane may begin now: all limits in a time together, and what is granted ahead on disk.
//!
//! Limits by hour and day hold over crashes and power cuts: whatever is sent stands on disk before, as a *grant* of some
//! messages beyond those that were sent. After a start the whole grant counts as sent at that moment, since nobody knows. Limits
//! by second and minute need nothing on disk: after a start they count as used up, unless an orderly stop wrote what was sent.

use std::time::Duration;

use super::super::limits::{RateLimit, Rates, Span};
use super::counter::Counter;
use super::{Cause, Wait};
use crate::types::{LaneState, Timestamp};

/// Of a limit by hour or day one in so many messages is granted ahead: what an unclean stop costs at most.
const GRANT_PART: u32 = 100;
/// But so many at least, where that is not a tenth of the limit: each grant costs a write.
const GRANT_MIN: u32 = 4;

/// The limits of this moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    /// The site's.
    pub(super) rates: &'a Rates,
    /// Of a backoff, or the ramp after it.
    pub(super) slow: Option<RateLimit>,
    /// What a warm-up leaves for today.
    pub(super) left: Option<u32>,
}

impl<'a> Limits<'a> {
    /// Without a warm-up.
    pub(super) fn new(rates: &'a Rates, slow: Option<RateLimit>) -> Self {
        Self { rates, slow, left: None }
    }

    /// The lower one of this span.
    fn of(&self, span: Span) -> Option<u32> {
        let slow = self.slow.filter(|slow| slow.per == span).map(|slow| slow.count.max(1));
        match (self.rates.by(span), slow) {
            (Some(rate), Some(slow)) => Some(rate.min(slow)),
            (rate, slow) => rate.or(slow),
        }
    }

    /// Whether messages are spread over this span: of hours and days only those of a backoff.
    fn is_paced(&self, span: Span) -> bool {
        matches!(span, Span::Second | Span::Minute) || self.slow.is_some_and(|slow| slow.per == span)
    }
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Sent {
    counters: Vec<Counter>,
    in_flight: u32,
    /// How many may still be taken under what is on disk.
    granted: u32,
    /// A grant that is being written, and how many were taken since: only so many as both grants allow.
    writing: Option<(u32, u32)>,
    /// More is wanted than is granted.
    wants_grant: bool,
}

impl Sent {
    /// Nothing was sent.
    pub(super) fn new(rates: &Rates, now: Timestamp) -> Self {
        let mut sent = Self::default();
        sent.fit(Limits::new(rates, None), now);
        sent
    }

    /// As it was kept. `is_exact`: the last stop was orderly, and this was written by it.
    pub(super) fn restore(limits: Limits<'_>, state: &LaneState, is_exact: bool, now: Timestamp) -> Self {
        let mut sent = Self::default();
        for (span, limit) in Span::ALL.into_iter().filter_map(|span| limits.of(span).map(|limit| (span, limit))) {
            let kept = state.counts.iter().find(|counts| counts.span == span.duration());
            let mut counter = kept.map_or_else(|| Counter::new(span, now), |kept| Counter::restore(span, kept, now));
            match (is_exact, span) {
                (true, _) => {}
                (false, Span::Second | Span::Minute) => counter.fill(limit),
                (false, Span::Hour | Span::Day) => counter.add(state.outstanding),
            }
            sent.counters.push(counter);
        }
        sent.counters.shrink_to_fit();
        sent
    }

    /// One counter for each limit, from now on; what is counted stays.
    pub(super) fn fit(&mut self, limits: Limits<'_>, now: Timestamp) {
        self.counters.retain(|counter| limits.of(counter.span()).is_some());
        for span in Span::ALL {
            if limits.of(span).is_some() && !self.counters.iter().any(|counter| counter.span() == span) {
                self.counters.push(Counter::new(span, now));
            }
        }
        self.counters.shrink_to_fit();
    }

    /// How many may be begun, at most `wanted`.
    pub(super) fn admits(&mut self, wanted: u32, limits: Limits<'_>, now: Timestamp) -> Result<u32, Wait> {
        let (mut admitted, mut wait) = (wanted, None::<Wait>);
        for counter in &mut self.counters {
            let span = counter.span();
            let Some(count) = limits.of(span) else { continue };
            counter.advance(now);
            let paced = if limits.is_paced(span) { counter.paced(count, now) } else { Ok(u32::MAX) };
            let until = match (counter.room(count, self.in_flight), paced) {
                (0, _) => counter.room_at(count, self.in_flight),
                (_, Err(until)) => until,
                (room, Ok(free)) => {
                    admitted = admitted.min(room).min(free);
                    continue;
                }
            };
            // What holds it longest.
            if wait.as_ref().is_none_or(|wait| wait.until < until) {
                wait = Some(Wait { until, cause: Cause::Rate(RateLimit { count, per: span }) });
            }
        }
        if let Some(wait) = wait {
            return Err(wait);
        }
        self.within_grant(admitted, limits)
    }

    fn within_grant(&mut self, admitted: u32, limits: Limits<'_>) -> Result<u32, Wait> {
        let Some(grant) = grant_of(limits) else { return Ok(admitted) };
        let usable = self.usable();
        if usable.saturating_mul(2) <= grant && self.room_ahead(limits) > usable {
            self.wants_grant = true;
        }
        match usable.min(admitted) {
            0 => Err(Wait { until: Timestamp::MAX, cause: Cause::Saving }),
            usable => Ok(usable),
        }
    }

    /// What may be taken whether or not the write under way comes to the disk.
    fn usable(&self) -> u32 {
        self.writing.map_or(self.granted, |(grant, taken)| self.granted.min(grant.saturating_sub(taken)))
    }

    /// What hours and days have room for.
    fn room_ahead(&self, Limits { rates, left, .. }: Limits<'_>) -> u32 {
        let rooms = self.counters.iter().filter(|counter| matches!(counter.span(), Span::Hour | Span::Day));
        let rooms = rooms.filter_map(|counter| Some(counter.room(rates.by(counter.span())?, self.in_flight)));
        rooms.chain(left).min().unwrap_or(0)
    }

    pub(super) fn take(&mut self, messages: u32, limits: Limits<'_>, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_add(messages);
        self.granted = self.granted.saturating_sub(messages);
        if let Some((_, taken)) = &mut self.writing {
            *taken = taken.saturating_add(messages);
        }
        for counter in &mut self.counters {
            if let Some(count) = limits.of(counter.span()).filter(|_| limits.is_paced(counter.span())) {
                counter.pace(count, messages, now);
            }
        }
    }

    pub(super) fn done(&mut self, messages: u32, sent: u32, limits: Limits<'_>, now: Timestamp) {
        self.in_flight = self.in_flight.saturating_sub(messages);
        // Of the grant they stay taken: the next save knows better.
        let unsent = messages.saturating_sub(sent);
        for counter in &mut self.counters {
            counter.advance(now);
            counter.add(sent);
            let paced = limits.of(counter.span()).filter(|_| unsent > 0 && limits.is_paced(counter.span()));
            if let Some(count) = paced {
                counter.give_back(count, unsent);
            }
        }
    }

    /// Whether more may be sent only after a save, soon.
    pub(super) fn wants_grant(&self) -> bool {
        self.wants_grant && self.writing.is_none()
    }

    /// Fills in what is to be kept, with a grant ahead.
    pub(super) fn save(&mut self, state: &mut LaneState, limits: Limits<'_>, now: Timestamp) {
        let Some(grant) = grant_of(limits) else { return };
        let rates = limits.rates;
        self.counters.iter_mut().for_each(|counter| counter.advance(now));
        let ahead = if self.wants_grant || self.granted > 0 { grant.min(self.room_ahead(limits)) } else { 0 };
        // Never less than is on disk: until this is, both must cover what is taken.
        let ahead = ahead.max(self.granted);
        self.writing = Some((ahead, 0));
        self.wants_grant = false;
        state.outstanding = self.in_flight.saturating_add(ahead);
        let kept = self.counters.iter().filter(|counter| matches!(counter.span(), Span::Hour | Span::Day));
        let kept = kept.filter(|counter| rates.by(counter.span()).is_some());
        state.counts = kept.map(Counter::state).filter(|state| !state.counts.is_empty()).collect();
    }

    /// The write came to its end.
    pub(super) fn saved(&mut self, durable: bool) {
        let Some((grant, taken)) = self.writing.take() else { return };
        if durable {
            self.granted = grant.saturating_sub(taken);
        } else {
            self.wants_grant = true;
        }
    }

    /// Fills in what was sent, with nothing ahead: nothing more is sent.
    pub(super) fn last_save(&mut self, state: &mut LaneState, now: Timestamp) {
        self.counters.iter_mut().for_each(|counter| counter.advance(now));
        (self.granted, self.writing) = (0, None);
        state.outstanding = self.in_flight;
        state.counts = self.counters.iter().map(Counter::state).filter(|state| !state.counts.is_empty()).collect();
    }

    /// The limits of this moment, each with what counts against it.
    pub(super) fn usage(&self, limits: Limits<'_>, now: Timestamp) -> Vec<(RateLimit, u32)> {
        let usage = |counter: &Counter| {
            let (mut counter, per) = (counter.clone(), counter.span());
            let count = limits.of(per)?;
            counter.advance(now);
            Some((RateLimit { count, per }, count.saturating_sub(counter.room(count, self.in_flight))))
        };
        let mut found: Vec<_> = self.counters.iter().filter_map(usage).collect();
        found.sort_unstable_by_key(|(limit, _)| limit.per);
        found
    }

    pub(super) fn is_idle(&self, now: Timestamp) -> bool {
        self.in_flight == 0 && self.writing.is_none() && self.counters.iter().all(|counter| counter.is_empty(now))
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.counters.iter_mut().for_each(|counter| counter.clock_went_back(by));
    }

    /// Octets on the heap.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        let counters = self.counters.capacity() * size_of::<Counter>();
        counters + self.counters.iter().map(Counter::heap_bytes).sum::<usize>()
    }
}

/// How many messages one save grants ahead; `None`: no limit asks for any.
fn grant_of(Limits { rates, left, .. }: Limits<'_>) -> Option<u32> {
    let grant = |limit: u32| (limit / GRANT_PART).max(GRANT_MIN.min(limit / 10)).max(1);
    [rates.hour, rates.day, left].into_iter().flatten().map(grant).min()
}

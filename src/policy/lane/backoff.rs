//! What replies made us hold back on a lane for a time: connections, messages in a time, or everything; and the ramp after it.
//!
//! One of each kind at most: a further one makes it longer, or stricter. What a rule asks for only after some hits is counted here.

use std::sync::Arc;
use std::time::Duration;

use super::super::limits::RateLimit;
use crate::types::{LaneState, Timestamp};

/// Rules whose hits are counted on one lane. Full: the one that was hit longest ago is forgotten.
const COUNTED_RULES_MAX: usize = 4;
/// Into so many parts the time of a rule's hits is cut; one more is kept, so that none counts for less than the time.
const HIT_PARTS: usize = 8;
/// After a backoff of the rate it doubles each minute, so often; then it is over.
const RAMP_STEPS: u32 = 6;
const RAMP_STEP: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Backoff {
    hits: Vec<Hits>,
    /// At most so many connections; after its end twice as many with each success.
    fewer: Option<(u32, Timestamp)>,
    slow: Option<(RateLimit, Timestamp)>,
    suspended_until: Option<Timestamp>,
}

/// How often one rule was hit lately.
#[derive(Clone, Debug)]
struct Hits {
    rule: Arc<str>,
    part_ms: u64,
    /// The number of the newest part.
    newest: u64,
    parts: [u16; HIT_PARTS + 1],
}

impl Backoff {
    /// As it was kept.
    pub(super) fn restore(state: &LaneState, slow: Option<(RateLimit, Timestamp)>) -> Self {
        Self { hits: Vec::new(), fewer: state.fewer, slow, suspended_until: state.suspended_until }
    }

    /// Counts a hit. Whether the rule was hit so often within that time now.
    pub(super) fn hit(&mut self, rule: &Arc<str>, (count, within): (u32, Duration), now: Timestamp) -> bool {
        let part_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX).div_ceil(HIT_PARTS as u64).max(1);
        let newest = now.millis() / part_ms;
        let known = self.hits.iter().position(|hits| hits.rule == *rule && hits.part_ms == part_ms);
        let mut hits = match known {
            Some(at) => self.hits.remove(at),
            None => {
                if self.hits.len() == COUNTED_RULES_MAX {
                    self.hits.remove(0);
                }
                Hits { rule: Arc::clone(rule), part_ms, newest, parts: Default::default() }
            }
        };
        hits.move_on(newest);
        if let Some(part) = hits.parts.first_mut() {
            *part = part.saturating_add(1);
        }
        let sum: u32 = hits.parts.iter().map(|part| u32::from(*part)).sum();
        self.hits.push(hits);
        sum >= count
    }

    /// At most so many connections until then. Whether that is new.
    pub(super) fn limit_connections(&mut self, connections: u32, until: Timestamp, now: Timestamp) -> bool {
        let active = self.fewer.filter(|(_, until)| now < *until);
        let connections = connections.max(1);
        let least = active.map_or(connections, |(known, _)| known.min(connections));
        let end = active.map_or(until, |(_, known)| known.max(until));
        self.fewer = Some((least, end));
        active.is_none_or(|(known, _)| least < known)
    }

    /// At most so many messages until then. Whether that is new.
    pub(super) fn slow_down(&mut self, limit: RateLimit, until: Timestamp, now: Timestamp) -> bool {
        let active = self.slow.filter(|(_, until)| now < *until);
        let stricter = active.is_none_or(|(known, _)| is_stricter(limit, known));
        let least = active.filter(|_| !stricter).map_or(limit, |(known, _)| known);
        let end = active.map_or(until, |(_, known)| known.max(until));
        self.slow = Some((least, end));
        stricter
    }

    /// Nothing until then. Whether that is new.
    pub(super) fn suspend(&mut self, until: Timestamp, now: Timestamp) -> bool {
        let active = self.suspended_until(now);
        self.suspended_until = Some(active.map_or(until, |known| known.max(until)));
        active.is_none()
    }

    /// How many connections it leaves.
    pub(super) fn connections(&self) -> Option<u32> {
        self.fewer.map(|(connections, _)| connections)
    }

    /// The end of what it does to connections, where that is still to come.
    pub(super) fn fewer_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.fewer.map(|(_, until)| until).filter(|until| now < *until)
    }

    pub(super) fn suspended_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suspended_until.filter(|until| now < *until)
    }

    /// The end of the lower rate, where that is still to come.
    pub(super) fn slow_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.slow.map(|(_, until)| until).filter(|until| now < *until)
    }

    /// What it leaves of the rate: less, or by the ramp more and more.
    pub(super) fn slow(&self, now: Timestamp) -> Option<RateLimit> {
        let (limit, until) = self.slow?;
        let Some(over_ms) = now.millis().checked_sub(until.millis()) else { return Some(limit) };
        let minutes = over_ms / RAMP_STEP.as_secs() / 1_000;
        let doublings = u32::try_from(minutes).ok().filter(|minutes| *minutes < RAMP_STEPS)? + 1;
        Some(RateLimit { count: limit.count.saturating_mul(1 << doublings), per: limit.per })
    }

    /// When the rate changes next by time alone.
    pub(super) fn slow_changes_at(&self, now: Timestamp) -> Option<Timestamp> {
        let (_, until) = self.slow?;
        (0..=RAMP_STEPS).map(|step| until.plus(RAMP_STEP * step)).find(|at| now < *at)
    }

    /// A transaction went well, where `window` connections could be had but for this.
    pub(super) fn good(&mut self, window: u32, now: Timestamp) {
        if let Some((connections, until)) = self.fewer.filter(|(_, until)| *until <= now) {
            let more = connections.saturating_mul(2);
            self.fewer = (more < window).then_some((more, until));
        }
    }

    /// Whether nothing is left of it.
    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        let is_counted = |hits: &Hits| now.millis() / hits.part_ms <= hits.newest.saturating_add(HIT_PARTS as u64);
        self.fewer.is_none()
            && self.slow(now).is_none()
            && self.suspended_until(now).is_none()
            && !self.hits.iter().any(is_counted)
    }

    /// An operator wants it tried at once.
    pub(super) fn unsuspend(&mut self) {
        self.suspended_until = None;
    }

    /// Fills in what is to be kept: not the hits.
    pub(super) fn save(&self, state: &mut LaneState, now: Timestamp) {
        state.fewer = self.fewer;
        state.slow = self.slow.filter(|_| self.slow(now).is_some()).map(|(limit, until)| {
            let RateLimit { count, per } = limit;
            (count, per.duration(), until)
        });
        state.suspended_until = self.suspended_until(now);
    }

    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.fewer = self.fewer.map(|(connections, until)| (connections, until.minus(by)));
        self.slow = self.slow.map(|(limit, until)| (limit, until.minus(by)));
        self.suspended_until = self.suspended_until.map(|until| until.minus(by));
        let by_ms = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        // Rounded so that none counts for less than its time.
        self.hits.iter_mut().for_each(|hits| hits.newest = hits.newest.saturating_sub(by_ms / hits.part_ms));
    }

    /// Octets on the heap, but for the names of rules, which are shared.
    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        self.hits.capacity() * size_of::<Hits>()
    }
}

impl Hits {
    /// Newest part first.
    fn move_on(&mut self, newest: u64) {
        let steps = newest.saturating_sub(self.newest);
        for _ in 0..steps.min(self.parts.len() as u64) {
            self.parts.rotate_right(1);
            if let Some(part) = self.parts.first_mut() {
                *part = 0;
            }
        }
        self.newest = self.newest.max(newest);
    }
}

/// Whether a limit leaves less than another.
fn is_stricter(limit: RateLimit, other: RateLimit) -> bool {
    let in_all = |count: RateLimit, span: RateLimit| u64::from(count.count) * span.per.duration().as_secs();
    in_all(limit, other) < in_all(other, limit)
}

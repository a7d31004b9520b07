//! Whether a host, a site or a lane can be reached: suspended when it cannot, one probe after a growing interval, a ramp when it
//! comes back. Of a lane, or of a whole site.

use std::time::Duration;

use crate::types::Timestamp;

/// Intervals between probes of what cannot be reached; the last one repeats.
pub const PROBE_INTERVALS: [Duration; 7] = [
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(600),
    Duration::from_secs(1_200),
];
/// How far an interval is stretched or shortened, so that what went down together does not come back together.
const JITTER_PERCENT: u64 = 10;

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reach {
    seed: u64,
    suspended_until: Option<Timestamp>,
    failures: u32,
    /// Connections by the ramp; 0: no ramp.
    ramp: u32,
    proven: bool,
}

impl Reach {
    /// Nothing is known yet. `seed`: what the jitter depends on.
    pub fn new(seed: u64) -> Self {
        Self { seed, suspended_until: None, failures: 0, ramp: 0, proven: false }
    }

    /// As it was kept: failures one after the other, connections by a ramp (0: none), the end of a suspension.
    pub fn restore(seed: u64, failures: u32, ramp: u32, suspended_until: Option<Timestamp>) -> Self {
        Self { seed, suspended_until, failures, ramp, proven: false }
    }

    /// Failures one after the other, connections by a ramp (0: none), the end of a suspension: to be kept.
    pub fn parts(&self) -> (u32, u32, Option<Timestamp>) {
        (self.failures, self.ramp, self.suspended_until)
    }

    /// Sets what the jitter depends on.
    pub fn set_seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// Until when nothing is tried, if that is so at `now`.
    pub fn suspended_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suspended_until.filter(|until| *until > now)
    }

    /// Connections that it may have of `max` that it could have: 0 while it is suspended, 1 for a probe, then twice as many
    /// with each success.
    pub fn window(&self, max: u32, now: Timestamp) -> u32 {
        match (self.suspended_until(now), self.ramp) {
            (Some(_), _) => 0,
            (None, 0) => max,
            (None, ramp) => ramp.min(max),
        }
    }

    /// Whether it is tried after a failure and nothing came of it yet.
    pub fn is_probing(&self, now: Timestamp) -> bool {
        self.failures > 0 && self.suspended_until(now).is_none()
    }

    /// Whether the last try of which anything is known came through.
    pub fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether nothing of it is worth remembering.
    pub fn is_well(&self) -> bool {
        self.failures == 0 && self.ramp == 0 && self.suspended_until.is_none()
    }

    /// It could not be reached. Returns the end of a suspension that just began: connections that fail together are one failure.
    pub fn failed(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.proven = false;
        self.back_off(now)
    }

    /// It could be reached and does not want even one connection: as [`Reach::failed`], but it is known to be there.
    pub fn refused(&mut self, now: Timestamp) -> Option<Timestamp> {
        self.back_off(now)
    }

    fn back_off(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.suspended_until(now).is_some() {
            return None;
        }
        let last = PROBE_INTERVALS.len() - 1;
        let step = usize::try_from(self.failures).unwrap_or(last).min(last);
        let interval = PROBE_INTERVALS.get(step).copied().unwrap_or_default();
        let until = now.plus(jittered(interval, self.seed, self.failures));
        self.failures = self.failures.saturating_add(1);
        self.ramp = 1;
        self.suspended_until = Some(until);
        Some(until)
    }

    /// A transaction went well, of `max` connections that it could have. Returns whether that ended a suspension or a probe.
    pub fn good(&mut self, max: u32) -> bool {
        self.proven = true;
        self.suspended_until = None;
        if self.ramp > 0 {
            let ramp = self.ramp.saturating_mul(2);
            self.ramp = if ramp >= max { 0 } else { ramp };
        }
        std::mem::take(&mut self.failures) > 0
    }

    /// It begins anew with so many connections, and twice as many with each success; fewer, where it has fewer.
    pub fn ramp_from(&mut self, connections: u32) {
        self.ramp = if self.ramp == 0 { connections } else { self.ramp.min(connections) };
    }

    /// An operator wants it tried at once.
    pub fn unsuspend(&mut self) {
        self.suspended_until = None;
    }

    /// The wall clock went back by so much.
    pub fn clock_went_back(&mut self, by: Duration) {
        self.suspended_until = self.suspended_until.map(|until| until.minus(by));
    }
}

/// The same for the same seed and step: shorter or longer by up to [`JITTER_PERCENT`].
fn jittered(interval: Duration, seed: u64, step: u32) -> Duration {
    let mut hash = seed ^ u64::from(step).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    // splitmix64
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let interval_ms = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX);
    let width_ms = interval_ms * JITTER_PERCENT / 100;
    Duration::from_millis(interval_ms - width_ms + hash % (2 * width_ms + 1))
}

//! A rate limit as plain data: the generic cell rate algorithm (ITU-T I.371), one number of state.
//!
//! Why not governor: its limiters cannot give back what was taken, cannot change their rate without granting the whole burst
//! again, and are not data that could be stored. It serves limits that need none of these.

use std::time::Duration;

/// So many in a time, and so many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Microseconds between two in the long run. 0: no limit.
    interval_us: u64,
    /// How far ahead of the long run a burst may be, in microseconds: one interval less than the burst is long.
    ahead_us: u64,
}

impl Rate {
    /// `count` in a second, and up to `burst` of them at once. Both at least 1.
    pub fn per_second(count: u32, burst: u32) -> Self {
        Self::per(count, Duration::from_secs(1), burst)
    }

    /// `count` in that time, and up to `burst` of them at once. Both at least 1.
    pub fn per(count: u32, span: Duration, burst: u32) -> Self {
        let span_us = u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        let interval_us = span_us / u64::from(count.max(1));
        Self { interval_us, ahead_us: interval_us * u64::from(burst.max(1) - 1) }
    }
}

/// What was taken from a [`Rate`]. The time is in microseconds of one clock that does not go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meter {
    /// When all that was taken will have been earned at the rate.
    earned_at_us: u64,
}

impl Meter {
    /// How long to wait until `count` may be taken; zero: now. With more than the burst in `count`: until as much is free
    /// as there ever is.
    pub fn wait(&self, rate: Rate, count: u32, now_us: u64) -> Duration {
        let more_us = rate.interval_us.saturating_mul(u64::from(count.saturating_sub(1))).min(rate.ahead_us);
        let free_at_us = self.earned_at_us.saturating_add(more_us).saturating_sub(rate.ahead_us);
        Duration::from_micros(free_at_us.saturating_sub(now_us))
    }

    /// How many may be taken now: at most the burst.
    pub fn free(&self, rate: Rate, now_us: u64) -> u32 {
        let free_at_us = self.earned_at_us.max(now_us);
        let Some(ahead_us) = now_us.saturating_add(rate.ahead_us).checked_sub(free_at_us) else { return 0 };
        let more = ahead_us.checked_div(rate.interval_us).unwrap_or(u64::MAX);
        u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1)
    }

    /// Takes `count`, also where there is still a wait: the next ones wait the longer.
    pub fn take(&mut self, rate: Rate, count: u32, now_us: u64) {
        let taken_us = rate.interval_us.saturating_mul(u64::from(count));
        self.earned_at_us = self.earned_at_us.max(now_us).saturating_add(taken_us);
    }

    /// Gives back `count` that were taken.
    pub fn give_back(&mut self, rate: Rate, count: u32) {
        self.earned_at_us = self.earned_at_us.saturating_sub(rate.interval_us.saturating_mul(u64::from(count)));
    }

    /// The clock went back by so much.
    pub fn clock_went_back(&mut self, by: Duration) {
        self.earned_at_us = self.earned_at_us.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX));
    }

    /// Whether nothing that was taken is still to be earned: as good as new.
    pub fn is_idle(&self, now_us: u64) -> bool {
        self.earned_at_us <= now_us
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND_US: u64 = 1_000_000;

    #[test]
    fn a_burst_passes_at_once_and_then_one_an_interval() {
        let rate = Rate::per_second(10, 3);
        let mut meter = Meter::default();
        for _ in 0..3 {
            assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::ZERO);
            meter.take(rate, 1, SECOND_US);
        }
        assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::from_millis(100));
        meter.take(rate, 1, SECOND_US);
        assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::from_millis(200), "what was taken ahead is waited for");
    }

    #[test]
    fn what_is_free_is_what_may_be_taken_without_a_wait() {
        let rate = Rate::per(600, Duration::from_secs(60), 5);
        let mut meter = Meter::default();
        for (taken, free) in [(0, 5), (2, 3), (3, 0), (4, 0)] {
            meter.take(rate, taken, SECOND_US);
            assert_eq!(meter.free(rate, SECOND_US), free);
            assert_eq!(meter.wait(rate, free.max(1), SECOND_US).is_zero(), free > 0);
        }
        assert_eq!(meter.free(rate, SECOND_US + 500_000), 1, "nine were taken, five are earned");
        meter.clock_went_back(Duration::from_secs(1));
        assert_eq!(meter.free(rate, SECOND_US), 5);
    }

    #[test]
    fn what_is_given_back_is_free_again() {
        let rate = Rate::per_second(1, 1);
        let mut meter = Meter::default();
        meter.take(rate, 1, SECOND_US);
        assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::from_secs(1));
        meter.give_back(rate, 1);
        assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::ZERO);
        assert!(meter.is_idle(SECOND_US));
    }

    #[test]
    fn more_than_the_burst_waits_for_a_full_bucket_only() {
        let rate = Rate::per_second(10, 5);
        let mut meter = Meter::default();
        assert_eq!(meter.wait(rate, 50, SECOND_US), Duration::ZERO);
        meter.take(rate, 50, SECOND_US);
        assert_eq!(meter.wait(rate, 1, SECOND_US), Duration::from_millis(4_600));
    }

    proptest! {
        #[test]
        fn no_span_sees_more_than_its_share_and_a_burst(
            count in 1_u32..2_000, burst in 1_u32..50, steps in prop::collection::vec((0_u64..300_000, 1_u32..4), 1..300)
        ) {
            let rate = Rate::per_second(count, burst);
            let mut meter = Meter::default();
            let (mut now, mut passed) = (SECOND_US, 0_u64);
            for (pause, wanted) in steps {
                now += pause;
                if meter.wait(rate, wanted, now).is_zero() && wanted <= burst {
                    meter.take(rate, wanted, now);
                    passed += u64::from(wanted);
                }
            }
            let share = (now - SECOND_US) / (1_000_000 / u64::from(count)) + u64::from(burst);
            prop_assert!(passed <= share, "{passed} passed, {share} allowed");
        }
    }
}

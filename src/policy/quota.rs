//! Limits of sending, counted in recipients: so many in any 24 hours, so many in a second, and when to warn.
//!
//! Promises: by the clock that the caller reads, at no instant are there more in the 24 hours before it than were let in
//! under the limit: a recipient counts from its minute on until the whole of that minute is older than 24 hours. A clock
//! that is set back frees nothing: what was counted in minutes that are now ahead goes on to count until the clock has
//! passed them by a day, and what was freed while the clock was ahead, by up to a day, counts again. A clock that jumps ahead
//! by more than a day frees everything. Cost: eight bytes for each minute of the last 48 hours in which something was counted.
//!
//! Does not: read a clock, or know whose limits these are (`admission::quota` does).

use std::collections::VecDeque;

use super::rate::{Meter, Rate};
use crate::types::Timestamp;

/// Minutes that count: the one that runs, and so many before it.
pub const WINDOW_MINUTES: u32 = 1_440;

/// Below this share of the limit, in percent, the first warning is armed again.
const WARNING_REARMED_PERCENT: u8 = 70;
/// The first warning.
const WARNING_PERCENT: u8 = 80;
/// Below this the second one is.
const LIMIT_REARMED_PERCENT: u8 = 95;
/// The second.
const LIMIT_PERCENT: u8 = 100;

/// A minute of Unix time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Minute(u32);

impl Minute {
    /// The minute of a time. The last one is in the year 10136.
    pub fn of(time: Timestamp) -> Self {
        Self::from_number(time.seconds() / 60)
    }

    /// A minute from its number; the last one for all that are beyond.
    pub fn from_number(number: u64) -> Self {
        Self(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Minutes since the Unix epoch.
    pub fn number(self) -> u64 {
        self.0.into()
    }

    /// Whether what was counted in this minute still counts in the minute `now`.
    pub fn counts_in(self, now: Minute) -> bool {
        self.0.saturating_add(WINDOW_MINUTES) >= now.0
    }

    /// Whether it still counts, or would if the clock were set back by a day.
    pub fn is_kept_in(self, now: Minute) -> bool {
        self.0.saturating_add(2 * WINDOW_MINUTES) >= now.0
    }
}

/// What was counted in the last 24 hours, and in the 24 before, should the clock be set back.
#[derive(Clone, Debug, Default)]
pub struct Window {
    /// In order; only minutes in which something was counted.
    buckets: VecDeque<Bucket>,
    /// The first that counts.
    first: usize,
    /// Of those that count.
    sum: u64,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    minute: Minute,
    count: u32,
}

impl Window {
    /// How many count in the minute `now`. What would not a day earlier either is forgotten.
    pub fn used(&mut self, now: Minute) -> u64 {
        while let Some(bucket) = self.buckets.get(self.first).filter(|bucket| !bucket.minute.counts_in(now)) {
            self.sum -= u64::from(bucket.count);
            self.first += 1;
        }
        // The clock was set back.
        while let Some(before) = self.first.checked_sub(1)
            && let Some(bucket) = self.buckets.get(before).filter(|bucket| bucket.minute.counts_in(now))
        {
            self.sum += u64::from(bucket.count);
            self.first = before;
        }
        while self.buckets.front().is_some_and(|bucket| !bucket.minute.is_kept_in(now)) {
            self.buckets.pop_front();
            self.first -= 1;
        }
        self.sum
    }

    /// Counts `count` more in this minute, which may lie before or behind others.
    pub fn add(&mut self, minute: Minute, count: u32) {
        if count == 0 {
            return;
        }
        let place = self.buckets.partition_point(|bucket| bucket.minute < minute);
        if self.buckets.get(place).is_none_or(|bucket| bucket.minute != minute) {
            self.buckets.insert(place, Bucket { minute, count: 0 });
            self.first += usize::from(place < self.first);
        }
        let Some(bucket) = self.buckets.get_mut(place) else { return };
        // Four billion recipients in a minute.
        let added = count.min(u32::MAX - bucket.count);
        bucket.count += added;
        if place >= self.first {
            self.sum += u64::from(added);
        }
    }

    /// Takes back `count` that were counted in this minute, unless they are forgotten.
    pub fn give_back(&mut self, minute: Minute, count: u32) {
        let place = self.buckets.partition_point(|bucket| bucket.minute < minute);
        let Some(bucket) = self.buckets.get_mut(place).filter(|bucket| bucket.minute == minute) else { return };
        let taken = count.min(bucket.count);
        bucket.count -= taken;
        let is_empty = bucket.count == 0;
        if place >= self.first {
            self.sum -= u64::from(taken);
        }
        if is_empty {
            self.buckets.remove(place);
            self.first -= usize::from(place < self.first);
        }
    }

    /// Whether nothing is remembered.
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }
}

/// What was taken from a limit of so many a second. A burst may be one second's worth, and a single message may be larger
/// than that where the burst is untouched; the next one then waits the longer.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    meter: Meter,
    seen_at: Timestamp,
    /// Microseconds that passed as far as we saw: the clock, without its steps back.
    passed_us: u64,
}

impl Pace {
    /// Whether `count` more may be taken now.
    pub fn allows(&mut self, per_second: u32, count: u32, now: Timestamp) -> bool {
        let now_us = self.advance(now);
        self.meter.wait(rate(per_second), count, now_us).is_zero()
    }

    /// Takes `count`.
    pub fn take(&mut self, per_second: u32, count: u32, now: Timestamp) {
        let now_us = self.advance(now);
        self.meter.take(rate(per_second), count, now_us);
    }

    /// Gives back `count` that were taken under this limit.
    pub fn give_back(&mut self, per_second: u32, count: u32) {
        self.meter.give_back(rate(per_second), count);
    }

    fn advance(&mut self, now: Timestamp) -> u64 {
        let passed = now.since(self.seen_at);
        self.passed_us = self.passed_us.saturating_add(u64::try_from(passed.as_micros()).unwrap_or(u64::MAX));
        self.seen_at = now;
        self.passed_us
    }
}

fn rate(per_second: u32) -> Rate {
    Rate::per_second(per_second, per_second)
}

/// Which warnings were given. Each is given once, and again only after use fell well below.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Warnings {
    near: bool,
    reached: bool,
}

impl Warnings {
    /// The warning to give now, in percent of the limit: 80 or 100, the higher one where both are due.
    pub fn due(&mut self, used: u64, limit: u64) -> Option<u8> {
        let is_below = |percent: u8| u128::from(used) * 100 < u128::from(limit) * u128::from(percent);
        self.near &= !is_below(WARNING_REARMED_PERCENT);
        self.reached &= !is_below(LIMIT_REARMED_PERCENT);
        if !is_below(LIMIT_PERCENT) && !self.reached {
            *self = Self { near: true, reached: true };
            return Some(LIMIT_PERCENT);
        }
        if !is_below(WARNING_PERCENT) && !self.near {
            self.near = true;
            return Some(WARNING_PERCENT);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const MINUTE_MS: u64 = 60_000;
    /// In the middle of a minute.
    const NOON_MS: u64 = 1_700_000_000_000 / MINUTE_MS * MINUTE_MS + 30_000;

    fn minute(ms: u64) -> Minute {
        Minute::of(Timestamp::from_millis(ms))
    }

    #[test]
    fn a_recipient_is_free_again_when_its_whole_minute_is_older_than_a_day() {
        let mut window = Window::default();
        window.add(minute(NOON_MS), 3);
        let end_of_minute = NOON_MS + 29_999;
        for (ms, used) in
            [(NOON_MS, 3), (NOON_MS + DAY_MS, 3), (end_of_minute + DAY_MS, 3), (end_of_minute + 1 + DAY_MS, 0)]
        {
            assert_eq!(window.used(minute(ms)), used, "{ms}");
        }
        assert!(!window.is_empty());
        assert_eq!(window.used(minute(end_of_minute + 1 + 2 * DAY_MS)), 0);
        assert!(window.is_empty());
    }

    #[test]
    fn a_clock_set_back_frees_nothing_and_a_jump_of_more_than_a_day_frees_all() {
        let mut window = Window::default();
        window.add(minute(NOON_MS), 5);
        let before = NOON_MS - 3 * 3_600_000;
        assert_eq!(window.used(minute(before)), 5);
        window.add(minute(before), 2);
        assert_eq!(window.used(minute(before)), 7);
        // The minute that was ahead counts until the clock has passed it by a day.
        assert_eq!(window.used(minute(before + DAY_MS + MINUTE_MS)), 5);
        assert_eq!(window.used(minute(NOON_MS + DAY_MS)), 5);
        assert_eq!(window.used(minute(NOON_MS + DAY_MS + MINUTE_MS)), 0);
        // It had been ahead.
        assert_eq!(window.used(minute(NOON_MS)), 7);
    }

    #[test]
    fn what_is_counted_in_a_minute_of_long_ago_counts_only_there() {
        let hours_ago = |hours: u64| minute(NOON_MS - hours * 3_600_000);
        let mut window = Window::default();
        window.add(hours_ago(26), 5);
        window.add(minute(NOON_MS), 1);
        assert_eq!(window.used(minute(NOON_MS)), 1);
        for hours in [27, 26, 25] {
            window.add(hours_ago(hours), 7);
            assert_eq!(window.used(minute(NOON_MS)), 1, "{hours}");
        }
        window.give_back(hours_ago(27), 7);
        window.give_back(hours_ago(26), 2);
        assert_eq!(window.used(minute(NOON_MS)), 1);
        assert_eq!(window.used(hours_ago(3)), 18, "should the clock be set back");
    }

    #[test]
    fn what_is_given_back_is_free_and_leaves_no_bucket_behind() {
        let mut window = Window::default();
        window.add(minute(NOON_MS), 5);
        window.give_back(minute(NOON_MS), 2);
        assert_eq!(window.used(minute(NOON_MS)), 3);
        window.give_back(minute(NOON_MS), 3);
        window.give_back(minute(NOON_MS), 1);
        assert_eq!(window.used(minute(NOON_MS)), 0);
        assert!(window.is_empty());
    }

    #[test]
    fn a_pace_lets_a_seconds_worth_pass_at_once_and_one_larger_message() {
        let mut pace = Pace::default();
        let at = |ms: u64| Timestamp::from_millis(NOON_MS + ms);
        let mut pass = |ms: u64, count: u32| {
            let allowed = pace.allows(10, count, at(ms));
            if allowed {
                pace.take(10, count, at(ms));
            }
            allowed
        };
        assert!(pass(0, 5) && pass(0, 5) && !pass(0, 1));
        assert!(pass(100, 1) && !pass(100, 1));
        // More than a second's worth: only where nothing is owed, and the debt is paid before the next.
        assert!(!pass(900, 50) && pass(1_100, 50));
        assert!(!pass(5_100, 1) && pass(5_200, 1) && !pass(5_200, 1));
    }

    #[test]
    fn a_clock_that_steps_back_neither_frees_nor_locks_a_pace() {
        let mut pace = Pace::default();
        let at = |ms: u64| Timestamp::from_millis(NOON_MS + ms);
        pace.take(2, 2, at(0));
        assert!(!pace.allows(2, 1, Timestamp::from_millis(NOON_MS - 3_600_000)));
        assert!(!pace.allows(2, 1, Timestamp::from_millis(NOON_MS - 3_600_000 + 499)));
        assert!(pace.allows(2, 1, Timestamp::from_millis(NOON_MS - 3_600_000 + 500)));
    }

    #[test]
    fn a_warning_is_given_once_and_again_after_use_fell_well_below() {
        let mut warnings = Warnings::default();
        let mut due = |used| warnings.due(used, 1_000);
        assert_eq!(due(799), None);
        assert_eq!(due(800), Some(80));
        assert_eq!(due(999), None);
        assert_eq!(due(1_000), Some(100));
        assert_eq!([due(960), due(1_000)], [None, None], "it only swings");
        assert_eq!([due(949), due(1_000)], [None, Some(100)]);
        assert_eq!([due(700), due(800)], [None, None]);
        assert_eq!([due(699), due(800)], [None, Some(80)]);
        assert_eq!([due(0), due(1_000), due(1_000)], [None, Some(100), None], "one message, one warning");
    }

    /// What the window is meant to be: every charge, by its time.
    #[derive(Default)]
    struct Model(Vec<(u64, u32)>);

    impl Model {
        fn used(&self, now_ms: u64) -> u64 {
            let still = self.0.iter().filter(|(at_ms, _)| at_ms / MINUTE_MS + 1_440 >= now_ms / MINUTE_MS);
            still.map(|(_, count)| u64::from(*count)).sum()
        }

        /// To the millisecond, which the window must never be below.
        fn exact(&self, now_ms: u64) -> u64 {
            let last_day = self.0.iter().filter(|(at_ms, _)| *at_ms <= now_ms && at_ms + DAY_MS > now_ms);
            last_day.map(|(_, count)| u64::from(*count)).sum()
        }
    }

    fn pauses() -> impl Strategy<Value = i64> {
        prop_oneof![
            6 => 0..90_000_i64,
            3 => 0..8_000_000_i64,
            1 => Just(86_400_000_i64),
            1 => Just(86_460_000_i64),
        ]
    }

    proptest! {
        #[test]
        fn the_limit_holds_in_every_24_hours_and_no_room_is_wasted(
            limit in 1_u64..200, steps in prop::collection::vec((pauses(), 1_u32..40, any::<bool>()), 1..300)
        ) {
            let (mut window, mut model, mut now) = (Window::default(), Model::default(), NOON_MS);
            for (pause, count, is_kept) in steps {
                now += pause.unsigned_abs();
                prop_assert_eq!(window.used(minute(now)), model.used(now));
                prop_assert!(model.used(now) >= model.exact(now));
                if window.used(minute(now)) + u64::from(count) > limit {
                    continue;
                }
                window.add(minute(now), count);
                if is_kept {
                    model.0.push((now, count));
                } else {
                    window.give_back(minute(now), count);
                }
                prop_assert!(model.exact(now) <= limit);
            }
            // At every instant, also between the steps.
            for (at, _) in &model.0 {
                for instant in [*at, at + DAY_MS - 1, at + DAY_MS] {
                    prop_assert!(model.exact(instant) <= limit);
                }
            }
        }

        #[test]
        fn a_clock_that_goes_where_it_likes_within_a_day_passes_no_more_than_the_limit(
            limit in 1_u64..200, steps in prop::collection::vec((-20_000_000_i64..22_000_000, 1_u32..40, any::<bool>()), 1..300)
        ) {
            let (mut window, mut model, mut now) = (Window::default(), Model::default(), NOON_MS);
            let mut latest = now;
            for (pause, count, is_kept) in steps {
                now = now.saturating_add_signed(pause).max(latest - DAY_MS);
                latest = latest.max(now);
                prop_assert_eq!(window.used(minute(now)), model.used(now));
                if window.used(minute(now)) + u64::from(count) > limit {
                    continue;
                }
                window.add(minute(now), count);
                if is_kept {
                    model.0.push((now, count));
                } else {
                    window.give_back(minute(now), count);
                }
            }
            for (at, _) in &model.0 {
                for instant in [*at, at + DAY_MS - 1] {
                    prop_assert!(model.exact(instant) <= limit, "{} at {instant}", model.exact(instant));
                }
            }
        }

        #[test]
        fn no_second_sees_more_than_two_seconds_worth_whatever_the_clock_does(
            per_second in 1_u32..500, steps in prop::collection::vec((-500_i64..700, 1_u32..20), 1..300)
        ) {
            let (mut pace, mut now, mut passed_ms, mut passed) = (Pace::default(), NOON_MS, 0_u64, 0_u64);
            for (pause, count) in steps {
                now = now.saturating_add_signed(pause);
                passed_ms += u64::try_from(pause).unwrap_or(0);
                let at = Timestamp::from_millis(now);
                if count <= per_second && pace.allows(per_second, count, at) {
                    pace.take(per_second, count, at);
                    passed += u64::from(count);
                }
            }
            let share = passed_ms * 1_000 / (1_000_000 / u64::from(per_second)) + u64::from(per_second);
            prop_assert!(passed <= share, "{passed} passed, {share} allowed");
        }
    }
}

//! What comes back after a restart, and when it is written.

use super::super::super::limits::RateLimit;
use super::*;

fn restored(state: &LaneState, limits: LaneLimits, now: Timestamp) -> Lane {
    Lane::restore(state, limits, false, now)
}

/// A lane that was told everything.
fn taught() -> Lane {
    let rates = Rates { hour: Some(1_000), ..Rates::default() };
    let mut lane = Lane::new(limits(rates), NOW).with_seed(9);
    for learned in [
        busy(),
        Learned { spent_after: Some(12), ..Learned::default() },
        hit(ReactionKind::Connections(3), seconds(600)),
        hit(ReactionKind::Slow(RateLimit { count: 20, per: Span::Minute }), seconds(900)),
        hit(ReactionKind::Suspend, seconds(300)),
        unreachable(),
        hit(ReactionKind::Block, seconds(1_200)),
    ] {
        lane.learn(&learned, 10, NOW);
    }
    lane
}

#[test]
fn all_that_was_learned_comes_back() {
    let mut lane = taught();
    assert!(lane.wants_save(NOW) && lane.wants_sync());
    let state = save(&mut lane, NOW);
    assert!(!lane.wants_save(NOW));
    let limits = limits(Rates { hour: Some(1_000), ..Rates::default() });
    let mut again = restored(&state, limits, NOW);
    assert_eq!(LaneState { outstanding: 0, ..again.save(NOW) }, LaneState { outstanding: 0, ..state });
    assert_eq!(again.messages_per_connection(), 12);
    for after in [0, 10, 100, 300, 700, 1_000, 1_300] {
        let now = NOW.plus(seconds(after));
        assert_eq!(again.window(now), lane.window(now), "{after} s");
        assert_eq!(again.trouble(now), lane.trouble(now), "{after} s");
        assert_eq!(again.next_change(now).is_some(), after < 1_260, "{after} s");
    }
    assert!(again.trouble(NOW).is_some());
}

#[test]
fn a_clock_that_was_set_back_makes_no_wait_longer_or_shorter() {
    let mut lane = taught();
    let state = save(&mut lane, NOW);
    let limits = LaneLimits::default();
    let by = seconds(40 * 86_400);
    let back = NOW.minus(by);
    let again = restored(&state, limits, back);
    assert_eq!(again.trouble(back).unwrap().until, Some(back.plus(seconds(1_200))), "set back between two runs");
    lane.clock_went_back(by);
    assert_eq!(lane.trouble(back).unwrap().until, Some(back.plus(seconds(1_200))), "set back while it runs");
    assert_eq!(lane.admits(1, back).unwrap_err().until, back.plus(seconds(1_200)));
    assert_eq!(lane.window(back.plus(seconds(1_200))), 1);
}

#[test]
fn what_is_learned_is_written_once_in_ten_seconds_and_a_block_at_once() {
    let mut lane = lane();
    lane.learn(&busy(), 10, NOW);
    assert!(lane.wants_save(NOW), "the first one");
    assert!(!lane.wants_sync());
    save(&mut lane, NOW);
    let soon = NOW.plus(seconds(1));
    lane.learn(&busy(), 5, soon);
    assert!(!lane.wants_save(soon));
    assert_eq!(lane.next_change(soon), Some(NOW.plus(seconds(10))));
    assert!(lane.wants_save(NOW.plus(seconds(10))));
    lane.learn(&hit(ReactionKind::Block, seconds(60)), 5, soon);
    assert!(lane.wants_save(soon) && lane.wants_sync());
    lane.save(soon);
    assert!(!lane.wants_save(soon), "one at a time");
    lane.saved(false, soon);
    assert!(!lane.wants_save(soon) && lane.wants_sync());
    assert_eq!(lane.next_change(soon), Some(soon.plus(seconds(1))), "tried again in a second");
    save(&mut lane, soon.plus(seconds(1)));
    assert!(!lane.wants_save(soon.plus(seconds(20))));
}

#[test]
fn an_hours_limit_lets_nothing_through_that_is_not_on_disk() {
    let limits = limits(rate(Span::Hour, 1_000));
    let mut lane = Lane::new(limits, NOW);
    assert_eq!(lane.admits(50, NOW), Err(Wait { until: Timestamp::MAX, cause: Cause::Saving }));
    assert!(lane.wants_save(NOW) && lane.wants_sync());
    let state = lane.save(NOW);
    assert_eq!(state.outstanding, 10);
    assert_eq!(lane.admits(50, NOW).unwrap_err().cause, Cause::Saving, "not on disk yet");
    lane.saved(true, NOW);
    assert_eq!(lane.admits(50, NOW), Ok(10));
    lane.take(6, NOW);
    assert_eq!(lane.admits(50, NOW), Ok(4));
    assert!(lane.wants_save(NOW), "the next grant in good time");
    let second = lane.save(NOW);
    assert_eq!(second.outstanding, 16, "six in flight and ten ahead");
    assert_eq!(lane.admits(50, NOW), Ok(4), "whichever is on disk");
    lane.take(4, NOW);
    lane.saved(true, NOW);
    assert_eq!(lane.admits(50, NOW), Ok(6));
    let mut after_crash = Lane::restore(&second, limits, true, NOW);
    assert_eq!(after_crash.admits(1, NOW).unwrap_err().cause, Cause::Saving);
    assert_eq!(after_crash.save(NOW).counts[0].counts, [16]);
}

#[test]
fn an_orderly_stop_knows_what_was_sent() {
    let rates = Rates { second: Some(50), minute: Some(200), hour: Some(1_000), day: Some(5_000) };
    let mut lane = Lane::new(limits(rates), NOW);
    let _ = lane.admits(1, NOW);
    save(&mut lane, NOW);
    for _ in 0..5 {
        send(&mut lane, NOW).unwrap();
    }
    let state = lane.last_save(NOW).unwrap();
    let counts: Vec<u32> = state.counts.iter().map(|counts| counts.counts.iter().sum()).collect();
    assert_eq!((state.is_last, state.outstanding, counts), (true, 0, vec![5, 5, 5, 5]));
    let now = NOW.plus(seconds(2));
    let mut clean = Lane::restore(&state, limits(rates), false, now);
    assert_eq!(clean.admits(1, now).unwrap_err().cause, Cause::Saving, "only the grant is missing");
    let mut unclean = Lane::restore(&state, limits(rates), true, now);
    let wait = unclean.admits(1, now).unwrap_err();
    assert_eq!(wait.cause, Cause::Rate(RateLimit { count: 200, per: Span::Minute }));
    assert!(wait.until.since(now) >= seconds(60) && wait.until.since(now) <= seconds(63), "{wait:?}");
    let mut idle = Lane::new(limits(rates), NOW);
    assert_eq!(idle.last_save(NOW), None);
}

#[test]
fn a_limit_that_changes_counts_what_was_sent_under_the_old_one() {
    let mut lane = Lane::new(limits(rate(Span::Minute, 1_000)), NOW);
    for _ in 0..100 {
        send(&mut lane, NOW).unwrap();
    }
    lane.set_limits(limits(rate(Span::Minute, 100)), NOW);
    let wait = lane.admits(1, NOW).unwrap_err();
    assert!(wait.until.since(NOW) >= seconds(60), "{wait:?}");
    lane.set_limits(limits(rate(Span::Minute, 5_000)), NOW.plus(seconds(30)));
    assert!(lane.admits(1, NOW.plus(seconds(30))).is_ok());
    lane.set_limits(LaneLimits::default(), NOW.plus(seconds(30)));
    assert_eq!(lane.admits(9_999, NOW.plus(seconds(30))), Ok(9_999));
}

#[test]
fn counts_kept_with_parts_of_another_length_count_no_shorter() {
    let limits = limits(rate(Span::Day, 10));
    let part = seconds(100);
    let counts = CountsOf { ages: [0, 3_000, 50_000], part };
    let mut lane = restored(&counts.state(), limits, NOW);
    let _ = save(&mut lane, NOW);
    let sum = |lane: &mut Lane, at: Timestamp| -> u32 {
        lane.save(at).counts.iter().flat_map(|counts| counts.counts.clone()).sum()
    };
    for (age, left) in [(0, 3), (86_399 - 50_000, 3), (86_400 - 50_000 + 3_700, 2), (86_399 - 3_000, 2), (95_000, 0)] {
        let mut lane = lane.clone();
        assert_eq!(sum(&mut lane, NOW.plus(seconds(age))), left, "{age} s");
    }
}

/// One message in each part that ended so many seconds ago.
struct CountsOf {
    ages: [u64; 3],
    part: Duration,
}

impl CountsOf {
    fn state(&self) -> LaneState {
        let mut counts = vec![0; 501];
        for age in self.ages {
            counts[usize::try_from(age / self.part.as_secs()).unwrap()] = 1;
        }
        let span = seconds(86_400);
        let counts = crate::types::CountsState { span, part: self.part, newest_end: NOW, counts };
        LaneState { saved_at: NOW, is_last: true, counts: vec![counts], ..LaneState::default() }
    }
}

#[test]
fn after_a_crash_a_minute_is_full_whatever_is_known_of_the_time_before() {
    let limits = limits(rate(Span::Minute, 100));
    let mut lane = Lane::new(limits, NOW);
    lane.take(90, NOW);
    lane.done(90, 90, NOW);
    let state = lane.last_save(NOW).unwrap();
    let now = NOW.plus(seconds(50));
    let mut after = Lane::restore(&state, limits, true, now);
    let wait = after.admits(1, now.plus(seconds(20))).unwrap_err();
    assert!(wait.until.since(now) >= seconds(60), "the 90 are over by then, what the crash hides is not: {wait:?}");
}

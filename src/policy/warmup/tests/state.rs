//! What is kept over a restart.

use super::*;

#[test]
fn what_is_kept_is_what_it_was() {
    let mut lane = Warming::new(built_in("stages"), at(0, 0, 0));
    send_all_day(&mut lane, 0);
    lane.counted(&tally(200, 0, 0, 0), at(0, 23, 0));
    lane.roll(at(1, 0, 0));
    send(&mut lane, 20, at(1, 8, 0));
    let check = |lane: &Warming, now| {
        let restored = Warming::restore(Arc::clone(lane.plan()), &lane.state(), 0, now);
        assert_eq!(restored.state(), lane.state());
        assert_eq!(restored.report(now), lane.report(now));
    };
    check(&lane, at(1, 8, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(1, 9, 0));
    check(&lane, at(1, 9, 0));
    lane.pause(at(1, 9, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(1, 9, 0));
    check(&lane, at(1, 9, 30));
    lane.blocked(at(1, 9, 40));
    check(&lane, at(1, 9, 45));
    lane.set_position(99, at(1, 10, 0));
    check(&lane, at(1, 10, 0));
}

#[test]
fn messages_that_may_have_been_sent_count_as_sent() {
    let mut lane = Warming::new(daily(&[240, 480]), at(0, 0, 0));
    send(&mut lane, 10, at(0, 12, 0));
    lane.take(5, at(0, 12, 0));
    let state = lane.state();
    assert_eq!((state.used, state.used_this_hour), (10, 10), "without those in flight");
    // 5 in flight, 4 granted ahead.
    let restored = Warming::restore(Arc::clone(lane.plan()), &state, 9, at(0, 12, 30));
    assert_eq!((restored.report(at(0, 12, 30)).used, restored.report(at(0, 12, 30)).hour_used), (19, 19));
    assert_eq!(restored.report(at(0, 13, 0)).hour_used, 0);
    // Whichever day they were sent on.
    let restored = Warming::restore(Arc::clone(lane.plan()), &state, 9, at(1, 0, 30));
    assert_eq!((restored.report(at(1, 0, 30)).used, position(&restored, at(1, 0, 30))), (9, 2));
    assert_eq!(restored.report(at(2, 0, 0)).used, 0);
}

#[test]
fn a_lane_that_may_have_sent_something_is_not_untouched() {
    let mut lane = Warming::new(daily(&[240, 480]), at(0, 0, 0));
    assert!(lane.is_untouched());
    lane.take(5, at(0, 12, 0));
    assert!(!lane.is_untouched());
    let state = Warming::new(daily(&[240, 480]), at(0, 0, 0)).state();
    let restored = Warming::restore(daily(&[240, 480]), &state, 5, at(0, 12, 0));
    assert!(!restored.is_untouched());
    lane.done(5, 0, at(0, 12, 0));
    assert!(lane.is_untouched(), "all came back unsent");
}

#[test]
fn a_midnight_that_was_slept_through_is_told() {
    let mut lane = Warming::new(daily(&[240, 480, 960]), at(0, 0, 0));
    send_one(&mut lane, 0);
    let mut restored = Warming::restore(Arc::clone(lane.plan()), &lane.state(), 0, at(1, 5, 0));
    assert_eq!(restored.roll(at(1, 5, 0)), [WarmupChange::Advanced { from: 1, to: 2, cap: 480 }]);
}

#[test]
fn a_plan_that_became_another_one_meanwhile_frees_nothing() {
    let mut lane = Warming::new(built_in("doubling"), at(0, 0, 0));
    lane.set_position(5, at(0, 0, 0));
    send(&mut lane, 10, at(0, 0, 0));
    let now = at(0, 1, 0);
    let restored = Warming::restore(built_in("ses-45-days"), &lane.state(), 0, now);
    lane.set_plan(built_in("ses-45-days"), now);
    assert_eq!(restored.report(now), lane.report(now));
    // Its first cap is above the old one, also after a second restart.
    let higher = daily(&[90_000, 100_000]);
    let once = Warming::restore(Arc::clone(&higher), &lane.state(), 0, now);
    let twice = Warming::restore(higher, &once.state(), 0, now);
    assert_eq!((once.report(now).cap, twice.report(now).cap), (Some(20_000), Some(20_000)));
    lane.set_position(999, now);
    let over = Warming::restore(built_in("stages"), &lane.state(), 0, now);
    assert!(over.is_over(), "warm is warm");
}

#[test]
fn a_clock_set_back_while_it_was_down_is_as_if_it_had_been_since() {
    let mut lane = Warming::new(daily(&[240, 480, 960]), at(0, 0, 0));
    send_all_day(&mut lane, 0);
    send(&mut lane, 5, at(1, 1, 0));
    let restored = Warming::restore(Arc::clone(lane.plan()), &lane.state(), 3, at(0, 20, 0));
    let report = restored.report(at(0, 20, 0));
    assert_eq!((report.position, report.used), (1, 248));
    assert_eq!((restored.report(at(1, 2, 0)).position, restored.report(at(1, 2, 0)).used), (2, 8));
}

#[test]
fn a_record_of_nonsense_freezes_no_lane_for_long() {
    let state = WarmupState {
        plan: "own".into(),
        day: u32::MAX,
        mode: 2,
        until: Some(Timestamp::MAX),
        reason: Some("ä".repeat(500).into()),
        last_sent_at: Some(Timestamp::MAX),
        ..WarmupState::default()
    };
    let mut lane = Warming::restore(daily(&[10, 20]), &state, 0, at(0, 0, 0));
    let report = lane.report(at(0, 0, 0));
    assert_eq!((report.mode, report.position), (Mode::Frozen, 1));
    assert_eq!(report.reason.map(|reason| reason.len()), Some(160));
    assert_eq!(lane.admits(1, at(2, 0, 0)), Ok(1));
}

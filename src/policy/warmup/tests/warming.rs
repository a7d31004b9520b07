//! What a lane may send, and what the receiver's answers make of it.

use super::*;

#[test]
fn a_lane_takes_less_than_400_octets_whatever_its_state() {
    let mut lane = Warming::new(built_in("stages"), at(0, 0, 0));
    send(&mut lane, 5, at(0, 1, 0));
    assert!(lane.bytes() < 330, "{} octets", lane.bytes());
    lane.counted(&tally(200_000_000, 99_000_000, 0, 0), at(0, 1, 0));
    lane.counted(&tally(200_000_000, 99_000_000, 0, 0), at(0, 1, 0));
    assert_eq!(lane.mode(), Mode::Frozen);
    assert!(lane.bytes() < 400, "{} octets", lane.bytes());
}

#[test]
fn unsent_messages_are_given_back_and_those_in_flight_count() {
    let mut lane = Warming::new(daily(&[24]), at(0, 0, 0));
    let now = at(0, 0, 59);
    assert_eq!(lane.admits(10, now), Ok(1));
    lane.take(1, now);
    assert!(lane.admits(10, now).is_err());
    assert_eq!(lane.left_today(now), Some(23));
    lane.done(1, 0, now);
    assert_eq!((lane.admits(10, now), lane.left_today(now)), (Ok(1), Some(24)));
    assert_eq!(lane.report(now).last_sent_at, None, "nothing went out");
}

#[test]
fn a_message_in_flight_at_midnight_counts_for_both_days() {
    let mut lane = Warming::new(daily(&[24, 24]), at(0, 0, 0));
    assert_eq!(send(&mut lane, 1, at(0, 1, 0)), 1);
    lane.take(1, at(0, 23, 59));
    assert_eq!(lane.report(at(0, 23, 59)).used, 2);
    assert_eq!((lane.report(at(1, 0, 0)).used, lane.report(at(1, 0, 0)).hour_used), (1, 1));
    assert!(lane.admits(1, at(1, 0, 0)).is_err(), "the first minute has room for one");
    lane.done(1, 1, at(1, 0, 0));
    assert_eq!(lane.report(at(1, 1, 0)).used, 1, "it stays counted");
}

#[test]
fn the_clock_of_an_hour_in_flight_messages_count_for_both_hours() {
    let mut lane = Warming::new(daily(&[240]), at(0, 0, 0));
    lane.take(10, at(0, 5, 59));
    assert_eq!(lane.report(at(0, 6, 0)).hour_used, 10);
    lane.done(10, 4, at(0, 6, 0));
    assert_eq!((lane.report(at(0, 6, 0)).hour_used, lane.report(at(0, 6, 0)).used), (4, 4));
}

#[test]
fn bad_rates_slow_then_freeze_and_the_change_says_why() {
    let now = at(0, 12, 0);
    let mut lane = Warming::new(daily(&[10_000, 20_000]), at(0, 0, 0));
    assert_eq!(names(&lane.counted(&tally(99, 99, 0, 0), now)), [""; 0], "too few to say anything");
    let changes = lane.counted(&tally(1_141, 55, 0, 0), now);
    assert_eq!(texts(&changes), ["half the cap for now: deferrals 12.4 % of 1,240 messages in 24 hours, above 10 %"]);
    assert_eq!(lane.admits(u32::MAX, now), Ok(418), "twice an even share of half the cap");
    assert_eq!(lane.report(now).cap, Some(5_000));
    assert_eq!(names(&lane.counted(&tally(0, 0, 0, 0), now)), [""; 0], "told once");

    let changes = lane.counted(&tally(1_000, 0, 300, 0), now);
    let until = at(0, 18, 0);
    let reason = "bounces 13.4 % of 2,240 messages in 24 hours, above 10 %";
    assert_eq!(changes, [WarmupChange::Frozen { until, reason: reason.into() }]);
    let hold = Hold { until, cap: 10_000, position: 1, frozen: true };
    assert_eq!(lane.admits(1, now), Err(hold));
    assert_eq!(lane.admits(1, until.minus(Duration::from_millis(1))), Err(hold));
    let report = lane.report(now);
    assert_eq!((report.mode, report.until, report.reason.as_deref()), (Mode::Frozen, Some(until), Some(reason)));

    assert_eq!(lane.admits(1, until), Ok(1));
    assert_eq!(names(&lane.roll(until)), ["slowed"], "what admits did is told");
    assert_eq!((lane.mode(), lane.report(until).until), (Mode::Slowed, None));
}

#[test]
fn a_slowed_lane_recovers_after_the_dwell_when_rates_are_half_of_what_slows() {
    let slowed = || {
        let mut lane = Warming::new(daily(&[10_000]), at(0, 0, 0));
        assert_eq!(names(&lane.counted(&tally(200, 30, 0, 0), at(0, 12, 0))), ["slowed"]);
        lane
    };
    let counted = |lane: &mut Warming, tally: &Tally, now| names(&lane.counted(tally, now));
    let mut lane = slowed();
    assert_eq!(counted(&mut lane, &tally(399, 0, 0, 0), at(0, 13, 0)), [""; 0], "30 of 599 are above 5 %");
    assert_eq!(counted(&mut lane, &tally(1, 0, 0, 0), at(0, 13, 0)), ["recovered"]);
    assert_eq!((lane.mode(), lane.report(at(0, 13, 0)).cap), (Mode::Running, Some(10_000)));
    let mut lane = slowed();
    assert_eq!(counted(&mut lane, &tally(9_000, 0, 0, 0), at(0, 12, 59)), [""; 0], "not before the dwell");
    // The counts of before are older than a day by then, and too few say nothing: it goes on as if nothing had been.
    let mut lane = slowed();
    assert_eq!(names(&lane.roll(at(1, 11, 59))), [""; 0]);
    assert_eq!(names(&lane.roll(at(1, 12, 0))), ["recovered"]);
}

#[test]
fn after_a_freeze_the_counts_begin_anew() {
    let mut lane = Warming::new(daily(&[10_000]), at(0, 0, 0));
    lane.counted(&tally(200, 100, 0, 0), at(0, 1, 0));
    lane.counted(&tally(200, 100, 0, 0), at(0, 1, 0));
    assert_eq!(lane.mode(), Mode::Frozen);
    lane.counted(&tally(50, 50, 0, 0), at(0, 2, 0));
    lane.roll(at(0, 7, 0));
    assert_eq!(names(&lane.counted(&tally(100, 5, 0, 0), at(0, 7, 59))), [""; 0], "not before the dwell");
    assert_eq!(names(&lane.counted(&tally(0, 0, 0, 0), at(0, 8, 0))), ["recovered"]);
}

#[test]
fn freezes_that_follow_each_other_last_twice_as_long_up_to_two_days() {
    let mut lane = Warming::new(daily(&[10_000]), at(0, 0, 0));
    let mut freeze = |now| {
        let bad = tally(1_000, 500, 0, 0);
        let mut changes = lane.roll(now);
        changes.extend(lane.counted(&bad, now));
        changes.extend(lane.counted(&bad, now));
        let until = changes.iter().find_map(|change| match change {
            WarmupChange::Frozen { until, .. } => Some(*until),
            _ => None,
        });
        until.unwrap().since(now)
    };
    assert_eq!(freeze(at(0, 0, 0)), hours(6));
    assert_eq!(freeze(at(1, 0, 0)), hours(12));
    assert_eq!(freeze(at(2, 0, 0)), hours(24));
    assert_eq!(freeze(at(4, 0, 0)), hours(48));
    assert_eq!(freeze(at(7, 0, 0)), hours(48));
    assert_eq!(freeze(at(14, 0, 0)), hours(48), "7 days after the last one");
    assert_eq!(freeze(at(21, 0, 1)), hours(6), "more than 7 days after");
}

#[test]
fn a_single_complaint_slows_at_most_and_two_freeze() {
    let mut lane = Warming::new(daily(&[10_000]), at(0, 0, 0));
    let now = at(0, 12, 0);
    let changes = lane.counted(&tally(150, 0, 0, 1), now);
    assert_eq!(texts(&changes), ["half the cap for now: complaints 0.67 % of 150 messages in 24 hours, above 0.1 %"]);
    assert_eq!(names(&lane.counted(&tally(0, 0, 0, 0), now)), [""; 0]);
    let frozen = lane.counted(&tally(0, 0, 0, 1), now);
    assert_eq!(names(&frozen), ["frozen"]);
    assert!(frozen[0].text().ends_with("complaints 1.3 % of 150 messages in 24 hours, above 0.3 %"), "{frozen:?}");
}

#[test]
fn a_block_takes_a_step_back_at_most_once_a_day_and_never_below_the_first() {
    let mut lane = Warming::new(daily(&[10, 20, 20, 40]), at(0, 0, 0));
    lane.set_position(4, at(0, 0, 0));
    let changes = lane.blocked(at(0, 9, 0));
    assert_eq!(texts(&changes), ["back from day 4 to 2: the site blocked the source"]);
    assert_eq!(lane.report(at(0, 9, 0)).cap, Some(20), "from now on");
    assert_eq!(names(&lane.blocked(at(1, 8, 59))), [""; 0]);
    assert_eq!(names(&lane.blocked(at(1, 9, 0))), ["stepped_back"]);
    assert_eq!(names(&lane.blocked(at(3, 9, 0))), [""; 0]);
    assert_eq!(position(&lane, at(3, 9, 0)), 1);
    send_one(&mut lane, 3);
    assert_eq!(position(&lane, at(4, 0, 0)), 1, "a day with a block brings it no step on");
}

#[test]
fn a_plan_that_is_over_has_no_cap_and_no_brake() {
    let mut lane = Warming::new(daily(&[10]), at(0, 0, 0));
    send_one(&mut lane, 0);
    assert_eq!(names(&lane.roll(at(1, 0, 0))), ["over"]);
    assert!(lane.is_over());
    assert_eq!((lane.admits(1_000_000, at(1, 0, 0)), lane.left_today(at(1, 0, 0))), (Ok(1_000_000), None));
    assert_eq!(lane.counted(&tally(1_000, 1_000, 1_000, 0), at(1, 0, 0)), []);
    assert_eq!((lane.blocked(at(1, 0, 0)), lane.pause(at(1, 0, 0))), (vec![], vec![]));
    let report = lane.report(at(1, 0, 0));
    assert_eq!((report.mode, report.cap, report.position, report.percent), (Mode::Over, None, 2, 100));
}

#[test]
fn to_look_changes_nothing_and_changes_that_nobody_fetches_are_few() {
    let mut lane = Warming::new(built_in("doubling"), at(0, 0, 0));
    send_one(&mut lane, 0);
    let before = lane.state();
    assert_eq!(lane.report(at(9, 0, 0)).position, 5);
    assert_eq!(lane.state(), before);
    for day in 1..24 {
        send_one(&mut lane, day);
    }
    let changes = lane.roll(at(24, 0, 0));
    assert_eq!((changes.len(), names(&changes[15..])), (16, vec!["over"]));
}

//! Midnights: steps on, days that do not count, steps back for idle lanes, and clocks that are wrong.

use super::*;

/// 40 days, each with 1,000 messages more.
fn long() -> Vec<u32> {
    (1..=40).map(|day| 1_000 * day).collect()
}

#[test]
fn a_daily_plan_takes_a_step_each_utc_midnight_from_the_first_message_on() {
    let mut lane = Warming::new(daily(&[10, 20, 30]), at(0, 15, 0));
    assert_eq!(lane.roll(at(5, 0, 0)), [], "it begins with the first message");
    send_one(&mut lane, 5);
    assert_eq!(position(&lane, at(5, 23, 59)), 1);
    let changes = lane.roll(at(6, 0, 0));
    assert_eq!(texts(&changes), ["from day 1 to 2: up to 20 messages today"]);
    let sent: Vec<u32> = (6..8).map(|day| send_all_day(&mut lane, day)).collect();
    assert_eq!(sent, [20, 30], "every cap to the last message");
    assert_eq!(names(&lane.roll(at(8, 0, 0))), ["advanced", "over"]);
}

#[test]
fn three_idle_days_in_a_row_are_steps_and_further_ones_are_not() {
    for (days_later, expected) in [(1, 2), (2, 3), (3, 4), (4, 5), (5, 5), (9, 5), (15, 5)] {
        let mut asleep = Warming::new(daily(&long()), at(0, 0, 0));
        send_one(&mut asleep, 0);
        let mut awake = asleep.clone();
        for day in 1..=days_later {
            awake.roll(at(day, 0, 0));
        }
        let found = (position(&asleep, at(days_later, 0, 0)), position(&awake, at(days_later, 0, 0)));
        assert_eq!(found, (expected, expected), "{days_later} days later, whether asleep or awake");
    }
}

#[test]
fn each_idle_day_after_fourteen_takes_a_cap_back_and_after_thirty_it_begins_anew() {
    let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
    lane.set_position(38, at(0, 0, 0));
    send_one(&mut lane, 0);
    // Day 15 after the last message is idle to its end at the midnight that begins day 16.
    for (midnight, expected) in [(4, 41), (15, 41), (16, 40), (17, 39), (31, 25), (32, 1), (300, 1), (40_000, 1)] {
        assert_eq!(position(&lane, at(midnight, 0, 0)), expected, "midnight {midnight}");
    }
    let changes = lane.roll(at(40, 0, 0));
    assert_eq!(texts(&changes), ["back from day 38 to 1: nothing was sent for more than 14 days"]);
}

#[test]
fn a_plan_that_is_over_decays_from_its_end() {
    let mut lane = Warming::new(built_in("doubling"), at(0, 0, 0));
    lane.set_position(25, at(0, 0, 0));
    send_one(&mut lane, 0);
    lane.roll(at(0, 13, 0));
    assert_eq!(lane.roll(at(15, 0, 0)), []);
    assert_eq!(lane.roll(at(16, 0, 0)), [WarmupChange::Decayed { from: 25, to: 23 }]);
    assert_eq!(lane.report(at(16, 0, 0)).cap, Some(10_240_000));
    assert_eq!(lane.mode(), Mode::Running);
    assert_eq!(lane.roll(at(18, 0, 0)), [WarmupChange::Decayed { from: 23, to: 19 }]);
    send_one(&mut lane, 18);
    assert_eq!(lane.roll(at(19, 0, 0)), [WarmupChange::Advanced { from: 19, to: 20, cap: 2_560_000 }]);
    assert_eq!(lane.roll(at(60, 0, 0)), [WarmupChange::Decayed { from: 20, to: 1 }], "dormant: it warms up again");
}

#[test]
fn a_stage_is_passed_only_by_a_day_on_which_its_part_was_delivered() {
    let mut lane = Warming::new(built_in("stages"), at(0, 0, 0));
    let mut day = |day: u32, delivered: u32| {
        assert_eq!(send_all_day(&mut lane, day), lane.report(at(day, 23, 59)).cap.unwrap());
        lane.counted(&Tally { sent: delivered, delivered, ..Tally::default() }, at(day, 23, 59));
        names(&lane.roll(at(day + 1, 0, 0)))
    };
    assert_eq!(day(0, 159), [""; 0]);
    assert_eq!(day(1, 160), ["advanced"], "80 % of 200");
    assert_eq!(day(2, 399), [""; 0], "what was delivered on other days does not help");
    assert_eq!(day(3, 400), ["advanced"]);
    assert_eq!(lane.report(at(4, 0, 0)).cap, Some(1_000));
}

#[test]
fn a_day_that_was_slowed_frozen_or_paused_at_any_time_brings_no_step() {
    type Act = fn(&mut Warming, Timestamp) -> Vec<WarmupChange>;
    let slow = |lane: &mut Warming, now| lane.counted(&tally(1_000, 200, 0, 0), now);
    let freeze = |lane: &mut Warming, now| {
        lane.counted(&tally(1_000, 900, 0, 0), now);
        lane.counted(&tally(1_000, 900, 0, 0), now)
    };
    let pause = |lane: &mut Warming, now| lane.pause(now);
    let acts: [(&str, Act); 3] = [("slowed", slow), ("frozen", freeze), ("paused", pause)];
    for (mode, act) in acts {
        let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
        send_one(&mut lane, 0);
        act(&mut lane, at(0, 13, 0));
        assert_eq!(lane.mode().name(), mode);
        lane.resume(at(0, 14, 0));
        assert_eq!((lane.mode(), position(&lane, at(1, 0, 0))), (Mode::Running, 1), "{mode}");
        // Into the next day: that one does not count either.
        act(&mut lane, at(1, 23, 0));
        lane.resume(at(2, 1, 0));
        send_one(&mut lane, 2);
        assert_eq!(position(&lane, at(3, 0, 0)), 1, "{mode}");
        send_one(&mut lane, 3);
        assert_eq!(position(&lane, at(4, 0, 0)), 2, "{mode}");
    }
}

#[test]
fn a_day_that_was_slept_through_slowed_brings_no_step_either() {
    let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
    send_one(&mut lane, 0);
    lane.counted(&tally(1_000, 200, 0, 0), at(0, 13, 0));
    assert_eq!(names(&lane.roll(at(2, 0, 0))), ["recovered"]);
    assert_eq!(position(&lane, at(2, 0, 0)), 1);
    send_one(&mut lane, 2);
    assert_eq!(position(&lane, at(3, 0, 0)), 1, "it was slowed when that day began, as far as anybody saw");
}

#[test]
fn a_clock_that_goes_back_within_a_day_frees_nothing_whether_told_or_not() {
    for told in [true, false] {
        let mut lane = Warming::new(daily(&[1_440]), at(0, 0, 0));
        assert_eq!(send(&mut lane, 500, at(0, 12, 0)), 120);
        if told {
            lane.clock_went_back(hours(3));
        }
        assert!(lane.admits(1, at(0, 9, 0)).is_err());
        assert_eq!(lane.report(at(0, 9, 0)).used, 120);
        // Untold, the time stands still until noon comes again.
        let again = if told { at(0, 10, 0) } else { at(0, 13, 0) };
        assert_eq!(lane.admits(500, again), Ok(120), "{told}");
    }
}

#[test]
fn a_clock_set_back_over_midnight_undoes_the_day_and_frees_nothing() {
    let mut lane = Warming::new(daily(&[240, 480, 720]), at(0, 0, 0));
    assert_eq!(send_all_day(&mut lane, 0), 240);
    assert_eq!(send(&mut lane, 5, at(1, 1, 0)), 5);
    lane.clock_went_back(hours(2));
    assert_eq!(lane.report(at(0, 23, 0)).used, 245);
    assert!(lane.admits(1, at(0, 23, 59)).is_err());
    let report = lane.report(at(1, 0, 30));
    assert_eq!((report.position, report.used), (2, 5), "one step, and what was sent on that day counts");
    assert_eq!(lane.report(at(2, 0, 0)).position, 3);
    assert_eq!(lane.report(at(2, 0, 0)).used, 0);
}

#[test]
fn a_clock_set_back_over_two_midnights_frees_nothing_on_any_of_the_three_days() {
    let mut lane = Warming::new(daily(&[240, 480, 720, 960]), at(0, 0, 0));
    assert_eq!(send_all_day(&mut lane, 0), 240);
    assert_eq!(send(&mut lane, 9, at(1, 22, 0)), 9);
    assert_eq!(send(&mut lane, 5, at(2, 1, 0)), 5);
    lane.clock_went_back(hours(28));
    assert!(lane.admits(1, at(0, 23, 59)).is_err(), "nobody remembers what was sent on this day");
    let report = lane.report(at(1, 0, 30));
    assert_eq!((report.position, report.used), (2, 9), "what was sent on that day counts when it comes again");
    let report = lane.report(at(2, 0, 30));
    assert_eq!((report.position, report.used), (3, 9), "at least what was sent on it");
    assert_eq!(lane.report(at(3, 0, 0)).used, 0);
    // Set back once more before they came.
    assert_eq!(send(&mut lane, 9, at(3, 22, 0)), 9);
    assert_eq!(send(&mut lane, 5, at(4, 1, 0)), 5);
    lane.clock_went_back(hours(2));
    lane.clock_went_back(hours(24));
    assert_eq!(lane.report(at(3, 0, 30)).used, 14);
    assert_eq!(lane.report(at(4, 0, 30)).used, 14);
}

#[test]
fn a_clock_that_was_wrong_by_weeks_costs_no_position_and_frees_nothing() {
    let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
    lane.set_position(10, at(0, 0, 0));
    assert_eq!(send_all_day(&mut lane, 0), 10_000);
    lane.roll(at(60, 4, 0));
    assert_eq!(position(&lane, at(60, 4, 0)), 1, "dormant, by that clock");
    assert_eq!(send(&mut lane, 7, at(60, 4, 0)), 7);
    lane.clock_went_back(hours(60 * 24));
    let report = lane.report(at(0, 4, 0));
    assert_eq!((report.position, report.used), (10, 10_007));
    assert_eq!(position(&lane, at(1, 0, 0)), 11);
    // Back by less than it had gone ahead: some days passed.
    let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
    assert_eq!(send_all_day(&mut lane, 0), 1_000);
    assert_eq!(send(&mut lane, 7, at(10, 4, 0)), 7);
    lane.clock_went_back(hours(9 * 24));
    let report = lane.report(at(1, 4, 0));
    assert_eq!((report.position, report.used), (2, 7));
}

#[test]
fn a_freeze_ends_when_it_should_though_the_clock_went_back() {
    let mut lane = Warming::new(daily(&long()), at(0, 0, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(0, 12, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(0, 12, 0));
    lane.clock_went_back(hours(4));
    assert_eq!(lane.report(at(0, 8, 0)).until, Some(at(0, 14, 0)));
}

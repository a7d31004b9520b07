//! What an operator or a reload does.

use proptest::prelude::*;

use super::*;

#[test]
fn a_paused_lane_sends_its_cap_and_stays_where_it_is_until_it_is_resumed() {
    let mut lane = Warming::new(daily(&[24, 48, 72]), at(0, 0, 0));
    assert_eq!(texts(&lane.pause(at(0, 1, 0))), ["paused by an operator: the cap stays"]);
    assert_eq!(lane.pause(at(0, 2, 0)), [], "told once");
    assert_eq!([send_all_day(&mut lane, 0), send_all_day(&mut lane, 1)], [24, 24]);
    let report = lane.report(at(2, 0, 0));
    assert_eq!((report.mode, report.paused, report.since, report.position), (Mode::Paused, true, at(0, 1, 0), 1));
    assert_eq!(texts(&lane.resume(at(2, 0, 0))), ["resumed by an operator"]);
    assert_eq!(lane.resume(at(2, 0, 0)), []);
    send_one(&mut lane, 3);
    assert_eq!(position(&lane, at(4, 0, 0)), 2);
}

#[test]
fn the_brake_works_on_a_paused_lane_and_resume_ends_all_at_once() {
    let mut lane = Warming::new(daily(&[24_000]), at(0, 0, 0));
    lane.pause(at(0, 1, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(0, 2, 0));
    lane.counted(&tally(1_000, 900, 0, 0), at(0, 2, 0));
    assert_eq!((lane.mode(), lane.report(at(0, 2, 0)).paused), (Mode::Frozen, true));
    assert_eq!(names(&lane.resume(at(0, 3, 0))), ["resumed"]);
    let report = lane.report(at(0, 3, 0));
    assert_eq!((report.mode, report.paused, report.reason), (Mode::Running, false, None));
    assert_eq!(lane.counted(&tally(150, 0, 0, 0), at(0, 3, 0)), [], "what was counted before is forgotten");
}

#[test]
fn a_position_that_is_set_holds_at_once_and_an_idle_lane_keeps_it() {
    let mut lane = Warming::new(built_in("doubling"), at(0, 0, 0));
    send_one(&mut lane, 0);
    lane.roll(at(40, 0, 0));
    assert_eq!(position(&lane, at(40, 0, 0)), 1);
    assert_eq!(texts(&lane.set_position(9, at(40, 0, 0))), ["set from day 1 to 9"]);
    assert_eq!(lane.report(at(40, 0, 0)).cap, Some(80_000));
    assert_eq!(position(&lane, at(41, 0, 0)), 10, "it was not idle since then");
    lane.roll(at(41, 0, 0));
    assert_eq!(lane.set_position(10, at(41, 0, 0)), [], "it is there");
    assert_eq!(lane.set_position(0, at(41, 0, 0)), [WarmupChange::Set { from: 10, to: 1 }]);
    lane.set_position(4_000_000_000, at(41, 0, 0));
    assert_eq!((lane.is_over(), position(&lane, at(41, 0, 0))), (true, 25));
    lane.set_position(2, at(41, 0, 0));
    assert_eq!((lane.mode(), lane.report(at(41, 0, 0)).cap), (Mode::Running, Some(5_000)));
}

#[test]
fn another_plan_begins_where_its_cap_is_not_above_the_old_one() {
    let mut lane = Warming::new(built_in("doubling"), at(0, 0, 0));
    lane.set_position(5, at(0, 0, 0));
    assert_eq!(send(&mut lane, 100, at(0, 1, 0)), 100);
    let now = at(0, 2, 0);
    let changes = lane.set_plan(built_in("ses-45-days"), now);
    assert_eq!(changes, [WarmupChange::Set { from: 5, to: 18 }]);
    let report = lane.report(now);
    assert_eq!((report.cap, report.used, &*report.plan), (Some(20_000), 100, "ses-45-days"));
    assert_eq!(lane.set_plan(built_in("ses-45-days"), now), [], "the same one changes nothing");
    // Its first cap is above: only from tomorrow on.
    lane.set_plan(daily(&[30_000, 50_000]), now);
    assert_eq!((position(&lane, now), lane.report(now).cap), (1, Some(20_000)));
    assert_eq!(lane.report(at(1, 0, 0)).cap, Some(50_000));
}

#[test]
fn a_plan_that_is_written_anew_keeps_the_position_where_its_cap_is_the_same() {
    let mut lane = Warming::new(daily(&[10, 20, 20, 40]), at(0, 0, 0));
    lane.set_position(2, at(0, 0, 0));
    assert_eq!(lane.set_plan(daily(&[15, 20, 20, 50, 90]), at(0, 1, 0)), []);
    assert_eq!(position(&lane, at(0, 1, 0)), 2);
    assert_eq!(lane.set_plan(daily(&[5, 10, 15, 19, 25]), at(0, 1, 0)), [WarmupChange::Set { from: 2, to: 4 }]);
}

#[test]
fn a_warm_lane_stays_warm_whatever_its_plan_becomes() {
    let mut lane = Warming::new(daily(&[10]), at(0, 0, 0));
    lane.set_position(2, at(0, 0, 0));
    lane.set_plan(built_in("doubling"), at(0, 1, 0));
    assert!(lane.is_over());
    assert_eq!(position(&lane, at(0, 1, 0)), 25);
}

fn caps() -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(0_u32..500, 1..30).prop_map(|rises| {
        let sum = |sum: &mut u32, rise| {
            *sum += rise;
            Some(*sum)
        };
        rises.into_iter().scan(1, sum).collect()
    })
}

proptest! {
    #[test]
    fn another_plan_never_frees_more_than_was_left(
        plans in prop::collection::vec(caps(), 2..6), position in 1_u32..30, wanted in 0_u32..9_000, hour in 0_u64..24,
        slowed in any::<bool>()
    ) {
        let now = at(0, hour, 30);
        let mut lane = Warming::new(daily(&plans[0]), at(0, 0, 0));
        lane.set_position(position, at(0, 0, 0));
        if slowed {
            lane.counted(&tally(1_000, 200, 0, 0), now);
        }
        send(&mut lane, wanted, now);
        let is_over = lane.is_over();
        for (index, caps) in plans.iter().enumerate() {
            let left = lane.left_today(now);
            let used = lane.report(now).used;
            let plan = table(if index % 2 == 0 { "even" } else { "odd" }, caps, Advance::Daily);
            lane.set_plan(Arc::new(plan), now);
            prop_assert_eq!(lane.report(now).used, used);
            prop_assert_eq!(lane.is_over(), is_over);
            prop_assert!(is_over || lane.left_today(now) <= left);
        }
    }
}

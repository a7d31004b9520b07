//! Plans: caps that never fall, and the ones that come with us.

use proptest::prelude::*;

use super::*;

fn check(name: &str, steps: Steps, advance: Advance, expected: &str) {
    let found = Plan::new(name, steps, advance).map(drop).map_err(|error| error.to_string());
    assert_eq!(found, Err(expected.to_owned()));
}

fn of(table: &[(u32, u32)]) -> Steps {
    Steps::Table(table.to_vec())
}

#[test]
fn what_is_no_plan_is_refused_and_the_error_names_what_is_allowed() {
    let daily = Advance::Daily;
    let name = "\"a b\" is no name of a plan: 1 to 64 of A-Za-z0-9._- are allowed";
    check("a b", of(&[(1, 1)]), daily, name);
    check("a", of(&[]), daily, "0 steps: a plan has 1 to 400");
    let long: Vec<_> = (1..=401).map(|day| (day, day)).collect();
    check("a", of(&long), daily, "401 steps: a plan has 1 to 400");
    check("a", of(&[(2, 1)]), daily, "day 2: the first day is 1");
    check("a", of(&[(0, 1)]), daily, "day 0: the first day is 1");
    check("a", of(&[(1, 1), (3, 1), (3, 2)]), daily, "day 3 stands after day 3: days must rise");
    check("a", of(&[(1, 1), (3_661, 2)]), daily, "day 3661: the last day is at most 3660");
    check("a", of(&[(1, 0)]), daily, "day 1: 0 messages: 1 to 1000000000 are allowed");
    check("a", of(&[(1, 1_000_000_001)]), daily, "day 1: 1000000001 messages: 1 to 1000000000 are allowed");
    let falls = "day 2: 4 messages are fewer than the 5 before: caps must not fall";
    check("a", of(&[(1, 5), (2, 4)]), daily, falls);
    for days in [0, 401] {
        let expected = format!("{days} days: a linear plan has 1 to 400");
        check("a", Steps::Linear { days, messages: 5 }, daily, &expected);
    }
    check("a", Steps::Linear { days: 5, messages: 0 }, daily, "day 5: 0 messages: 1 to 1000000000 are allowed");
    for percent in [0, 101] {
        let expected = format!("{percent} percent delivered: 1 to 100 are allowed");
        check("a", of(&[(1, 5)]), Advance::Delivered { percent }, &expected);
    }
}

#[test]
fn thresholds_that_would_never_or_always_hold_are_refused() {
    let good = Thresholds::default();
    let limits = |deferred| Limits { deferred, ..good.slow };
    for (thresholds, expected) in [
        (Thresholds { slow: limits(0), ..good }, "each is 1 to 1000 of 1000 messages"),
        (
            Thresholds { freeze: Limits { deferred: 1_001, ..good.freeze }, ..good },
            "each is 1 to 1000 of 1000 messages",
        ),
        (Thresholds { slow: limits(301), ..good }, "what freezes must not be below what slows"),
        (Thresholds { messages_min: 0, ..good }, "at least 1 message is needed to say something"),
        (Thresholds { dwell: hours(25), ..good }, "it is slowed for up to 24 hours before it may recover"),
        (Thresholds { frozen_for: Duration::ZERO, ..good }, "a freeze lasts above 0 and up to 48 hours"),
        (Thresholds { frozen_for: hours(49), ..good }, "a freeze lasts above 0 and up to 48 hours"),
    ] {
        let plan = table("own", &[1], Advance::Daily);
        let found = plan.with_thresholds(thresholds).map_err(|error| error.to_string());
        assert_eq!(found, Err(format!("thresholds: {expected}")));
    }
    assert!(table("own", &[1], Advance::Daily).with_thresholds(good).is_ok());
}

#[test]
fn the_plans_that_come_with_us_are_those_of_the_references() {
    let doubling = built_in("doubling");
    let days = [1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 15, 17, 19, 21, 22, 23, 24];
    let caps = [
        5_000, 5_000, 10_000, 10_000, 20_000, 40_000, 40_000, 80_000, 160_000, 320_000, 640_000, 1_280_000, 2_560_000,
        5_120_000, 5_120_000, 10_240_000, 10_240_000,
    ];
    assert_eq!(days.map(|day| doubling.cap(day)), caps.map(Some));
    assert_eq!((doubling.len(), doubling.cap(25), doubling.advance()), (24, None, Advance::Daily));

    let linear = built_in("ses-45-days");
    assert_eq!(
        [1, 9, 44, 45, 46].map(|day| linear.cap(day)),
        [Some(1_111), Some(10_000), Some(48_888), Some(50_000), None]
    );
    assert_eq!([1, 9, 44, 45, 46].map(|day| linear.percent(day)), [2, 20, 97, 100, 100]);

    let stages = built_in("stages");
    assert_eq!(
        [1, 2, 3, 10, 20, 29, 30].map(|stage| stages.cap(stage)),
        [Some(200), Some(500), Some(1_000), Some(75_000), Some(1_000_000), Some(10_000_000), None]
    );
    assert_eq!((stages.len(), stages.advance()), (29, Advance::Delivered { percent: 80 }));
    assert_eq!(Plan::built_in().len(), 3);
}

#[test]
fn a_plan_of_one_step_has_one_day_and_a_small_linear_one_sends_at_least_one() {
    let one = table("own", &[7], Advance::Daily);
    assert_eq!(
        (one.len(), one.cap(0), one.cap(1), one.cap(2), one.back(2), one.back(1)),
        (1, Some(7), Some(7), None, 1, 1)
    );
    let small = Plan::new("own", Steps::Linear { days: 10, messages: 3 }, Advance::Daily).unwrap();
    let caps: Vec<_> = (1..=10).filter_map(|day| small.cap(day)).collect();
    assert_eq!(caps, [1, 1, 1, 1, 1, 1, 2, 2, 2, 3]);
    assert_eq!([11, 10, 9, 7, 6].map(|day| small.back(day)), [10, 7, 1, 1, 1]);
}

#[test]
fn back_is_the_first_day_of_the_cap_below() {
    let doubling = built_in("doubling");
    assert_eq!([1, 2, 3, 4, 5, 24, 25, 99].map(|day| doubling.back(day)), [1, 1, 1, 1, 3, 21, 23, 23]);
    let equal = table("own", &[5, 5, 9, 9, 20], Advance::Daily);
    assert_eq!([2, 3, 4, 5, 6].map(|day| equal.back(day)), [1, 1, 1, 3, 5]);
}

#[test]
fn a_plan_is_written_as_it_is_read() {
    assert_eq!(of(&[(1, 5_000), (3, 10_000)]).to_string(), "day 1 5,000, day 3 10,000");
    assert_eq!(built_in("ses-45-days").steps().to_string(), "45 days up to 50,000");
}

/// Sound tables: distances and rises.
fn tables() -> impl Strategy<Value = Vec<(u32, u32)>> {
    prop::collection::vec((1_u32..5, 0_u32..1_000), 1..60).prop_map(|steps| {
        let (mut day, mut cap) = (0, 1);
        steps
            .into_iter()
            .map(|(distance, more)| {
                day += if day == 0 { 1 } else { distance };
                cap += more;
                (day, cap)
            })
            .collect()
    })
}

proptest! {
    #[test]
    fn caps_never_fall_and_hold_from_one_listed_day_to_the_next(steps in tables()) {
        let plan = Plan::new("own", Steps::Table(steps.clone()), Advance::Daily).unwrap();
        for position in 1..=plan.len() {
            let listed = steps.iter().rev().find(|(day, _)| *day <= position).map(|(_, cap)| *cap);
            prop_assert_eq!(plan.cap(position), listed);
            prop_assert!(position == 1 || plan.cap(position) >= plan.cap(position - 1));
        }
        let last = *steps.last().unwrap();
        let distance = steps.len().checked_sub(2).map_or(1, |before| last.0 - steps[before].0);
        prop_assert_eq!(plan.len(), last.0 + distance - 1);
        prop_assert_eq!(plan.cap(plan.len() + 1), None);
    }

    #[test]
    fn a_step_back_is_one_to_a_lower_cap_and_the_nearest_place_is_never_above(steps in tables(), cap in 0_u32..70_000) {
        let plan = Plan::new("own", Steps::Table(steps), Advance::Daily).unwrap();
        let caps: Vec<u32> = (1..=plan.len()).filter_map(|position| plan.cap(position)).collect();
        for position in 1..=plan.len() + 1 {
            let here = plan.cap(position).unwrap_or(u32::MAX);
            let lower = caps.iter().copied().filter(|cap| *cap < here).max();
            let expected = lower.and_then(|lower| caps.iter().position(|cap| *cap == lower));
            prop_assert_eq!(plan.back(position) as usize, expected.unwrap_or(0) + 1);
        }
        let within = caps.iter().rposition(|found| *found <= cap).unwrap_or(0);
        prop_assert_eq!(plan.last_within(cap) as usize, within + 1);
    }
}

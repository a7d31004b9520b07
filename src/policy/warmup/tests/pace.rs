//! A cap goes out evenly: by the minute, by the hour, and whole by the end of the day.

use proptest::prelude::*;

use super::super::pace::{Used, hour_share, next_at, room};
use super::*;

/// What goes out in each hour of a day with full demand from this hour on.
fn by_hour(cap: u32, from_hour: u64) -> Vec<u32> {
    let mut lane = Warming::new(daily(&[cap]), at(0, 0, 0));
    let mut hours = vec![0; 24];
    let mut now = at(0, from_hour, 0);
    while now < at(1, 0, 0) {
        match lane.admits(u32::MAX, now) {
            Ok(_) => {
                let hour = usize::try_from(now.since(at(0, 0, 0)).as_secs() / 3_600).unwrap();
                hours[hour] += send(&mut lane, u32::MAX, now);
            }
            Err(hold) => now = hold.until,
        }
    }
    hours
}

#[test]
fn with_full_demand_each_hour_sends_a_twenty_fourth_to_within_one() {
    for cap in [24, 100, 200, 1_111, 5_000, 10_240_000, 1_000_000_000] {
        let hours = by_hour(cap, 0);
        assert_eq!(hours.iter().sum::<u32>(), cap, "all of it goes");
        let even = cap / 24;
        assert!(hours.iter().all(|hour| (even.max(1) - 1..=even + 1).contains(hour)), "{cap}: {hours:?}");
    }
}

#[test]
fn hours_after_idle_ones_send_twice_an_even_share_at_most() {
    let hours = by_hour(2_400, 12);
    assert_eq!(hours[..12], [0; 12]);
    assert_eq!(hours[12..], [200; 12], "and all of it goes");
    assert_eq!(by_hour(2_400, 18)[18..], [200; 6], "too late for all of it");
}

#[test]
fn a_cap_of_one_message_is_there_from_midnight_on() {
    let mut lane = Warming::new(daily(&[1]), at(0, 0, 0));
    assert_eq!(send(&mut lane, 5, at(0, 0, 0)), 1);
    let hold = lane.admits(1, at(0, 0, 0)).unwrap_err();
    assert_eq!(hold, Hold { until: at(1, 0, 0), cap: 1, position: 1, frozen: false });
}

#[test]
fn a_hold_ends_with_the_minute_the_hour_or_the_day() {
    let cap = 1_440;
    let check = |today, this_hour, now, until| {
        let used = Used { today, this_hour };
        assert_eq!((room(cap, used, now), next_at(cap, used, now)), (0, until), "{used:?}");
    };
    check(601, 1, at(0, 10, 0), at(0, 10, 1));
    check(631, 31, at(0, 10, 0), at(0, 10, 31));
    check(300, 120, at(0, 10, 0), at(0, 11, 0));
    check(1_440, 60, at(0, 23, 59), at(1, 0, 0));
    check(1_440, 0, at(0, 3, 0), at(1, 0, 0));
    check(1_000, 120, at(0, 23, 59), at(1, 0, 0));
}

proptest! {
    #[test]
    fn the_end_of_a_hold_is_the_first_moment_with_room(
        cap in 1_u32..2_000_000, used in 0_u32..2_000_000, hour_used in 0_u32..200_000, ms in 0_u64..86_400_000
    ) {
        let (midnight, now) = (at(1, 0, 0), at(0, 0, 0).plus(Duration::from_millis(ms)));
        let used = Used { today: used, this_hour: hour_used };
        let room_at = |time: Timestamp| {
            let fresh = time.millis() / 3_600_000 > now.millis() / 3_600_000;
            room(cap, Used { this_hour: if fresh { 0 } else { hour_used }, ..used }, time)
        };
        if room_at(now) > 0 {
            return Ok(());
        }
        let until = next_at(cap, used, now);
        prop_assert!(until > now && until <= midnight);
        prop_assert_eq!(room_at(until.minus(Duration::from_millis(1))), 0);
        prop_assert!(until == midnight || room_at(until) > 0);
    }

    #[test]
    fn no_hour_and_no_day_is_passed_whenever_it_is_asked(
        cap in 1_u32..100_000, steps in prop::collection::vec((0_u64..7_200_000, 1_u32..5_000), 1..80)
    ) {
        let mut lane = Warming::new(daily(&[cap, cap, cap, cap, cap, cap, cap, cap]), at(0, 0, 0));
        let (mut now, mut hour, mut day) = (at(0, 0, 0), (0, 0), (0, 0));
        for (wait_ms, wanted) in steps {
            now = now.plus(Duration::from_millis(wait_ms));
            let sent = send(&mut lane, wanted, now);
            for (count, unit_ms) in [(&mut hour, 3_600_000), (&mut day, 86_400_000)] {
                let number = now.millis() / unit_ms;
                *count = if count.0 == number { (number, count.1 + sent) } else { (number, sent) };
            }
            prop_assert!(hour.1 <= 2 * hour_share(cap) && day.1 <= cap);
        }
    }
}

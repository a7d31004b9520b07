//! What is counted is forgotten bit by bit.

use super::super::brake::{Brake, Counts};
use super::*;

fn sent(brake: &mut Brake, now: Timestamp) -> u32 {
    brake.counts(now).sent
}

#[test]
fn each_part_of_three_hours_is_forgotten_a_day_later() {
    let mut brake = Brake::default();
    for hour in 0..24 {
        brake.add(&tally(1, 0, 0, 0), at(0, hour, 30));
    }
    assert_eq!(sent(&mut brake, at(0, 23, 59)), 24);
    for (hour, expected) in [(0, 21), (2, 21), (3, 18), (20, 3), (21, 0)] {
        assert_eq!(sent(&mut brake, at(1, hour, 0)), expected, "{hour}");
    }
}

#[test]
fn counts_stay_at_the_largest_number() {
    let mut brake = Brake::default();
    let most = Tally { sent: u32::MAX, delivered: 0, deferred: u32::MAX, bounced: u32::MAX, complained: u32::MAX };
    for hour in [0, 0, 5] {
        brake.add(&most, at(0, hour, 0));
    }
    let all = Counts { sent: u32::MAX, deferred: u32::MAX, bounced: u32::MAX, complained: u32::MAX };
    assert_eq!(brake.counts(at(0, 6, 0)), all);
}

#[test]
fn what_is_kept_is_what_was_counted() {
    let mut brake = Brake::default();
    assert_eq!(brake.state().1, [[0; 4]; 0]);
    brake.add(&tally(5, 4, 3, 2), at(0, 1, 0));
    brake.add(&tally(9, 8, 7, 6), at(0, 7, 0));
    let (newest_end, parts) = brake.state();
    assert_eq!((newest_end, &*parts), (at(0, 9, 0), &[[9, 8, 7, 6], [0; 4], [5, 4, 3, 2]][..]));
    let mut again = Brake::restore(newest_end, &parts, at(0, 8, 0));
    assert_eq!(again.state(), (newest_end, parts));
    assert_eq!(
        [sent(&mut again, at(0, 23, 0)), sent(&mut again, at(1, 0, 0)), sent(&mut again, at(1, 6, 0))],
        [14, 9, 0]
    );
}

#[test]
fn texts_of_rates_are_exact_enough_to_be_above_what_they_are_above() {
    use super::super::change::{grouped, percent};
    for (part, whole, expected) in [
        (124, 1_000, "12.4 %"),
        (1, 10, "10 %"),
        (1, 900, "0.12 %"),
        (1, 1_000, "0.1 %"),
        (0, 5, "0 %"),
        (1, 1, "100 %"),
        (10_001, 100_000, "10.0 %"),
        (1, 3, "33.3 %"),
    ] {
        assert_eq!(percent(part, whole), expected, "{part} of {whole}");
    }
    for (number, expected) in [(0_u32, "0"), (999, "999"), (1_240, "1,240"), (10_240_000, "10,240,000")] {
        assert_eq!(grouped(number), expected);
    }
}

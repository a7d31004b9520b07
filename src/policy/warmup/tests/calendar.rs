//! The days ahead.

use super::*;

fn expected(volume_per_day: u64, sources: u32) -> Expected {
    Expected { volume_per_day, sources, position: 1, first_day: at(0, 13, 0) }
}

#[test]
fn a_daily_plan_is_over_after_its_days_and_what_is_above_the_caps_overflows() {
    let rows = calendar(&daily(&[100, 200, 400]), &expected(500, 2));
    let row = |day, position, cap, sent, overflow, advances| Row {
        date: at(day, 0, 0),
        position,
        cap,
        sent,
        overflow,
        advances,
    };
    assert_eq!(
        rows,
        [
            row(0, 1, Some(200), 200, 300, true),
            row(1, 2, Some(400), 400, 100, true),
            row(2, 3, Some(800), 500, 0, true),
            row(3, 4, None, 500, 0, false),
        ]
    );
    let doubling = calendar(&built_in("doubling"), &expected(1_000_000, 1));
    assert_eq!(doubling.len(), 25);
}

#[test]
fn stages_end_where_the_volume_no_longer_brings_the_next_one() {
    let rows = calendar(&built_in("stages"), &expected(1_700, 1));
    let positions: Vec<_> = rows.iter().map(|row| (row.position, row.advances)).collect();
    assert_eq!(
        positions,
        [(1, true), (2, true), (3, true), (4, true), (5, false)],
        "1,700 are 80 % of 2,000, not of 5,000"
    );
    let shared = calendar(&built_in("stages"), &expected(1_700, 4));
    assert_eq!(shared.len(), 3, "each of four sends 425 on the day of 1,000");
}

#[test]
fn it_begins_at_any_position_and_without_volume_nothing_begins() {
    let doubling = built_in("doubling");
    let from = Expected { position: 24, ..expected(5, 1) };
    assert_eq!(calendar(&doubling, &from).iter().map(|row| row.position).collect::<Vec<_>>(), [24, 25]);
    assert_eq!(calendar(&doubling, &Expected { position: 900, ..from }).len(), 1);
    let nothing = calendar(&doubling, &expected(0, 0));
    assert_eq!((nothing.len(), nothing[0].advances), (1, false));
}

#[test]
fn it_tells_what_a_lane_does() {
    for plan in [built_in("doubling"), built_in("ses-45-days"), daily(&[10, 10, 30])] {
        let mut lane = Warming::new(Arc::clone(&plan), at(0, 0, 0));
        for (row, day) in calendar(&plan, &expected(u64::MAX / 2, 1)).iter().zip(0..) {
            send_one(&mut lane, day);
            let report = lane.report(row.date.plus(hours(12)));
            assert_eq!((report.position, report.cap.map(u64::from)), (row.position, row.cap));
        }
    }
}

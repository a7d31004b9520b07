//! A lane that warms up: its cap holds over restarts, whatever was granted ahead, and beside its other limits.

use std::sync::Arc;

use super::*;
use crate::policy::warmup::{Advance, Plan, Steps, Tally};

const DAY: u64 = 86_400;
/// UTC midnight.
const MIDNIGHT: Timestamp = Timestamp::from_millis(20_000 * DAY * 1_000);

fn plan(caps: &[u32]) -> Arc<Plan> {
    let table = caps.iter().zip(1..).map(|(cap, day)| (day, *cap)).collect();
    Arc::new(Plan::new("test", Steps::Table(table), Advance::Daily).unwrap())
}

fn warming(caps: &[u32]) -> Lane {
    let mut lane = Lane::new(LaneLimits::default(), MIDNIGHT);
    assert_eq!(lane.set_warmup(Some(&plan(caps)), MIDNIGHT), []);
    lane
}

/// Sends what it may, minute by minute; saves are durable at once. How many messages that were.
fn send(lane: &mut Lane, minutes: std::ops::Range<u64>) -> u32 {
    let mut sent = 0;
    for minute in minutes {
        let now = MIDNIGHT.plus(seconds(60 * minute));
        loop {
            match lane.admits(7, now) {
                Ok(count) => {
                    lane.take(count, now);
                    lane.done(count, count, now);
                    sent += count;
                }
                Err(wait) if wait.cause == Cause::Saving => drop(save(lane, now)),
                Err(wait) => {
                    assert_eq!(wait.cause, Cause::WarmUp);
                    assert!(wait.until > now);
                    break;
                }
            }
        }
    }
    sent
}

#[test]
fn a_day_has_its_cap_and_each_hour_its_share() {
    let mut lane = warming(&[240, 480]);
    assert!(lane.is_warming());
    for hour in 0..24 {
        assert_eq!(send(&mut lane, hour * 60..(hour + 1) * 60), 10, "hour {hour}");
    }
    assert_eq!(send(&mut lane, 24 * 60..48 * 60), 480);
    let changes = lane.roll(MIDNIGHT.plus(seconds(2 * DAY)));
    let names: Vec<_> = changes.iter().map(|change| matches!(change, Change::WarmUp(_))).collect();
    assert_eq!(names, [true, true], "{changes:?}");
    assert!(!lane.is_warming() && lane.admits(1_000, MIDNIGHT.plus(seconds(2 * DAY))) == Ok(1_000));
}

#[test]
fn nothing_is_sent_before_it_stands_on_disk() {
    let mut lane = warming(&[1_000]);
    let wait = lane.admits(1, MIDNIGHT).unwrap_err();
    assert_eq!((wait.cause, lane.wants_save(MIDNIGHT), lane.wants_sync()), (Cause::Saving, true, true));
    lane.save(MIDNIGHT);
    assert_eq!(lane.admits(1, MIDNIGHT).unwrap_err().cause, Cause::Saving, "the write is under way");
    lane.saved(true, MIDNIGHT);
    assert_eq!(lane.admits(1, MIDNIGHT), Ok(1));
}

/// The same lane after a stop.
fn restarted(state: &LaneState, caps: &[u32], unclean: bool, now: Timestamp) -> Lane {
    let mut lane = Lane::restore(state, LaneLimits::default(), unclean, now);
    lane.restore_warmup(&plan(caps), state, unclean, now);
    lane
}

#[test]
fn an_orderly_stop_costs_nothing_and_a_crash_the_grant() {
    let caps = [2_400];
    let mut lane = warming(&caps);
    let noon = MIDNIGHT.plus(seconds(DAY / 2));
    let before = send(&mut lane, 0..720);
    assert_eq!(before, 1_200);
    let last = lane.last_save(noon).unwrap();
    let mut clean = restarted(&last, &caps, false, noon);
    assert_eq!(before + send(&mut clean, 720..1_440), 2_400);

    let mut lane = warming(&caps);
    let mut state = LaneState::default();
    let mut sent = 0;
    for minute in 0..720 {
        let now = MIDNIGHT.plus(seconds(60 * minute));
        while let Err(Wait { cause: Cause::Saving, .. }) = lane.admits(1, now) {
            state = save(&mut lane, now);
        }
        while lane.admits(1, now).is_ok() {
            lane.take(1, now);
            lane.done(1, 1, now);
            sent += 1;
        }
    }
    let mut crashed = restarted(&state, &caps, true, noon);
    let all = sent + send(&mut crashed, 720..1_440);
    assert!((2_330..=2_400).contains(&all), "{all}");
    // Twice, with what it does not know of at all: never more than the cap.
    let state = save(&mut crashed, noon.plus(seconds(100)));
    let mut again = restarted(&state, &caps, true, noon.plus(seconds(100)));
    assert_eq!(send(&mut again, 1_439..1_440), 0);
}

#[test]
fn a_crash_before_anything_came_of_the_first_grant_costs_it() {
    let caps = [1_000];
    let mut lane = warming(&caps);
    assert_eq!(lane.admits(1, MIDNIGHT).unwrap_err().cause, Cause::Saving);
    let state = save(&mut lane, MIDNIGHT);
    assert!(state.outstanding > 0);
    let noon = MIDNIGHT.plus(seconds(DAY / 2));
    let mut crashed = restarted(&state, &caps, true, noon);
    assert_eq!(crashed.warmup(noon).unwrap().used, state.outstanding);
    let mut clock = warming(&caps);
    send(&mut clock, 0..10);
    save(&mut clock, MIDNIGHT.plus(seconds(600)));
    assert!(!clock.wants_save(MIDNIGHT.plus(seconds(600))));
    clock.clock_went_back(seconds(900));
    assert!(clock.wants_save(MIDNIGHT) && clock.wants_sync());
    send(&mut crashed, 720..1_440);
}

#[test]
fn other_limits_hold_beside_the_cap() {
    let mut lane = Lane::new(limits(rate(Span::Minute, 2)), MIDNIGHT);
    lane.set_warmup(Some(&plan(&[100_000])), MIDNIGHT);
    save(&mut lane, MIDNIGHT);
    let mut sent = 0;
    for second in 0..120 {
        let now = MIDNIGHT.plus(seconds(second));
        if let Err(Wait { cause: Cause::Saving, .. }) = lane.admits(1, now) {
            save(&mut lane, now);
        }
        if let Ok(count) = lane.admits(9, now) {
            lane.take(count, now);
            lane.done(count, count, now);
            sent += count;
        }
    }
    assert!((2..=4).contains(&sent), "{sent}");
}

#[test]
fn a_block_takes_a_warm_up_back_and_replies_slow_it() {
    let mut lane = warming(&[1_000, 2_000, 3_000]);
    send(&mut lane, 0..24 * 60 + 60);
    let now = MIDNIGHT.plus(seconds(DAY + 3_600));
    assert_eq!(lane.roll(now).len(), 1, "the midnight");
    let changes = lane.learn(&hit(ReactionKind::Block, seconds(3_600)), 1, now);
    let told: Vec<&str> = changes
        .iter()
        .map(|change| match change {
            Change::WarmUp(change) => change.name(),
            _ => "lane",
        })
        .collect();
    assert_eq!(told, ["lane", "stepped_back"]);
    assert_eq!(lane.warmup(now).unwrap().position, 1);
    let tally = Tally { sent: 1_000, delivered: 500, deferred: 500, ..Tally::default() };
    let changes = lane.counted(&tally, now.plus(seconds(7_200)));
    assert!(matches!(&changes[..], [Change::WarmUp(change)] if change.name() == "slowed"), "{changes:?}");
    let state = save(&mut lane, now.plus(seconds(7_200)));
    assert_eq!(state.warmup.unwrap().mode, 1, "it is kept");
}

#[test]
fn orders_are_done_and_kept_and_a_lane_without_a_plan_takes_none() {
    assert_eq!(lane().order_warmup(WarmupOrder::Pause, NOW), None);
    let mut lane = warming(&[10, 20, 30]);
    let names = |changes: Option<Vec<Change>>| match &changes.unwrap()[..] {
        [Change::WarmUp(change)] => change.name(),
        other => panic!("{other:?}"),
    };
    assert_eq!(names(lane.order_warmup(WarmupOrder::SetPosition(3), MIDNIGHT)), "set");
    assert_eq!(names(lane.order_warmup(WarmupOrder::Pause, MIDNIGHT)), "paused");
    assert!(lane.wants_save(MIDNIGHT) && lane.wants_sync());
    let state = save(&mut lane, MIDNIGHT).warmup.unwrap();
    assert_eq!((state.position, state.paused), (3, true));
    assert!(!lane.is_forgettable(MIDNIGHT));
    assert_eq!(names(lane.order_warmup(WarmupOrder::Resume, MIDNIGHT)), "resumed");
    assert_eq!(lane.set_warmup(None, MIDNIGHT), []);
    assert_eq!((lane.is_warming(), lane.warmup(MIDNIGHT)), (false, None));
    assert!(warming(&[10]).is_forgettable(MIDNIGHT), "nothing was sent yet");
}

#[test]
fn a_lane_that_warms_up_is_small() {
    let mut lane = warming(&[10, 20]);
    send(&mut lane, 0..1_440);
    assert!(lane.bytes() < 1_024, "{} octets", lane.bytes());
}

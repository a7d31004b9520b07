//! Warm-ups by a moved clock: what they let out, when they go on, and what stops them.

mod brake;
mod calendar;
mod days;
mod operator;
mod pace;
mod plan;
mod properties;
mod state;
mod warming;

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::types::Timestamp;

/// The first day of most tests: 2026-10-31.
const DAY: u32 = 20_757;

/// A time on the day that is so many days after the first one.
fn at(day: u32, hour: u64, minute: u64) -> Timestamp {
    let seconds = u64::from(DAY + day) * 86_400 + hour * 3_600 + minute * 60;
    Timestamp::from_millis(seconds * 1_000)
}

fn hours(hours: u64) -> Duration {
    Duration::from_secs(hours * 3_600)
}

fn built_in(name: &str) -> Arc<Plan> {
    Arc::new(Plan::built_in().into_iter().find(|plan| &**plan.name() == name).unwrap())
}

/// A plan with these caps, one a day.
fn daily(caps: &[u32]) -> Arc<Plan> {
    Arc::new(table("own", caps, Advance::Daily))
}

fn table(name: &str, caps: &[u32], advance: Advance) -> Plan {
    let steps = caps.iter().zip(1..).map(|(cap, day)| (day, *cap)).collect();
    Plan::new(name, Steps::Table(steps), advance).unwrap()
}

/// Sends what may go at this moment, at most so many. How many that were.
fn send(lane: &mut Warming, wanted: u32, now: Timestamp) -> u32 {
    let Ok(count) = lane.admits(wanted, now) else { return 0 };
    lane.take(count, now);
    lane.done(count, count, now);
    count
}

/// Full demand on a whole day, as the lane says when there is more. How many went.
fn send_all_day(lane: &mut Warming, day: u32) -> u32 {
    let (mut now, mut sent) = (at(day, 0, 0), 0);
    while now < at(day + 1, 0, 0) {
        match lane.admits(u32::MAX, now) {
            Ok(_) => sent += send(lane, u32::MAX, now),
            Err(hold) => {
                assert!(hold.until > now, "{hold:?} at {now}");
                now = hold.until;
            }
        }
    }
    sent
}

/// One message at noon.
fn send_one(lane: &mut Warming, day: u32) {
    assert_eq!(send(lane, 1, at(day, 12, 0)), 1, "day {day}");
}

fn tally(sent: u32, deferred: u32, bounced: u32, complained: u32) -> Tally {
    let delivered = sent.saturating_sub(deferred).saturating_sub(bounced);
    Tally { sent, delivered, deferred, bounced, complained }
}

fn position(lane: &Warming, now: Timestamp) -> u32 {
    lane.report(now).position
}

fn names(changes: &[WarmupChange]) -> Vec<&'static str> {
    changes.iter().map(WarmupChange::name).collect()
}

fn texts(changes: &[WarmupChange]) -> Vec<String> {
    changes.iter().map(WarmupChange::text).collect()
}

//! Lanes by a moved clock: what they decide, what they learn, and what receivers see of it.

mod backoff;
mod receiver;
mod state;
mod usage;
mod warm;
mod window;

use std::time::Duration;

use super::super::limits::{LaneLimits, RateLimit, Rates, Span};
use super::super::reaction::{Reaction, ReactionKind};
use super::*;

const NOW: Timestamp = Timestamp::from_millis(1_795_302_000_123);

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// At most so many messages in this time.
fn rate(per: Span, count: u32) -> Rates {
    let mut rates = Rates::default();
    let slot = match per {
        Span::Second => &mut rates.second,
        Span::Minute => &mut rates.minute,
        Span::Hour => &mut rates.hour,
        Span::Day => &mut rates.day,
    };
    *slot = Some(count);
    rates
}

fn limits(rates: Rates) -> LaneLimits {
    LaneLimits { rates, ..LaneLimits::default() }
}

fn lane() -> Lane {
    Lane::new(LaneLimits::default(), NOW)
}

fn good() -> Learned {
    Learned { health: Health::Good, ..Learned::default() }
}

fn busy() -> Learned {
    Learned { health: Health::Busy("421 4.7.0 too many connections".into()), ..Learned::default() }
}

fn unreachable() -> Learned {
    Learned { health: Health::Unreachable("connection refused".into()), ..Learned::default() }
}

fn hit(kind: ReactionKind, lasts: Duration) -> Learned {
    hit_after(kind, lasts, None)
}

fn hit_after(kind: ReactionKind, lasts: Duration, after: Option<(u32, Duration)>) -> Learned {
    let reaction = Reaction { kind, lasts, after };
    let hit = Hit { rule: "rule".into(), reaction, words: "421 4.7.0 slow down".into() };
    Learned { reactions: vec![hit], ..Learned::default() }
}

/// One message from decision to end, if it may go.
fn send(lane: &mut Lane, now: Timestamp) -> Result<(), Wait> {
    lane.admits(1, now)?;
    lane.take(1, now);
    lane.done(1, 1, now);
    Ok(())
}

/// Saves, and that is durable at once. What is on disk then.
fn save(lane: &mut Lane, now: Timestamp) -> LaneState {
    let state = lane.save(now);
    lane.saved(true, now);
    state
}

#[test]
fn a_lane_with_all_rates_on_takes_less_than_a_kilobyte() {
    let rates = Rates { second: Some(10), minute: Some(100), hour: Some(1_000), day: Some(10_000) };
    let mut lane = Lane::new(limits(rates), NOW);
    lane.learn(&Learned { health: Health::Unreachable("x".repeat(2_000).into()), ..Learned::default() }, 1, NOW);
    assert!(lane.bytes() < 1_024, "{} octets", lane.bytes());
    // In all troubles at once.
    for kind in [ReactionKind::Connections(1), ReactionKind::Suspend, ReactionKind::Block] {
        lane.learn(&hit(kind, seconds(60)), 1, NOW);
    }
    for number in 0..100 {
        let mut learned = hit_after(ReactionKind::Suspend, seconds(60), Some((1_000, seconds(60))));
        learned.reactions[0].rule = format!("rule {number}").into();
        learned.reactions[0].words = "x".repeat(2_000).into();
        lane.learn(&learned, 1, NOW);
    }
    assert!(lane.bytes() < 1_536, "{} octets", lane.bytes());
    let plain = Lane::new(LaneLimits::default(), NOW);
    assert!(plain.bytes() < 400, "{} octets", plain.bytes());
}

#[test]
fn a_lane_without_limits_lets_everything_through_and_is_forgotten() {
    let mut lane = lane();
    assert_eq!((lane.window(NOW), lane.admits(1_000, NOW)), (10, Ok(1_000)));
    lane.take(1_000, NOW);
    assert!(!lane.is_forgettable(NOW), "they are in flight");
    lane.done(1_000, 900, NOW);
    lane.learn(&good(), 3, NOW);
    assert!(lane.is_forgettable(NOW) && !lane.wants_save(NOW) && lane.trouble(NOW).is_none());
    assert_eq!(lane.next_change(NOW), None);
}

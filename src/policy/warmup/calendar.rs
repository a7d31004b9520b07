//! The days ahead of a plan, where nothing goes wrong: what it would send of an expected volume, and what not.

use super::pace::{DAY, day_of, start_of_day};
use super::plan::{Advance, Plan};
use crate::types::Timestamp;

/// What is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Messages a day to one provider, from all sources together.
    pub volume_per_day: u64,
    /// Sources that warm up side by side, each with the plan's cap. 0 counts as 1.
    pub sources: u32,
    /// Where they are in the plan, from 1.
    pub position: u32,
    /// The first day; any time of it.
    pub first_day: Timestamp,
}

/// One day of the calendar. Counts are of all sources together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its beginning, UTC midnight.
    pub date: Timestamp,
    /// How far the plan is, from 1; behind its last position it is over.
    pub position: u32,
    /// Messages that may be sent; `None`: no limit.
    pub cap: Option<u64>,
    /// Messages that are expected to be sent.
    pub sent: u64,
    /// Messages that go elsewhere or wait.
    pub overflow: u64,
    /// The next day brings the next position. Where not, the volume never brings it, and this is the last row; so it is where
    /// the plan is over.
    pub advances: bool,
}

/// The days until the plan is over, that day included, or until the volume is too small to come further. One row for each day of
/// the plan, and one more, at most.
pub fn calendar(plan: &Plan, expected: &Expected) -> Vec<Row> {
    let sources = u64::from(expected.sources.max(1));
    let mut rows = Vec::new();
    let mut date = start_of_day(day_of(expected.first_day));
    for position in expected.position.clamp(1, plan.end())..=plan.end() {
        let cap_each = plan.cap(position);
        let cap = cap_each.map(|cap| u64::from(cap) * sources);
        let sent = cap.map_or(expected.volume_per_day, |cap| cap.min(expected.volume_per_day));
        let advances = cap_each.is_some_and(|cap| advances(plan, cap, sent / sources)) && sent > 0;
        rows.push(Row { date, position, cap, sent, overflow: expected.volume_per_day - sent, advances });
        if !advances {
            break;
        }
        date = date.plus(DAY);
    }
    rows
}

/// Whether so many messages by one source on a day of this cap bring it on.
fn advances(plan: &Plan, cap: u32, sent_each: u64) -> bool {
    match plan.advance() {
        Advance::Daily => true,
        Advance::Delivered { percent } => sent_each * 100 >= u64::from(percent) * u64::from(cap),
    }
}

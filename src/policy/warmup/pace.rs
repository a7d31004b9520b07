//! How much of a day's cap may be used by now: minute by minute an equal part more, and in no hour more than twice an even share.
//!
//! With full demand each hour sends 1/24 of the cap, to within one message. An hour that follows idle ones catches up, as far
//! as the double share goes. A cap of less than one a minute gives its first message at the start of the day.

use std::time::Duration;

use crate::types::Timestamp;

pub(super) const DAY: Duration = Duration::from_secs(86_400);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
const DAY_MS: u64 = 86_400_000;
const HOUR_MS: u64 = 3_600_000;
const SLOT_MS: u64 = 60_000;
const SLOTS: u64 = DAY_MS / SLOT_MS;
const HOURS: u32 = 24;

/// Days since the epoch.
pub(super) fn day_of(time: Timestamp) -> u32 {
    time.utc_day()
}

/// Hours since the epoch; the last number for all that are beyond.
pub(super) fn hour_of(time: Timestamp) -> u32 {
    u32::try_from(time.millis() / HOUR_MS).unwrap_or(u32::MAX)
}

pub(super) fn start_of_day(day: u32) -> Timestamp {
    Timestamp::of_utc_day(day)
}

pub(super) fn start_of_hour(hour: u32) -> Timestamp {
    Timestamp::from_millis(u64::from(hour) * HOUR_MS)
}

/// An even share of an hour, rounded up.
pub(super) fn hour_share(cap: u32) -> u32 {
    cap.div_ceil(HOURS)
}

/// How many of a cap may be used until the end of a minute of the day.
pub(super) fn target(cap: u32, slot: u64) -> u32 {
    let part = (u64::from(cap) * (slot.min(SLOTS - 1) + 1)).div_ceil(SLOTS);
    u32::try_from(part).unwrap_or(cap)
}

/// What was used of a cap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Used {
    pub(super) today: u32,
    pub(super) this_hour: u32,
}

/// How many more may be used now.
pub(super) fn room(cap: u32, used: Used, now: Timestamp) -> u32 {
    let by_day = target(cap, slot(now)).saturating_sub(used.today);
    by_day.min(hour_room(cap, used))
}

/// When one more may be used, if none is until then. By the next midnight at the latest.
pub(super) fn next_at(cap: u32, used: Used, now: Timestamp) -> Timestamp {
    let midnight = start_of_day(day_of(now)).plus(DAY);
    // The first minute whose target is above what was used.
    let slot = u64::from(used.today) * SLOTS / u64::from(cap.max(1));
    let by_day = start_of_day(day_of(now)).plus(Duration::from_millis(slot.saturating_mul(SLOT_MS)));
    let by_hour = if hour_room(cap, used) == 0 { start_of_hour(hour_of(now)).plus(HOUR) } else { now };
    by_day.max(by_hour).min(midnight)
}

fn hour_room(cap: u32, used: Used) -> u32 {
    hour_share(cap).saturating_mul(2).saturating_sub(used.this_hour)
}

/// Which minute of the day.
fn slot(now: Timestamp) -> u64 {
    now.since(start_of_day(day_of(now))).as_secs() / (SLOT_MS / 1_000)
}

//! The life of the sources of a managed pool: parked ones are activated when the volume asks for it, and rest when it falls.
//!
//! Rules, in this order; each look makes at most one change, and there is at most one in an hour:
//! - Fewer active sources than `active_min`: the missing ones are activated, all at once and whatever the hour.
//! - The demand is above `activate_at_percent` of what the active sources may send today, and of what they will when they are
//!   warm: the next source is activated, a resting one first, since it is warmer. A pool whose sources are only not warm yet
//!   gets no further ones: they would be too many in the end.
//! - The demand was below `rest_at_percent` of what the others could send, for `rest_after_days` days in a row: the least warm
//!   source rests. Never below `active_min`.
//!
//! Pure: the time is an argument, and what is to be kept (since when, how many low days) is with the caller. Does not: stop what
//! is under way.

use std::time::Duration;

use crate::types::{SourceName, Timestamp};

/// Changes of one pool follow each other no sooner, but for `active_min`.
const CHANGE_EVERY: Duration = Duration::from_secs(3_600);

/// The rules of a managed pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ManagedPool {
    /// So many sources are always active, if it has so many.
    pub active_min: u32,
    /// Messages a day that a warm source is meant to send.
    pub messages_per_source: u32,
    /// Above this part of the capacity one more is activated. In percent.
    pub activate_at_percent: u8,
    /// Below this part of the capacity that is left without the least warm one, that one rests. In percent.
    pub rest_at_percent: u8,
    /// For so many days in a row.
    pub rest_after_days: u32,
}

impl Default for ManagedPool {
    fn default() -> Self {
        Self {
            active_min: 1,
            messages_per_source: 1_000_000,
            activate_at_percent: 80,
            rest_at_percent: 40,
            rest_after_days: 3,
        }
    }
}

/// What is decided about a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LifeState {
    /// Never used so far.
    #[default]
    Parked,
    /// In use.
    Active,
    /// Was in use, and may be again.
    Resting,
}

impl LifeState {
    /// All.
    pub const ALL: [LifeState; 3] = [LifeState::Parked, LifeState::Active, LifeState::Resting];

    /// The number in stored records.
    pub const fn code(self) -> u8 {
        match self {
            LifeState::Parked => 0,
            LifeState::Active => 1,
            LifeState::Resting => 2,
        }
    }

    /// The state with this number; parked for one that is not known.
    pub const fn from_code(code: u8) -> Self {
        match code {
            1 => LifeState::Active,
            2 => LifeState::Resting,
            _ => LifeState::Parked,
        }
    }

    /// As events and scripts name it.
    pub const fn name(self) -> &'static str {
        match self {
            LifeState::Parked => "parked",
            LifeState::Active => "active",
            LifeState::Resting => "resting",
        }
    }
}

/// How a source is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Life {
    /// Never used so far.
    Parked,
    /// Active, and at one site at least not warm yet.
    Warming,
    /// In use.
    Active,
    /// Was in use, and may be again.
    Resting,
    /// Active, and blocked at a provider's site now.
    Blocked,
}

impl Life {
    /// All.
    pub const ALL: [Life; 5] = [Life::Parked, Life::Warming, Life::Active, Life::Resting, Life::Blocked];

    /// Of a source that is in this state, is warming at a site, is blocked at one.
    pub const fn of(state: LifeState, is_warming: bool, is_blocked: bool) -> Self {
        match state {
            LifeState::Parked => Life::Parked,
            LifeState::Resting => Life::Resting,
            LifeState::Active if is_blocked => Life::Blocked,
            LifeState::Active if is_warming => Life::Warming,
            LifeState::Active => Life::Active,
        }
    }

    /// As events, metrics and scripts name it.
    pub const fn name(self) -> &'static str {
        match self {
            Life::Parked => "parked",
            Life::Warming => "warming",
            Life::Active => "active",
            Life::Resting => "resting",
            Life::Blocked => "blocked",
        }
    }
}

/// A source of the pool, in the last 24 hours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceDay {
    /// Which.
    pub source: SourceName,
    /// What was decided about it.
    pub state: LifeState,
    /// Since when; the epoch where nothing was decided yet.
    pub since: Timestamp,
    /// Messages that it may send today, all its sites together; `None`: no limit, it is warm. 0 where it is of no use today.
    pub cap: Option<u32>,
    /// Messages that it sent.
    pub sent: u64,
}

/// A managed pool, in the last 24 hours.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolDay {
    /// Its sources, in the order in which they are to be activated.
    pub sources: Vec<SourceDay>,
    /// Messages that wait, or went by another pool, because the active sources may not send more.
    pub waiting: u64,
    /// UTC days in a row on which it was low, by [`is_low`]. After a change to be counted anew.
    pub low_days: u32,
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LifeChange {
    /// About which source.
    pub source: SourceName,
    /// What it was.
    pub from: LifeState,
    /// What it is now.
    pub to: LifeState,
    /// Why, with figures.
    pub reason: Box<str>,
}

impl LifeChange {
    /// As events, metrics and scripts name it.
    pub const fn name(&self) -> &'static str {
        match self.to {
            LifeState::Active => "source_activated",
            LifeState::Resting => "source_rested",
            LifeState::Parked => "source_parked",
        }
    }

    /// What happened, and why, in one line.
    pub fn text(&self) -> String {
        format!("{} is {}, was {}: {}", self.source, self.to.name(), self.from.name(), self.reason)
    }
}

/// What is to be changed now. See the module.
pub fn decide(pool: &ManagedPool, day: &PoolDay, now: Timestamp) -> Vec<LifeChange> {
    let active = day.sources.iter().filter(|source| source.state == LifeState::Active).count();
    let wanted = usize::try_from(pool.active_min).unwrap_or(usize::MAX);
    if active < wanted {
        let next = in_order(&day.sources).into_iter().take(wanted - active);
        let reason = format!("at least {wanted} sources are to be active, and {active} were");
        return next.map(|source| change(source, LifeState::Active, &reason)).collect();
    }
    let is_soon = |source: &SourceDay| source.since != Timestamp::EPOCH && now.since(source.since) < CHANGE_EVERY;
    if day.sources.iter().any(is_soon) {
        return Vec::new();
    }
    activate(pool, day).or_else(|| rest(pool, day, active)).into_iter().collect()
}

/// Whether the demand was so low that a source could rest. To be asked at the end of each UTC day.
pub fn is_low(pool: &ManagedPool, day: &PoolDay) -> bool {
    let Some(least) = least_warm(&day.sources) else { return false };
    let left = capacity(pool, day) - capacity_of(pool, least);
    demand(day) * 100 < u128::from(pool.rest_at_percent) * left
}

fn activate(pool: &ManagedPool, day: &PoolDay) -> Option<LifeChange> {
    let demand = demand(day);
    let is_above = |capacity: u128| demand * 100 > u128::from(pool.activate_at_percent) * capacity;
    let capacity = capacity(pool, day);
    let active = day.sources.iter().filter(|source| source.state == LifeState::Active).count();
    let capacity_warm = u128::from(pool.messages_per_source) * active as u128;
    if !is_above(capacity) || !is_above(capacity_warm) {
        return None;
    }
    let next = in_order(&day.sources).into_iter().next()?;
    let percent = pool.activate_at_percent;
    let reason =
        format!("{demand} messages were wanted in 24 hours, above {percent} % of the {capacity} that could go");
    Some(change(next, LifeState::Active, &reason))
}

fn rest(pool: &ManagedPool, day: &PoolDay, active: usize) -> Option<LifeChange> {
    let is_spare = usize::try_from(pool.active_min).is_ok_and(|least| active > least);
    if !is_spare || day.low_days < pool.rest_after_days || !is_low(pool, day) {
        return None;
    }
    let least = least_warm(&day.sources)?;
    let left = capacity(pool, day) - capacity_of(pool, least);
    let (demand, days, percent) = (demand(day), day.low_days, pool.rest_at_percent);
    let reason = format!(
        "{demand} messages were wanted in 24 hours, for {days} days below {percent} % of the {left} that could go without it"
    );
    Some(change(least, LifeState::Resting, &reason))
}

fn change(source: &SourceDay, to: LifeState, reason: &str) -> LifeChange {
    LifeChange { source: source.source.clone(), from: source.state, to, reason: reason.into() }
}

/// Messages that were wanted in the last 24 hours.
fn demand(day: &PoolDay) -> u128 {
    let sent: u128 = day.sources.iter().map(|source| u128::from(source.sent)).sum();
    sent + u128::from(day.waiting)
}

/// What the active sources may send today.
fn capacity(pool: &ManagedPool, day: &PoolDay) -> u128 {
    let active = day.sources.iter().filter(|source| source.state == LifeState::Active);
    active.map(|source| capacity_of(pool, source)).sum()
}

fn capacity_of(pool: &ManagedPool, source: &SourceDay) -> u128 {
    source.cap.map_or(pool.messages_per_source, |cap| cap.min(pool.messages_per_source)).into()
}

/// How warm a source is.
fn warmth(source: &SourceDay) -> (u32, u64) {
    (source.cap.unwrap_or(u32::MAX), source.sent)
}

/// The active one that is missed least: of equal ones the last.
fn least_warm(sources: &[SourceDay]) -> Option<&SourceDay> {
    let active = sources.iter().rev().filter(|source| source.state == LifeState::Active);
    active.min_by_key(|source| warmth(source))
}

/// Those that may be activated: resting ones first, of these the one that rests for the shortest time.
fn in_order(sources: &[SourceDay]) -> Vec<&SourceDay> {
    let mut found: Vec<_> = sources.iter().filter(|source| source.state != LifeState::Active).collect();
    found.sort_by_key(|source| match source.state {
        LifeState::Resting => (0, std::cmp::Reverse(source.since)),
        _ => (1, std::cmp::Reverse(Timestamp::EPOCH)),
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_302_000_123);
    const POOL: ManagedPool = ManagedPool {
        active_min: 1,
        messages_per_source: 1_000,
        activate_at_percent: 80,
        rest_at_percent: 40,
        rest_after_days: 3,
    };

    /// `"a+ 300/1000"`: active (`+`, resting `~`, parked `-`), sent 300, may send 1,000 (`*`: no limit).
    fn source(text: &str) -> SourceDay {
        let (name, counts) = text.split_once(' ').unwrap();
        let (sent, cap) = counts.split_once('/').unwrap();
        let (name, state) = name.split_at(name.len() - 1);
        SourceDay {
            source: SourceName::parse(name).unwrap(),
            state: match state {
                "+" => LifeState::Active,
                "~" => LifeState::Resting,
                _ => LifeState::Parked,
            },
            since: Timestamp::EPOCH,
            cap: (cap != "*").then(|| cap.parse().unwrap()),
            sent: sent.parse().unwrap(),
        }
    }

    fn day(sources: &[&str], waiting: u64, low_days: u32) -> PoolDay {
        PoolDay { sources: sources.iter().map(|text| source(text)).collect(), waiting, low_days }
    }

    fn decided(pool: &ManagedPool, day: &PoolDay) -> Vec<String> {
        let changes = decide(pool, day, NOW);
        changes.iter().map(|change| format!("{} {}", change.name(), change.source)).collect()
    }

    #[track_caller]
    fn check(day: &PoolDay, expected: &[&str]) {
        assert_eq!(decided(&POOL, day), expected, "{day:?}");
    }

    #[test]
    fn a_source_is_activated_above_the_part_of_the_capacity_that_is_set() {
        check(&day(&["a+ 800/*", "b- 0/*"], 0, 0), &[]);
        check(&day(&["a+ 801/*", "b- 0/*", "c- 0/*"], 0, 0), &["source_activated b"]);
        check(&day(&["a+ 500/*", "b- 0/*"], 301, 0), &["source_activated b"]);
        check(&day(&["a+ 5000/*"], 0, 0), &[]);
        let changes = decide(&POOL, &day(&["a+ 900/*", "b- 0/*"], 50, 0), NOW);
        let text =
            "b is active, was parked: 950 messages were wanted in 24 hours, above 80 % of the 1000 that could go";
        assert_eq!(changes[0].text(), text);
    }

    #[test]
    fn resting_sources_come_before_parked_ones_and_the_last_to_rest_first() {
        let mut day = day(&["a+ 900/*", "b- 0/*", "c~ 0/*", "d~ 0/*"], 0, 0);
        day.sources[2].since = Timestamp::from_millis(5);
        day.sources[3].since = Timestamp::from_millis(9);
        check(&day, &["source_activated d"]);
        day.sources[3].state = LifeState::Active;
        day.sources[3].sent = 900;
        check(&day, &["source_activated c"]);
    }

    #[test]
    fn sources_that_are_only_not_warm_yet_bring_no_further_ones() {
        check(&day(&["a+ 200/200", "b- 0/*"], 600, 0), &[]);
        check(&day(&["a+ 200/200", "b- 0/*"], 601, 0), &["source_activated b"]);
        check(&day(&["a+ 900/*", "b+ 50/50", "c- 0/*"], 600, 0), &[]);
    }

    #[test]
    fn the_least_warm_source_rests_after_three_low_days() {
        let low = ["a+ 300/*", "b+ 40/900", "c+ 59/1000"];
        assert!(is_low(&POOL, &day(&low, 0, 0)));
        check(&day(&low, 0, 2), &[]);
        check(&day(&low, 0, 3), &["source_rested b"]);
        let changes = decide(&POOL, &day(&low, 0, 3), NOW);
        let text = "b is resting, was active: 399 messages were wanted in 24 hours, for 3 days below 40 % of the 2000 that \
                    could go without it";
        assert_eq!(changes[0].text(), text);
        check(&day(&low, 500, 3), &[]);
        assert!(!is_low(&POOL, &day(&low, 401, 0)), "800 are 40 % of 2,000");
        assert!(is_low(&POOL, &day(&low, 400, 0)));
        check(&day(&["a+ 10/*", "b+ 10/*"], 0, 9), &["source_rested b"]);
    }

    #[test]
    fn there_are_never_fewer_active_ones_than_the_least_number() {
        let pool = ManagedPool { active_min: 2, ..POOL };
        assert_eq!(decided(&pool, &day(&["a+ 0/*", "b+ 0/*"], 0, 99)), [""; 0]);
        let none = day(&["a- 0/*", "b~ 0/*", "c- 0/*"], 0, 0);
        assert_eq!(decided(&pool, &none), ["source_activated b", "source_activated a"], "all at once");
        assert_eq!(decided(&ManagedPool { active_min: 9, ..POOL }, &none).len(), 3);
        assert_eq!(decided(&ManagedPool { active_min: u32::MAX, ..POOL }, &day(&["a+ 0/*"], 0, 9)), [""; 0]);
        assert_eq!(decided(&POOL, &PoolDay::default()), [""; 0]);
    }

    #[test]
    fn changes_are_an_hour_apart_but_for_the_least_number() {
        let mut busy = day(&["a+ 900/*", "b- 0/*"], 0, 0);
        busy.sources[0].since = NOW.minus(Duration::from_millis(3_599_999));
        check(&busy, &[]);
        busy.sources[0].since = NOW.minus(CHANGE_EVERY);
        check(&busy, &["source_activated b"]);
        let mut none = day(&["a~ 0/*"], 0, 0);
        none.sources[0].since = NOW;
        check(&none, &["source_activated a"]);
    }

    #[test]
    fn volume_that_swings_swings_no_sources() {
        let mut day = day(&["a+ 0/*", "b- 0/*", "c- 0/*"], 0, 0);
        let mut now = NOW;
        let mut changes = Vec::new();
        for hour in 0..24 * 60_u64 {
            // A quiet weekend each week.
            let is_quiet = hour / 24 % 7 >= 5;
            day.waiting = if is_quiet { 300 } else { 1_500 };
            if hour % 24 == 0 {
                day.low_days = if is_low(&POOL, &day) { day.low_days + 1 } else { 0 };
            }
            for change in decide(&POOL, &day, now) {
                let at = day.sources.iter_mut().find(|source| source.source == change.source).unwrap();
                (at.state, at.since) = (change.to, now);
                day.low_days = 0;
                changes.push(change.to);
            }
            now = now.plus(CHANGE_EVERY);
        }
        assert_eq!(changes, [LifeState::Active], "one more, once");
    }

    #[test]
    fn states_keep_their_numbers_and_are_shown_with_what_happens_to_them() {
        for state in LifeState::ALL {
            assert_eq!(LifeState::from_code(state.code()), state);
        }
        assert_eq!(LifeState::from_code(77), LifeState::Parked);
        let active = |warming, blocked| Life::of(LifeState::Active, warming, blocked).name();
        assert_eq!([active(false, false), active(true, false), active(true, true)], ["active", "warming", "blocked"]);
        assert_eq!(Life::of(LifeState::Resting, true, true), Life::Resting);
        assert_eq!(Life::of(LifeState::Parked, true, true), Life::Parked);
    }
}

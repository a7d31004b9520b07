//! The life of the sources of managed pools: what was wanted of them is added up, and `policy::fleet_life` decides which of them the
//! pool uses.

use std::collections::BTreeMap;
use std::time::Duration;

use super::Scheduler;
use crate::policy::fleet_life::{Life, LifeState, PoolDay, SourceDay, decide, is_low};
use crate::policy::lane::Cause;
use crate::queue::{HistoryRow, SourceLife};
use crate::scheduler::fleet::SourceId;
use crate::scheduler::warmup::SourceStanding;
use crate::scheduler::{Action, LaneEvent, LaneEventKind, LaneName, Map, SiteName};
use crate::types::{PoolName, SourceName, Timestamp};

/// How often managed pools are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(300);

/// What was sent on this UTC day and the one before: by each source, and by other pools for want of room.
#[derive(Debug, Default)]
pub(super) struct Volume {
    day: u32,
    /// The last day that was looked back from.
    judged: u32,
    sent: Map<SourceName, [u64; 2]>,
    overflow: Map<PoolName, [u64; 2]>,
}

impl Volume {
    /// Nothing yet, on the day of `now`.
    pub(super) fn new(now: Timestamp) -> Self {
        let day = now.utc_day();
        Self { day, judged: day, ..Self::default() }
    }

    /// What was sent on this day before the start, and on the one before, as far as the history knows.
    pub(super) fn restore(&mut self, rows: &[HistoryRow]) {
        for row in rows {
            let [today, before] = self.sent.entry(row.source.clone()).or_default();
            let sent = u64::from(row.totals.sent);
            *today += if row.day == self.day { sent } else { 0 };
            *before += if row.day.checked_add(1) == Some(self.day) { sent } else { 0 };
        }
    }

    /// Counts recipients that a source was given by the queue of a pool that may not be its own.
    pub(super) fn add(&mut self, source: &SourceName, overflowed: Option<&PoolName>, recipients: u32, now: Timestamp) {
        self.roll(now);
        if !self.sent.contains_key(source) {
            self.sent.insert(source.clone(), [0; 2]);
        }
        if let Some([today, _]) = self.sent.get_mut(source) {
            *today += u64::from(recipients);
        }
        if let Some(pool) = overflowed {
            let [today, _] = self.overflow.entry(pool.clone()).or_default();
            *today += u64::from(recipients);
        }
    }

    /// Whether a day has begun since the last look.
    fn is_new_day(&mut self, now: Timestamp) -> bool {
        self.roll(now);
        std::mem::replace(&mut self.judged, self.day) < self.day
    }

    fn roll(&mut self, now: Timestamp) {
        let day = now.utc_day();
        if day <= self.day {
            return;
        }
        let is_next = day == self.day + 1;
        self.day = day;
        for counts in self.sent.values_mut().chain(self.overflow.values_mut()) {
            *counts = if is_next { [0, counts[0]] } else { [0; 2] };
        }
        self.sent.retain(|_, counts| *counts != [0; 2]);
        self.overflow.retain(|_, counts| *counts != [0; 2]);
    }
}

impl Scheduler {
    /// Goes on with the sources that managed pools used before the start.
    #[must_use]
    pub fn with_lives(mut self, lives: Vec<SourceLife>, now: Timestamp) -> Self {
        for life in lives {
            self.fleet.set_life(life);
        }
        // It may have been set back while nobody looked.
        self.fleet.clock_went_back(now);
        self.fleet.refit();
        self.look_at_pools(now);
        self
    }

    /// Looks at managed pools when it is time to, and tells what was decided.
    pub(super) fn sweep_lives(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let is_new_day = self.volume.is_new_day(now);
        if is_new_day {
            self.count_low_days(now);
        }
        if (is_new_day || now >= self.lives_at.plus(LOOK_EVERY)) && self.look_at_pools(now) {
            self.refit_sites(now, actions);
            self.serve_line(now, actions);
        }
        self.give_out_lives(actions);
    }

    pub(super) fn give_out_lives(&mut self, actions: &mut Vec<Action>) {
        if !self.life_save.lives.is_empty() {
            actions.push(Action::SaveLives(std::mem::take(&mut self.life_save)));
        }
    }

    /// Decides which sources managed pools use. Whether that changed.
    pub(super) fn look_at_pools(&mut self, now: Timestamp) -> bool {
        self.lives_at = now;
        let mut is_changed = false;
        for (pool, managed) in self.fleet.managed_pools() {
            is_changed |= self.meet_sources(&pool, now);
            let day = self.pool_day(&pool, now);
            let changes = decide(&managed, &day, now);
            if !changes.is_empty() {
                // What was low for many sources may be enough for fewer.
                self.set_low_days(&pool, 0);
            }
            for change in changes {
                let life =
                    SourceLife { source: change.source.clone(), life: change.to.code(), since: now, low_days: 0 };
                self.keep_life(life);
                self.life_save.events.push(LaneEvent {
                    at: now,
                    site: SiteName::new(""),
                    provider: None,
                    kind: LaneEventKind::Life(pool.clone(), change),
                });
                is_changed = true;
            }
        }
        if is_changed {
            self.fleet.refit();
        }
        is_changed
    }

    /// Sources that a managed pool did not have before: those that sent something are active. Whether there were any.
    fn meet_sources(&mut self, pool: &PoolName, now: Timestamp) -> bool {
        let unknown: Vec<(SourceId, SourceName)> =
            self.fleet.members_of(pool).into_iter().filter(|(_, name)| self.fleet.life(name).is_none()).collect();
        for (id, source) in &unknown {
            let was_used = self.sites.values().any(|site| site.lane(*id).is_some())
                || self.saved.keys().any(|name| matches!(name, LaneName::Lane(_, saved) if saved == source));
            let life = if was_used { LifeState::Active } else { LifeState::Parked };
            let since = if was_used { now } else { Timestamp::EPOCH };
            self.keep_life(SourceLife { source: source.clone(), life: life.code(), since, low_days: 0 });
        }
        !unknown.is_empty()
    }

    fn keep_life(&mut self, life: SourceLife) {
        self.life_save.lives.retain(|kept| kept.source != life.source);
        self.life_save.lives.push(life.clone());
        self.fleet.set_life(life);
    }

    /// What was wanted of a managed pool.
    fn pool_day(&mut self, pool: &PoolName, now: Timestamp) -> PoolDay {
        let members = self.fleet.members_of(pool);
        let mut caps: BTreeMap<SourceId, Option<u32>> = BTreeMap::new();
        let mut waiting = 0;
        for site in self.sites.values_mut() {
            let is_providers = site.provider.is_some();
            let (mut has_room, mut is_known) = (false, false);
            for (id, name) in &members {
                let Some(entry) = site.lane_mut(*id) else { continue };
                is_known = true;
                let is_used = self.fleet.is_active(name);
                has_room |= is_used && !matches!(entry.lane.admits(1, now), Err(wait) if wait.cause == Cause::WarmUp);
                let Some((_, cap)) = entry.lane.warmup_place() else { continue };
                let sum = caps.entry(*id).or_insert(Some(0));
                // Where it is blocked it is of no use now.
                let cap = if is_providers && entry.lane.is_blocked() { Some(0) } else { cap };
                // One warm site is warm enough: it is counted as its share.
                *sum = sum.zip(cap).map(|(sum, cap)| sum.saturating_add(cap));
            }
            if is_known && !has_room {
                let queues = site.queues.iter().filter(|queue| queue.pool == *pool);
                waiting += queues.map(|queue| queue.fair.ready_jobs() as u64).sum::<u64>();
            }
        }
        let of_both = |source: &SourceName| self.volume.sent.get(source).copied().unwrap_or_default();
        let overflow = self.volume.overflow.get(pool).copied().unwrap_or_default();
        let sums = members.iter().fold(overflow, |sums, (_, name)| {
            let ([today, before], [more, more_before]) = (sums, of_both(name));
            [today + more, before + more_before]
        });
        // Early in the day the one before says more.
        let is_today = sums[0] + waiting >= sums[1];
        let of_day = |[today, before]: [u64; 2]| if is_today { today } else { before };
        waiting = of_day(overflow) + if is_today { waiting } else { 0 };
        let day = |(id, source): (SourceId, SourceName)| {
            let life = self.fleet.life(&source);
            let first_cap = || self.fleet.plan(id, None).map(|plan| plan.cap(1));
            SourceDay {
                state: life.map(|life| LifeState::from_code(life.life)).unwrap_or_default(),
                since: life.map_or(Timestamp::EPOCH, |life| life.since),
                cap: caps.get(&id).copied().or_else(first_cap).flatten(),
                sent: of_day(of_both(&source)),
                source,
            }
        };
        let low_days = members.iter().filter_map(|(_, name)| self.fleet.life(name)).map(|life| life.low_days).max();
        PoolDay { sources: members.into_iter().map(day).collect(), waiting, low_days: low_days.unwrap_or(0) }
    }

    /// A UTC day is over.
    fn count_low_days(&mut self, now: Timestamp) {
        for (pool, managed) in self.fleet.managed_pools() {
            let day = self.pool_day(&pool, now);
            let low_days = if is_low(&managed, &day) { day.low_days.saturating_add(1) } else { 0 };
            self.set_low_days(&pool, low_days);
        }
    }

    fn set_low_days(&mut self, pool: &PoolName, low_days: u32) {
        for (_, source) in self.fleet.members_of(pool) {
            let known = self.fleet.life(&source).filter(|life| life.low_days != low_days).cloned();
            if let Some(life) = known {
                self.keep_life(SourceLife { low_days, ..life });
            }
        }
    }

    /// All sources of the config, and where each stands in its life.
    pub fn sources(&self) -> Vec<SourceStanding> {
        let pools = &self.settings.pools;
        let standing = |source: &SourceName| {
            let manager = pools
                .pools()
                .find(|pool| pool.managed.is_some() && pool.members.iter().any(|member| member.source == *source));
            let kept = self.fleet.life(source).filter(|_| manager.is_some());
            let state = kept.map_or(LifeState::Active, |life| LifeState::from_code(life.life));
            let lanes = self.fleet.id(source).map(|id| {
                let lanes = self.sites.values().filter_map(move |site| Some((site, site.lane(id)?)));
                // Each new small site begins a plan anew: where there are providers, they count.
                let has_providers = lanes.clone().any(|(site, _)| site.provider.is_some());
                let warming = lanes
                    .clone()
                    .filter(|(site, _)| site.provider.is_some() || !has_providers)
                    .any(|(_, entry)| entry.lane.is_warming());
                (warming, lanes.into_iter().any(|(site, entry)| site.provider.is_some() && entry.lane.is_blocked()))
            });
            let (is_warming, is_blocked) = lanes.unwrap_or_default();
            SourceStanding {
                source: source.clone(),
                life: Life::of(state, is_warming, is_blocked),
                pool: manager.map(|pool| pool.name.clone()),
                since: kept.map(|life| life.since).filter(|since| *since != Timestamp::EPOCH),
            }
        };
        pools.sources().map(|source| standing(&source.name)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::DayTotals;

    #[test]
    fn a_start_knows_what_was_sent_on_this_day_and_the_one_before() {
        let now = Timestamp::of_utc_day(20_000);
        let row = |day, sent| HistoryRow {
            day,
            source: SourceName::default(),
            site: "".into(),
            provider: None,
            totals: DayTotals { sent, ..DayTotals::default() },
        };
        let mut volume = Volume::new(now);
        volume.restore(&[row(19_998, 1), row(19_999, 10), row(19_999, 20), row(20_000, 300), row(20_001, 4_000)]);
        assert_eq!(volume.sent[&SourceName::default()], [300, 30]);
        assert!(!volume.is_new_day(now), "a start is no midnight");
        let next = now.plus(Duration::from_secs(86_400));
        volume.add(&SourceName::default(), None, 7, next);
        assert!(volume.is_new_day(next), "though mail went before anybody looked");
        assert_eq!(volume.sent[&SourceName::default()], [7, 300]);
        assert!(!volume.is_new_day(next));
    }
}

//! What connections learned: of lanes, of sites, of the line for connections; and what of it is written to disk.

use super::{Connection, JobState, Scheduler};
use crate::policy::lane::{Change, Health, LaneState, Learned};
use crate::scheduler::fleet::{Families, SourceId};
use crate::scheduler::sites::Site;
use crate::scheduler::{
    Action, ConnectionId, LaneEvent, LaneEventKind, LaneName, LaneSave, Report, SavedLane, SiteName,
};
use crate::types::{PoolName, Timestamp};

/// The part of all lanes that is forgotten at once where there is no room for one more.
const FORGET_SHARE: usize = 16;
/// Lanes whose states are written at once.
const SAVE_LANES_MAX: usize = 1_024;

impl Scheduler {
    /// An assignment came to its end: what it took is counted, what it learned is taken in.
    pub(super) fn ended(&mut self, id: ConnectionId, report: &Report, now: Timestamp) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let taken = std::mem::take(&mut connection.taken);
        let (name, source, pool) = (connection.site.clone(), connection.source, connection.pool.clone());
        let (hosts, set) = (connection.hosts.clone(), connection.set.clone());
        let sent = report.transactions.min(taken);
        for (key, meter) in self.fleet.meters(source, &pool) {
            meter.lane.done(taken, sent, now);
            if meter.lane.wants_save(now) {
                self.dirty.insert(key.lane_name());
            }
        }
        let learned = self.of_site(&name, &hosts, &report.learned);
        self.learn_lane(&name, &pool, source, &learned, now);
        if let Some(entry) = self.sites.get_mut(&name).and_then(|site| site.lane_mut(source)) {
            entry.lane.done(taken, sent, now);
        }
        if let Some(lane) = self.sites.get_mut(&name).and_then(|site| site.set_mut(&set)) {
            lane.done(taken, sent, now);
        }
        let is_own = self.fleet.pool(&pool).iter().any(|member| member.source == source && member.tier == 0);
        let overflowed = Some(&pool).filter(|_| !is_own);
        self.count(&name, source, (&set, overflowed), report, sent, now);
        self.note_dirty(&name, source, now);
        self.note_set(&name, &set, now);
    }

    /// What a connection learned amid an assignment.
    pub fn connection_learned(
        &mut self,
        id: ConnectionId,
        learned: &Learned,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) {
        let Some(connection) = self.connections.get(&id) else { return };
        let (name, source, pool) = (connection.site.clone(), connection.source, connection.pool.clone());
        let hosts = connection.hosts.clone();
        let learned = self.of_site(&name, &hosts, learned);
        self.learn_lane(&name, &pool, source, &learned, now);
        self.note_dirty(&name, source, now);
        // Others take what this source cannot.
        self.serve(&name, now, actions);
    }

    /// What was learned, as far as it is of the site: that one customer's hosts at a provider cannot be reached says nothing of the
    /// others, unless these cannot either.
    fn of_site(&mut self, name: &SiteName, hosts: &SiteName, learned: &Learned) -> Learned {
        if self.sites.get(name).is_some_and(Site::is_simulated) {
            // What mailboxes of a simulator play is not what hosts think of us.
            let health = if learned.health == Health::Good { Health::Good } else { Health::Unknown };
            return Learned { health, ..Learned::default() };
        }
        let mut learned = learned.clone();
        let Some(site) = self.sites.get_mut(name).filter(|site| site.provider.is_some()) else { return learned };
        if matches!(learned.health, Health::Unreachable(_)) {
            let before = site.failed_hosts.replace(hosts.clone());
            if before.is_none_or(|before| before == *hosts) {
                learned.health = Health::Unknown;
            }
        }
        learned
    }

    fn learn_lane(&mut self, name: &SiteName, pool: &PoolName, source: SourceId, learned: &Learned, now: Timestamp) {
        if *learned == Learned::default() {
            if let Some(site) = self.sites.get_mut(name) {
                site.unstick();
            }
            return;
        }
        let alone = matches!(learned.health, Health::Unreachable(_))
            && !self.has_alternative(name, pool, source, Families::default(), now);
        let Some(site) = self.sites.get_mut(name) else { return };
        site.unstick();
        let was_proven = site.is_proven();
        // Most of what is learned is that all goes well.
        let may_suspend = learned.health != Health::Good && site.all_suspended_until(now).is_none();
        site.learn(&learned.health, source, alone, now);
        let changes =
            site.lane_mut(source).map_or_else(Vec::new, |entry| entry.lane.learn(learned, entry.connections, now));
        let suspended_until = if may_suspend { site.all_suspended_until(now) } else { None };
        self.move_line(name, was_proven);
        if !changes.is_empty() {
            if changes.iter().any(|change| matches!(change, Change::Blocked { .. })) {
                self.count_block(name, source, now);
            }
            self.tell(name, source, changes, now);
        }
        if let Some(until) = suspended_until {
            self.set_alarm(name, until);
            self.drop_payloads(name);
        }
    }

    /// What waits for long at a site keeps no body in memory.
    fn drop_payloads(&mut self, name: &SiteName) {
        let Some(site) = self.sites.get(name) else { return };
        for queue in &site.queues {
            let flows = queue.fair.flows();
            for key in flows.iter().flat_map(|(_, flow)| &flow.ready).chain(queue.pinned.values().flatten()) {
                let job = self.jobs.get_mut(key).filter(|job| job.state == JobState::Ready);
                let payload = job.and_then(|job| job.payload.take());
                self.payload_bytes -= payload.map_or(0, |payload| payload.bytes());
            }
        }
    }

    /// A site's connections and its place in line follow, where what was learned tells whether it works.
    fn move_line(&mut self, name: &SiteName, was_proven: bool) {
        let Some(site) = self.sites.get(name) else { return };
        let (is_proven, connections, in_line) = (site.is_proven(), site.connections, site.in_line);
        if was_proven == is_proven {
            return;
        }
        let unproven = &mut self.line.unproven_connections;
        *unproven = if is_proven { unproven.saturating_sub(connections) } else { *unproven + connections };
        if in_line {
            self.line.change_lines(name, was_proven);
        }
    }

    /// The hosts of a connection's domain have no address of its source's family: other sources take its jobs.
    pub(super) fn lacks_addresses(&mut self, id: ConnectionId) {
        let Some(Connection { domain, source, .. }) = self.connections.get(&id) else { return };
        let Some(family) = self.fleet.source(*source).map(|source| source.family) else { return };
        if let Some(state) = self.domains.get_mut(domain) {
            state.lacks.add(family);
        }
    }

    /// Remembers to save what a set may send, where there is something to save.
    pub(super) fn note_set(&mut self, name: &SiteName, set: &str, now: Timestamp) {
        if set.is_empty() {
            return;
        }
        let lane = self.sites.get_mut(name).and_then(|site| site.set_mut(set));
        if lane.is_some_and(|lane| lane.wants_save(now)) {
            self.dirty.insert(LaneName::Set(name.clone(), set.into()));
        }
    }

    /// Changes of a lane become events; so does that all sources of a pool are blocked, once, and that one is back.
    pub(super) fn tell(&mut self, name: &SiteName, source: SourceId, changes: Vec<Change>, now: Timestamp) {
        let source_name = self.fleet.name(source);
        let Some(site) = self.sites.get_mut(name) else { return };
        let provider = site.provider.clone();
        let event = |kind| LaneEvent { at: now, site: name.clone(), provider: provider.clone(), kind };
        let changes = changes.into_iter().map(|change| LaneEventKind::Lane(source_name.clone(), change));
        self.lane_events.extend(changes.map(event));
        for (pool, is_blocked) in site.newly_blocked() {
            let first_end = || {
                let queue = site.queues.iter().find(|queue| queue.pool == pool);
                queue.and_then(|queue| site.suspended_until(queue, now)).unwrap_or(now)
            };
            let kind = if is_blocked {
                LaneEventKind::PoolBlocked(pool.clone(), first_end())
            } else {
                LaneEventKind::PoolUnblocked(pool)
            };
            self.lane_events.push(event(kind));
        }
    }

    /// Remembers to save a lane, where it has something to save.
    pub(super) fn note_dirty(&mut self, name: &SiteName, source: SourceId, now: Timestamp) {
        let entry = self.sites.get_mut(name).and_then(|site| site.lane_mut(source));
        if entry.is_some_and(|entry| entry.lane.wants_save(now)) {
            self.dirty.insert(LaneName::Lane(name.clone(), self.fleet.name(source)));
        }
    }

    /// The lane, or the meter, that a state belongs to.
    fn lane_of(&mut self, name: &LaneName) -> Option<&mut crate::policy::lane::Lane> {
        match name {
            LaneName::Lane(site, source) => {
                let source = self.fleet.id(source)?;
                Some(&mut self.sites.get_mut(site)?.lane_mut(source)?.lane)
            }
            LaneName::Set(site, set) => self.sites.get_mut(site)?.set_mut(set),
            LaneName::Source(_) | LaneName::Pool(_) => self.fleet.meter(name).map(|meter| &mut *meter.lane),
        }
    }

    /// Asks for what changed of lanes to be written. Call after each round of inputs. Lanes whose last state is still being
    /// written wait.
    pub fn flush_lanes(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if self.dirty.is_empty() && self.lane_events.is_empty() && self.forgotten.is_empty() && self.ordered.is_empty()
        {
            return;
        }
        let remove = std::iter::from_fn(|| self.forgotten.pop_first()).take(SAVE_LANES_MAX).collect();
        let mut save = LaneSave { remove, events: std::mem::take(&mut self.lane_events), ..LaneSave::default() };
        save.put = std::mem::take(&mut self.ordered);
        save.urgent = !save.events.is_empty() || !save.put.is_empty();
        let mut left = std::collections::BTreeSet::new();
        for name in std::mem::take(&mut self.dirty) {
            if self.saving.contains(&name) || save.put.len() >= SAVE_LANES_MAX {
                left.insert(name);
                continue;
            }
            let Some(lane) = self.lane_of(&name).filter(|lane| lane.wants_save(now)) else { continue };
            save.urgent |= lane.wants_sync();
            let state = lane.save(now);
            self.saving.insert(name.clone());
            save.put.push(SavedLane { name, state });
        }
        self.dirty = left;
        if !save.put.is_empty() || !save.remove.is_empty() || !save.events.is_empty() {
            actions.push(Action::SaveLanes(save));
        }
    }

    /// The states of these lanes are on disk; their sites go on.
    pub fn lanes_saved(&mut self, names: &[LaneName], now: Timestamp, actions: &mut Vec<Action>) {
        for name in names {
            self.saving.remove(name);
            if let Some(lane) = self.lane_of(name) {
                lane.saved(true, now);
            }
            if let LaneName::Lane(site, _) | LaneName::Set(site, _) = name {
                if let Some(state) = self.sites.get_mut(site) {
                    state.unstick();
                }
                self.serve(site, now, actions);
            }
        }
    }

    /// What all lanes would keep over a restart, for the last write before the end.
    pub fn all_lanes(&mut self, now: Timestamp) -> LaneSave {
        let mut save = LaneSave { events: std::mem::take(&mut self.lane_events), ..LaneSave::default() };
        for site_name in self.site_names() {
            let Some(site) = self.sites.get_mut(&site_name) else { continue };
            for entry in &mut site.lanes {
                let name = LaneName::Lane(site_name.clone(), self.fleet.name(entry.source));
                save.last(name, &mut entry.lane, now);
            }
            for entry in &mut site.sets {
                save.last(LaneName::Set(site_name.clone(), entry.set.clone()), &mut entry.lane, now);
            }
        }
        for (key, meter) in self.fleet.all_meters() {
            save.last(key.lane_name(), &mut meter.lane, now);
        }
        save
    }

    /// Lanes that have something to save by the time that passed.
    pub(super) fn sweep_lanes(&mut self, now: Timestamp) {
        for (name, site) in &mut self.sites {
            for entry in &mut site.lanes {
                if entry.lane.wants_save(now) {
                    self.dirty.insert(LaneName::Lane(name.clone(), self.fleet.name(entry.source)));
                }
            }
            for entry in &mut site.sets {
                if entry.lane.wants_save(now) {
                    self.dirty.insert(LaneName::Set(name.clone(), entry.set.clone()));
                }
            }
        }
    }

    /// Makes room for lanes: first those go that nobody used since the start, then those that learned nothing, or else those that
    /// were used least lately. `false`: all are in use.
    pub(super) fn forget_lanes(&mut self, now: Timestamp) -> bool {
        let max = self.settings.lanes_max;
        // As many as are too many, where a reload lowered the limit.
        let excess = (self.lanes + self.saved.len() + 1).saturating_sub(max);
        let mut left = excess.max((max / FORGET_SHARE).max(1));
        left -= self.forget_saved(left);
        if left > 0 {
            self.forget_idle(left, now);
        }
        self.lanes + self.saved.len() < max
    }

    /// Up to so many states of before the start, the oldest first; warm-ups last.
    fn forget_saved(&mut self, most: usize) -> usize {
        let age = |(name, state): (&LaneName, &LaneState)| (state.warmup.is_some(), state.saved_at, name.clone());
        let mut old: Vec<(bool, Timestamp, LaneName)> = self.saved.iter().map(age).collect();
        if old.len() > most {
            old.select_nth_unstable(most);
            old.truncate(most);
        }
        for (.., name) in &old {
            self.saved.remove(name);
            self.forgotten.insert(name.clone());
        }
        old.len()
    }

    /// Up to so many lanes without a connection, and sets of which nothing waits.
    fn forget_idle(&mut self, most: usize, now: Timestamp) {
        let mut idle = Vec::new();
        for (name, site) in &self.sites {
            for entry in site.lanes.iter().filter(|entry| entry.connections == 0) {
                let worth = match (entry.lane.is_forgettable(now), entry.lane.closed_until(now)) {
                    (true, _) => 0,
                    // What it sent today would be forgotten with it.
                    _ if entry.lane.is_warming() => 3,
                    (false, None) => 1,
                    (false, Some(_)) => 2,
                };
                let lane_name = LaneName::Lane(name.clone(), self.fleet.name(entry.source));
                idle.push((worth, entry.used_at, lane_name));
            }
            let is_idle = |set: &str| site.queues.iter().all(|queue| *queue.set != *set || queue.is_idle());
            for entry in site.sets.iter().filter(|entry| is_idle(&entry.set)) {
                let worth = if entry.lane.is_forgettable(now) { 0 } else { 3 };
                let used_at = entry.lane.warmup(now).and_then(|report| report.last_sent_at).unwrap_or(Timestamp::EPOCH);
                idle.push((worth, used_at, LaneName::Set(name.clone(), entry.set.clone())));
            }
        }
        if idle.len() > most {
            idle.select_nth_unstable(most);
            idle.truncate(most);
        }
        for (.., lane_name) in idle {
            if !self.saving.contains(&lane_name) {
                self.forget_lane(lane_name);
            }
        }
    }

    fn forget_lane(&mut self, name: LaneName) {
        let (LaneName::Lane(site, _) | LaneName::Set(site, _)) = &name else { return };
        let Some(state) = self.sites.get_mut(site) else { return };
        match &name {
            LaneName::Lane(_, source) => {
                let id = self.fleet.id(source);
                state.lanes.retain(|entry| Some(entry.source) != id);
            }
            LaneName::Set(_, set) => state.sets.retain(|entry| entry.set != *set),
            LaneName::Source(_) | LaneName::Pool(_) => return,
        }
        self.lanes -= 1;
        self.dirty.remove(&name);
        self.forgotten.insert(name);
    }
}

impl LaneSave {
    /// The last state of a lane, or that there is nothing to remember of it.
    fn last(&mut self, name: LaneName, lane: &mut crate::policy::lane::Lane, now: Timestamp) {
        match lane.last_save(now) {
            Some(state) => self.put.push(SavedLane { name, state }),
            None => self.remove.push(name),
        }
    }
}

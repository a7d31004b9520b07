//! Warm-ups of sources and configuration sets at sites: what came of messages is counted, plans follow the config, operators are
//! answered.

use super::Scheduler;
use crate::policy::lane::{Change, Lane, WarmupOrder};
use crate::policy::limits::Rates;
use crate::policy::warmup::Tally;
use crate::scheduler::fleet::{SourceId, meter_limits};
use crate::scheduler::sites::Site;
use crate::scheduler::warmup::{WarmupEntry, WarmupFilter};
use crate::scheduler::{Action, HistorySave, LaneEvent, LaneEventKind, LaneName, Report, SavedLane, SiteName};
use crate::types::{DayTotals, PoolName, Timestamp};

/// How often what was counted is written, at most: so much of it a crash may lose. Caps lose nothing.
const HISTORY_EVERY: std::time::Duration = std::time::Duration::from_secs(60);

impl Scheduler {
    /// Counts what came of an assignment of `sent` transactions: for the history, for warm-ups (that of a configuration set, too), and
    /// for managed pools (`overflowed`: the pool whose own source this is not).
    pub(super) fn count(
        &mut self,
        name: &SiteName,
        source: SourceId,
        (set, overflowed): (&str, Option<&PoolName>),
        report: &Report,
        sent: u32,
        now: Timestamp,
    ) {
        let totals = &report.totals;
        let counts = |site: &&mut Site| totals.sent > 0 && !site.is_simulated();
        let Some(site) = self.sites.get_mut(name).filter(counts) else { return };
        let provider = site.provider.clone();
        let tally = Tally {
            sent: totals.sent,
            // Caps count transactions: what is delivered of them, too.
            delivered: totals.delivered.min(sent),
            deferred: totals.deferred.saturating_sub(report.greylisted),
            bounced: totals.bounces(),
            complained: 0,
        };
        let of_set = site.set_mut(set).map(|lane| lane.counted(&tally, now)).unwrap_or_default();
        let lane = site.lane_mut(source).map(|entry| &mut entry.lane);
        let (changes, place) = lane.map(|lane| (lane.counted(&tally, now), lane.warmup_place())).unwrap_or_default();
        let source_name = self.fleet.name(source);
        self.volume.add(&source_name, overflowed, totals.sent, now);
        match place {
            Some((position, cap)) => {
                let totals = DayTotals { cap, position: Some(position), ..totals.clone() };
                self.ledger.add(name, &source_name, provider.as_ref(), &totals, now);
            }
            None => self.ledger.add(name, &source_name, provider.as_ref(), totals, now),
        }
        if !changes.is_empty() {
            self.tell(name, source, changes, now);
        }
        self.tell_set(name, set, of_set, now);
    }

    /// A site blocked a source.
    pub(super) fn count_block(&mut self, name: &SiteName, source: SourceId, now: Timestamp) {
        let provider = self.sites.get(name).and_then(|site| site.provider.clone());
        let totals = DayTotals { blocked: 1, ..DayTotals::default() };
        self.ledger.add(name, &self.fleet.name(source), provider.as_ref(), &totals, now);
    }

    /// Changes of the warm-up of a configuration set become events.
    fn tell_set(&mut self, name: &SiteName, set: &str, changes: Vec<Change>, now: Timestamp) {
        let provider = self.sites.get(name).and_then(|site| site.provider.clone());
        self.lane_events.extend(changes.into_iter().map(|change| LaneEvent {
            at: now,
            site: name.clone(),
            provider: provider.clone(),
            kind: LaneEventKind::Set(set.into(), change),
        }));
    }

    /// What time alone changed of warm-ups: midnights, the ends of freezes.
    pub(super) fn roll_warmups(&mut self, now: Timestamp) {
        self.each_warmup(|lane, _| Some(lane.roll(now)), now);
    }

    /// Plans as the config has them now. A source or set that is not there any more keeps what it has: it may come back today.
    pub(super) fn reload_warmups(&mut self, name: &SiteName, now: Timestamp) {
        let Some(site) = self.sites.get_mut(name) else { return };
        let provider = site.provider.clone();
        let (mut told, mut of_sets) = (Vec::new(), Vec::new());
        for entry in &mut site.lanes {
            let plan = self.fleet.plan(entry.source, provider.as_deref());
            if plan.is_none() && !self.fleet.is_configured(entry.source) {
                continue;
            }
            told.push((entry.source, entry.lane.set_warmup(plan, now)));
        }
        for entry in &mut site.sets {
            if let Some(plan) = self.fleet.set_plan(&entry.set, provider.as_deref()) {
                of_sets.push((entry.set.clone(), entry.lane.set_warmup(Some(plan), now)));
            }
        }
        for (source, changes) in told.into_iter().filter(|(_, changes)| !changes.is_empty()) {
            self.tell(name, source, changes, now);
        }
        for (set, changes) in of_sets {
            self.tell_set(name, &set, changes, now);
        }
    }

    /// Does something to each warm-up in memory, in order, and tells what that changed. How many there were for whom it was
    /// something.
    fn each_warmup(
        &mut self,
        mut act: impl FnMut(&mut Lane, &LaneName) -> Option<Vec<Change>>,
        now: Timestamp,
    ) -> usize {
        let mut done = 0;
        for name in self.site_names() {
            let Some(site) = self.sites.get_mut(&name) else { continue };
            let (mut told, mut of_sets) = (Vec::new(), Vec::new());
            for entry in &mut site.lanes {
                if entry.lane.has_warmup() {
                    let lane_name = LaneName::Lane(name.clone(), self.fleet.name(entry.source));
                    let Some(changes) = act(&mut entry.lane, &lane_name) else { continue };
                    told.push((entry.source, changes));
                }
            }
            for entry in &mut site.sets {
                let lane_name = LaneName::Set(name.clone(), entry.set.clone());
                let Some(changes) = act(&mut entry.lane, &lane_name) else { continue };
                of_sets.push((entry.set.clone(), changes));
            }
            done += told.len() + of_sets.len();
            for (source, changes) in told.into_iter().filter(|(_, changes)| !changes.is_empty()) {
                self.tell(&name, source, changes, now);
                self.note_dirty(&name, source, now);
            }
            for (set, changes) in of_sets.into_iter().filter(|(_, changes)| !changes.is_empty()) {
                self.tell_set(&name, &set, changes, now);
                self.note_set(&name, &set, now);
            }
        }
        done
    }

    /// How warm-ups stand, by source or set, then site: those in memory, and those from before the start.
    pub fn warmups(&self, filter: &WarmupFilter, now: Timestamp) -> Vec<WarmupEntry> {
        let mut found = Vec::new();
        for (name, site) in &self.sites {
            let provider = site.provider.as_ref();
            for entry in &site.lanes {
                let lane_name = LaneName::Lane(name.clone(), self.fleet.name(entry.source));
                found.extend(WarmupEntry::of(&lane_name, provider, &entry.lane, filter, now));
            }
            for entry in &site.sets {
                let lane_name = LaneName::Set(name.clone(), entry.set.clone());
                found.extend(WarmupEntry::of(&lane_name, provider, &entry.lane, filter, now));
            }
        }
        for name in self.saved.iter().filter(|(_, state)| state.warmup.is_some()).map(|(name, _)| name) {
            let provider = self.provider_of_saved(name);
            let lane = self.lane_of_old(name, meter_limits(Rates::default()), provider.as_deref(), now);
            found.extend(WarmupEntry::of(name, provider.as_ref(), &lane, filter, now));
        }
        found.sort_by(|a, b| (&a.source, &a.set, &a.site).cmp(&(&b.source, &b.set, &b.site)));
        found
    }

    /// The provider of a site that is not in memory, by its name.
    fn provider_of_saved(&self, name: &LaneName) -> Option<std::sync::Arc<str>> {
        let (LaneName::Lane(site, _) | LaneName::Set(site, _)) = name else { return None };
        let provider = site.provider_name()?;
        self.settings.providers.get(provider).map(|provider| std::sync::Arc::clone(&provider.name))
    }

    /// Does what an operator says of warm-ups. How many that were.
    pub fn order_warmup(
        &mut self,
        filter: &WarmupFilter,
        order: WarmupOrder,
        now: Timestamp,
        actions: &mut Vec<Action>,
    ) -> usize {
        let names: Vec<(SiteName, Option<std::sync::Arc<str>>)> =
            self.sites.iter().map(|(name, site)| (name.clone(), site.provider.clone())).collect();
        let providers: std::collections::HashMap<_, _> = names.into_iter().collect();
        let mut complaints = Vec::new();
        let mut touched = std::collections::BTreeSet::new();
        let done = self.each_warmup(
            |lane, name| {
                let (LaneName::Lane(site, _) | LaneName::Set(site, _)) = name else { return None };
                let provider = providers.get(site).and_then(Option::as_deref);
                if !filter.matches(name, provider) {
                    return None;
                }
                touched.insert(site.clone());
                if let (WarmupOrder::Complaints(count), LaneName::Lane(site, source)) = (order, name) {
                    complaints.push((site.clone(), source.clone(), count));
                }
                lane.order_warmup(order, now)
            },
            now,
        );
        for (site, source, complained) in complaints {
            let totals = DayTotals { complained, ..DayTotals::default() };
            let provider = providers.get(&site).and_then(Clone::clone);
            self.ledger.add(&site, &source, provider.as_ref(), &totals, now);
        }
        let done = done + self.order_saved(filter, order, now);
        for site in touched {
            if let Some(state) = self.sites.get_mut(&site) {
                state.unstick();
            }
            self.serve(&site, now, actions);
        }
        done
    }

    /// The same for those that were not used since the start.
    fn order_saved(&mut self, filter: &WarmupFilter, order: WarmupOrder, now: Timestamp) -> usize {
        let mut names: Vec<LaneName> = self.saved.keys().cloned().collect();
        names.retain(|name| filter.matches(name, self.provider_of_saved(name).as_deref()));
        names.sort_unstable();
        let mut done = 0;
        for name in names {
            let provider = self.provider_of_saved(&name);
            let limits = self.settings.providers.limits(provider.as_deref(), self.settings.limits);
            let mut lane = self.lane_of_old(&name, limits, provider.as_deref(), now);
            let Some(changes) = lane.order_warmup(order, now) else { continue };
            let Some(state) = lane.last_save(now) else { continue };
            done += 1;
            self.saved.insert(name.clone(), state.clone());
            self.ordered.push(SavedLane { name: name.clone(), state });
            let kind = |change| match &name {
                LaneName::Set(_, set) => LaneEventKind::Set(set.clone(), change),
                LaneName::Lane(_, source) | LaneName::Source(source) => LaneEventKind::Lane(source.clone(), change),
                LaneName::Pool(_) => LaneEventKind::Set("".into(), change),
            };
            let (LaneName::Lane(site, _) | LaneName::Set(site, _)) = &name else { continue };
            self.lane_events.extend(changes.into_iter().map(|change| LaneEvent {
                at: now,
                site: site.clone(),
                provider: provider.clone(),
                kind: kind(change),
            }));
        }
        done
    }

    /// What was counted goes to disk, and what is older than is kept goes away.
    pub(super) fn sweep_history(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        if now < self.history_at.plus(HISTORY_EVERY) {
            return;
        }
        self.history_at = now;
        let save = self.history(now);
        if !save.rows.is_empty() || save.prune_before.is_some() {
            actions.push(Action::SaveHistory(save));
        }
    }

    /// What was counted and not written yet.
    pub fn history(&mut self, now: Timestamp) -> HistorySave {
        let rows = self.ledger.rows_to_write(now);
        let is_new_day = self.pruned_on != Some(self.ledger.day());
        self.pruned_on = Some(self.ledger.day());
        let first_kept = self.ledger.day().saturating_sub(crate::queue::HISTORY_KEPT_DAYS - 1);
        HistorySave { rows, prune_before: is_new_day.then_some(first_kept) }
    }
}

//! All scopes together: which of them changes, and who is to be paused.
//!
//! Configuration sets are judged before tenants, and a tenant without what its sets did that are paused or forgiven: so a
//! bad set is paused alone, and its tenant goes on. Where no set is bad enough by itself, or has too few recipients to be
//! judged, and yet the tenant would be paused because of a single set that only this tenant uses, that set is paused in its
//! place. Of all others (the server, credentials, identities, pools, sources, providers) rates are told, and nothing is paused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::hours::{Counts, Hours, Rates};
use super::limits::{Degree, Limits, Settings};
use super::standing::{Change, Level, PausedBy, Standing, State};
use crate::types::{Hour, Mark, ReputationScope, ScopeKind, Timestamp};

/// Scopes that are judged, 17 KiB each at most. Full: a further one is not judged until others are forgotten, which are those
/// without mail in 60 days.
pub const SCOPES_MAX: usize = 50_000;
/// Of these, credentials and identities: the others must not want for room.
const SENDERS_MAX: usize = 40_000;

/// Where one set is to be at fault, what its tenant sends otherwise is looked at from this part of `recipients_min` on.
const OTHERS_PART: u32 = 10;

/// A change, and what led to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whose.
    pub scope: ReputationScope,
    /// What changed.
    pub change: Change,
    /// The rates as they were judged.
    pub rates: Rates,
    /// What they are held against.
    pub limits: Limits,
    /// How it stands now: to be kept.
    pub standing: Standing,
}

/// A scope, as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub scope: ReputationScope,
    /// How it stands.
    pub standing: Standing,
    /// Its rates as they are judged.
    pub rates: Rates,
    /// What they are held against.
    pub limits: Limits,
}

#[derive(Debug, Default)]
struct Entry {
    hours: Hours,
    standing: Standing,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Judge {
    entries: BTreeMap<ReputationScope, Entry>,
    senders: usize,
    /// Scopes of which something changed since they were judged.
    changed: BTreeSet<ReputationScope>,
    /// When all were judged, and by what.
    judged: Option<(Hour, Arc<Settings>)>,
}

impl Judge {
    /// How a scope stood before a restart.
    pub fn restore(&mut self, scope: ReputationScope, standing: Standing) {
        // A pause is never left out for want of room.
        self.senders += usize::from(is_sender(scope.kind) && !self.entries.contains_key(&scope));
        self.entries.entry(scope).or_default().standing = standing;
        self.judged = None;
    }

    /// There are so many of this mark in this hour, in all. `false`: there is no room for this scope.
    pub fn mark(&mut self, scope: &ReputationScope, hour: Hour, mark: Mark, sum: u64) -> bool {
        if !self.entries.contains_key(scope) {
            let is_sender = is_sender(scope.kind);
            if self.entries.len() >= SCOPES_MAX || (is_sender && self.senders >= SENDERS_MAX) {
                return false;
            }
            self.senders += usize::from(is_sender);
        }
        self.entries.entry(scope.clone()).or_default().hours.set(hour, mark, sum);
        let whose = match scope.kind {
            ScopeKind::TenantSet => tenant_of(scope),
            _ => scope.clone(),
        };
        self.changed.insert(whose);
        true
    }

    /// What changes now. All are judged anew where the hour or the settings changed, otherwise those with new marks.
    pub fn judge(&mut self, settings: &Arc<Settings>, now: Timestamp) -> Vec<Verdict> {
        let hour = Hour::of(now);
        let is_same = |(judged, by): &(Hour, Arc<Settings>)| *judged == hour && Arc::ptr_eq(by, settings);
        if !self.judged.as_ref().is_some_and(is_same) {
            self.forget(hour);
            self.changed = self.entries.keys().cloned().collect();
            self.judged = Some((hour, Arc::clone(settings)));
        }
        let changed = std::mem::take(&mut self.changed);
        let (tenants, others): (Vec<_>, Vec<_>) =
            changed.into_iter().partition(|scope| scope.kind == ScopeKind::Tenant);
        let mut verdicts = Vec::new();
        for scope in others.iter().filter(|scope| scope.kind != ScopeKind::TenantSet) {
            self.judge_one(scope, settings, now, &mut verdicts);
        }
        // A set that was paused just now takes its mail out of the rates of its tenants.
        let mut tenants: BTreeSet<_> = tenants.into_iter().collect();
        if verdicts.iter().any(|verdict| verdict.scope.kind == ScopeKind::ConfigurationSet) {
            tenants.extend(self.entries.keys().filter(|scope| scope.kind == ScopeKind::Tenant).cloned());
        }
        for scope in &tenants {
            self.judge_tenant(scope, settings, now, &mut verdicts);
        }
        verdicts
    }

    /// An operator refuses its mail. `None`: it is paused already.
    pub fn pause(
        &mut self,
        scope: &ReputationScope,
        reason: &str,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Verdict> {
        assert!(scope.kind.is_pausable(), "the caller offers to pause tenants and sets only");
        let change = self.entries.entry(scope.clone()).or_default().standing.pause(PausedBy::Operator, reason, now)?;
        self.judged = None;
        Some(self.verdict(scope, change, settings, now))
    }

    /// An operator takes its mail again. `None`: it is not paused.
    pub fn resume(
        &mut self,
        scope: &ReputationScope,
        reason: &str,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<Verdict> {
        let Entry { hours, standing } = self.entries.get_mut(scope)?;
        let change = standing.resume(reason, hours.newest(Hour::of(now)), now)?;
        self.judged = None;
        Some(self.verdict(scope, change, settings, now))
    }

    /// Those whose mail is refused.
    pub fn paused(&self) -> impl Iterator<Item = &ReputationScope> {
        self.entries.iter().filter(|(_, entry)| entry.standing.pause.is_some()).map(|(scope, _)| scope)
    }

    /// How all scopes stand that are told of, in order of kind and name.
    pub fn standings(&self) -> impl Iterator<Item = (&ReputationScope, &Standing)> {
        let told = self.entries.iter().filter(|(scope, _)| scope.kind != ScopeKind::TenantSet);
        told.map(|(scope, entry)| (scope, &entry.standing))
    }

    /// Of those that are wanted, rates and limits, too.
    pub fn rows<'a>(
        &'a self,
        settings: &'a Settings,
        now: Timestamp,
        is_wanted: impl Fn(&ReputationScope, &Standing) -> bool + 'a,
    ) -> impl Iterator<Item = Row> + 'a {
        let wanted = self.standings().filter(move |(scope, standing)| is_wanted(scope, standing));
        wanted.map(move |(scope, standing)| Row {
            scope: scope.clone(),
            standing: standing.clone(),
            rates: self.rates(scope, settings, Hour::of(now), None),
            limits: *settings.of(scope),
        })
    }

    fn judge_one(
        &mut self,
        scope: &ReputationScope,
        settings: &Settings,
        now: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) -> Level {
        let (rates, limits) = (self.rates(scope, settings, Hour::of(now), None), *settings.of(scope));
        let Some(entry) = self.entries.get_mut(scope) else { return Level::Healthy };
        entry.standing.forgiven_through = entry.standing.forgiven(Hour::of(now));
        let recipients_min = settings.recipients_min;
        let level = entry.standing.level.after(limits.degrees(&rates, recipients_min));
        let is_worse = level > entry.standing.level;
        let degree = if level == Level::Critical { Degree::Pause } else { Degree::Warning };
        let reason = || {
            if is_worse {
                return limits.reason(&rates, degree, recipients_min);
            }
            format!(
                "{} of {} recipients bounced, {} of {} delivered were complained about",
                rates.bounces, rates.bounces.of, rates.complaints, rates.complaints.of
            )
        };
        let paused = scope.kind.is_pausable() && limits.automatic_pause && level == Level::Critical;
        let from = entry.standing.state();
        let moved = entry.standing.move_to(level, reason, now);
        let change = if paused {
            // One change, where it was neither critical nor paused before.
            let why = limits.reason(&rates, Degree::Pause, recipients_min);
            let why = moved.as_ref().map_or_else(|| why.into(), |moved| moved.reason.clone());
            entry.standing.pause(PausedBy::Rates, &why, now).map(|change| Change { from, ..change })
        } else {
            moved
        };
        if let Some(change) = change {
            verdicts.push(self.verdict(scope, change, settings, now));
        }
        level
    }

    fn judge_tenant(
        &mut self,
        tenant: &ReputationScope,
        settings: &Settings,
        now: Timestamp,
        verdicts: &mut Vec<Verdict>,
    ) {
        // Each round pauses one set more, or ends.
        while let Some((set, reason)) = self.set_at_fault(tenant, settings, now) {
            let standing = self.entries.get_mut(&set).map(|entry| &mut entry.standing);
            let Some(change) = standing.and_then(|standing| standing.pause(PausedBy::Rates, &reason, now)) else {
                break;
            };
            verdicts.push(self.verdict(&set, change, settings, now));
        }
        self.judge_one(tenant, settings, now, verdicts);
    }

    /// The set because of which alone a tenant would be paused now.
    fn set_at_fault(
        &self,
        tenant: &ReputationScope,
        settings: &Settings,
        now: Timestamp,
    ) -> Option<(ReputationScope, String)> {
        let (hour, limits) = (Hour::of(now), settings.of(tenant));
        let standing = &self.entries.get(tenant)?.standing;
        let rates = self.rates(tenant, settings, hour, None);
        let would_pause = |rates: &Rates| limits.degrees(rates, settings.recipients_min).0 == Degree::Pause;
        if !limits.automatic_pause || standing.pause.is_some() || !would_pause(&rates) {
            return None;
        }
        let is_candidate = |set: &ReputationScope| {
            let entry = self.entries.get(set);
            entry.is_some_and(|entry| entry.standing.pause.is_none())
                && settings.of(set).automatic_pause
                && self.users(set).nth(1).is_none()
        };
        let mut worst: Option<(u64, ReputationScope)> = None;
        for pair in self.pairs(tenant) {
            let Some(set) = set_of(pair).filter(is_candidate) else { continue };
            let others = self.rates(tenant, settings, hour, Some(pair));
            if limits.degrees(&others, settings.recipients_min / OTHERS_PART).0 == Degree::Pause {
                continue;
            }
            let of_set = self.rates(pair, settings, hour, None);
            let weight = of_set.bounces.count + of_set.complaints.count;
            if worst.as_ref().is_none_or(|(most, _)| weight > *most) {
                worst = Some((weight, set));
            }
        }
        let (_, set) = worst?;
        let why = limits.reason(&rates, Degree::Pause, settings.recipients_min);
        Some((set, format!("because of this set alone, of tenant {}: {why}", tenant.name)))
    }

    /// The tenants that send by a set, as pairs.
    fn users(&self, set: &ReputationScope) -> impl Iterator<Item = &ReputationScope> {
        let pairs = self.entries.range(ReputationScope::new(ScopeKind::TenantSet, "")..);
        pairs.map(|(pair, _)| pair).filter(move |pair| set_of(pair).is_some_and(|of| of.name == set.name))
    }

    /// What a tenant sends by each set.
    fn pairs<'a>(&'a self, tenant: &'a ReputationScope) -> impl Iterator<Item = &'a ReputationScope> {
        let first = ReputationScope::new(ScopeKind::TenantSet, &format!("{}/", tenant.name));
        let is_of = |pair: &ReputationScope| {
            let rest = pair.name.strip_prefix(&*tenant.name);
            pair.kind == ScopeKind::TenantSet && rest.is_some_and(|rest| rest.starts_with('/'))
        };
        self.entries.range(first..).map(|(pair, _)| pair).take_while(move |pair| is_of(pair))
    }

    /// The rates of a scope as they are judged; of a tenant without one more pair, too.
    fn rates(
        &self,
        scope: &ReputationScope,
        settings: &Settings,
        now: Hour,
        without: Option<&ReputationScope>,
    ) -> Rates {
        let Some(entry) = self.entries.get(scope) else { return Rates::default() };
        let forgiven = entry.standing.forgiven(now);
        if scope.kind != ScopeKind::Tenant {
            return entry.hours.rates(now, settings.volume, forgiven, |_| Counts::default());
        }
        let mut left_out = Vec::new();
        for pair in self.pairs(scope) {
            let Some(of_pair) = self.entries.get(pair) else { continue };
            let set = set_of(pair).and_then(|set| self.entries.get(&set)).map(|set| &set.standing);
            let through = match set {
                _ if without == Some(pair) => Some(Hour::from_number(u64::MAX)),
                Some(set) if set.pause.is_some() => Some(Hour::from_number(u64::MAX)),
                set => set.and_then(|set| set.forgiven(now)),
            };
            left_out.extend(through.map(|through| (&of_pair.hours, through)));
        }
        entry.hours.rates(now, settings.volume, forgiven, |hour| {
            let of_hour = left_out.iter().filter(|(_, through)| hour <= *through).map(|(hours, _)| hours.at(hour));
            of_hour.fold(Counts::default(), Counts::plus)
        })
    }

    fn verdict(&self, scope: &ReputationScope, change: Change, settings: &Settings, now: Timestamp) -> Verdict {
        Verdict {
            scope: scope.clone(),
            change,
            rates: self.rates(scope, settings, Hour::of(now), None),
            limits: *settings.of(scope),
            standing: self.entries.get(scope).map(|entry| entry.standing.clone()).unwrap_or_default(),
        }
    }

    fn forget(&mut self, now: Hour) {
        self.entries.retain(|_, entry| {
            entry.hours.forget(now);
            !entry.hours.is_empty() || entry.standing.state() != State::Healthy
        });
        self.senders = self.entries.keys().filter(|scope| is_sender(scope.kind)).count();
    }
}

fn is_sender(kind: ScopeKind) -> bool {
    matches!(kind, ScopeKind::Credential | ScopeKind::Identity)
}

/// Of `tenant_set/TENANT/SET`: names of tenants and sets have no slash.
fn tenant_of(pair: &ReputationScope) -> ReputationScope {
    ReputationScope::new(ScopeKind::Tenant, pair.name.split_once('/').map_or(&*pair.name, |(tenant, _)| tenant))
}

fn set_of(pair: &ReputationScope) -> Option<ReputationScope> {
    pair.name.split_once('/').map(|(_, set)| ReputationScope::new(ScopeKind::ConfigurationSet, set))
}

//! Quotas: how many recipients the server, a tenant, a credential and a configuration set may send to, in 24 hours and in a
//! second.
//!
//! A message is charged to every scope of its sender, limited or not, so that usage is visible; it is refused where any of
//! them would go above its limit, and then nothing is charged. [`Quotas::reserve`] does both under the locks of all
//! its scopes at once, so that what is reserved and what is accepted never pass a limit together, and a message that one
//! scope refuses never stands in the way of another sender, not even for an instant. A [`Reservation`] goes with the
//! message into the queue: the committer keeps it when the batch with its charges is durable; dropped before (message
//! refused, client gone, store full), it gives back what it took.
//!
//! The store and the windows here agree by construction: a charge is written under the minute of its reservation, and the
//! reservation is kept by the batch that wrote the charge. What a start loads is therefore what was kept before.
//!
//! Locks are held for less than a microsecond and never while anything waits: one for each scope, taken in one order. Does
//! not: know the config (`directory`), or write anything (`queue`).

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::directory::{ConfigurationSet, Credential, Directory, Name, Quota, Tenant};
use crate::policy::quota::{Minute, Pace, Warnings, Window};
use crate::queue::{Charge, Charges, Claim, Queue};
use crate::types::{Clock, Timestamp};

/// Scopes that are counted. Full, and all were used in the last 48 hours: a further one is counted only where it has a
/// limit, and those are bounded by the config.
pub const SCOPES_MAX: usize = 100_000;
/// Minutes between two looks for scopes that are forgotten.
const SWEEP_EVERY: u64 = 60;

/// What has a quota. The order is the order in which they are locked: those that all share come last.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// One user name.
    Credential(Arc<str>),
    /// One configuration set.
    ConfigurationSet(Name),
    /// One tenant.
    Tenant(Name),
    /// All together.
    Server,
}

impl Scope {
    /// What kind it is: a word for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Scope::Server => "server",
            Scope::Tenant(_) => "tenant",
            Scope::Credential(_) => "credential",
            Scope::ConfigurationSet(_) => "configuration_set",
        }
    }

    /// Its name within its kind; empty for the server.
    pub fn name(&self) -> &str {
        match self {
            Scope::Server => "",
            Scope::Tenant(name) | Scope::ConfigurationSet(name) => name.as_str(),
            Scope::Credential(user) => user,
        }
    }

    /// From the text that [`fmt::Display`] gives.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once('/') {
            None => (text == "server").then_some(Scope::Server),
            Some(("tenant", name)) => Name::parse(name).map(Scope::Tenant),
            Some(("credential", user)) => Some(Scope::Credential(user.into())),
            Some(("configuration_set", name)) => Name::parse(name).map(Scope::ConfigurationSet),
            Some(_) => None,
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Server => f.write_str("server"),
            _ => write!(f, "{}/{}", self.kind(), self.name()),
        }
    }
}

/// A scope and its limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScopeLimit {
    /// Which.
    pub scope: Scope,
    /// How much.
    pub quota: Quota,
}

/// The scopes that a message is charged to.
pub fn scopes(
    directory: &Directory,
    tenant: &Tenant,
    credential: Option<&Credential>,
    set: Option<&ConfigurationSet>,
) -> Vec<ScopeLimit> {
    let mut scopes = Vec::with_capacity(4);
    scopes
        .extend(credential.map(|credential| limit(Scope::Credential(Arc::clone(&credential.user)), credential.quota)));
    scopes.extend(set.map(|set| limit(Scope::ConfigurationSet(set.name.clone()), set.quota)));
    scopes.push(limit(Scope::Tenant(tenant.name.clone()), tenant.quota));
    scopes.push(limit(Scope::Server, directory.quota));
    scopes
}

/// All scopes that the config knows.
pub fn limits(directory: &Directory) -> Vec<ScopeLimit> {
    let mut limits = vec![limit(Scope::Server, directory.quota)];
    limits.extend(directory.tenants().map(|tenant| limit(Scope::Tenant(tenant.name.clone()), tenant.quota)));
    let credentials = directory.credentials();
    limits.extend(credentials.map(|one| limit(Scope::Credential(Arc::clone(&one.user)), one.quota)));
    limits.extend(directory.sets().map(|set| limit(Scope::ConfigurationSet(set.name.clone()), set.quota)));
    limits
}

fn limit(scope: Scope, quota: Quota) -> ScopeLimit {
    ScopeLimit { scope, quota }
}

/// Why a message is not taken now; each has its 454.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Exceeded {
    /// It would be more than the scope may send in 24 hours.
    #[error("{scope} may send to {limit} recipients in 24 hours, and has sent to {used}")]
    Daily {
        /// Which.
        scope: Scope,
        /// Recipients in the last 24 hours.
        used: u64,
        /// Its limit.
        limit: u64,
    },
    /// It would be more than the scope may send in a second.
    #[error("{scope} may send to {limit} recipients a second")]
    Rate {
        /// Which.
        scope: Scope,
        /// Its limit.
        limit: u32,
    },
}

impl Exceeded {
    /// The scope that is at its limit.
    pub fn scope(&self) -> &Scope {
        match self {
            Exceeded::Daily { scope, .. } | Exceeded::Rate { scope, .. } => scope,
        }
    }

    /// Which limit: a word for labels.
    pub fn kind(&self) -> &'static str {
        match self {
            Exceeded::Daily { .. } => "daily",
            Exceeded::Rate { .. } => "rate",
        }
    }

    /// The text behind 454 4.7.0, as SES has it.
    pub fn text(&self) -> &'static str {
        match self {
            Exceeded::Daily { .. } => "Throttling failure: Daily message quota exceeded",
            Exceeded::Rate { .. } => "Throttling failure: Maximum sending rate exceeded",
        }
    }
}

/// A scope came near its daily limit, or to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuotaNotice {
    /// Which.
    pub scope: Scope,
    /// Recipients in the last 24 hours.
    pub used: u64,
    /// Its limit.
    pub limit: u64,
    /// 80 or 100.
    pub percent: u8,
}

/// Who hears of notices. Called on the committer's thread: must not block.
pub type Listener = Box<dyn Fn(&QuotaNotice) + Send + Sync>;

/// What all scopes used; shared by all sessions.
pub struct Quotas {
    counters: RwLock<HashMap<Scope, Arc<Counter>>>,
    clock: Arc<dyn Clock>,
    listener: Arc<Listener>,
    swept_at: AtomicU64,
    scopes_max: usize,
}

/// One scope.
struct Counter {
    scope: Scope,
    /// The scope's name in the store.
    key: Arc<str>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Kept and reserved.
    window: Window,
    pace: Pace,
    warnings: Warnings,
    /// What is counted comes from the store: whatever warnings it called for were given before the restart.
    is_loaded: bool,
}

impl Counter {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Quotas {
    /// Nothing was used so far.
    pub fn new(clock: Arc<dyn Clock>, listener: Listener) -> Self {
        let (counters, swept_at) = (RwLock::default(), AtomicU64::new(0));
        Self { counters, clock, listener: Arc::new(listener), swept_at, scopes_max: SCOPES_MAX }
    }

    /// Takes over what the store holds. Blocks. Called once, before the first message.
    pub fn load(&self, queue: &Queue) -> Result<(), crate::queue::store::StoreError> {
        let now = Minute::of(self.clock.now());
        queue.charged(now.number(), |minute, scope, recipients| {
            let Some(scope) = Scope::parse(scope) else {
                tracing::error!(scope, "a quota counter of a scope of no known kind is left alone");
                return;
            };
            let count = u32::try_from(recipients).unwrap_or(u32::MAX);
            let counter = self.counter(&scope);
            let mut state = counter.lock();
            state.window.add(Minute::from_number(minute), count);
            state.is_loaded = true;
        })
    }

    /// Charges a message to all these scopes, or to none. The charges are final when the reservation is kept.
    pub fn reserve(&self, scopes: &[ScopeLimit], recipients: u32) -> Result<Reservation, Exceeded> {
        let counters = self.counters_of(scopes);
        let mut states: Vec<_> = counters.iter().map(|(counter, _)| counter.lock()).collect();
        // Read under the locks, so that for no scope it goes back unless the clock does.
        let now = self.clock.now();
        let minute = Minute::of(now);
        for ((counter, quota), state) in counters.iter().zip(&mut states) {
            state.room_for(&counter.scope, *quota, recipients, minute)?;
        }
        for ((counter, quota), state) in counters.iter().zip(&mut states) {
            state.allows(&counter.scope, *quota, recipients, now)?;
        }
        for ((_, quota), state) in counters.iter().zip(&mut states) {
            if let Some(limit) = quota.per_day.filter(|_| std::mem::take(&mut state.is_loaded)) {
                let used = state.window.used(minute);
                state.warnings.due(used, limit);
            }
            state.window.add(minute, recipients);
            if let Some(per_second) = quota.per_second {
                state.pace.take(per_second, recipients, now);
            }
        }
        drop(states);
        let listener = Arc::clone(&self.listener);
        Ok(Reservation { counters, minute, recipients, listener, is_kept: AtomicBool::new(false) })
    }

    /// Whether not even one recipient more has room in 24 hours: so that a client learns it before it sends a body.
    pub fn check(&self, scopes: &[ScopeLimit]) -> Result<(), Exceeded> {
        let minute = Minute::of(self.clock.now());
        for ScopeLimit { scope, quota } in scopes.iter().filter(|limit| limit.quota.per_day.is_some()) {
            match self.known(scope) {
                Some(counter) => counter.lock().room_for(scope, *quota, 1, minute)?,
                None => State::default().room_for(scope, *quota, 1, minute)?,
            }
        }
        Ok(())
    }

    /// Recipients of the last 24 hours, with those of messages that are about to be accepted.
    pub fn used(&self, scope: &Scope) -> u64 {
        let minute = Minute::of(self.clock.now());
        self.known(scope).map_or(0, |counter| counter.lock().window.used(minute))
    }

    /// All scopes that used anything in the last 24 hours, in order.
    pub fn all(&self) -> Vec<(Scope, u64)> {
        let minute = Minute::of(self.clock.now());
        let counters: Vec<_> = self.read().values().cloned().collect();
        let used = counters.iter().map(|counter| (counter.scope.clone(), counter.lock().window.used(minute)));
        let mut used: Vec<_> = used.filter(|(_, used)| *used > 0).collect();
        used.sort();
        used
    }

    /// In the order in which they are locked, each once.
    fn counters_of(&self, scopes: &[ScopeLimit]) -> Vec<(Arc<Counter>, Quota)> {
        self.sweep(false);
        let mut counters = Vec::with_capacity(scopes.len());
        for ScopeLimit { scope, quota } in scopes {
            let is_limited = *quota != Quota::default();
            let has_room = || self.read().len() < self.scopes_max;
            let counter = match self.known(scope) {
                Some(counter) => counter,
                None if is_limited || has_room() => self.counter(scope),
                None => {
                    self.sweep(true);
                    if !has_room() {
                        tracing::debug!(%scope, "too many scopes: this one has no limit and is not counted");
                        continue;
                    }
                    self.counter(scope)
                }
            };
            counters.push((counter, *quota));
        }
        counters.sort_by(|(one, _), (other, _)| one.scope.cmp(&other.scope));
        counters.dedup_by(|(one, _), (other, _)| one.scope == other.scope);
        counters
    }

    fn known(&self, scope: &Scope) -> Option<Arc<Counter>> {
        self.read().get(scope).cloned()
    }

    fn counter(&self, scope: &Scope) -> Arc<Counter> {
        if let Some(counter) = self.known(scope) {
            return counter;
        }
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (scope, key) = (scope.clone(), scope.to_string().into());
            Arc::new(Counter { scope, key, state: Mutex::default() })
        };
        Arc::clone(counters.entry(scope.clone()).or_insert_with(new))
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<Scope, Arc<Counter>>> {
        self.counters.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets scopes that used nothing for so long that nothing is remembered of it; each hour, or in need each minute.
    fn sweep(&self, is_needed: bool) {
        let minute = Minute::of(self.clock.now());
        let swept_at = self.swept_at.load(Ordering::Relaxed);
        let pause = if is_needed { 1 } else { SWEEP_EVERY };
        let is_early = minute.number().abs_diff(swept_at) < pause;
        if is_early || self.swept_at.swap(minute.number(), Ordering::Relaxed) != swept_at {
            return;
        }
        let is_idle = |counter: &Counter| {
            let mut state = counter.lock();
            state.window.used(minute);
            state.window.is_empty()
        };
        let idle: Vec<_> = self.read().values().filter(|counter| is_idle(counter)).cloned().collect();
        if idle.is_empty() {
            return;
        }
        let mut counters = self.counters.write().unwrap_or_else(PoisonError::into_inner);
        for counter in idle {
            // Ours and the map's: nobody else has it, and nobody gets it while the map is locked.
            if Arc::strong_count(&counter) == 2 && is_idle(&counter) {
                counters.remove(&counter.scope);
            }
        }
    }
}

impl State {
    fn room_for(&mut self, scope: &Scope, quota: Quota, recipients: u32, minute: Minute) -> Result<(), Exceeded> {
        let used = self.window.used(minute);
        match quota.per_day {
            Some(limit) if used.saturating_add(recipients.into()) > limit => {
                Err(Exceeded::Daily { scope: scope.clone(), used, limit })
            }
            _ => Ok(()),
        }
    }

    fn allows(&mut self, scope: &Scope, quota: Quota, recipients: u32, now: Timestamp) -> Result<(), Exceeded> {
        match quota.per_second {
            // A rate has no zero, a limit has.
            Some(limit) if limit == 0 || !self.pace.allows(limit, recipients, now) => {
                Err(Exceeded::Rate { scope: scope.clone(), limit })
            }
            _ => Ok(()),
        }
    }
}

/// Room for one message in all its scopes. See the module.
pub struct Reservation {
    counters: Vec<(Arc<Counter>, Quota)>,
    minute: Minute,
    recipients: u32,
    listener: Arc<Listener>,
    is_kept: AtomicBool,
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation of {} in minute {}", self.recipients, self.minute.number())
    }
}

impl Reservation {
    /// What goes with the message into the queue.
    pub fn into_charges(self) -> Charges {
        let (minute, recipients) = (self.minute.number(), self.recipients);
        let charge =
            |(counter, _): &(Arc<Counter>, Quota)| Charge { scope: Arc::clone(&counter.key), minute, recipients };
        Charges { list: self.counters.iter().map(charge).collect(), claim: Some(Arc::new(self)) }
    }
}

impl Claim for Reservation {
    fn keep(&self) {
        self.is_kept.store(true, Ordering::Relaxed);
        for (counter, quota) in &self.counters {
            let Some(limit) = quota.per_day else { continue };
            let (used, percent) = {
                let mut state = counter.lock();
                let used = state.window.used(self.minute);
                (used, state.warnings.due(used, limit))
            };
            if let Some(percent) = percent {
                (self.listener)(&QuotaNotice { scope: counter.scope.clone(), used, limit, percent });
            }
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if *self.is_kept.get_mut() {
            return;
        }
        for (counter, quota) in &self.counters {
            let mut state = counter.lock();
            state.window.give_back(self.minute, self.recipients);
            if let Some(per_second) = quota.per_second {
                state.pace.give_back(per_second, self.recipients);
            }
        }
    }
}

#[cfg(test)]
#[path = "quota_tests.rs"]
mod tests;

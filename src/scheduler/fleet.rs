//! The sources and pools of this moment, as a reload left them, and what pools and sources as a whole have sent.

use std::sync::Arc;

use super::{LaneName, Map};
use crate::policy::fleet_life::{LifeState, ManagedPool};
use crate::policy::lane::{Lane, LaneState};
use crate::policy::limits::{LaneLimits, Rates};
use crate::policy::pools::{Family, Member, Pools};
use crate::policy::warmup::{Plan, Warmups};
use crate::queue::SourceLife;
use crate::types::{PoolName, SourceName, Timestamp};

/// A source by number: never given to another one while the daemon runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct SourceId(u32);

impl SourceId {
    /// How many numbers it comes after another one, which is not above it.
    pub(super) fn steps_after(self, first: SourceId) -> Option<usize> {
        usize::try_from(self.0.checked_sub(first.0)?).ok()
    }
}

/// Some of the sources, one bit each: asked for every source of a pool, for every message.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceSet(Vec<u64>);

impl SourceSet {
    fn place(source: SourceId) -> (usize, u64) {
        let word = usize::try_from(source.0 / u64::BITS).expect("a source's number fits the address space");
        (word, 1 << (source.0 % u64::BITS))
    }

    pub(super) fn contains(&self, source: SourceId) -> bool {
        let (word, bit) = Self::place(source);
        self.0.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// Puts a source in or out.
    pub(super) fn set(&mut self, source: SourceId, is_in: bool) {
        let (word, bit) = Self::place(source);
        if is_in && word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        if let Some(bits) = self.0.get_mut(word) {
            *bits = if is_in { *bits | bit } else { *bits & !bit };
        }
    }
}

#[derive(Clone, Debug)]
pub(super) struct SourceEntry {
    pub(super) name: SourceName,
    pub(super) family: Family,
    /// What it sent to all sites, where that is limited.
    pub(super) meter: Option<Meter>,
}

/// A source of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolMember {
    pub(super) source: SourceId,
    pub(super) weight: u32,
    /// 0: of the pool itself; 1: of its overflow pool, and so on.
    pub(super) tier: u8,
}

#[derive(Clone, Debug)]
pub(super) struct PoolEntry {
    pub(super) members: Vec<PoolMember>,
    /// What it sent to all sites, where that is limited.
    pub(super) meter: Option<Meter>,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Fleet {
    ids: Map<SourceName, SourceId>,
    sources: Vec<SourceEntry>,
    pools: Map<PoolName, PoolEntry>,
    warmups: Arc<Warmups>,
    settings: Arc<Pools>,
    /// What managed pools decided about their sources.
    lives: Map<SourceName, SourceLife>,
}

impl Fleet {
    /// Takes over what the config says now. Meters of what stays go on.
    pub(super) fn reload(&mut self, settings: &Arc<Pools>, warmups: &Arc<Warmups>, now: Timestamp) {
        self.settings = Arc::clone(settings);
        self.warmups = Arc::clone(warmups);
        for source in settings.sources() {
            let id = self.intern(&source.name);
            if let Some(entry) = self.source_mut(id) {
                entry.family = source.family;
                set_meter(&mut entry.meter, source.rates, now);
            }
        }
        let mut old = std::mem::take(&mut self.pools);
        for pool in settings.pools() {
            let mut meter = old.remove(&pool.name).and_then(|entry| entry.meter);
            set_meter(&mut meter, pool.rates, now);
            let members = self.members(settings, &pool.name);
            self.pools.insert(pool.name.clone(), PoolEntry { members, meter });
        }
    }

    /// The sources of a pool, then those of its overflow pool, and so on; each once.
    fn members(&mut self, settings: &Pools, first: &PoolName) -> Vec<PoolMember> {
        let mut members: Vec<PoolMember> = Vec::new();
        let mut next = Some(first);
        for tier in 0..=u8::MAX {
            let Some(pool) = next.and_then(|name| settings.pool(name.as_str())) else { break };
            let is_used = |source: &SourceName| pool.managed.is_none() || self.is_active(source);
            let used: Vec<&Member> = pool.members.iter().filter(|member| is_used(&member.source)).collect();
            for member in used {
                let source = self.intern(&member.source);
                if members.iter().all(|known| known.source != source) {
                    members.push(PoolMember { source, weight: member.weight.max(1), tier });
                }
            }
            next = pool.overflow.as_ref();
        }
        members
    }

    /// The sources that pools use now, after lives changed.
    pub(super) fn refit(&mut self) {
        let settings = Arc::clone(&self.settings);
        for pool in settings.pools() {
            let members = self.members(&settings, &pool.name);
            if let Some(entry) = self.pools.get_mut(&pool.name) {
                entry.members = members;
            }
        }
    }

    /// Whether a managed pool uses a source.
    pub(super) fn is_active(&self, source: &SourceName) -> bool {
        self.life(source).is_some_and(|life| LifeState::from_code(life.life) == LifeState::Active)
    }

    /// What a managed pool decided about a source.
    pub(super) fn life(&self, source: &SourceName) -> Option<&SourceLife> {
        self.lives.get(source)
    }

    pub(super) fn set_life(&mut self, life: SourceLife) {
        self.lives.insert(life.source.clone(), life);
    }

    /// The clock went back to `now`: what was decided after it was just now.
    pub(super) fn clock_went_back(&mut self, now: Timestamp) {
        for life in self.lives.values_mut() {
            life.since = life.since.min(now);
        }
    }

    /// Pools that take their sources into use by themselves.
    pub(super) fn managed_pools(&self) -> Vec<(PoolName, ManagedPool)> {
        self.settings.pools().filter_map(|pool| Some((pool.name.clone(), pool.managed?))).collect()
    }

    /// All sources of a pool of the config, used or not.
    pub(super) fn members_of(&mut self, pool: &PoolName) -> Vec<(SourceId, SourceName)> {
        let settings = Arc::clone(&self.settings);
        let members = settings.pool(pool.as_str()).map(|pool| &*pool.members).unwrap_or_default();
        members.iter().map(|member| (self.intern(&member.source), member.source.clone())).collect()
    }

    fn intern(&mut self, name: &SourceName) -> SourceId {
        if let Some(id) = self.ids.get(name) {
            return *id;
        }
        let id = SourceId(u32::try_from(self.sources.len()).expect("configs name far fewer sources"));
        self.sources.push(SourceEntry { name: name.clone(), family: Family::Any, meter: None });
        self.ids.insert(name.clone(), id);
        id
    }

    /// The number of a source that the config names, or named.
    pub(super) fn id(&self, name: &SourceName) -> Option<SourceId> {
        self.ids.get(name).copied()
    }

    /// The pool of this name, or the default one in its place.
    pub(super) fn effective(&self, name: &PoolName) -> PoolName {
        if self.pools.contains_key(name) { name.clone() } else { PoolName::default() }
    }

    /// The set, if it warms up; or else none.
    pub(super) fn effective_set<'s>(&self, set: &'s str) -> &'s str {
        if !set.is_empty() && self.warmups.sets.contains_key(set) { set } else { "" }
    }

    /// Whether the config has this source now.
    pub(super) fn is_configured(&self, source: SourceId) -> bool {
        self.source(source).is_some_and(|source| self.settings.source(source.name.as_str()).is_some())
    }

    /// By which plan a source warms up at a site of this provider.
    pub(super) fn plan(&self, source: SourceId, provider: Option<&str>) -> Option<&Arc<Plan>> {
        self.warmups.of_source(&self.source(source)?.name, provider)
    }

    /// By which plan a configuration set does.
    pub(super) fn set_plan(&self, set: &str, provider: Option<&str>) -> Option<&Arc<Plan>> {
        self.warmups.of_set(set, provider)
    }

    /// The sources of a pool.
    pub(super) fn pool(&self, name: &PoolName) -> &[PoolMember] {
        self.pools.get(name).map_or(&[], |pool| &pool.members)
    }

    pub(super) fn source(&self, id: SourceId) -> Option<&SourceEntry> {
        usize::try_from(id.0).ok().and_then(|at| self.sources.get(at))
    }

    pub(super) fn source_mut(&mut self, id: SourceId) -> Option<&mut SourceEntry> {
        usize::try_from(id.0).ok().and_then(|at| self.sources.get_mut(at))
    }

    /// The name of a source.
    pub(super) fn name(&self, id: SourceId) -> SourceName {
        self.source(id).map(|source| source.name.clone()).unwrap_or_default()
    }

    /// The meters of a source and of a pool, where they are limited.
    pub(super) fn meters(
        &mut self,
        source: SourceId,
        pool: &PoolName,
    ) -> impl Iterator<Item = (MeterKey, &mut Meter)> + use<'_> {
        let at = usize::try_from(source.0).unwrap_or(usize::MAX);
        let of_source = self.sources.get_mut(at).and_then(|source| {
            let meter = source.meter.as_mut()?;
            Some((MeterKey::Source(source.name.clone()), meter))
        });
        let of_pool = self.pools.get_mut(pool).and_then(|entry| entry.meter.as_mut());
        let of_pool = of_pool.map(|meter| (MeterKey::Pool(pool.clone()), meter));
        of_source.into_iter().chain(of_pool)
    }

    /// All meters with what they are of, in order.
    pub(super) fn all_meters(&mut self) -> Vec<(MeterKey, &mut Meter)> {
        let sources = self.sources.iter_mut().filter_map(|source| {
            let meter = source.meter.as_mut()?;
            Some((MeterKey::Source(source.name.clone()), meter))
        });
        let pools = self.pools.iter_mut().filter_map(|(name, pool)| {
            let meter = pool.meter.as_mut()?;
            Some((MeterKey::Pool(name.clone()), meter))
        });
        let mut meters: Vec<_> = sources.chain(pools).collect();
        meters.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        meters
    }

    /// The meter whose state is kept under this name.
    pub(super) fn meter(&mut self, name: &LaneName) -> Option<&mut Meter> {
        match name {
            LaneName::Lane(..) | LaneName::Set(..) => None,
            LaneName::Source(name) => {
                let id = self.id(name)?;
                self.source_mut(id)?.meter.as_mut()
            }
            LaneName::Pool(name) => self.pools.get_mut(name)?.meter.as_mut(),
        }
    }
}

/// What a meter is of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum MeterKey {
    Source(SourceName),
    Pool(PoolName),
}

impl MeterKey {
    /// Under which its state is kept.
    pub(super) fn lane_name(&self) -> LaneName {
        match self {
            MeterKey::Source(name) => LaneName::Source(name.clone()),
            MeterKey::Pool(name) => LaneName::Pool(name.clone()),
        }
    }
}

/// What a source or a pool may send to all sites, and did: a lane without a site.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    rates: Rates,
    pub(super) lane: Box<Lane>,
}

impl Meter {
    /// As it was saved.
    pub(super) fn restore(&mut self, state: &LaneState, unclean: bool, now: Timestamp) {
        *self.lane = Lane::restore(state, meter_limits(self.rates), unclean, now);
    }
}

/// Of these only the rates matter.
pub(super) fn meter_limits(rates: Rates) -> LaneLimits {
    LaneLimits { connections: u32::MAX, connections_total: None, messages_per_connection: u32::MAX, rates }
}

fn set_meter(meter: &mut Option<Meter>, rates: Rates, now: Timestamp) {
    if rates.is_unlimited() {
        *meter = None;
        return;
    }
    match meter {
        Some(meter) => {
            meter.rates = rates;
            meter.lane.set_limits(meter_limits(rates), now);
        }
        None => *meter = Some(Meter { rates, lane: Box::new(Lane::new(meter_limits(rates), now)) }),
    }
}

/// Address families, as a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    /// Adds that of a source.
    pub(super) fn add(&mut self, family: Family) {
        self.v4 |= family == Family::V4;
        self.v6 |= family == Family::V6;
    }

    /// Whether a source is of one of them.
    pub(super) fn has(self, family: Family) -> bool {
        match family {
            Family::Any => false,
            Family::V4 => self.v4,
            Family::V6 => self.v6,
        }
    }
}

/// Where mail for a domain goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    /// What limits are keyed by.
    pub site: super::SiteName,
    /// The set of hosts: connections are shared within one.
    pub hosts: super::SiteName,
    /// The provider whose rule matched.
    pub provider: Option<Arc<str>>,
    /// All mail there goes by this pool, whatever it was accepted for, and what is said there teaches nothing: the mailbox simulator.
    pub own_pool: Option<PoolName>,
    /// When it is to be asked for again.
    pub expires_at: Timestamp,
}

impl Destination {
    /// A site of its own hosts, by no provider's rule.
    pub fn of_hosts(hosts: super::SiteName, expires_at: Timestamp) -> Self {
        Self { site: hosts.clone(), hosts, provider: None, own_pool: None, expires_at }
    }

    /// Whether it is one for this domain still: kept for later.
    pub fn is_current(&self, now: Timestamp) -> bool {
        self.expires_at > now
    }
}

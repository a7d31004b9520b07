//! Configs of the warm-up world, in few words.

use std::collections::BTreeSet;

use super::super::*;
use super::receivers::Table;
use crate::policy::limits::{LaneLimits, Rates};
use crate::policy::pools::{Family, Member, PoolSettings, Pools, SourceSettings};
use crate::policy::providers::{Overrides, Provider, Providers};
use crate::policy::warmup::{Advance, Plan, Steps, Warmups};

pub(super) const PROVIDERS: [&str; 5] = ["alpha", "beta", "gamma", "delta", "eps"];

/// Sources and pools: `"default=a,b>spare"`.
pub(super) fn pools(texts: &[&str]) -> Vec<PoolSettings> {
    let pool = |text: &&str| {
        let (name, rest) = text.split_once('=').unwrap();
        let (members, overflow) = rest.split_once('>').map_or((rest, None), |(members, over)| (members, Some(over)));
        let member = |name: &str| Member { source: SourceName::parse(name).unwrap(), weight: 1 };
        PoolSettings {
            name: PoolName::parse(name).unwrap(),
            members: members.split(',').map(member).collect(),
            overflow: overflow.map(|name| PoolName::parse(name).unwrap()),
            rates: Rates::default(),
            managed: None,
        }
    };
    texts.iter().map(pool).collect()
}

/// All sources of these pools, and these pools.
pub(super) fn fleet(pools: Vec<PoolSettings>) -> Arc<Pools> {
    let names: BTreeSet<SourceName> =
        pools.iter().flat_map(|pool| pool.members.iter().map(|member| member.source.clone())).collect();
    let source = |name| SourceSettings { name, family: Family::V4, rates: Rates::default() };
    Arc::new(Pools::new(names.into_iter().map(source).collect(), pools).unwrap())
}

pub(super) fn warmups(sources: &[(&str, &Arc<Plan>)], sets: &[(&str, &Arc<Plan>)]) -> Arc<Warmups> {
    let mut warmups = Warmups::default();
    for (name, plan) in sources {
        warmups.sources.insert(SourceName::parse(name).unwrap(), Arc::clone(plan));
    }
    for (name, plan) in sets {
        warmups.sets.insert((*name).into(), Arc::clone(plan));
    }
    Arc::new(warmups)
}

pub(super) fn settings(pools: Arc<Pools>, warmup: Arc<Warmups>) -> Settings {
    let rule = |name: &&str| Provider {
        name: (*name).into(),
        mx: Box::default(),
        domains: Box::default(),
        limits: Overrides::default(),
        origin: crate::policy::replies::Origin::BuiltIn,
    };
    Settings {
        jobs_max: 200_000,
        body_cache_bytes: 1 << 20,
        connections_max: 500,
        limits: LaneLimits { connections: 4, ..LaneLimits::default() },
        providers: Arc::new(Providers::new(PROVIDERS.iter().map(rule).collect())),
        pools,
        warmup,
        delay_notices: Vec::new(),
        ..Settings::default()
    }
}

pub(super) fn site(provider: usize) -> SiteName {
    SiteName::of_provider(PROVIDERS[provider])
}

pub(super) fn provider_of(site: &SiteName) -> usize {
    PROVIDERS.iter().position(|name| Some(*name) == site.provider_name()).unwrap()
}

pub(super) fn plan(name: &str, steps: &[(u32, u32)], advance: Advance) -> (Arc<Plan>, Table) {
    let plan = Plan::new(name, Steps::Table(steps.to_vec()), advance).unwrap();
    let distance = if let [.., (before, _), (last, _)] = steps { last - before } else { 1 };
    let len = steps.last().unwrap().0 + distance - 1;
    (Arc::new(plan), Table { steps: steps.to_vec(), len })
}

pub(super) fn source_name(name: &str) -> SourceName {
    SourceName::parse(name).unwrap()
}

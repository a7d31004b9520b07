//! Pools and sources as the config describes them: which source may take part in which pool, with which weight and limits.
//!
//! A value does not change; a reload puts a new one in its place. Promises: there is always a pool named
//! [`PoolName::DEFAULT`]; every pool has a member, members and overflow pools exist, weights are at least 1, and no chain of
//! overflow pools comes back to where it began ([`Pools::new`] looks). Does not: choose (the scheduler does), know how a
//! source reaches the world (`delivery::settings::Source` does).

use std::collections::BTreeMap;

use super::fleet_life::ManagedPool;
use super::limits::Rates;
use crate::types::{PoolName, SourceName};

/// Which hosts a source can reach.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// Of both families, as far as the system or the proxy can: it has no address of its own.
    #[default]
    Any,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

impl Family {
    /// That of a source with this address.
    pub const fn of(address: Option<std::net::IpAddr>) -> Self {
        match address {
            None => Family::Any,
            Some(std::net::IpAddr::V4(_)) => Family::V4,
            Some(std::net::IpAddr::V6(_)) => Family::V6,
        }
    }

    /// Whether it reaches a host at this address.
    pub const fn reaches(self, host: std::net::IpAddr) -> bool {
        match self {
            Family::Any => true,
            Family::V4 => host.is_ipv4(),
            Family::V6 => host.is_ipv6(),
        }
    }
}

/// A source, as far as it matters for choosing one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceSettings {
    /// Its name.
    pub name: SourceName,
    /// What it reaches.
    pub family: Family,
    /// Messages it may send, to all sites together and from all pools together.
    pub rates: Rates,
}

/// A source in a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub source: SourceName,
    /// Its share is this part of the sum of all weights. At least 1.
    pub weight: u32,
}

/// A pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name.
    pub name: PoolName,
    /// At least one, each source once.
    pub members: Vec<Member>,
    /// Takes what none of the members can take now.
    pub overflow: Option<PoolName>,
    /// Messages it may send, to all sites together and from all its members together.
    pub rates: Rates,
    /// It takes its members into use, and lets them rest, by itself. They are in no other pool.
    pub managed: Option<ManagedPool>,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pools {
    sources: BTreeMap<SourceName, SourceSettings>,
    pools: BTreeMap<PoolName, PoolSettings>,
}

/// What does not hold of pools and sources that should make a [`Pools`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PoolsError {
    /// Mail for which nothing else is said has no pool.
    #[error("there is no pool named {:?}", PoolName::DEFAULT)]
    NoDefault,
    /// Two pools, or two sources, of one name.
    #[error("{0:?} is the name of two")]
    Twice(String),
    /// It could send nothing, ever.
    #[error("pool {0} has no source")]
    Empty(PoolName),
    /// A member that does not exist, stands there twice, or has the weight 0.
    #[error("pool {pool}: source {source_name} does not exist, is named twice, or has weight 0")]
    Member {
        /// Of which pool.
        pool: PoolName,
        /// Which.
        source_name: SourceName,
    },
    /// The overflow pool does not exist.
    #[error("pool {pool}: there is no pool named {overflow}")]
    Overflow {
        /// Of which pool.
        pool: PoolName,
        /// Which.
        overflow: PoolName,
    },
    /// A source of a managed pool is in another one, too.
    #[error("pool {pool} is managed, and its source {source_name} is in another pool, too")]
    Shared {
        /// The managed pool.
        pool: PoolName,
        /// Which source.
        source_name: SourceName,
    },
    /// Overflow leads back to the pool itself.
    #[error("overflow of pool {0} leads back to it")]
    Cycle(PoolName),
}

impl Pools {
    /// Checks what the module promises.
    pub fn new(sources: Vec<SourceSettings>, pools: Vec<PoolSettings>) -> Result<Self, PoolsError> {
        let (source_count, pool_count) = (sources.len(), pools.len());
        let twice = || PoolsError::Twice(twice(&sources, &pools));
        let found = Self {
            sources: sources.iter().map(|source| (source.name.clone(), source.clone())).collect(),
            pools: pools.iter().map(|pool| (pool.name.clone(), pool.clone())).collect(),
        };
        if (found.sources.len(), found.pools.len()) != (source_count, pool_count) {
            return Err(twice());
        }
        found.check()?;
        Ok(found)
    }

    /// The default pool of all these, each with weight 1; `None` where there is none.
    pub fn of_sources(sources: Vec<SourceSettings>) -> Option<Self> {
        let members = sources.iter().map(|source| Member { source: source.name.clone(), weight: 1 }).collect();
        let pool =
            PoolSettings { name: PoolName::default(), members, overflow: None, rates: Rates::default(), managed: None };
        Self::new(sources, vec![pool]).ok()
    }

    /// The same, with one more pool that has the one source, without limits.
    pub fn with_pool(&self, pool: PoolName, source: SourceName) -> Result<Self, PoolsError> {
        let member = Member { source: source.clone(), weight: 1 };
        let source = SourceSettings { name: source, family: Family::Any, rates: Rates::default() };
        let pool =
            PoolSettings { name: pool, members: vec![member], overflow: None, rates: Rates::default(), managed: None };
        let sources = self.sources().cloned().chain([source]).collect();
        Self::new(sources, self.pools().cloned().chain([pool]).collect())
    }

    /// The source of this name.
    pub fn source(&self, name: &str) -> Option<&SourceSettings> {
        self.sources.get(name)
    }

    /// The pool of this name.
    pub fn pool(&self, name: &str) -> Option<&PoolSettings> {
        self.pools.get(name)
    }

    /// The pool of this name, or the default one where it is gone, or was never named.
    pub fn pool_or_default(&self, name: &str) -> &PoolSettings {
        let default = || self.pools.get(PoolName::DEFAULT).expect("Pools::new refuses pools without a default one");
        self.pools.get(name).unwrap_or_else(default)
    }

    /// All sources, by name.
    pub fn sources(&self) -> impl ExactSizeIterator<Item = &SourceSettings> {
        self.sources.values()
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = &PoolSettings> {
        self.pools.values()
    }

    fn check(&self) -> Result<(), PoolsError> {
        if !self.pools.contains_key(PoolName::DEFAULT) {
            return Err(PoolsError::NoDefault);
        }
        for pool in self.pools.values() {
            self.check_members(pool)?;
            if let Some(overflow) = pool.overflow.as_ref().filter(|name| !self.pools.contains_key(*name)) {
                return Err(PoolsError::Overflow { pool: pool.name.clone(), overflow: overflow.clone() });
            }
        }
        for pool in self.pools.values().filter(|pool| pool.managed.is_some()) {
            let others = || self.pools.values().filter(|other| other.name != pool.name);
            let in_other =
                |source: &SourceName| others().any(|other| other.members.iter().any(|member| member.source == *source));
            if let Some(member) = pool.members.iter().find(|member| in_other(&member.source)) {
                return Err(PoolsError::Shared { pool: pool.name.clone(), source_name: member.source.clone() });
            }
        }
        match self.pools.values().find(|pool| self.comes_back(pool)) {
            Some(pool) => Err(PoolsError::Cycle(pool.name.clone())),
            None => Ok(()),
        }
    }

    fn check_members(&self, pool: &PoolSettings) -> Result<(), PoolsError> {
        if pool.members.is_empty() {
            return Err(PoolsError::Empty(pool.name.clone()));
        }
        for (index, member) in pool.members.iter().enumerate() {
            let earlier = pool.members.iter().take(index).any(|earlier| earlier.source == member.source);
            if earlier || member.weight == 0 || !self.sources.contains_key(&member.source) {
                let source_name = member.source.clone();
                return Err(PoolsError::Member { pool: pool.name.clone(), source_name });
            }
        }
        Ok(())
    }

    fn comes_back(&self, pool: &PoolSettings) -> bool {
        let next = |pool: &PoolSettings| pool.overflow.as_ref().and_then(|name| self.pools.get(name));
        let chain = std::iter::successors(next(pool), |pool| next(pool));
        // A chain longer than the number of pools has passed one of them twice.
        chain.take(self.pools.len()).any(|passed| passed.name == pool.name)
    }
}

impl Default for Pools {
    /// The default pool of the one source [`SourceName::SYSTEM`].
    fn default() -> Self {
        let system = SourceSettings { name: SourceName::default(), family: Family::Any, rates: Rates::default() };
        Self::of_sources(vec![system]).expect("a pool of one source is one")
    }
}

/// A name that two have.
fn twice(sources: &[SourceSettings], pools: &[PoolSettings]) -> String {
    let mut names: Vec<&str> = sources.iter().map(|source| source.name.as_str()).collect();
    let repeated = |names: &mut Vec<&str>| {
        names.sort_unstable();
        names.windows(2).find_map(|pair| match pair {
            [one, other] if one == other => Some((*one).to_owned()),
            _ => None,
        })
    };
    let of_pools = || repeated(&mut pools.iter().map(|pool| pool.name.as_str()).collect());
    repeated(&mut names).or_else(of_pools).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(name: &str) -> SourceSettings {
        SourceSettings { name: SourceName::parse(name).unwrap(), family: Family::Any, rates: Rates::default() }
    }

    /// `"a=x,y>b"`: pool a of x and y, with overflow b.
    fn pool(text: &str) -> PoolSettings {
        let (name, rest) = text.split_once('=').unwrap();
        let (members, overflow) = rest.split_once('>').map_or((rest, None), |(left, right)| (left, Some(right)));
        let member = |name: &str| Member { source: SourceName::parse(name).unwrap(), weight: 1 };
        PoolSettings {
            name: PoolName::parse(name).unwrap(),
            members: members.split(',').filter(|name| !name.is_empty()).map(member).collect(),
            overflow: overflow.map(|name| PoolName::parse(name).unwrap()),
            rates: Rates::default(),
            managed: None,
        }
    }

    fn check(sources: &[&str], pools: &[&str], expected: Result<(), &str>) {
        let made = Pools::new(
            sources.iter().map(|name| source(name)).collect(),
            pools.iter().map(|text| pool(text)).collect(),
        );
        let found = made.map(drop).map_err(|error| error.to_string());
        assert_eq!(found, expected.map_err(str::to_owned), "{pools:?}");
    }

    #[test]
    fn what_could_never_send_is_no_pool() {
        check(&["x", "y"], &["default=x,y", "a=x>b", "b=y>default"], Ok(()));
        check(&["x"], &["a=x"], Err("there is no pool named \"default\""));
        check(&["x"], &["default="], Err("pool default has no source"));
        check(&["x", "x"], &["default=x"], Err("\"x\" is the name of two"));
        check(&["x"], &["default=x", "default=x"], Err("\"default\" is the name of two"));
        let member = "pool default: source y does not exist, is named twice, or has weight 0";
        check(&["x"], &["default=y"], Err(member));
        check(&["x", "y"], &["default=x,y,y"], Err(member));
        check(&["x"], &["default=x>b"], Err("pool default: there is no pool named b"));
    }

    #[test]
    fn overflow_never_leads_back() {
        check(&["x"], &["default=x>default"], Err("overflow of pool default leads back to it"));
        check(&["x"], &["a=x>b", "b=x>c", "c=x>a", "default=x"], Err("overflow of pool a leads back to it"));
        // One that leads into a circle is not on it; the circle is found by its own members.
        check(&["x"], &["default=x>b", "b=x>c", "c=x>b"], Err("overflow of pool b leads back to it"));
    }

    #[test]
    fn a_pool_that_is_gone_is_the_default_one() {
        let pools = Pools::default();
        assert_eq!(pools.pool("gone"), None);
        assert_eq!(pools.pool_or_default("gone").members, pools.pool_or_default("").members);
        assert_eq!(pools.pool_or_default("gone").name, PoolName::default());
        assert_eq!(pools.source(SourceName::SYSTEM).unwrap().family, Family::Any);
    }

    #[test]
    fn a_source_reaches_hosts_of_its_family() {
        let (v4, v6) = ("192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap());
        for (source, reaches_v4, reaches_v6) in [(None, true, true), (Some(v4), true, false), (Some(v6), false, true)] {
            let family = Family::of(source);
            assert_eq!((family.reaches(v4), family.reaches(v6)), (reaches_v4, reaches_v6), "{source:?}");
        }
    }
}

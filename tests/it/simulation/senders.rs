//! What the daemon sends from: sources, pools, and the configuration sets that choose among them; and how many messages each
//! source may send to all hosts together, judged by what they hear.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use posthaste::admission::directory::{ConfigurationSet, Name, Quota, Way};
use posthaste::delivery::settings::Source;
use posthaste::policy::limits::{Rates, Span};
use posthaste::policy::pools::{Family, Member, PoolSettings, Pools, SourceSettings};
use posthaste::queue::Granularity;
use posthaste::types::{PoolName, SourceName, Timestamp};

use super::plan::Draw;

/// What the system's source is seen as.
pub(super) const SYSTEM_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 200));
pub(super) const SYSTEM_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xc8));
const POOLS: [&str; 3] = [PoolName::DEFAULT, "bulk", "codes"];

/// One local address; `None`: the system chooses.
#[derive(Clone, Debug)]
pub(super) struct SourcePlan {
    pub(super) address: Option<IpAddr>,
    /// To all sites together.
    pub(super) rates: Rates,
}

#[derive(Clone, Debug)]
pub(super) struct PoolPlan {
    /// Indices of sources, and their weights.
    pub(super) members: Vec<(usize, u32)>,
    /// Index of another pool.
    pub(super) overflow: Option<usize>,
}

#[derive(Clone, Debug)]
pub(super) struct Senders {
    pub(super) sources: Vec<SourcePlan>,
    /// The first one is the default one.
    pub(super) pools: Vec<PoolPlan>,
}

impl SourcePlan {
    fn source(&self) -> Source {
        self.address.map_or_else(Source::default, Source::of_address)
    }
}

impl Senders {
    pub(super) fn sources(&self) -> Vec<Source> {
        self.sources.iter().map(SourcePlan::source).collect()
    }

    pub(super) fn pools(&self) -> Arc<Pools> {
        let name = |index: usize| PoolName::parse(POOLS[index]).unwrap();
        let source = |source: &SourcePlan| SourceSettings {
            name: source.source().name,
            family: Family::of(source.address),
            rates: source.rates,
        };
        let member = |(index, weight): &(usize, u32)| Member { source: self.name(*index), weight: *weight };
        let pools = self.pools.iter().enumerate().map(|(index, pool)| PoolSettings {
            name: name(index),
            members: pool.members.iter().map(member).collect(),
            overflow: pool.overflow.map(name),
            rates: Rates::default(),
            managed: None,
        });
        Arc::new(Pools::new(self.sources.iter().map(source).collect(), pools.collect()).unwrap())
    }

    fn name(&self, index: usize) -> SourceName {
        self.sources[index].source().name
    }

    /// Sets of the same names as the pools.
    pub(super) fn sets(&self) -> Vec<ConfigurationSet> {
        let set = |name: &str| ConfigurationSet {
            name: Name::parse(name).unwrap(),
            tenants: Vec::new(),
            sending: true,
            tls_required: false,
            lifetime: None,
            suppression: None,
            return_path: Granularity::default(),
            tags: Vec::new(),
            quota: Quota::default(),
            is_bulk: false,
            unsubscribe_url: None,
            way: Way { pool: PoolName::parse(name), priority: None },
            warmup: None,
        };
        POOLS.iter().take(self.pools.len()).map(|name| set(name)).collect()
    }

    /// The header field that chooses a pool.
    pub(super) fn field(pool: usize) -> String {
        format!("X-SES-CONFIGURATION-SET: {}\r\n", POOLS[pool])
    }

    /// Whether any of them may send only so many messages in a time.
    pub(super) fn are_limited(&self) -> bool {
        self.sources.iter().any(|source| !source.rates.is_unlimited())
    }

    /// Addresses that hosts see.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.sources.iter().map(|source| source.address.unwrap_or(SYSTEM_V4))
    }
}

/// When messages came, as far as any limit in a time asks for.
#[derive(Debug, Default)]
pub(super) struct Times(VecDeque<Timestamp>);

impl Times {
    /// The first limit that one more message at `now` would pass.
    pub(super) fn passes(&self, rates: &Rates, now: Timestamp) -> Option<(u32, Span)> {
        Span::ALL.into_iter().filter_map(|span| rates.by(span).map(|limit| (limit, span))).find(|(limit, span)| {
            let after = now.minus(span.duration());
            let recent = self.0.iter().rev().take_while(|at| **at > after);
            recent.count() >= usize::try_from(*limit).unwrap()
        })
    }

    pub(super) fn add(&mut self, now: Timestamp) {
        while self.0.front().is_some_and(|at| now.since(*at) > Span::Day.duration()) {
            self.0.pop_front();
        }
        self.0.push_back(now);
    }
}

/// RATE of sources as a whole.
#[derive(Debug, Default)]
pub(super) struct SourceTimes(BTreeMap<IpAddr, Times>);

impl SourceTimes {
    /// A message of a source comes to any host. What is passed by it.
    pub(super) fn add(&mut self, senders: &Senders, address: IpAddr, now: Timestamp) -> Option<String> {
        let of = |plan: &&SourcePlan| plan.address == Some(address) || (plan.address.is_none() && is_system(address));
        let plan = senders.sources.iter().find(of)?;
        if plan.rates.is_unlimited() {
            return None;
        }
        let key = plan.address.unwrap_or(SYSTEM_V4);
        let times = self.0.entry(key).or_default();
        let passed = times.passes(&plan.rates, now);
        times.add(now);
        passed.map(|(limit, span)| format!("RATE: {key} sends more than {limit} in a {} to all sites", span.name()))
    }

    pub(super) fn forget(&mut self) {
        self.0.clear();
    }
}

pub(super) fn is_system(address: IpAddr) -> bool {
    address == SYSTEM_V4 || address == SYSTEM_V6
}

impl Draw {
    /// In two worlds of five all goes by the one source of the system.
    pub(super) fn senders(&mut self) -> Senders {
        let rates = Rates::default();
        if self.chance(40) {
            let sources = vec![SourcePlan { address: None, rates }];
            return Senders { sources, pools: vec![PoolPlan { members: vec![(0, 1)], overflow: None }] };
        }
        let count = 1 + self.below(6);
        let sources: Vec<SourcePlan> = (0..count).map(|number| self.source(number)).collect();
        let pools = 1 + usize::try_from(self.below(3)).unwrap();
        let pools = (0..pools).map(|index| self.pool(&sources, index, pools)).collect();
        Senders { sources, pools }
    }

    fn source(&mut self, number: u64) -> SourcePlan {
        let last = u16::try_from(number + 1).unwrap();
        let is_v6 = number > 0 && self.chance(25);
        let address = if is_v6 {
            IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, last))
        } else {
            IpAddr::V4(Ipv4Addr::new(203, 0, 113, u8::try_from(last).unwrap()))
        };
        let rates = if self.chance(15) { self.rates_of_a_source() } else { Rates::default() };
        SourcePlan { address: Some(address), rates }
    }

    fn rates_of_a_source(&mut self) -> Rates {
        let minute = u32::try_from(10 + self.below(30)).unwrap();
        match self.below(3) {
            0 => Rates { minute: Some(minute), ..Rates::default() },
            1 => Rates { hour: Some(2 * minute), ..Rates::default() },
            _ => Rates { minute: Some(minute), day: Some(10 * minute), ..Rates::default() },
        }
    }

    /// Each has a source of IPv4: not all hosts have an address of IPv6.
    fn pool(&mut self, sources: &[SourcePlan], index: usize, pools: usize) -> PoolPlan {
        let mut members = vec![(0, 1 + u32::try_from(self.below(4)).unwrap())];
        for source in 1..sources.len() {
            if self.chance(60) {
                members.push((source, self.one(&[1, 1, 2, 10])));
            }
        }
        let first_v4 = |at: &usize| sources[*at].address.is_none_or(|address| address.is_ipv4());
        let others: Vec<usize> = (1..sources.len()).filter(first_v4).collect();
        if let Some(other) = others.get(index.saturating_sub(1)).filter(|_| index > 0) {
            // Pools that share no source, too.
            members.retain(|(source, _)| *source != 0 && source != other);
            members.push((*other, 1));
        }
        let overflow = (index + 1 < pools && self.chance(40)).then_some(index + 1);
        PoolPlan { members, overflow }
    }
}

//! DNS: the [`Resolver`] port of routing by hickory, with a cache, coalescing and bounds of our own; TXT and PTR records
//! for what checks the records of this installation.
//!
//! A question is answered from the cache, or joins an equal one that is under way, or is asked. At most
//! [`LOOKUPS_MAX`] questions are under way in the *fast lane*; one that has no answer after `HANDOVER` moves to the
//! *slow lane* of [`SLOW_LOOKUPS_MAX`], and fails at once where that is full. So names whose servers are dead hold up
//! others for seconds at most, however many they are.
//!
//! Promises: NXDOMAIN, NODATA and failure are told apart; A and AAAA are asked for at the same time, and one that fails
//! does not spoil the other; after a failure the last good answer serves for `stale_max` (RFC 8767), except NXDOMAIN; a
//! server that fails is asked for the same name at most once in five seconds; no answer is larger than its bound.
//! Does not: validate DNSSEC, use /etc/hosts or a search list.

mod cache;
mod client;
#[cfg(test)]
pub(crate) mod responder;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{OnceCell, Semaphore};

use cache::{Cache, Found, Kind, Known, Limits, Outcome, Question, Records};
use client::Servers;
pub use client::{DnsSetupError, read_packet};

use super::settings::DnsSettings;
use super::{Answer, BoxFuture, DnsError, Mx, Resolver};
use crate::events::metric;
use crate::types::{Clock, Domain, Timestamp};

/// Questions under way that are young. Full: others wait in order of arrival. Each holds up to three UDP sockets, since
/// a lost question is repeated from a new port: the two lanes together take at most 3,072 file handles.
pub const LOOKUPS_MAX: usize = 512;
/// Questions under way that are older than `HANDOVER`. Full: the question that would move here fails (temporarily).
pub const SLOW_LOOKUPS_MAX: usize = 512;
/// After this time without an answer a question makes room for others.
const HANDOVER: Duration = Duration::from_secs(1);

/// Answers questions of routing by asking DNS servers. Share it in an `Arc`: equal questions meet inside.
pub struct HickoryResolver {
    clock: Arc<dyn Clock>,
    servers: ArcSwap<Servers>,
    cache: Mutex<Cache>,
    /// Questions under way; an entry lives while somebody waits for it.
    flights: Mutex<HashMap<Question, Arc<OnceCell<Known>>>>,
    fast_lane: Semaphore,
    slow_lane: Semaphore,
}

impl HickoryResolver {
    /// Prepares the servers of `settings`, or those of /etc/resolv.conf, which is read here. Sends nothing.
    pub fn new(settings: &DnsSettings, clock: Arc<dyn Clock>) -> Result<Self, DnsSetupError> {
        Ok(Self {
            clock,
            servers: ArcSwap::from_pointee(Servers::new(settings)?),
            cache: Mutex::new(Cache::new(Limits::from(settings))),
            flights: Mutex::new(HashMap::new()),
            fast_lane: Semaphore::new(LOOKUPS_MAX),
            slow_lane: Semaphore::new(SLOW_LOOKUPS_MAX),
        })
    }

    /// Uses other settings from now on, or keeps the old ones on an error. The cache is kept unless the servers are
    /// others. Questions under way end with the old servers.
    pub fn reload(&self, settings: &DnsSettings) -> Result<(), DnsSetupError> {
        let servers = Arc::new(Servers::new(settings)?);
        let same_servers = servers.addresses() == self.servers.load().addresses();
        self.servers.store(servers);
        let mut cache = self.cache();
        cache.set_limits(Limits::from(settings));
        if !same_servers {
            cache.clear();
        }
        Ok(())
    }

    /// Cancel-safe: where the caller that asks goes away, one that waits for the same answer asks instead.
    async fn lookup(&self, question: Question) -> Known {
        if let Some(known) = self.cached(&question) {
            return known;
        }
        let flight = Flight::join(self, question);
        flight.cell.get_or_init(|| self.fetch(&flight.question)).await.clone()
    }

    fn cached(&self, question: &Question) -> Option<Known> {
        let known = self.cache().get(question, self.clock.now())?;
        count(question.kind, if known.stale { "stale" } else { "cached" });
        Some(known)
    }

    async fn fetch(&self, question: &Question) -> Known {
        let fast = self.fast_lane.acquire().await.expect("the semaphore lives as long as we do and is never closed");
        // While this one waited for its turn an equal one may have ended.
        if let Some(known) = self.cached(question) {
            return known;
        }
        let servers = self.servers.load_full();
        let mut asking = std::pin::pin!(servers.ask(question));
        let found = match tokio::time::timeout(HANDOVER, &mut asking).await {
            Ok(found) => found,
            Err(_) => match self.slow_lane.try_acquire() {
                Ok(_slow) => {
                    drop(fast);
                    asking.await
                }
                Err(_) => Found::Failed("too many other names wait for DNS servers that do not answer".into()),
            },
        };
        let result = match &found {
            Found::Records(..) => "ok",
            Found::NoData(_) | Found::NoSuchDomain(_) => "negative",
            Found::Failed(_) => "error",
        };
        count(question.kind, result);
        self.keep(question, found, &servers)
    }

    fn keep(&self, question: &Question, found: Found, servers: &Arc<Servers>) -> Known {
        let now = self.clock.now();
        let mut cache = self.cache();
        if Arc::ptr_eq(servers, &self.servers.load()) {
            return cache.store(question.clone(), found, now);
        }
        // The settings were replaced meanwhile: the answer serves those who wait, and nobody later.
        Cache::new(Limits::from(&DnsSettings::default())).store(question.clone(), found, now)
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lookup_mx(&self, domain: &Domain) -> Result<Answer<Mx>, DnsError> {
        let known = self.lookup(Question { name: domain.clone(), kind: Kind::Mx }).await;
        let records = match known.outcome {
            Outcome::Records(Records::Mx(records)) => records.to_vec(),
            Outcome::Records(_) | Outcome::NoData => Vec::new(),
            Outcome::NoSuchDomain => return Err(DnsError::NoSuchDomain(domain.clone())),
            Outcome::Failed(reason) => return Err(failed(domain, &reason)),
        };
        Ok(Answer { records, expires_at: known.expires_at, stale: known.stale })
    }

    /// TXT records of `name`, the strings of each joined, CNAMEs followed; empty for NODATA.
    pub async fn texts(&self, name: &Domain) -> Result<Answer<Box<str>>, DnsError> {
        let known = self.lookup(Question { name: name.clone(), kind: Kind::Txt }).await;
        let records = match known.outcome {
            Outcome::Records(Records::Texts(records)) => records.to_vec(),
            Outcome::Records(_) | Outcome::NoData => Vec::new(),
            Outcome::NoSuchDomain => return Err(DnsError::NoSuchDomain(name.clone())),
            Outcome::Failed(reason) => return Err(failed(name, &reason)),
        };
        Ok(Answer { records, expires_at: known.expires_at, stale: known.stale })
    }

    /// The names that the PTR records of an address give it (RFC 1035 §3.5, RFC 3596 §2.5); empty for none.
    pub async fn names(&self, address: IpAddr) -> Result<Answer<Domain>, DnsError> {
        let name = reverse_name(address);
        let known = self.lookup(Question { name: name.clone(), kind: Kind::Ptr }).await;
        let records = match known.outcome {
            Outcome::Records(Records::Names(records)) => records.to_vec(),
            Outcome::Records(_) | Outcome::NoData | Outcome::NoSuchDomain => Vec::new(),
            Outcome::Failed(reason) => return Err(failed(&name, &reason)),
        };
        Ok(Answer { records, expires_at: known.expires_at, stale: known.stale })
    }

    /// Hickory's resolver for the first server, for `net::spf`.
    pub(super) fn first_client(&self) -> Option<hickory_resolver::TokioResolver> {
        self.servers.load().first_client()
    }

    async fn lookup_addresses(&self, host: &Domain) -> Result<Answer<IpAddr>, DnsError> {
        let (v6, v4) = tokio::join!(
            self.lookup(Question { name: host.clone(), kind: Kind::V6 }),
            self.lookup(Question { name: host.clone(), kind: Kind::V4 }),
        );
        join_families(host, v6, v4)
    }
}

impl Resolver for HickoryResolver {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, DnsError>> {
        Box::pin(self.lookup_mx(domain))
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<IpAddr>, DnsError>> {
        Box::pin(self.lookup_addresses(host))
    }
}

/// What A and AAAA say together. Addresses of one family count whatever the other says. Without any, a failure of one
/// means that nobody knows, and only NXDOMAIN for both means that there is no such name: some servers answer so for the
/// type that they do not have.
fn join_families(host: &Domain, v6: Known, v4: Known) -> Result<Answer<IpAddr>, DnsError> {
    let expires_at: Timestamp = v6.expires_at.min(v4.expires_at);
    let mut answer = Answer { records: Vec::new(), expires_at, stale: false };
    let mut failure = None;
    let mut missing = 0_u8;
    for known in [v6, v4] {
        match known.outcome {
            Outcome::Records(Records::Addresses(addresses)) => {
                answer.records.extend_from_slice(&addresses);
                answer.stale |= known.stale;
            }
            Outcome::Records(_) | Outcome::NoData => {}
            Outcome::NoSuchDomain => missing += 1,
            Outcome::Failed(reason) => failure = Some(reason),
        }
    }
    match failure {
        Some(reason) if answer.records.is_empty() => Err(failed(host, &reason)),
        None if missing == 2 => Err(DnsError::NoSuchDomain(host.clone())),
        _ => Ok(answer),
    }
}

/// Where the PTR records of an address stand: `1.2.0.192.in-addr.arpa`.
pub fn reverse_name(address: IpAddr) -> Domain {
    let name = match address.to_canonical() {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|octet| [octet & 15, octet >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    };
    Domain::parse(&name).expect("digits and dots of at most 72 octets are a domain")
}

fn failed(name: &Domain, reason: &str) -> DnsError {
    DnsError::Failed { name: name.clone(), reason: reason.to_owned() }
}

fn count(kind: Kind, result: &'static str) {
    let kind = match kind {
        Kind::Mx => "mx",
        Kind::V4 | Kind::V6 => "address",
        Kind::Txt => "txt",
        Kind::Ptr => "ptr",
    };
    metrics::counter!(metric::DNS_LOOKUPS, "type" => kind, "result" => result).increment(1);
}

/// One who waits for the answer to a question. The last one to leave removes it.
struct Flight<'a> {
    resolver: &'a HickoryResolver,
    question: Question,
    cell: Arc<OnceCell<Known>>,
}

impl<'a> Flight<'a> {
    fn join(resolver: &'a HickoryResolver, question: Question) -> Self {
        let cell = Arc::clone(Self::flights(resolver).entry(question.clone()).or_default());
        Self { resolver, question, cell }
    }

    fn flights(resolver: &HickoryResolver) -> MutexGuard<'_, HashMap<Question, Arc<OnceCell<Known>>>> {
        resolver.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut flights = Self::flights(self.resolver);
        // Counted under the lock: the map's own, and ours.
        let nobody_else = Arc::strong_count(&self.cell) <= 2;
        let is_listed = flights.get(&self.question).is_some_and(|listed| Arc::ptr_eq(listed, &self.cell));
        if is_listed && (nobody_else || self.cell.initialized()) {
            flights.remove(&self.question);
        }
    }
}

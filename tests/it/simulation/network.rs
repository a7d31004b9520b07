//! The network: zones as data behind the resolver port, hosts behind the dialler port, streams in memory.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use posthaste::net::{Answer, BoxFuture, BoxStream, Dialer, DnsError, Mx, Resolver, Via};
use posthaste::types::{Domain, Timestamp};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};

use super::host::{self, Host};
use super::plan::{DnsTrouble, Outage, Plan};
use super::provider::Provider;
use super::senders::{SYSTEM_V4, SYSTEM_V6, SourceTimes};
use super::world::World;

/// Octets between the daemon and a host.
const STREAM_BYTES: usize = 64 * 1024;

pub(super) struct Network {
    pub(super) hosts: Vec<Arc<Host>>,
    pub(super) providers: Vec<Arc<Provider>>,
    /// Messages of each source, to all hosts.
    sent: Mutex<SourceTimes>,
    /// How often the daemon's clock was set ahead.
    ahead: Mutex<usize>,
    by_address: BTreeMap<IpAddr, usize>,
    /// Of each set of hosts that makes a site, the indices.
    sites: Vec<Vec<usize>>,
}

impl Network {
    pub(super) fn new(plan: &Plan) -> Self {
        let hosts: Vec<_> = plan.hosts.iter().map(|host| Arc::new(Host::new(host.clone(), plan.seed))).collect();
        let addresses = plan.hosts.iter().enumerate();
        let by_address =
            addresses.flat_map(|(index, host)| host.addresses.iter().map(move |address| (*address, index))).collect();
        let mut sites: Vec<Vec<usize>> = Vec::new();
        for zone in &plan.zones {
            let mut site: Vec<usize> = zone.mx.iter().map(|(_, host)| *host).collect();
            site.sort_unstable();
            if !site.is_empty() && !sites.contains(&site) {
                sites.push(site);
            }
        }
        Self {
            hosts,
            providers: plan.providers.iter().map(|provider| Arc::new(Provider::new(provider.clone()))).collect(),
            sent: Mutex::default(),
            ahead: Mutex::default(),
            by_address,
            sites,
        }
    }

    /// A message comes to any host. RATE of sources as a whole.
    pub(super) fn sent(&self, world: &World, source: IpAddr, now: Timestamp) {
        self.follow_clock(world);
        if let Some(text) = self.sent.lock().unwrap().add(&world.plan.senders, source, now) {
            world.ledger().violation(text);
        }
    }

    /// CONNECTIONS, MESSAGES, RATE, BLOCKED at providers.
    pub(super) fn tell_of_providers(&self, world: &World) {
        for violation in self.providers.iter().flat_map(|provider| provider.violations()) {
            world.ledger().violation(violation);
        }
    }

    /// A clock that is set ahead makes the daemon believe that more time has passed: no wall clock can tell.
    fn follow_clock(&self, world: &World) {
        let ahead = world.clock.steps_ahead();
        if std::mem::replace(&mut *self.ahead.lock().unwrap(), ahead) < ahead {
            self.sent.lock().unwrap().forget();
            self.providers.iter().for_each(|provider| provider.time_went_ahead());
        }
    }

    /// The daemon is gone; what it was told since then may be lost.
    pub(super) fn restarted(&self, since: Timestamp) {
        self.providers.iter().for_each(|provider| provider.restarted(since));
    }

    /// CONNECTIONS: hosts in one site only show how many that site has from a source; others share theirs among sites.
    /// Providers look for themselves.
    fn check_connections(&self, world: &World) {
        let limit = world.plan.connections_per_site_max;
        let mut all = 0;
        for (index, host) in self.hosts.iter().enumerate() {
            let sites = self.sites.iter().filter(|site| site.contains(&index)).count();
            for (source, open) in host.open.lock().unwrap().iter() {
                all += *open;
                if host.plan.provider.is_none() && *open > limit * sites {
                    let name = &host.plan.name;
                    let text = format!("CONNECTIONS: {name} has {open} of {source} in {sites} sites of {limit}");
                    world.ledger().violation(text);
                }
            }
        }
        if all > world.plan.connections_max {
            let text = format!("CONNECTIONS: {all} of {} in all", world.plan.connections_max);
            world.ledger().violation(text);
        }
    }
}

/// The ports of the daemon. Holds the world only while a daemon runs.
pub(super) struct Ports(pub(super) Arc<World>);

impl Dialer for Ports {
    fn dial<'a>(&'a self, via: &'a Via, remote: SocketAddr, timeout: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        Box::pin(async move {
            let world = &self.0;
            let host = world.network.by_address.get(&remote.ip()).map(|index| &world.network.hosts[*index]);
            let host = Arc::clone(host.ok_or(io::ErrorKind::HostUnreachable)?);
            let system = if remote.is_ipv4() { SYSTEM_V4 } else { SYSTEM_V6 };
            let source = via.address.unwrap_or(system);
            if source.is_ipv4() != remote.is_ipv4() {
                world.ledger().violation(format!("FAMILY: {source} connects to {remote}"));
            }
            tokio::time::sleep(Duration::from_millis(host.plan.reply_ms)).await;
            match host.plan.outage(world.now()) {
                Some(Outage::Silent) => {
                    tokio::time::sleep(timeout).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Some(Outage::Refuses) => return Err(io::ErrorKind::ConnectionRefused.into()),
                _ => {}
            }
            let (ours, theirs) = tokio::io::duplex(STREAM_BYTES);
            let provider = host.plan.provider.map(|index| Arc::clone(&world.network.providers[index]));
            let stream = Counted::new(ours, Arc::clone(&host), source, provider);
            world.network.check_connections(world);
            world.network.tell_of_providers(world);
            tokio::spawn(host::serve(Arc::clone(world), host, source, theirs));
            Ok(Box::new(stream) as BoxStream)
        })
    }
}

impl Resolver for Ports {
    fn mx<'a>(&'a self, domain: &'a Domain) -> BoxFuture<'a, Result<Answer<Mx>, DnsError>> {
        Box::pin(async move {
            let world = &self.0;
            tokio::time::sleep(Duration::from_millis(7)).await;
            let now = world.now();
            let Some(zone) = world.plan.zone(domain.as_str()) else {
                return Err(DnsError::NoSuchDomain(domain.clone()));
            };
            match zone.trouble(now) {
                Some(DnsTrouble::NoSuchDomain) => return Err(DnsError::NoSuchDomain(domain.clone())),
                Some(DnsTrouble::ServerFailure) => {
                    return Err(DnsError::Failed { name: domain.clone(), reason: "SERVFAIL".to_owned() });
                }
                None => {}
            }
            let mut records: Vec<Mx> = zone
                .mx
                .iter()
                .map(|(preference, host)| Mx {
                    preference: *preference,
                    host: Some(world.plan.hosts[*host].name.clone()),
                })
                .collect();
            if records.is_empty() {
                records.push(Mx { preference: 0, host: None });
            }
            Ok(Answer { records, expires_at: now.plus(zone.ttl), stale: false })
        })
    }

    fn addresses<'a>(&'a self, host: &'a Domain) -> BoxFuture<'a, Result<Answer<IpAddr>, DnsError>> {
        Box::pin(async move {
            let world = &self.0;
            tokio::time::sleep(Duration::from_millis(3)).await;
            let found = world.plan.hosts.iter().find(|known| known.name == *host);
            let Some(found) = found else { return Err(DnsError::NoSuchDomain(host.clone())) };
            let expires_at = world.now().plus(Duration::from_secs(600));
            Ok(Answer { records: found.addresses.clone(), expires_at, stale: false })
        })
    }
}

/// The daemon's end of a connection; counted while it is open.
struct Counted {
    stream: DuplexStream,
    host: Arc<Host>,
    source: IpAddr,
    provider: Option<Arc<Provider>>,
}

impl Counted {
    fn new(stream: DuplexStream, host: Arc<Host>, source: IpAddr, provider: Option<Arc<Provider>>) -> Self {
        *host.open.lock().unwrap().entry(source).or_default() += 1;
        if let Some(provider) = &provider {
            provider.opened(source);
        }
        Self { stream, host, source, provider }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        *self.host.open.lock().unwrap().get_mut(&self.source).unwrap() -= 1;
        if let Some(provider) = &self.provider {
            provider.closed(self.source);
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The number of open connections of a host by source, from the daemon's side.
pub(super) type Open = Mutex<BTreeMap<IpAddr, usize>>;

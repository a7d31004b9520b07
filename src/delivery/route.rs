//! Where mail for a domain goes: routes of the config, MX records, addresses of hosts.
//!
//! How a worker uses it: [`Router::route`] gives the site and its hops; for each hop of [`Route::order`] (a new seed for
//! each attempt), [`Router::addresses`] gives the addresses, and [`DeadHosts::split`] says which of them to leave for the
//! end, after the other hops; at most `addresses_per_attempt_max` are tried in all. Where no hop has an address,
//! [`RouteFailure::of_all`] sums up.
//!
//! Promises: the mailbox simulator's own domain goes there, and nothing else does, whatever DNS says; then the first matching route of
//! the config wins, before any DNS; a failure of DNS is never a bounce; a domain
//! that has MX records is never sent to its own address instead; what DNS says never leads to this server or into its
//! network (loop guard), while a route of the config may.
//! Does not: cache (the resolver does), connect, or keep state; a reload makes a new router, and who holds routes drops
//! them then.

mod memory;
mod site;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub use crate::scheduler::SiteName;
pub use memory::{CLEAR_HOSTS_MAX, ClearHosts, DEAD_HOSTS_MAX, DeadHosts};
pub use site::{site_of_hosts, site_of_rule};

use super::settings::{DomainPattern, Egress, Login, NextHop, RouteRule, Settings, Simulated, TlsMode};
use crate::net::{Answer, DnsError, Mx, Resolver};
use crate::policy::pools::Family;
use crate::policy::routing::{self, MailHost, MailHosts, NoHosts, RefusedAddress};
use crate::types::{Clock, Domain, EnhancedStatus, Timestamp};

/// How long a route of the config is good; a reload makes new ones before.
const RULE_LIFETIME: Duration = Duration::from_secs(300);

/// The site of the mailbox simulator. No host, and no smart host's route, has such a name.
const SIMULATOR_SITE: &str = "simulator:built-in";

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RouteKind {
    /// The domain's MX records.
    Mx,
    /// The domain itself, as it has no MX records (RFC 5321 §5.1).
    ImplicitMx,
    /// The config. The loop guard does not apply: a relay on this host or network is what the administrator asked for.
    SmartHost,
    /// The mailbox simulator in this process. The loop guard does not apply.
    Simulator,
}

/// The way to a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Shared with all destinations of the same hosts.
    pub site: SiteName,
    /// Where it comes from.
    pub kind: RouteKind,
    /// At least one, by preference, equal ones by name; see [`Route::order`].
    pub hops: Vec<Hop>,
    /// TCP port of all hops.
    pub port: u16,
    /// How much TLS is needed.
    pub tls: TlsMode,
    /// SMTP AUTH, for smart hosts.
    pub login: Option<Login>,
    /// When to ask the router again.
    pub expires_at: Timestamp,
}

impl Route {
    /// The names of all hosts: whose they are says which provider it is. None for smart hosts and the simulator. All, since a host that anybody may
    /// name beside a provider's must not speak for the provider.
    pub fn mail_hosts(&self) -> impl Iterator<Item = &Domain> {
        let by_dns = matches!(self.kind, RouteKind::Mx | RouteKind::ImplicitMx);
        let hops = self.hops.iter().filter(move |_| by_dns);
        hops.filter_map(|hop| if let HopHost::Name(name) = &hop.host { Some(name) } else { None })
    }

    /// The hops in the order of attempts: by preference, equal ones shuffled as `seed` decides (RFC 5321 §5.1). Take
    /// another seed for each attempt.
    pub fn order(&self, seed: u64) -> Vec<&Hop> {
        let mut hops: Vec<(String, &Hop)> = self.hops.iter().map(|hop| (hop.host.to_string(), hop)).collect();
        routing::shuffle_by_preference(&mut hops, seed, |(name, hop)| (hop.preference, name.as_bytes()));
        hops.into_iter().map(|(_, hop)| hop).collect()
    }
}

/// One host of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Hop {
    /// Lower is tried first; 0 for smart hosts and implicit MX.
    pub preference: u16,
    /// Which host.
    pub host: HopHost,
}

/// A host by name or address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HopHost {
    /// Its A and AAAA records are asked for.
    Name(Domain),
    /// Used as it stands.
    Address(IpAddr),
}

impl std::fmt::Display for HopHost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HopHost::Name(name) => name.fmt(f),
            HopHost::Address(address) => address.fmt(f),
        }
    }
}

/// What the router knows of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RouteOutcome {
    /// Mail can be sent.
    Route(Arc<Route>),
    /// Bounce at once.
    Permanent {
        /// Class 5.
        status: EnhancedStatus,
        /// For the event and the DSN.
        text: String,
        /// The name that events quote.
        rule: &'static str,
    },
    /// NXDOMAIN: bounce with 5.1.2 ([`NO_SUCH_DOMAIN_RULE`]) only at a second look at least ten minutes later; NXDOMAIN
    /// is cached for at most five, so that look is a real one.
    NoSuchDomain {
        /// For the event and the DSN.
        text: String,
    },
    /// Nobody knows; try later.
    Temporary {
        /// Class 4.
        status: EnhancedStatus,
        /// For the event.
        text: String,
        /// The name that events quote.
        rule: &'static str,
    },
}

/// The rule name where a host has no address that the source could reach.
pub const NO_SOURCE_RULE: &str = "no-source";

/// The rule name that goes with [`RouteOutcome::NoSuchDomain`].
pub const NO_SUCH_DOMAIN_RULE: &str = "no-such-domain";

/// The status that goes with [`RouteOutcome::NoSuchDomain`]: 5.1.2, bad destination system address (RFC 3463 §3.2).
pub fn no_such_domain_status() -> EnhancedStatus {
    routing::status(5, 1, 2)
}

/// Why a hop has no address to connect to. Go on with the next hop.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteFailure {
    /// Try later: DNS failed, or no source address is of a family that the host has.
    #[error("{text}")]
    Temporary {
        /// Class 4.
        status: EnhancedStatus,
        /// For the event.
        text: String,
        /// The name that events quote.
        rule: &'static str,
    },
    /// The host does not exist or has no address (5.4.4): permanent, but only at a second look like NXDOMAIN.
    #[error("{text}")]
    NoAddress {
        /// For the event and the DSN.
        text: String,
    },
    /// The loop guard refused all its addresses: permanent.
    #[error("{text}")]
    Refused {
        /// 5.4.6 where mail would come back to us, else 5.4.4.
        status: EnhancedStatus,
        /// For the event and the DSN.
        text: String,
    },
}

impl RouteFailure {
    /// The status for events and DSNs; its class says whether the failure is permanent.
    pub fn status(&self) -> EnhancedStatus {
        match self {
            RouteFailure::Temporary { status, .. } | RouteFailure::Refused { status, .. } => *status,
            RouteFailure::NoAddress { .. } => routing::status(5, 4, 4),
        }
    }

    /// The name that events quote.
    pub const fn rule(&self) -> &'static str {
        match self {
            RouteFailure::Temporary { rule, .. } => rule,
            RouteFailure::NoAddress { .. } => "no-address",
            RouteFailure::Refused { .. } => "refused-address",
        }
    }

    /// Sums up the failures of all hops of a route: one that may pass makes the whole temporary; then one that needs a
    /// second look; only refusals alone are permanent at once. `None` for no failures.
    pub fn of_all(failures: Vec<RouteFailure>) -> Option<RouteFailure> {
        failures.into_iter().min_by_key(|failure| match failure {
            RouteFailure::Temporary { .. } => 0,
            RouteFailure::NoAddress { .. } => 1,
            RouteFailure::Refused { .. } => 2,
        })
    }
}

/// A route of the config, made ready.
struct Rule {
    matcher: Matcher,
    site: SiteName,
    hop: Hop,
    port: u16,
    tls: TlsMode,
    login: Option<Login>,
}

enum Matcher {
    All,
    Listed { exact: HashSet<Domain>, parents: HashSet<Domain> },
}

impl Matcher {
    fn matches(&self, domain: &Domain) -> bool {
        let Matcher::Listed { exact, parents } = self else { return true };
        let is_parent = |(at, _): (usize, &str)| {
            let parent = domain.as_str().get(at + 1..).unwrap_or_default();
            parents.contains(parent)
        };
        exact.contains(domain) || (!parents.is_empty() && domain.as_str().match_indices('.').any(is_parent))
    }
}

impl From<&RouteRule> for Rule {
    fn from(rule: &RouteRule) -> Self {
        let matcher = match &rule.domains {
            DomainPattern::All => Matcher::All,
            DomainPattern::Listed { exact, parents } => {
                Matcher::Listed { exact: exact.iter().cloned().collect(), parents: parents.iter().cloned().collect() }
            }
        };
        let host = match &rule.host {
            NextHop::Host(host) => HopHost::Name(host.clone()),
            NextHop::Address(address) => HopHost::Address(*address),
        };
        Self {
            matcher,
            site: site_of_rule(rule),
            hop: Hop { preference: 0, host },
            port: rule.port,
            tls: rule.tls,
            login: rule.login.clone(),
        }
    }
}

/// Finds routes and addresses. Made from settings; a reload makes another one.
pub struct Router {
    resolver: Arc<dyn Resolver>,
    clock: Arc<dyn Clock>,
    rules: Vec<Rule>,
    simulated: Option<Simulated>,
    /// Names by which MX records may mean us.
    own_names: Vec<Domain>,
    own_addresses: Vec<IpAddr>,
    port: u16,
    tls: TlsMode,
    allow_private_addresses: bool,
    addresses_max: usize,
    /// Rises with each order of addresses, so that equal ones take turns.
    turn: AtomicU64,
}

/// By which an MX host is known to be us. What has the address of a source behind a proxy may be another server of that name.
fn own_names(settings: &Settings) -> Vec<Domain> {
    let hostname = Domain::parse(&settings.hostname).ok();
    let here = settings.sources.iter().filter(|source| source.egress == Egress::Direct);
    let mut names: Vec<Domain> =
        hostname.into_iter().chain(here.filter_map(|source| source.ehlo_name.clone())).collect();
    names.sort_unstable();
    names.dedup();
    names
}

impl Router {
    /// A router for `settings`. `own_addresses` are those that our listeners have beside `settings.sources`, for the
    /// loop guard; `seed` starts the order of a host's addresses.
    pub fn new(
        settings: &Settings,
        own_addresses: &[IpAddr],
        resolver: Arc<dyn Resolver>,
        clock: Arc<dyn Clock>,
        seed: u64,
    ) -> Self {
        let sources = &settings.sources;
        Self {
            resolver,
            clock,
            rules: settings.routes.iter().map(Rule::from).collect(),
            simulated: settings.simulated.clone(),
            own_names: own_names(settings),
            own_addresses: sources
                .iter()
                .filter_map(|source| source.address)
                .chain(own_addresses.iter().copied())
                .collect(),
            port: settings.port,
            tls: settings.tls,
            allow_private_addresses: settings.allow_private_addresses,
            addresses_max: settings.addresses_per_attempt_max.max(1),
            turn: AtomicU64::new(seed),
        }
    }

    /// Where mail for `domain` goes. Cancel-safe.
    pub async fn route(&self, domain: &Domain) -> RouteOutcome {
        if let Some(simulated) = self.simulated.as_ref().filter(|simulated| simulated.domain == *domain) {
            return RouteOutcome::Route(Arc::new(self.simulator_route(simulated.address)));
        }
        if let Some(rule) = self.rules.iter().find(|rule| rule.matcher.matches(domain)) {
            return RouteOutcome::Route(Arc::new(self.rule_route(rule)));
        }
        match self.resolver.mx(domain).await {
            Ok(answer) => self.mx_route(domain, answer),
            Err(error @ DnsError::NoSuchDomain(_)) => RouteOutcome::NoSuchDomain { text: error.to_string() },
            Err(error @ DnsError::Failed { .. }) => {
                let (status, rule) = dns_failure();
                RouteOutcome::Temporary { status, text: error.to_string(), rule }
            }
        }
    }

    fn simulator_route(&self, address: SocketAddr) -> Route {
        Route {
            site: SiteName::new(SIMULATOR_SITE),
            kind: RouteKind::Simulator,
            hops: vec![Hop { preference: 0, host: HopHost::Address(address.ip()) }],
            port: address.port(),
            // It never leaves this process.
            tls: TlsMode::None,
            login: None,
            expires_at: self.clock.now().plus(RULE_LIFETIME),
        }
    }

    fn rule_route(&self, rule: &Rule) -> Route {
        Route {
            site: rule.site.clone(),
            kind: RouteKind::SmartHost,
            hops: vec![rule.hop.clone()],
            port: rule.port,
            tls: rule.tls,
            login: rule.login.clone(),
            expires_at: self.clock.now().plus(RULE_LIFETIME),
        }
    }

    fn mx_route(&self, domain: &Domain, answer: Answer<Mx>) -> RouteOutcome {
        let records = answer.records.into_iter().map(|record| (record.preference, record.host));
        let (kind, hosts) = match routing::mail_hosts(records, &self.own_names) {
            Ok(MailHosts::Listed(hosts)) => (RouteKind::Mx, hosts),
            Ok(MailHosts::Implicit) if self.own_names.contains(domain) => return refused(domain, NoHosts::Loop),
            Ok(MailHosts::Implicit) => (RouteKind::ImplicitMx, vec![MailHost { preference: 0, host: domain.clone() }]),
            Err(no_hosts) => return refused(domain, no_hosts),
        };
        RouteOutcome::Route(Arc::new(Route {
            site: site_of_hosts(hosts.iter().map(|host| &host.host)),
            kind,
            hops: hosts
                .into_iter()
                .map(|host| Hop { preference: host.preference, host: HopHost::Name(host.host) })
                .collect(),
            port: self.port,
            tls: self.tls,
            login: None,
            expires_at: answer.expires_at,
        }))
    }

    /// The addresses of `hop` in the order of attempts, at least one, at most `addresses_per_attempt_max`: shuffled, IPv6
    /// and IPv4 in turn. Cancel-safe.
    pub async fn addresses(&self, route: &Route, hop: &Hop, family: Family) -> Result<Vec<SocketAddr>, RouteFailure> {
        let known = match &hop.host {
            HopHost::Address(address) => vec![*address],
            HopHost::Name(name) => self.lookup(name).await?,
        };
        let allowed = match route.kind {
            RouteKind::SmartHost | RouteKind::Simulator => known,
            RouteKind::Mx | RouteKind::ImplicitMx => self.guard(&hop.host, known)?,
        };
        let usable: Vec<IpAddr> = allowed.into_iter().filter(|address| family.reaches(*address)).collect();
        if usable.is_empty() {
            let other = if family == Family::V4 { "IPv6" } else { "IPv4" };
            let text = format!("host {} has only {other} addresses, and no source of its pool is {other}", hop.host);
            return Err(RouteFailure::Temporary { status: routing::status(4, 3, 5), text, rule: NO_SOURCE_RULE });
        }
        let seed = self.turn.fetch_add(1, Ordering::Relaxed);
        let ordered = routing::interleave(&usable, seed, self.addresses_max);
        Ok(ordered.into_iter().map(|address| SocketAddr::new(address, route.port)).collect())
    }

    async fn lookup(&self, name: &Domain) -> Result<Vec<IpAddr>, RouteFailure> {
        let text = match self.resolver.addresses(name).await {
            Ok(answer) if answer.records.is_empty() => format!("host {name} has no A or AAAA record"),
            // IPv4 in the clothes of IPv6 is connected to as what it is.
            Ok(answer) => return Ok(answer.records.iter().map(IpAddr::to_canonical).collect()),
            Err(DnsError::NoSuchDomain(_)) => format!("host {name} does not exist (NXDOMAIN)"),
            Err(error @ DnsError::Failed { .. }) => {
                let (status, rule) = dns_failure();
                return Err(RouteFailure::Temporary { status, text: error.to_string(), rule });
            }
        };
        Err(RouteFailure::NoAddress { text })
    }

    /// Without the addresses that DNS must not send us to.
    fn guard(&self, host: &HopHost, addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, RouteFailure> {
        let mut allowed = Vec::with_capacity(addresses.len());
        let mut refusal = None;
        for address in addresses {
            match routing::check_address(address, &self.own_addresses, self.allow_private_addresses) {
                Ok(()) => allowed.push(address),
                Err(reason) => refusal = Some((address, reason)),
            }
        }
        match refusal {
            Some((address, reason)) if allowed.is_empty() => Err(guarded(host, address, reason)),
            _ => Ok(allowed),
        }
    }
}

/// Directory server failure (RFC 3463 §3.5).
fn dns_failure() -> (EnhancedStatus, &'static str) {
    (routing::status(4, 4, 3), "dns-failure")
}

fn refused(domain: &Domain, no_hosts: NoHosts) -> RouteOutcome {
    RouteOutcome::Permanent { status: no_hosts.status(), text: format!("{domain}: {no_hosts}"), rule: no_hosts.rule() }
}

fn guarded(host: &HopHost, address: IpAddr, reason: RefusedAddress) -> RouteFailure {
    let status = match reason {
        RefusedAddress::Own | RefusedAddress::Loopback | RefusedAddress::Unspecified => routing::status(5, 4, 6),
        RefusedAddress::Private | RefusedAddress::LinkLocal | RefusedAddress::NotUnicast => routing::status(5, 4, 4),
    };
    RouteFailure::Refused { status, text: format!("host {host} has no usable address: {address} {reason}") }
}

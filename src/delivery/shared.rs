//! What all workers and clerks share: ports, settings that a reload replaces, and what is remembered of hosts.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;

use super::route::{ClearHosts, DeadHosts, Router};
use super::session::{Credentials, TlsHint};
use super::settings::{Login, Settings};
use super::sources::Outlets;
use super::tallies::Tallies;
use crate::events::metric;
use crate::net::Dialer;
use crate::net::tls_client::TlsClient;
use crate::policy::token::TokenKeys;
use crate::policy::{Providers, Rules};
use crate::queue::Queue;
use crate::queue::suppression::SuppressionCheck;
use crate::scheduler::settlement::{SettlementSettings, Tally};
use crate::types::{Clock, Timestamp};

/// Everything that a reload replaces, as one.
pub struct Reloadable {
    /// Limits and timeouts.
    pub settings: Settings,
    /// Outcomes.
    pub settlement: SettlementSettings,
    /// What replies mean.
    pub rules: Arc<Rules>,
    /// What providers let us do.
    pub providers: Arc<Providers>,
    /// Routes.
    pub router: Router,
    /// TLS.
    pub tls: TlsClient,
    /// What a connection from each source needs.
    pub outlets: Outlets,
    /// Credentials for smart hosts, read from their files.
    pub logins: HashMap<Login, Credentials>,
}

/// See the module.
pub struct Shared {
    /// The queue.
    pub queue: Queue,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Connections.
    pub dialer: Arc<dyn Dialer>,
    /// Outcomes since the start.
    pub counts: Arc<Counts>,
    /// The same by source and provider, for the metrics alone.
    pub(super) tallies: Tallies,
    /// Which recipients mail is held back from.
    pub suppression: Arc<dyn SuppressionCheck>,
    reloadable: Arc<ArcSwap<Reloadable>>,
    tokens: Arc<ArcSwap<TokenKeys>>,
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    dead: DeadHosts,
    clear: ClearHosts,
    small_hello: ClearHosts,
}

impl Shared {
    /// Puts it together.
    pub fn new(
        queue: Queue,
        clock: Arc<dyn Clock>,
        dialer: Arc<dyn Dialer>,
        suppression: Arc<dyn SuppressionCheck>,
        reloadable: Arc<ArcSwap<Reloadable>>,
        tokens: Arc<ArcSwap<TokenKeys>>,
    ) -> Self {
        Self {
            queue,
            clock,
            dialer,
            counts: Arc::default(),
            tallies: Tallies::default(),
            suppression,
            reloadable,
            tokens,
            hosts: Mutex::default(),
        }
    }

    /// The keys of return paths.
    pub(super) fn tokens(&self) -> Arc<TokenKeys> {
        self.tokens.load_full()
    }

    /// The settings of this moment.
    pub fn reloadable(&self) -> Arc<Reloadable> {
        self.reloadable.load_full()
    }

    /// Addresses to try now, then those that failed lately.
    pub(super) fn sort_addresses(
        &self,
        addresses: Vec<SocketAddr>,
        source: Option<IpAddr>,
    ) -> (Vec<SocketAddr>, Vec<SocketAddr>) {
        let now = self.clock.now();
        let hosts = self.hosts();
        addresses.into_iter().partition(|address| !hosts.dead.is_dead(*address, source, now))
    }

    /// What is known of a host's TLS.
    pub(super) fn tls_hint(&self, address: SocketAddr) -> TlsHint {
        let now = self.clock.now();
        let hosts = self.hosts();
        match (hosts.clear.is_clear(address, now), hosts.small_hello.is_clear(address, now)) {
            (true, _) => TlsHint::Broken,
            (false, true) => TlsHint::SmallHello,
            (false, false) => TlsHint::Unknown,
        }
    }

    /// A connection was opened.
    pub(super) fn connected(&self, address: SocketAddr, source: Option<IpAddr>, hint: TlsHint, settings: &Settings) {
        let now = self.clock.now();
        let mut hosts = self.hosts();
        hosts.dead.clear(address, source);
        match hint {
            TlsHint::Unknown => {}
            TlsHint::Broken => hosts.clear.mark(address, settings.clear_memory, now),
            TlsHint::SmallHello => hosts.small_hello.mark(address, settings.clear_memory, now),
        }
    }

    /// A connection could not be opened.
    pub(super) fn unreachable(&self, address: SocketAddr, source: Option<IpAddr>, now: Timestamp) {
        self.hosts().dead.mark(address, source, now);
    }

    fn hosts(&self) -> MutexGuard<'_, Hosts> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Outcomes since the start.
#[derive(Debug, Default)]
pub struct Counts {
    delivered: AtomicU64,
    deferred: AtomicU64,
    bounced: AtomicU64,
}

impl Counts {
    /// The sums so far.
    pub fn read(&self) -> Tally {
        Tally {
            delivered: self.delivered.load(Ordering::Relaxed),
            deferred: self.deferred.load(Ordering::Relaxed),
            bounced: self.bounced.load(Ordering::Relaxed),
            suppressed: Vec::new(),
        }
    }

    /// Adds to them, and to the metrics.
    pub fn add(&self, tally: &Tally) {
        for suppressed in &tally.suppressed {
            let (tier, reason) = (suppressed.tier.name(), suppressed.reason.label());
            metrics::counter!(metric::SUPPRESSED_RECIPIENTS, "tier" => tier, "reason" => reason).increment(1);
        }
        let rows = [
            ("delivered", &self.delivered, tally.delivered),
            ("deferred", &self.deferred, tally.deferred),
            ("bounced", &self.bounced, tally.bounced),
        ];
        for (outcome, sum, recipients) in rows {
            if recipients > 0 {
                sum.fetch_add(recipients, Ordering::Relaxed);
                metrics::counter!(metric::OUTCOMES, "outcome" => outcome).increment(recipients);
            }
        }
    }
}

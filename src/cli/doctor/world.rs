//! What checks ask of the network: DNS, with "missing" and "nobody knows" kept apart, and SPF verdicts.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use crate::net::dns::HickoryResolver;
use crate::net::spf::{SpfVerdict, SpfVerifier};
use crate::net::{Answer, DnsError, Mx, Resolver};
use crate::types::{Clock, Domain};

use super::setup::Setup;

/// What a question to DNS brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looked<T> {
    /// At least one record.
    Found(Vec<T>),
    /// An authoritative "there is none".
    Missing,
    /// SERVFAIL, timeout and the like.
    Unknown(String),
}

impl<T> Looked<T> {
    fn from_answer(answer: Result<Answer<T>, DnsError>) -> Self {
        match answer {
            Ok(answer) if answer.records.is_empty() => Looked::Missing,
            Ok(answer) => Looked::Found(answer.records),
            Err(DnsError::NoSuchDomain(_)) => Looked::Missing,
            Err(error @ DnsError::Failed { .. }) => Looked::Unknown(error.to_string()),
        }
    }

    /// The records; none where they are missing or not known.
    pub(super) fn records(&self) -> &[T] {
        match self {
            Looked::Found(records) => records,
            Looked::Missing | Looked::Unknown(_) => &[],
        }
    }
}

/// The network as the checks see it, and what they check.
pub(super) struct World {
    pub(super) setup: Setup,
    pub(super) clock: Arc<dyn Clock>,
    resolver: HickoryResolver,
    spf: Option<SpfVerifier>,
    /// What one question to a DNS server may take, for what does not ask through the resolver.
    dns_timeout: Duration,
}

impl World {
    pub(super) fn new(setup: Setup, clock: Arc<dyn Clock>, resolver: HickoryResolver, dns_timeout: Duration) -> Self {
        let spf = SpfVerifier::new(&resolver);
        Self { setup, clock, resolver, spf, dns_timeout }
    }

    pub(super) async fn texts(&self, name: &Domain) -> Looked<String> {
        let answer = self.resolver.texts(name).await;
        match Looked::from_answer(answer) {
            Looked::Found(records) => Looked::Found(records.into_iter().map(String::from).collect()),
            Looked::Missing => Looked::Missing,
            Looked::Unknown(reason) => Looked::Unknown(reason),
        }
    }

    /// [`World::texts`] of `label.name`.
    pub(super) async fn texts_below(&self, labels: &str, name: &Domain) -> Looked<String> {
        match Domain::parse(&format!("{labels}.{name}")) {
            Ok(name) => self.texts(&name).await,
            // Longer than a name can be: nobody can have published it.
            Err(_) => Looked::Missing,
        }
    }

    pub(super) async fn addresses(&self, host: &Domain) -> Looked<IpAddr> {
        Looked::from_answer(self.resolver.addresses(host).await)
    }

    pub(super) async fn mx(&self, domain: &Domain) -> Looked<Mx> {
        let mut looked = Looked::from_answer(self.resolver.mx(domain).await);
        if let Looked::Found(records) = &mut looked {
            records.sort_unstable();
        }
        looked
    }

    pub(super) async fn names(&self, address: IpAddr) -> Looked<Domain> {
        Looked::from_answer(self.resolver.names(address).await)
    }

    pub(super) async fn spf(&self, source: IpAddr, domain: &Domain) -> SpfVerdict {
        // An evaluation asks at most some twenty questions one after the other; a dead server shows with the first.
        let timeout = self.dns_timeout.saturating_mul(4);
        match &self.spf {
            Some(verifier) => verifier.verdict(source, domain, &self.setup.hostname, timeout).await,
            None => SpfVerdict::TempError,
        }
    }
}

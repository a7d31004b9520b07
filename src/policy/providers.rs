//! Provider rules as data: which sites belong together as one provider, and what it lets a source do.
//!
//! `providers/providers.toml` holds the built-in rules; a file of the administrator's stands in front of it, or changes keys of
//! built-in rules by their names. docs/RULES.md describes the form. A rule takes a domain that it names, and a domain all of
//! whose best MX hosts it names: so one host of a provider among others, a backup or a filter, does not make a site its own.
//!
//! Promises: pure; the cost of [`Providers::find`] grows with the labels of the hosts, not with the number of rules.

mod file;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use super::limits::{LaneLimits, Rates, Span};
use crate::tables::ConfigErrors;
use crate::types::Domain;

/// The built-in file.
pub const BUILT_IN_FILE: &str = include_str!("providers/providers.toml");

static BUILT_IN: LazyLock<Arc<Providers>> = LazyLock::new(|| {
    let rules = file::read(BUILT_IN_FILE, "providers.toml", &[]);
    Arc::new(Providers::new(rules.expect("the tests read the same file: it has no errors")))
});

/// A provider: what is its own, and what it lets one source do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its name, part of site names: 1 to 64 of `a-z0-9_-`.
    pub name: Arc<str>,
    /// Its MX hosts.
    pub mx: Box<[HostPattern]>,
    /// Recipient domains that are its own whatever their MX hosts are.
    pub domains: Box<[Domain]>,
    /// In place of the defaults.
    pub limits: Overrides,
    /// Where it was written.
    pub origin: super::replies::Origin,
}

/// Names of hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// This one.
    Exact(Domain),
    /// All below this domain, itself not.
    Below(Domain),
}

impl HostPattern {
    /// `.google.com` or `aspmx.l.google.com`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix('.') {
            Some(parent) => Domain::parse(parent).ok().map(HostPattern::Below),
            None => Domain::parse(text).ok().map(HostPattern::Exact),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HostPattern::Exact(host) => host.fmt(f),
            HostPattern::Below(parent) => write!(f, ".{parent}"),
        }
    }
}

/// Limits that a provider rule gives; `None`: the default holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// See [`LaneLimits`].
    pub connections: Option<u32>,
    /// See [`LaneLimits`].
    pub connections_total: Option<u32>,
    /// See [`LaneLimits`].
    pub messages_per_connection: Option<u32>,
    /// See [`LaneLimits`].
    pub rates: Rates,
}

impl Overrides {
    /// These, and the defaults for the rest.
    pub fn over(&self, default: LaneLimits) -> LaneLimits {
        let rate = |span: Span| self.rates.by(span).or(default.rates.by(span));
        LaneLimits {
            connections: self.connections.unwrap_or(default.connections),
            connections_total: self.connections_total.or(default.connections_total),
            messages_per_connection: self.messages_per_connection.unwrap_or(default.messages_per_connection),
            rates: Rates {
                second: rate(Span::Second),
                minute: rate(Span::Minute),
                hour: rate(Span::Hour),
                day: rate(Span::Day),
            },
        }
    }
}

/// All provider rules, in order, ready to be asked.
#[derive(Clone)]
pub struct Providers {
    rules: Vec<Provider>,
    by_name: HashMap<Arc<str>, usize>,
    /// The first rule that names a recipient domain.
    by_domain: HashMap<Domain, usize>,
    /// The rules that name a host, or the parent of hosts; in order.
    by_host: HashMap<Domain, Vec<usize>>,
    by_parent: HashMap<Domain, Vec<usize>>,
}

/// The names: a whole table is too long to read, and its maps have no order.
impl fmt::Debug for Providers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.rules.iter().map(|rule| &rule.name)).finish()
    }
}

impl Default for Providers {
    /// The built-in ones.
    fn default() -> Self {
        Providers::clone(&BUILT_IN)
    }
}

impl Providers {
    /// The rules that this version ships.
    pub fn built_in() -> Arc<Providers> {
        Arc::clone(&BUILT_IN)
    }

    /// The built-in rules behind those of this text, a file named `name`.
    pub fn with_own(text: &str, name: &str) -> Result<Providers, ConfigErrors> {
        Ok(Self::new(file::read(text, name, &BUILT_IN.rules)?))
    }

    /// These rules, first match wins.
    pub fn new(rules: Vec<Provider>) -> Self {
        let (mut by_name, mut by_domain) = (HashMap::new(), HashMap::new());
        let (mut by_host, mut by_parent) = (HashMap::<Domain, Vec<usize>>::new(), HashMap::<Domain, Vec<usize>>::new());
        for (at, rule) in rules.iter().enumerate() {
            by_name.entry(Arc::clone(&rule.name)).or_insert(at);
            for domain in &rule.domains {
                by_domain.entry(domain.clone()).or_insert(at);
            }
            for pattern in &rule.mx {
                match pattern {
                    HostPattern::Exact(host) => by_host.entry(host.clone()).or_default().push(at),
                    HostPattern::Below(parent) => by_parent.entry(parent.clone()).or_default().push(at),
                }
            }
        }
        Self { rules, by_name, by_domain, by_host, by_parent }
    }

    /// The first rule that takes a recipient domain whose MX hosts of the best preference are these.
    pub fn find<'h>(&self, domain: &Domain, best_hosts: impl IntoIterator<Item = &'h Domain>) -> Option<&Provider> {
        let by_domain = self.by_domain.get(domain).copied();
        let mut hosts = best_hosts.into_iter();
        let mut candidates = hosts.next().map(|host| self.candidates(host)).unwrap_or_default();
        for host in hosts {
            if candidates.is_empty() {
                break;
            }
            let takers = self.candidates(host);
            candidates.retain(|candidate| takers.contains(candidate));
        }
        let at = candidates.into_iter().chain(by_domain).min()?;
        self.rules.get(at)
    }

    /// The rules that take one host.
    fn candidates(&self, host: &Domain) -> Vec<usize> {
        let mut found = self.by_host.get(host).cloned().unwrap_or_default();
        let mut rest = host.as_str();
        while let Some((_, parent)) = rest.split_once('.') {
            found.extend(self.by_parent.get(parent).into_iter().flatten());
            rest = parent;
        }
        found
    }

    /// The rule of this name.
    pub fn get(&self, name: &str) -> Option<&Provider> {
        self.by_name.get(name).and_then(|at| self.rules.get(*at))
    }

    /// What a site of this provider lets a source do; `default` for a site of none.
    pub fn limits(&self, name: Option<&str>, default: LaneLimits) -> LaneLimits {
        name.and_then(|name| self.get(name)).map_or(default, |rule| rule.limits.over(default))
    }

    /// All rules, in order.
    pub fn all(&self) -> &[Provider] {
        &self.rules
    }

    /// The names of all, in order.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.rules.iter().map(|rule| Arc::clone(&rule.name)).collect()
    }
}

#[cfg(test)]
#[path = "providers/tests.rs"]
mod tests;

//! What is checked: the part of the config that others can see, and what the command line adds.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::message::dkim::Key;
use crate::net::Via;
use crate::net::egress::Proxy;
use crate::types::{Domain, EmailAddress, SourceName};

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// EHLO name.
    pub(super) hostname: Domain,
    pub(super) sources: Vec<Source>,
    /// Sources of the config of which nobody here knows what receivers see: the proxy chooses the address.
    pub(super) unknown: Vec<UnknownSource>,
    /// `[delivery] allow_private_addresses`: a lab.
    pub(super) is_lab: bool,
    pub(super) identities: Vec<Identity>,
    /// The domain of the second signature.
    pub(super) operator: Option<Signer>,
    /// Where bounces come back, for identities without a domain of their own.
    pub(super) return_path: Option<Domain>,
    /// Whether this server takes the mail of domains for bounces. Where it does not, their MX must be a host that collects it.
    pub(super) takes_bounces: bool,
    /// Where this server takes DMARC reports.
    pub(super) dmarc_reports: Vec<EmailAddress>,
    pub(super) listeners: Vec<Listener>,
    /// Roots that clients trust besides Mozilla's, as PEM.
    pub(super) extra_roots_pem: Vec<u8>,
    /// Of mail hosts.
    pub(super) port: u16,
    pub(super) probes: Vec<Domain>,
    /// The next hop of all mail, where a route names one: then no mail host is asked.
    pub(super) smart_host: Option<String>,
    pub(super) time_server: String,
    pub(super) connect_timeout: Duration,
}

/// An address that mail leaves from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    /// What it says in EHLO.
    pub(super) ehlo_name: Domain,
    /// How it gets out.
    pub(super) via: Via,
    pub(super) origin: Origin,
}

/// See [`Setup::unknown`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UnknownSource {
    pub(super) name: SourceName,
    pub(super) proxy: Proxy,
}

/// Who named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `[delivery] sources` or `[[source]]`.
    Config,
    /// `--source`: what the world sees, and not always an address of this host.
    CommandLine,
    /// The system would take it.
    System,
}

/// A domain that messages come from.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) signer: Signer,
    /// What its messages have at MAIL FROM, each once. Several, where addresses of the domain are identities of their own.
    pub(super) mail_from: Vec<MailFrom>,
}

/// A domain at MAIL FROM.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct MailFrom {
    pub(super) domain: Domain,
    /// For bounces alone, and not the domain of people.
    pub(super) is_for_bounces: bool,
}

/// A domain that signs, and its keys.
#[derive(Clone, Debug)]
pub(super) struct Signer {
    pub(super) domain: Domain,
    pub(super) keys: Vec<SigningKey>,
}

/// A key of ours.
#[derive(Clone, Debug)]
pub(super) struct SigningKey {
    /// The `d=` of its signatures: the signer's domain, or one above it.
    pub(super) domain: Domain,
    pub(super) selector: Domain,
    pub(super) key: Arc<Key>,
    /// `state = "next"`: used once its record is there.
    pub(super) is_next: bool,
    pub(super) file: PathBuf,
    /// Permission bits of the file.
    pub(super) mode: u32,
}

/// A listener with TLS, or what answers links that unsubscribe.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// What clients connect to it by, as far as we know.
    pub(super) host: Domain,
}

impl Setup {
    /// Sources that the world can see: what DNS records are about.
    pub(super) fn public_sources(&self) -> impl Iterator<Item = IpAddr> {
        self.visible().map(|source| source.address)
    }

    /// The same, with all that is known of them.
    pub(super) fn visible(&self) -> impl Iterator<Item = &Source> {
        self.sources.iter().filter(|source| !self.is_hidden(source))
    }

    /// What is said in EHLO, each once, our own name first.
    pub(super) fn ehlo_names(&self) -> Vec<Domain> {
        let mut names: Vec<Domain> = self.sources.iter().map(|source| source.ehlo_name.clone()).collect();
        if self.sources.is_empty() {
            names.push(self.hostname.clone());
        }
        names.sort_unstable_by_key(|name| (*name != self.hostname, name.clone()));
        names.dedup();
        names
    }

    /// The sources that the world can see and that say this name.
    pub(super) fn sources_of(&self, ehlo_name: &Domain) -> Vec<IpAddr> {
        self.visible().filter(|source| source.ehlo_name == *ehlo_name).map(|source| source.address).collect()
    }

    /// Whether a router puts another address in the place of this one.
    pub(super) fn is_hidden(&self, source: &Source) -> bool {
        !self.is_lab && source.origin != Origin::CommandLine && is_private(source.address)
    }

    /// All domains at MAIL FROM, each once, in the order of the alphabet.
    pub(super) fn mail_from_domains(&self) -> Vec<MailFrom> {
        let used = self.identities.iter().flat_map(|identity| identity.mail_from.iter().cloned());
        let of_all = self.return_path.clone().map(|domain| MailFrom { domain, is_for_bounces: true });
        let mut domains: BTreeMap<Domain, bool> = BTreeMap::new();
        for MailFrom { domain, is_for_bounces } in used.chain(of_all) {
            *domains.entry(domain).or_default() |= is_for_bounces;
        }
        domains.into_iter().map(|(domain, is_for_bounces)| MailFrom { domain, is_for_bounces }).collect()
    }
}

/// Addresses that nobody outside sees (RFC 1918, 4193, 6598 and the like).
pub(super) fn is_private(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            let [first, second, ..] = address.octets();
            let is_shared = first == 100 && (64..128).contains(&second);
            address.is_private()
                || address.is_loopback()
                || address.is_link_local()
                || address.is_unspecified()
                || is_shared
        }
        IpAddr::V6(address) => {
            address.is_loopback()
                || address.is_unspecified()
                || address.is_unique_local()
                || address.is_unicast_link_local()
        }
    }
}

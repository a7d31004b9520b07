//! What is checked: the part of the config that others can see, and what the command line adds.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::message::dkim::Key;
use crate::types::Domain;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    /// EHLO name.
    pub(super) hostname: Domain,
    pub(super) sources: Vec<Source>,
    /// `[delivery] allow_private_addresses`: a lab.
    pub(super) is_lab: bool,
    pub(super) identities: Vec<Identity>,
    /// The domain of the second signature.
    pub(super) operator: Option<Signer>,
    /// Where bounces come back, for identities without a domain of their own.
    pub(super) return_path: Option<Domain>,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) address: IpAddr,
    pub(super) origin: Origin,
}

/// Who named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// `[delivery] sources`.
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
    /// `mail_from`: its own MAIL FROM domain.
    pub(super) mail_from: Option<Domain>,
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

/// A listener with TLS.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    pub(super) name: String,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Setup {
    /// Sources that the world can see: what DNS records are about.
    pub(super) fn public_sources(&self) -> impl Iterator<Item = IpAddr> {
        self.sources.iter().filter(|source| !self.is_hidden(source)).map(|source| source.address)
    }

    /// Whether a router puts another address in the place of this one.
    pub(super) fn is_hidden(&self, source: &Source) -> bool {
        !self.is_lab && source.origin != Origin::CommandLine && is_private(source.address)
    }

    /// The domain that messages of an identity have at MAIL FROM, and whether it is a domain for bounces alone.
    pub(super) fn mail_from_of(&self, identity: &Identity) -> (Domain, bool) {
        match identity.mail_from.as_ref().or(self.return_path.as_ref()) {
            Some(domain) => (domain.clone(), true),
            None => (identity.signer.domain.clone(), false),
        }
    }

    /// All domains at MAIL FROM, each once, and whether they are for bounces alone.
    pub(super) fn mail_from_domains(&self) -> Vec<(Domain, bool)> {
        let mut domains: Vec<(Domain, bool)> = Vec::new();
        let used = self.identities.iter().map(|identity| self.mail_from_of(identity));
        for (domain, is_own) in used.chain(self.return_path.clone().map(|domain| (domain, true))) {
            match domains.iter_mut().find(|(known, _)| *known == domain) {
                Some((_, known)) => *known |= is_own,
                None => domains.push((domain, is_own)),
            }
        }
        domains
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

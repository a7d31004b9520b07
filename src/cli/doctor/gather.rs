//! From a config and the command line to a [`Setup`]. Reads key files; asks no network.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use zeroize::Zeroizing;

use super::setup::{Identity, Listener, MailFrom, Setup, Signer, SigningKey};
use super::{Args, sources};
use crate::admission::directory::Directory;
use crate::admission::identity::{Identity as AdmittedIdentity, IdentityName};
use crate::admission::signing::{KeySettings, KeyState};
use crate::daemon::config::Config;
use crate::daemon::outlets;
use crate::delivery::settings::{DomainPattern, NextHop, RouteRule};
use crate::message::dkim::Key;
use crate::reception::settings::{CertificateFiles, ListenerTls};
use crate::types::Domain;

/// Octets that are read of a key file or of a file of authorities. A longer one is cut, and then is no PEM.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Whether the daemon takes mail of domains for bounces. Once it does, this is all that changes: the doctor then asks for MX
/// records that lead here, and prints them.
const TAKES_BOUNCES: bool = false;

/// `Err`: a file cannot be used.
pub(super) fn gather(config: &Config, args: &Args) -> Result<Setup, String> {
    let keys = config.signing.keys.iter().map(load).collect::<Result<Vec<_>, _>>()?;
    let operator = config.signing.operator_domain.clone();
    let domains = if args.identities.is_empty() { domains(config, operator.as_ref()) } else { args.identities.clone() };
    let directory = &config.admission;
    let by_domain = by_domain(directory);
    let identities = domains.into_iter().map(|domain| Identity {
        mail_from: mail_from(&domain, &by_domain, directory),
        signer: signer(domain, &keys, directory),
    });
    let extra_roots_pem = match &args.ca {
        Some(path) => read(path)?.to_vec(),
        None => Vec::new(),
    };
    let (sources, unknown) = sources::gather(&args.sources, config, &outlets(config)?);
    Ok(Setup {
        hostname: config.hostname.clone(),
        sources,
        unknown,
        is_lab: config.delivery.allow_private_addresses,
        identities: identities.collect(),
        operator: operator.map(|domain| Signer { keys: keys_of(&domain, &keys), domain }),
        return_path: config.admission.return_path_domain.clone(),
        takes_bounces: TAKES_BOUNCES,
        dmarc_reports: config.feedback.dmarc_reports.clone(),
        listeners: listeners(config),
        extra_roots_pem,
        port: config.delivery.port,
        probes: args.probes.clone(),
        smart_host: smart_host(&config.delivery.routes),
        time_server: args.time_server.clone(),
        connect_timeout: config.delivery.timeouts.connect,
    })
}

/// The domains of all identities, and those that have keys, each once, in the order of the alphabet.
fn domains(config: &Config, operator: Option<&Domain>) -> Vec<Domain> {
    let named = config.admission.identities().map(|identity| identity.name.domain());
    let signing = config.signing.keys.iter().map(|key| &key.domain).filter(|domain| Some(*domain) != operator);
    let mut domains: Vec<Domain> = named.chain(signing).cloned().collect();
    domains.sort_unstable();
    domains.dedup();
    domains
}

/// Identities of the config.
type ByDomain<'a> = HashMap<&'a Domain, Vec<&'a AdmittedIdentity>>;

/// The identities of each domain: itself, and addresses at it.
fn by_domain(directory: &Directory) -> ByDomain<'_> {
    let mut found = ByDomain::new();
    for identity in directory.identities() {
        found.entry(identity.name.domain()).or_default().push(identity);
    }
    found
}

/// What messages from a domain have at MAIL FROM: those of the domain, and those of addresses that are identities of their own.
fn mail_from(domain: &Domain, by_domain: &ByDomain<'_>, directory: &Directory) -> Vec<MailFrom> {
    let own = by_domain.get(domain).map(Vec::as_slice).unwrap_or_default();
    let of_all = directory.identity_of_domain(domain).map(|identity| &**identity);
    let of_addresses = own.iter().filter(|identity| matches!(identity.name, IdentityName::Address(..)));
    // Where only addresses are identities, nobody sends from the rest of the domain.
    let mut senders: Vec<Option<&AdmittedIdentity>> = of_addresses.map(|identity| Some(*identity)).collect();
    if senders.is_empty() || of_all.is_some() {
        senders.push(of_all);
    }
    let at = |identity: Option<&AdmittedIdentity>| match directory.return_path(identity, None) {
        Some(path) => MailFrom { domain: path.domain, is_for_bounces: true },
        None => MailFrom { domain: domain.clone(), is_for_bounces: false },
    };
    let mut found: Vec<MailFrom> = senders.into_iter().map(at).collect();
    found.sort_unstable();
    found.dedup();
    found
}

fn signer(domain: Domain, keys: &[SigningKey], directory: &Directory) -> Signer {
    let keys = domain.with_parents().map(|name| (name, keys_named(name, keys))).find(|(_, keys)| !keys.is_empty());
    let keys = keys.map(|(_, keys)| keys).unwrap_or_default();
    // As when signing: never with keys of a domain that is another tenant's identity.
    let owner = |domain: &Domain| directory.identity_of_domain(domain).map(|identity| &identity.tenant);
    let is_ours = |key: &SigningKey| owner(&key.domain).is_none_or(|tenant| Some(tenant) == owner(&domain));
    let keys = keys.into_iter().filter(is_ours).collect();
    Signer { keys, domain }
}

fn keys_of(domain: &Domain, keys: &[SigningKey]) -> Vec<SigningKey> {
    keys_named(domain.as_str(), keys)
}

fn keys_named(name: &str, keys: &[SigningKey]) -> Vec<SigningKey> {
    keys.iter().filter(|key| key.domain.as_str() == name).cloned().collect()
}

fn load(settings: &KeySettings) -> Result<SigningKey, String> {
    let path = &settings.key_file;
    let key = Key::from_pem(&read(path)?).map_err(|error| format!("{}: {error}", path.display()))?;
    let metadata = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(SigningKey {
        domain: settings.domain.clone(),
        selector: settings.selector.clone(),
        key: Arc::new(key),
        is_next: settings.state == KeyState::Next,
        file: path.clone(),
        mode: metadata.permissions().mode(),
    })
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut bytes = Zeroizing::new(Vec::new());
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX).read_to_end(&mut bytes));
    read.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    Ok(bytes)
}

/// The host of a route for all domains.
fn smart_host(routes: &[RouteRule]) -> Option<String> {
    let route = routes.iter().find(|route| route.domains == DomainPattern::All)?;
    Some(match &route.host {
        NextHop::Host(host) => host.to_string(),
        NextHop::Address(address) => address.to_string(),
    })
}

fn listeners(config: &Config) -> Vec<Listener> {
    let with_tls = config.listeners.iter().filter_map(|listener| match &listener.tls {
        ListenerTls::None => None,
        ListenerTls::StartTls(files) | ListenerTls::Implicit(files) => Some((listener.name.clone(), files.clone())),
    });
    // Links are opened by the name in them.
    let url = config.unsubscribe.url.as_deref().and_then(|url| url.strip_prefix("https://"));
    let host = url.and_then(|rest| Domain::parse(rest.split(['/', ':', '?']).next()?).ok());
    let links = config.unsubscribe.tls.clone().map(|files| ("unsubscribe".to_owned(), files, host));
    let listener = |(name, files, host): (String, CertificateFiles, Option<Domain>)| {
        let host = host.unwrap_or_else(|| config.hostname.clone());
        Listener { name, certificate: files.certificate, key: files.key, host }
    };
    with_tls.map(|(name, files)| (name, files, None)).chain(links).map(listener).collect()
}

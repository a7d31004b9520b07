//! Questions to DNS servers by hickory: the one file that knows that library.
//!
//! Each server has a hickory resolver of its own, without cache, retries and search list, so that what to do after a
//! failure is decided here: hickory returns the first SERVFAIL or REFUSED of a group of servers, though another would know.
//! Promises: UDP first, TCP where an answer was cut off; names are sent fully qualified; only records that belong to the
//! question, through its CNAMEs, are taken; no answer is larger than its bound. DNSSEC is not validated here.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts, ServerOrderingStrategy,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError as WireError, NetError};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use rustls::{ClientConfig, RootCertStore};

use super::cache::{Found, Kind, Question, Records};
use crate::net::Mx;
use crate::net::settings::DnsSettings;
use crate::types::Domain;

/// Servers that are used; more in the settings or in /etc/resolv.conf are ignored (glibc takes three).
const SERVERS_MAX: usize = 8;
/// Questions for one name, whatever the settings say; at least [`SERVERS_MAX`].
const QUESTIONS_MAX: usize = 32;
/// MX records kept of one answer, those of the lowest preference.
const MX_RECORDS_MAX: usize = 64;
/// Addresses kept of one answer; a host has up to that many of each family.
const ADDRESSES_MAX: usize = 16;
/// TXT records kept of one answer. A domain with more has lost count of them; the rest is ignored.
const TEXTS_MAX: usize = 64;
/// Octets kept of one TXT record, its strings joined: a DKIM key of 4,096 bits has about 800. The rest is cut.
const TEXT_BYTES_MAX: usize = 4_096;
/// PTR records kept of one answer.
const NAMES_MAX: usize = 16;
/// CNAMEs followed within one answer; what follows is ignored.
const CNAMES_MAX: usize = 16;
/// Questions under way on one TCP connection to a server; above, hickory waits and then fails.
const TCP_QUESTIONS_MAX: usize = 1_024;

/// Why there are no servers to ask.
#[derive(Debug, thiserror::Error)]
pub enum DnsSetupError {
    /// /etc/resolv.conf is not there or not readable. Name servers in the config.
    #[error("no DNS server is configured and /etc/resolv.conf cannot be used: {0}; name servers under [dns]")]
    SystemConfig(String),
    /// /etc/resolv.conf names none. Name servers in the config.
    #[error("no DNS server is configured and /etc/resolv.conf names none; name servers under [dns]")]
    NoServers,
    /// The resolver of one server could not be made.
    #[error("DNS server {server}: {reason}")]
    Client {
        /// Which one.
        server: SocketAddr,
        /// In the words of the library.
        reason: String,
    },
}

/// Why one server gave no answer.
enum Refusal {
    /// It answered, but does not know (SERVFAIL, REFUSED): asking it again at once is useless.
    Answered(String),
    /// Timeout, unreachable: it may be dead, or the packet was lost.
    Silent(String),
}

struct Server {
    address: SocketAddr,
    client: TokioResolver,
}

/// The servers, asked one after the other.
pub(super) struct Servers {
    servers: Vec<Server>,
    /// Position of the server that is asked first: the last one that was not silent.
    first: AtomicUsize,
    timeout: Duration,
    /// Questions before giving up; each server is asked at least once.
    questions_max: usize,
}

impl Servers {
    /// Prepares the servers of the settings, or those of /etc/resolv.conf. Opens no socket.
    pub(super) fn new(settings: &DnsSettings) -> Result<Self, DnsSetupError> {
        let mut addresses = if settings.servers.is_empty() { system_servers()? } else { settings.servers.clone() };
        addresses.truncate(SERVERS_MAX);
        let servers = addresses
            .into_iter()
            .map(|address| Ok(Server { address, client: client(address, settings.timeout)? }))
            .collect::<Result<Vec<_>, DnsSetupError>>()?;
        let questions_max = settings.attempts.clamp(servers.len(), QUESTIONS_MAX);
        Ok(Self { servers, first: AtomicUsize::new(0), timeout: settings.timeout, questions_max })
    }

    /// Their addresses, in order.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.servers.iter().map(|server| server.address).collect()
    }

    /// Hickory's resolver for the first server, for a library that wants one.
    pub(super) fn first_client(&self) -> Option<TokioResolver> {
        self.servers.first().map(|server| server.client.clone())
    }

    /// Asks until a server knows, each at least once. Takes at most the timeout of the settings times the questions.
    pub(super) async fn ask(&self, question: &Question) -> Found {
        let Ok(name) = Name::from_ascii(format!("{}.", question.name)) else {
            // Too long for the wire: no such name can exist.
            return Found::NoSuchDomain(None);
        };
        let first = self.first.load(Ordering::Relaxed);
        // What each server said at last; `Answered` ones are not asked again.
        let mut said: Vec<Option<Refusal>> = self.servers.iter().map(|_| None).collect();
        for turn in 0..self.questions_max {
            let index = (first + turn) % self.servers.len().max(1);
            let (Some(server), Some(said)) = (self.servers.get(index), said.get_mut(index)) else { break };
            if matches!(said, Some(Refusal::Answered(_))) {
                continue;
            }
            match self.ask_one(server, &name, question).await {
                Ok(found) => return found,
                Err(refusal) => {
                    if matches!(refusal, Refusal::Silent(_)) {
                        self.pass_over(index);
                    }
                    *said = Some(refusal);
                }
            }
        }
        Found::Failed(self.reasons(&said).into())
    }

    async fn ask_one(&self, server: &Server, name: &Name, question: &Question) -> Result<Found, Refusal> {
        let lookup = server.client.lookup(name.clone(), record_type(question.kind));
        match tokio::time::timeout(self.timeout, lookup).await {
            Ok(Ok(lookup)) => found(name, question, lookup.answers()).map_err(Refusal::Answered),
            Ok(Err(error)) => negative(error),
            Err(_) => Err(Refusal::Silent(no_answer(self.timeout))),
        }
    }

    /// Asks another server first from now on, unless that was done already.
    fn pass_over(&self, index: usize) {
        let next = (index + 1) % self.servers.len().max(1);
        // Failing means that another lookup has moved it: fine as well.
        let _ = self.first.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn reasons(&self, said: &[Option<Refusal>]) -> String {
        let mut text = String::new();
        for (server, refusal) in self.servers.iter().zip(said) {
            let (Some(Refusal::Answered(reason)) | Some(Refusal::Silent(reason))) = refusal else { continue };
            let separator = if text.is_empty() { "" } else { "; " };
            text.push_str(&format!("{separator}{} {reason}", server.address));
        }
        text
    }
}

fn no_answer(timeout: Duration) -> String {
    format!("gave no answer within {} ms", timeout.as_millis())
}

fn system_servers() -> Result<Vec<SocketAddr>, DnsSetupError> {
    let (config, _) = read_system_conf().map_err(|error| DnsSetupError::SystemConfig(error.to_string()))?;
    let addresses: Vec<SocketAddr> =
        config.name_servers().iter().map(|server| SocketAddr::new(server.ip, 53)).collect();
    if addresses.is_empty() { Err(DnsSetupError::NoServers) } else { Ok(addresses) }
}

fn client(address: SocketAddr, timeout: Duration) -> Result<TokioResolver, DnsSetupError> {
    let mut udp = ConnectionConfig::udp();
    udp.port = address.port();
    let mut tcp = ConnectionConfig::tcp();
    tcp.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![udp, tcp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let failed = |reason: String| DnsSetupError::Client { server: address, reason };
    let tls = unused_tls().map_err(|error| failed(error.to_string()))?;
    let builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    let mut builder = builder.with_tls_config(tls);
    set_options(builder.options_mut(), timeout);
    builder.build().map_err(|error| failed(error.to_string()))
}

/// Questions go in clear, so this trusts nobody. Without it hickory reads the system's certificate authorities, and fails
/// where there are none, as on a small Debian without the package ca-certificates.
fn unused_tls() -> Result<ClientConfig, rustls::Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(builder.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn set_options(options: &mut ResolverOpts, timeout: Duration) {
    options.timeout = timeout;
    options.attempts = 0;
    options.edns0 = true;
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.num_concurrent_reqs = 1;
    options.max_active_requests = TCP_QUESTIONS_MAX;
    options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
    // CNAMEs are needed to tell which records belong to the question.
    options.preserve_intermediates = true;
}

fn record_type(kind: Kind) -> RecordType {
    match kind {
        Kind::Mx => RecordType::MX,
        Kind::V4 => RecordType::A,
        Kind::V6 => RecordType::AAAA,
        Kind::Txt => RecordType::TXT,
        Kind::Ptr => RecordType::PTR,
    }
}

/// NXDOMAIN and NODATA come as errors of the library; all others mean that this server does not know.
fn negative(error: NetError) -> Result<Found, Refusal> {
    match error {
        NetError::Dns(WireError::NoRecordsFound(none)) => {
            let ttl = none.negative_ttl.map(|seconds| Duration::from_secs(u64::from(seconds)));
            match none.response_code {
                ResponseCode::NXDomain => Ok(Found::NoSuchDomain(ttl)),
                ResponseCode::NoError => Ok(Found::NoData(ttl)),
                code => Err(Refusal::Answered(format!("answered {code}"))),
            }
        }
        NetError::Dns(WireError::ResponseCode(code)) => Err(Refusal::Answered(format!("answered {}", code_name(code)))),
        NetError::Timeout => Err(Refusal::Silent("gave no answer in time".to_owned())),
        other => Err(Refusal::Silent(format!("could not be asked: {other}"))),
    }
}

/// As administrators know them from their tools.
fn code_name(code: ResponseCode) -> String {
    match code {
        ResponseCode::ServFail => "SERVFAIL".to_owned(),
        ResponseCode::Refused => "REFUSED".to_owned(),
        ResponseCode::FormErr => "FORMERR".to_owned(),
        ResponseCode::NotImp => "NOTIMP".to_owned(),
        other => other.to_string(),
    }
}

/// What a packet says of `domain`: its MX records, or failing these its addresses. Production asks through
/// [`crate::net::Resolver`], where hickory decodes; this is the same way for packets from a fuzzer. `Err`: of no use, in
/// words.
pub fn read_packet(domain: &Domain, packet: &[u8]) -> Result<(Vec<Mx>, Vec<IpAddr>), String> {
    let message = Message::from_vec(packet).map_err(|error| error.to_string())?;
    let name = Name::from_ascii(format!("{domain}.")).map_err(|error| error.to_string())?;
    let (mut hosts, mut addresses) = (Vec::new(), Vec::new());
    for kind in [Kind::Mx, Kind::V4, Kind::V6] {
        let question = Question { name: domain.clone(), kind };
        match found(&name, &question, &message.answers)? {
            Found::Records(Records::Mx(found), _) => hosts.extend(found.iter().cloned()),
            Found::Records(Records::Addresses(found), _) => addresses.extend(found.iter().copied()),
            _ => {}
        }
    }
    Ok((hosts, addresses))
}

/// The records of `answers` that answer the question, bounded. `Err` where the answer can be of no use.
fn found(name: &Name, question: &Question, answers: &[Record]) -> Result<Found, String> {
    let (owner, alias_ttl) = follow_aliases(name, answers);
    let wanted = record_type(question.kind);
    let records: Vec<&Record> =
        answers.iter().filter(|record| record.record_type() == wanted && record.name == *owner).collect();
    let Some(ttl) = records.iter().map(|record| record.ttl).min() else {
        return Ok(Found::NoData(None));
    };
    let ttl = Duration::from_secs(u64::from(ttl.min(alias_ttl)));
    let records = match question.kind {
        Kind::Mx => Records::Mx(mx_hosts(&records)?.into()),
        Kind::V4 | Kind::V6 => Records::Addresses(addresses(&records).into()),
        Kind::Txt => Records::Texts(texts(&records).into()),
        Kind::Ptr => Records::Names(names(&records)?.into()),
    };
    Ok(Found::Records(records, ttl))
}

/// The end of the chain of CNAMEs that starts at `name`, and the least TTL on the way (RFC 1034 §3.6.2).
fn follow_aliases<'a>(name: &'a Name, answers: &'a [Record]) -> (&'a Name, u32) {
    let mut owner = name;
    let mut ttl = u32::MAX;
    for _ in 0..CNAMES_MAX {
        let alias = answers.iter().find_map(|record| match &record.data {
            RData::CNAME(target) if record.name == *owner => Some((&target.0, record.ttl)),
            _ => None,
        });
        let Some((target, alias_ttl)) = alias else { break };
        owner = target;
        ttl = ttl.min(alias_ttl);
    }
    (owner, ttl)
}

/// Targets that are no host names are dropped. If none is left it is a failure: an empty list would mean that there are
/// no MX records, and mail would go to the domain's own address (RFC 5321 §5.1 forbids that).
fn mx_hosts(records: &[&Record]) -> Result<Vec<Mx>, String> {
    let mut hosts: Vec<Mx> = records
        .iter()
        .filter_map(|record| match &record.data {
            RData::MX(mx) if mx.exchange.is_root() => Some(Mx { preference: mx.preference, host: None }),
            RData::MX(mx) => {
                let host = Domain::parse(&mx.exchange.to_ascii()).ok()?;
                Some(Mx { preference: mx.preference, host: Some(host) })
            }
            _ => None,
        })
        .collect();
    if hosts.is_empty() {
        return Err("answered with MX records that name no valid host".to_owned());
    }
    hosts.sort_unstable();
    hosts.dedup();
    hosts.truncate(MX_RECORDS_MAX);
    Ok(hosts)
}

/// In the order of the answer. Octets that are not UTF-8 are replaced: no record that mail uses has any.
fn texts(records: &[&Record]) -> Vec<Box<str>> {
    let joined = |record: &&Record| match &record.data {
        RData::TXT(text) => {
            let octets: Vec<u8> =
                text.txt_data.iter().flat_map(|part| part.iter().copied()).take(TEXT_BYTES_MAX).collect();
            Some(String::from_utf8_lossy(&octets).into_owned().into_boxed_str())
        }
        _ => None,
    };
    records.iter().filter_map(joined).take(TEXTS_MAX).collect()
}

/// Targets that are no host names are dropped; a failure if none is left.
fn names(records: &[&Record]) -> Result<Vec<Domain>, String> {
    let target = |record: &&Record| match &record.data {
        RData::PTR(target) => Domain::parse(&target.0.to_ascii()).ok(),
        _ => None,
    };
    let mut names: Vec<Domain> = records.iter().filter_map(target).collect();
    if names.is_empty() {
        return Err("answered with PTR records that name no valid host".to_owned());
    }
    names.sort_unstable();
    names.dedup();
    names.truncate(NAMES_MAX);
    Ok(names)
}

fn addresses(records: &[&Record]) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = records
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(IpAddr::V4(address.0)),
            RData::AAAA(address) => Some(IpAddr::V6(address.0)),
            _ => None,
        })
        .collect();
    addresses.sort_unstable();
    addresses.dedup();
    addresses.truncate(ADDRESSES_MAX);
    addresses
}

//! Who may hand mail in, where and how: `hostname`, `[[listener]]`, `[relay]`, `[reception]`.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use ipnet::IpNet;

use super::findings::{PathKind, Problem};
use super::section::{Section, Value};
use crate::reception::settings::{
    CertificateFiles, EightBitBodies, EightBitHeaders, FromRule, Hygiene, ListenerAuth, ListenerSettings,
    ListenerTakes, ListenerTls, LongLines, Settings, Submitted,
};
use crate::types::Domain;

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);
const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Listeners are few and each has its label in metrics. Above: an error.
const LISTENERS_MAX: usize = 64;

pub(super) fn hostname(root: &mut Section<'_>) -> Domain {
    let fallback = Domain::parse("localhost").expect("a constant host name parses");
    let name =
        root.required("hostname", "\"mail.example.com\", the name that your sending address resolves to", host_name);
    if name.as_ref() == Some(&fallback) {
        let problem = "other mail servers refuse the name localhost";
        root.warn(
            "hostname",
            Problem::new(problem, "outside a lab write the name that your sending address resolves to"),
        );
    }
    name.unwrap_or(fallback)
}

/// A name for EHLO.
pub(super) fn host_name(value: &Value<'_>) -> Result<Domain, Problem> {
    let text = value.text()?;
    let remedy = "write a full name such as \"mail.example.com\"";
    let name = Domain::parse(text).map_err(|error| Problem::new(format!("{text:?}: {error}"), remedy))?;
    let is_bare = !name.as_str().contains('.') && name.as_str() != "localhost";
    if is_bare || name.as_str().contains('_') || text.parse::<IpAddr>().is_ok() {
        return Err(Problem::new(format!("{text:?} is not a fully qualified host name"), remedy));
    }
    Ok(name)
}

pub(super) fn listeners(root: &mut Section<'_>) -> Vec<ListenerSettings> {
    let mut accepted: Vec<ListenerSettings> = Vec::new();
    let sections = root.children("listener").unwrap_or_default();
    if sections.is_empty() {
        let remedy = "add [[listener]] with name = \"local\" and address = \"127.0.0.1:25\"";
        root.error("listener", Problem::new("there is no listener, so no mail can come in", remedy));
    }
    if sections.len() > LISTENERS_MAX {
        root.error("listener", Problem::new(format!("more than {LISTENERS_MAX} listeners"), "remove some"));
    }
    for section in sections {
        if let Some(settings) = listener(section, &accepted) {
            accepted.push(settings);
        }
    }
    accepted
}

fn listener(mut section: Section<'_>, others: &[ListenerSettings]) -> Option<ListenerSettings> {
    let name = section.required("name", "\"local\", to be seen in logs and metrics", listener_name);
    let address = section.required("address", "\"127.0.0.1:25\"", |value| socket_address(value, 25));
    let tls = listener_tls(&mut section);
    let auth = listener_auth(&mut section, address);
    let takes = section.word("takes", ListenerTakes::default(), &TAKES);
    if takes == ListenerTakes::Feedback && section.has("auth") {
        section
            .error("auth", Problem::new("has no effect where takes = \"feedback\": nobody logs in there", "remove it"));
    }
    for other in others {
        if name.as_ref() == Some(&other.name) {
            let problem = format!("{:?} is the name of an earlier listener", other.name);
            section.error("name", Problem::new(problem, "give each listener its own name"));
        }
        if let Some(address) = address.filter(|address| addresses_collide(*address, other.address)) {
            let problem = format!("{address} is taken by the listener {:?} ({})", other.name, other.address);
            section.error("address", Problem::new(problem, "give each listener its own address and port"));
        }
    }
    section.close();
    Some(ListenerSettings { name: name?, address: address?, tls: tls?, auth, takes })
}

const TAKES: [(&str, ListenerTakes); 2] =
    [("messages", ListenerTakes::Messages), ("feedback", ListenerTakes::Feedback)];

fn listener_name(value: &Value<'_>) -> Result<String, Problem> {
    let name = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if name.is_empty() || name.len() > 32 || !name.bytes().all(allowed) {
        let remedy = "write 1 to 32 letters, digits, - or _";
        return Err(Problem::new(format!("{name:?} cannot be a name"), remedy));
    }
    Ok(name.to_owned())
}

/// `port`: the usual one, for what to write instead.
pub(super) fn socket_address(value: &Value<'_>, port: u16) -> Result<SocketAddr, Problem> {
    let text = value.text()?;
    text.parse().map_err(|_| {
        let remedy = match text.parse::<IpAddr>() {
            Ok(ip) => format!("add the port: \"{}\"", SocketAddr::new(ip, port)),
            Err(_) => format!("write an IP address and a port, such as \"127.0.0.1:{port}\" or \"[::1]:{port}\""),
        };
        Problem::new(format!("{text:?} is not an address with a port"), remedy)
    })
}

/// Port 0 takes any free port, so it never collides.
fn addresses_collide(one: SocketAddr, other: SocketAddr) -> bool {
    let same_host = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && one.is_ipv4() == other.is_ipv4() && same_host
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum TlsWord {
    None,
    StartTls,
    Implicit,
}

fn listener_tls(section: &mut Section<'_>) -> Option<ListenerTls> {
    let words = [("none", TlsWord::None), ("starttls", TlsWord::StartTls), ("implicit", TlsWord::Implicit)];
    let word = section.word("tls", TlsWord::None, &words);
    let certificate = section.path("certificate", PathKind::Certificate);
    let key = section.path("key", PathKind::PrivateKey);
    if word == TlsWord::None {
        for name in ["certificate", "key"].into_iter().filter(|name| section.has(name)) {
            let remedy = "write tls = \"starttls\" or \"implicit\", or remove it";
            section.error(name, Problem::new("has no effect without TLS", remedy));
        }
        return Some(ListenerTls::None);
    }
    for name in ["certificate", "key"].into_iter().filter(|name| !section.has(name)) {
        let remedy = format!("write {name} = \"/etc/posthaste/{name}.pem\"");
        section.error(name, Problem::new("is missing, and TLS needs it", remedy));
    }
    let files = CertificateFiles { certificate: certificate?, key: key? };
    Some(if word == TlsWord::StartTls { ListenerTls::StartTls(files) } else { ListenerTls::Implicit(files) })
}

fn listener_auth(section: &mut Section<'_>, address: Option<SocketAddr>) -> ListenerAuth {
    let words = [("tls", ListenerAuth::Tls), ("clear", ListenerAuth::Clear), ("never", ListenerAuth::Never)];
    let auth = section.word("auth", ListenerAuth::default(), &words);
    if auth == ListenerAuth::Clear && address.is_some_and(|address| !address.ip().to_canonical().is_loopback()) {
        let problem = "sends passwords in clear over a network";
        section.error("auth", Problem::new(problem, "write auth = \"tls\", or a loopback address"));
    }
    auth
}

pub(super) fn relay_networks(section: &mut Section<'_>) -> Vec<IpNet> {
    let loopback = ["127.0.0.0/8", "::1/128"].map(|text| text.parse().expect("a constant network parses"));
    let networks = section.list("networks", loopback.to_vec(), "[\"127.0.0.0/8\", \"10.0.0.0/8\"]", network);
    let everything = |network: &IpNet| network.prefix_len() == 0;
    if IpNet::aggregate(&networks).iter().any(everything) {
        let remedy = "list only the networks of your own applications; an open relay is found and abused within hours";
        section.error("networks", Problem::new("lets everybody in the world relay", remedy));
    } else {
        for wide in networks.iter().filter(|network| is_wide_and_public(network)) {
            let problem = format!("{wide} lets many hosts relay that are hardly all yours");
            section.warn("networks", Problem::new(problem, "list only the networks of your own applications"));
        }
    }
    networks
}

pub(super) fn network(value: &Value<'_>) -> Result<IpNet, Problem> {
    let text = value.text()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(IpNet::from(address));
    }
    let network: IpNet = text.parse().map_err(|_| {
        Problem::new(format!("{text:?} is not a network"), "write one such as \"10.0.0.0/8\" or \"2001:db8::/32\"")
    })?;
    if network.trunc() != network {
        let problem = format!("{text:?} has bits behind its prefix");
        return Err(Problem::new(problem, format!("write \"{}\" or \"{}\"", network.trunc(), network.addr())));
    }
    Ok(network)
}

fn is_wide_and_public(network: &IpNet) -> bool {
    match network {
        IpNet::V4(v4) => {
            let first = v4.network();
            v4.prefix_len() < 16 && !(first.is_private() || first.is_loopback())
        }
        IpNet::V6(v6) => {
            v6.prefix_len() < 32 && (v6.network().segments().first().copied().unwrap_or(0) & 0xfe00) != 0xfc00
        }
    }
}

pub(super) fn reception(mut section: Section<'_>, hostname: &Domain) -> Settings {
    let default = Settings::default();
    let eight_bit =
        [("encode", EightBitHeaders::Encode), ("refuse", EightBitHeaders::Refuse), ("pass", EightBitHeaders::Pass)];
    let from = [("require", FromRule::Require), ("add", FromRule::Add), ("any", FromRule::Any)];
    let submitted = [("keep", Submitted::Keep), ("replace", Submitted::Replace)];
    let long_lines = [("encode", LongLines::Encode), ("refuse", LongLines::Refuse)];
    let eight_bit_bodies = [("encode", EightBitBodies::Encode), ("pass", EightBitBodies::Pass)];
    let hygiene = [("refuse", Hygiene::Refuse), ("repair", Hygiene::Repair)];
    let settings = Settings {
        hostname: hostname.as_str().to_owned(),
        connections_max: section.count("connections_max", default.connections_max, 1..=1_000_000),
        connections_per_client_max: section.count(
            "connections_per_client_max",
            default.connections_per_client_max,
            1..=1_000_000,
        ),
        handshakes_per_client_rate_max: section.count(
            "handshakes_per_client_rate_max",
            default.handshakes_per_client_rate_max,
            1..=100_000,
        ),
        handshakes_rate_max: section.count("handshakes_rate_max", default.handshakes_rate_max, 1..=100_000),
        transactions_max: section.count("transactions_max", default.transactions_max, 1..=u32::MAX),
        errors_max: section.count("errors_max", default.errors_max, 1..=10_000),
        idle_commands_max: section.count("idle_commands_max", default.idle_commands_max, 1..=1_000_000),
        recipients_max: section.count("recipients_max", default.recipients_max, 1..=50_000),
        message_bytes_max: section.size("message_size_max", default.message_bytes_max, 64 * KIB..=1_024 * MIB),
        header_bytes_max: section.size("header_size_max", default.header_bytes_max, KIB..=MIB),
        hops_max: section.count("hops_max", default.hops_max, 1..=1_000),
        hygiene: section.word("hygiene", default.hygiene, &hygiene),
        from: section.word("from", default.from, &from),
        date: section.word("date", default.date, &submitted),
        message_id: section.word("message_id", default.message_id, &submitted),
        long_lines: section.word("long_lines", default.long_lines, &long_lines),
        eight_bit_bodies: section.word("eight_bit_bodies", default.eight_bit_bodies, &eight_bit_bodies),
        eight_bit_headers: section.word("eight_bit_headers", default.eight_bit_headers, &eight_bit),
        received_shows_client: section.flag("received_shows_client", default.received_shows_client),
        command_timeout: section.duration("command_timeout", default.command_timeout, SECOND..=HOUR),
        data_timeout: section.duration("data_timeout", default.data_timeout, SECOND..=HOUR),
        session_timeout: section.duration("session_timeout", default.session_timeout, 60 * SECOND..=168 * HOUR),
        memory_bytes_max: section.size("memory_max", default.memory_bytes_max, 16 * MIB..=65_536 * MIB),
    };
    if u64::try_from(settings.header_bytes_max).unwrap_or(u64::MAX) > settings.message_bytes_max {
        let remedy = "write a size up to message_size_max";
        section.error("header_size_max", Problem::new("is larger than message_size_max", remedy));
    }
    if settings.connections_per_client_max > settings.connections_max {
        let problem = "is above connections_max, so one client can take every connection";
        section.warn("connections_per_client_max", Problem::new(problem, "write a smaller number"));
    }
    section.close();
    settings
}

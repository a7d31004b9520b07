//! Where mail goes and how: `[delivery]`, `[[route]]`, `[dns]`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use super::findings::{PathKind, Problem};
use super::section::{Section, Value};
use super::sources::Sending;
use crate::delivery::settings::{DomainPattern, Login, NextHop, RouteRule, Settings, Timeouts, TlsMode};
use crate::net::settings::DnsSettings;
use crate::types::Domain;

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

const TLS_WORDS: [(&str, TlsMode); 3] =
    [("none", TlsMode::None), ("opportunistic", TlsMode::Opportunistic), ("require", TlsMode::Require)];

/// `section` is `[delivery]`.
pub(super) fn delivery(
    root: &mut Section<'_>,
    mut section: Section<'_>,
    hostname: &Domain,
    sending: Sending,
) -> Settings {
    let default = Settings::default();
    let settings = Settings {
        hostname: hostname.as_str().to_owned(),
        port: section.count("port", default.port, 1..=u16::MAX),
        sources: sending.sources,
        pools: sending.pools,
        warmup: Arc::new(sending.warmups),
        routes: routes(root),
        simulated: None,
        tls: section.word("tls", default.tls, &TLS_WORDS),
        allow_private_addresses: section.flag("allow_private_addresses", default.allow_private_addresses),
        connections_max: section.count("connections_max", default.connections_max, 1..=100_000),
        connections_per_site_max: section.count(
            "connections_per_site_max",
            default.connections_per_site_max,
            1..=10_000,
        ),
        lanes_max: section.count("lanes_max", default.lanes_max, 100..=10_000_000),
        messages_per_connection_max: section.count(
            "messages_per_connection_max",
            default.messages_per_connection_max,
            1..=1_000_000,
        ),
        recipients_per_transaction_max: section.count(
            "recipients_per_transaction_max",
            default.recipients_per_transaction_max,
            1..=1_000,
        ),
        addresses_per_attempt_max: section.count(
            "addresses_per_attempt_max",
            default.addresses_per_attempt_max,
            1..=50,
        ),
        idle_timeout: section.duration("idle_timeout", default.idle_timeout, SECOND..=600 * SECOND),
        connection_age_max: section.duration("connection_age_max", default.connection_age_max, SECOND..=HOUR),
        timeouts: timeouts(section.child("timeouts")),
        clear_memory: section.duration("clear_memory", default.clear_memory, 60 * SECOND..=720 * HOUR),
    };
    if settings.connections_per_site_max > settings.connections_max {
        let remedy = "write a number up to delivery.connections_max";
        section.error("connections_per_site_max", Problem::new("is above connections_max", remedy));
    }
    section.close();
    settings
}

fn timeouts(mut section: Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let mut read = |key, fallback| section.duration(key, fallback, SECOND..=HOUR);
    let timeouts = Timeouts {
        connect: read("connect", default.connect),
        greeting: read("greeting", default.greeting),
        command: read("command", default.command),
        data: read("data", default.data),
        final_dot: read("final_dot", default.final_dot),
        quit: read("quit", default.quit),
    };
    if timeouts.final_dot < 300 * SECOND {
        let problem = "below 5m, messages that a slow host did accept are sent again";
        section.warn("final_dot", Problem::new(problem, "write \"10m\" (RFC 5321 §4.5.3.2.6) outside a lab"));
    }
    section.close();
    timeouts
}

fn routes(root: &mut Section<'_>) -> Vec<RouteRule> {
    let mut accepted: Vec<RouteRule> = Vec::new();
    for section in root.children("route").unwrap_or_default() {
        if accepted.iter().any(|earlier| earlier.domains == DomainPattern::All) {
            let remedy = "put it above the route with domains = [\"*\"]";
            section.error("domains", Problem::new("is never reached: an earlier route takes all domains", remedy));
        }
        if let Some(route) = route(section) {
            accepted.push(route);
        }
    }
    accepted
}

fn route(mut section: Section<'_>) -> Option<RouteRule> {
    let domains = route_domains(&mut section);
    let host = section.required("host", "\"smarthost.example.com\"", next_hop);
    let port = section.count("port", 25, 1..=u16::MAX);
    let tls = section.word("tls", TlsMode::Opportunistic, &TLS_WORDS);
    let login = login(&mut section);
    let is_local = matches!(host, Some(NextHop::Address(address)) if address.is_loopback());
    if login.is_some() && tls != TlsMode::Require && !is_local {
        let problem = "lets the password travel unencrypted, or to an impostor";
        section.warn("tls", Problem::new(problem, "write tls = \"require\""));
    }
    section.close();
    Some(RouteRule { domains: domains?, host: host?, port, tls, login })
}

fn route_domains(section: &mut Section<'_>) -> Option<DomainPattern> {
    const EXAMPLE: &str = "[\"example.com\", \".example.com\"], or [\"*\"] for all";
    if !section.has("domains") {
        section.required("domains", EXAMPLE, |_| Ok(()));
        return None;
    }
    let patterns = section.list("domains", Vec::new(), EXAMPLE, domain_pattern);
    if patterns.is_empty() {
        section.error("domains", Problem::new("names no domain", format!("write {EXAMPLE}")));
        return None;
    }
    if !patterns.iter().any(|pattern| matches!(pattern, Pattern::All)) {
        let (mut exact, mut parents) = (Vec::new(), Vec::new());
        for pattern in patterns {
            match pattern {
                Pattern::Exact(domain) => exact.push(domain),
                Pattern::Below(domain) => parents.push(domain),
                Pattern::All => {}
            }
        }
        return Some(DomainPattern::Listed { exact, parents });
    }
    if patterns.len() > 1 {
        section.error("domains", Problem::new("has more beside \"*\", which takes all", "write domains = [\"*\"]"));
    }
    Some(DomainPattern::All)
}

enum Pattern {
    All,
    Exact(Domain),
    Below(Domain),
}

fn domain_pattern(value: &Value<'_>) -> Result<Pattern, Problem> {
    let text = value.text()?;
    if text == "*" {
        return Ok(Pattern::All);
    }
    let name = text.strip_prefix("*.").or(text.strip_prefix('.'));
    let domain = Domain::parse(name.unwrap_or(text)).map_err(|error| {
        let remedy = "write \"example.com\", \".example.com\" for its subdomains, or \"*\"";
        Problem::new(format!("{text:?}: {error}"), remedy)
    })?;
    if text.starts_with("*.") {
        let remedy = format!("write \".{domain}\" for the subdomains of {domain}");
        return Err(Problem::new(format!("{text:?} is not a domain"), remedy));
    }
    Ok(if name.is_some() { Pattern::Below(domain) } else { Pattern::Exact(domain) })
}

fn next_hop(value: &Value<'_>) -> Result<NextHop, Problem> {
    let text = value.text()?;
    if let Ok(address) = text.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(NextHop::Address(address));
    }
    let remedy = "write a host name or an IP address; the port has a key of its own";
    Domain::parse(text).map(NextHop::Host).map_err(|error| Problem::new(format!("{text:?}: {error}"), remedy))
}

fn login(section: &mut Section<'_>) -> Option<Login> {
    let user = section.optional("user", |value| {
        let user = value.text()?;
        let usable = !user.is_empty() && !user.contains(char::is_control);
        if usable { Ok(user.to_owned()) } else { Err(value.expected("a user name", "write the name without controls")) }
    });
    let password_file = section.path("password_file", PathKind::Password);
    let (has_user, has_password) = (section.has("user"), section.has("password_file"));
    if has_user && !has_password {
        let remedy = "write password_file = \"/etc/posthaste/smarthost.password\", a file whose first line is it";
        section.error("password_file", Problem::new("is missing, and user needs it", remedy));
    }
    if has_password && !has_user {
        section.error("user", Problem::new("is missing, and password_file needs it", "write user = \"name\""));
    }
    Some(Login { user: user?, password_file: password_file? })
}

pub(super) fn dns(mut section: Section<'_>) -> DnsSettings {
    let default = DnsSettings::default();
    let day = 24 * HOUR;
    let settings = DnsSettings {
        servers: section.list("servers", default.servers, "[\"127.0.0.1:53\"]", dns_server),
        timeout: section.duration("timeout", default.timeout, 100 * MILLISECOND..=30 * SECOND),
        attempts: section.count("attempts", default.attempts, 1..=10),
        cache_entries_max: section.count("cache_entries_max", default.cache_entries_max, 100..=10_000_000),
        ttl_min: section.duration("ttl_min", default.ttl_min, Duration::ZERO..=HOUR),
        ttl_max: section.duration("ttl_max", default.ttl_max, SECOND..=7 * day),
        negative_ttl: section.duration("negative_ttl", default.negative_ttl, SECOND..=day),
        stale_max: section.duration("stale_max", default.stale_max, Duration::ZERO..=7 * day),
    };
    if settings.ttl_min > settings.ttl_max {
        section.error("ttl_min", Problem::new("is longer than ttl_max", "write a shorter one"));
    }
    section.close();
    settings
}

fn dns_server(value: &Value<'_>) -> Result<SocketAddr, Problem> {
    let text = value.text()?;
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, 53));
    }
    text.parse().map_err(|_| {
        let remedy = "write an IP address, with a port where it is not 53: \"127.0.0.1:5353\", \"[::1]:5353\"";
        Problem::new(format!("{text:?} is not an address"), remedy)
    })
}

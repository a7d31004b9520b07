//! What mail is sent from: `[[source]]`, `[[pool]]`, and the short form `[delivery] sources`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::findings::{PathKind, Problem};
use super::intake;
use super::section::{Section, Value};
use super::submission::unknown;
use super::warmup::Plans;
use crate::delivery::settings::{Egress, Login, Source};
use crate::policy::fleet_life::ManagedPool;
use crate::policy::limits::Rates;
use crate::policy::pools::{Member, PoolSettings, Pools, PoolsError, SourceSettings};
use crate::policy::warmup::{Plan, Warmups};
use crate::types::{PoolName, SourceName};

/// Sources of one server. More: an error.
const SOURCES_MAX: usize = 1_000;
/// Pools of them. More: an error.
const POOLS_MAX: usize = 1_000;
/// Of one source in one pool. More: an error.
const WEIGHT_MAX: u32 = 1_000;
/// Messages in a time. More: an error.
const RATE_MAX: u32 = 1_000_000_000;

/// Sources, and the pools that they are in.
pub(super) struct Sending {
    pub(super) sources: Vec<Source>,
    pub(super) pools: Arc<Pools>,
    /// Which sources warm up, by which plans.
    pub(super) warmups: Warmups,
    /// The names of all pools, those with errors too: nobody is told that such a pool does not exist.
    pub(super) names: BTreeSet<PoolName>,
}

/// A source with what `policy` knows of it.
struct Known {
    source: Source,
    settings: SourceSettings,
    warmup: Option<Arc<Plan>>,
    first_day: u32,
}

/// All of it. `delivery` is the section of that name.
pub(super) fn read(root: &mut Section<'_>, delivery: &mut Section<'_>, plans: &Plans) -> Sending {
    let short = short_form(delivery);
    let mut known: Vec<Known> = Vec::new();
    let sections = root.children("source").unwrap_or_default();
    if !sections.is_empty() && !short.is_empty() {
        let problem = Problem::new("stands beside [[source]]", "write a [[source]] for each of its addresses instead");
        delivery.error("sources", problem);
    }
    if sections.len() > SOURCES_MAX {
        root.error("source", Problem::new(format!("more than {SOURCES_MAX} sources"), "remove some"));
    }
    for section in sections {
        known.extend(source(section, &known, plans));
    }
    if known.is_empty() {
        known.extend(short);
    }
    if known.is_empty() {
        known.push(Known::new(Source::default(), Rates::default()));
    }
    let (pools, names) = pools(root, &known);
    let mut warmups = Warmups::default();
    warmups.sources.extend(known.iter().filter_map(|known| Some((known.source.name.clone(), known.warmup.clone()?))));
    let late = known.iter().filter(|known| known.first_day > 1);
    warmups.first_days.extend(late.map(|known| (known.source.name.clone(), known.first_day)));
    Sending { sources: known.into_iter().map(|known| known.source).collect(), pools: Arc::new(pools), warmups, names }
}

impl Known {
    fn new(source: Source, rates: Rates) -> Self {
        let settings = SourceSettings { name: source.name.clone(), family: source.family(), rates };
        Self { source, settings, warmup: None, first_day: 1 }
    }
}

fn short_form(delivery: &mut Section<'_>) -> Vec<Known> {
    let addresses = delivery.list("sources", Vec::new(), "[\"192.0.2.10\", \"2001:db8::10\"]", source_address);
    if addresses.len() > SOURCES_MAX {
        delivery.error("sources", Problem::new(format!("more than {SOURCES_MAX} sources"), "remove some"));
    }
    let mut seen = BTreeSet::new();
    if let Some(again) = addresses.iter().find(|address| !seen.insert(**address)) {
        delivery.error("sources", Problem::new(format!("{again} stands there twice"), "leave it there once"));
    }
    seen.clear();
    let once = addresses.into_iter().filter(|address| seen.insert(*address));
    once.map(|address| Known::new(Source::of_address(address), Rates::default())).collect()
}

fn source_address(value: &Value<'_>) -> Result<IpAddr, Problem> {
    let text = value.text()?;
    let remedy = "write the IP address that mail is sent from";
    let address: IpAddr = text.parse().map_err(|_| Problem::new(format!("{text:?} is not an IP address"), remedy))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(Problem::new(format!("{address} cannot be a source"), remedy));
    }
    Ok(address)
}

fn source(mut section: Section<'_>, others: &[Known], plans: &Plans) -> Option<Known> {
    let name = section
        .required("name", "\"mta-1\", to be seen in pools and events", |value| name_form(value, SourceName::parse));
    let address = section.optional("address", source_address);
    let ehlo_name = section.optional("ehlo_name", intake::host_name);
    let egress = egress(&mut section);
    if matches!(egress, Egress::HaProxy { .. }) && !section.has("address") {
        let problem =
            Problem::new("is missing, and haproxy needs it", "write the address that the proxy is to send from");
        section.error("address", problem);
    }
    let rates = rates(&mut section);
    let warmup = section.optional("warmup", |value| plans.named(value));
    let first_day = section.count("warmup_first_day", 1, 1..=4_000);
    if section.has("warmup_first_day") && !section.has("warmup") {
        let problem = Problem::new("has no effect without warmup", "write warmup = \"doubling\", or remove it");
        section.error("warmup_first_day", problem);
    }
    for other in others {
        if name.as_ref() == Some(&other.source.name) {
            section.error("name", taken("source", other.source.name.as_str()));
        }
        if other.source.address == address && other.source.egress == egress {
            let problem = format!("has the address and the way out of the source {:?}", other.source.name.as_str());
            let key = if section.has("address") { "address" } else { "name" };
            section.error(key, Problem::new(problem, "give each source its own, or remove one of the two"));
        }
    }
    section.close();
    Some(Known { warmup, first_day, ..Known::new(Source { name: name?, address, ehlo_name, egress }, rates) })
}

fn egress(section: &mut Section<'_>) -> Egress {
    let socks5 = section.optional("socks5", proxy_address);
    let haproxy = section.optional("haproxy", proxy_address);
    let login = socks5_login(section);
    if section.has("socks5") && section.has("haproxy") {
        let problem = Problem::new("stands beside socks5", "write one of the two");
        section.error("haproxy", problem);
    }
    match (socks5, haproxy) {
        (Some(proxy), _) => Egress::Socks5 { proxy, login },
        (None, Some(proxy)) => Egress::HaProxy { proxy },
        (None, None) => Egress::Direct,
    }
}

fn socks5_login(section: &mut Section<'_>) -> Option<Login> {
    let user = section.optional("socks5_user", |value| {
        let user = value.text()?;
        let usable = (1..=crate::net::egress::PROXY_LOGIN_BYTES_MAX).contains(&user.len());
        let remedy = "write 1 to 255 octets (RFC 1929)";
        if usable { Ok(user.to_owned()) } else { Err(value.expected("a user name", remedy)) }
    });
    let password_file = section.path("socks5_password_file", PathKind::Password);
    for (key, other) in [("socks5_user", "socks5_password_file"), ("socks5_password_file", "socks5_user")] {
        if section.has(key) && !section.has("socks5") {
            section.error(
                key,
                Problem::new("has no effect without socks5", "write socks5 = \"10.0.0.1:1080\", or remove it"),
            );
        } else if section.has(key) && !section.has(other) {
            let remedy = "write both, or none; the file's first line is the password";
            section.error(other, Problem::new(format!("is missing, and {key} needs it"), remedy));
        }
    }
    Some(Login { user: user?, password_file: password_file? })
}

fn proxy_address(value: &Value<'_>) -> Result<SocketAddr, Problem> {
    let text = value.text()?;
    let remedy = "write address and port of the proxy, such as \"10.0.0.1:1080\" or \"[2001:db8::1]:1080\"";
    let address: Option<SocketAddr> = text.parse().ok();
    let usable = address.filter(|address| address.port() != 0 && !address.ip().is_unspecified());
    usable.ok_or_else(|| Problem::new(format!("{text:?} is not an address with a port"), remedy))
}

fn rates(section: &mut Section<'_>) -> Rates {
    let mut read = |key| section.optional(key, |value| value.count(&(1..=RATE_MAX)));
    Rates {
        second: read("messages_per_second"),
        minute: read("messages_per_minute"),
        hour: read("messages_per_hour"),
        day: read("messages_per_day"),
    }
}

fn pools(root: &mut Section<'_>, known: &[Known]) -> (Pools, BTreeSet<PoolName>) {
    let settings: Vec<SourceSettings> = known.iter().map(|known| known.settings.clone()).collect();
    let sections = root.children("pool").unwrap_or_default();
    if sections.is_empty() {
        let pools = Pools::of_sources(settings).unwrap_or_default();
        return (pools, BTreeSet::from([PoolName::default()]));
    }
    if sections.len() > POOLS_MAX {
        root.error("pool", Problem::new(format!("more than {POOLS_MAX} pools"), "remove some"));
    }
    let mut read: Vec<(Option<PoolSettings>, Section<'_>)> = Vec::new();
    let mut names = BTreeSet::new();
    for mut section in sections {
        let pool = pool(&mut section, known);
        if let Some(pool) = &pool
            && !names.insert(pool.name.clone())
        {
            section.error("name", taken("pool", pool.name.as_str()));
        }
        read.push((pool, section));
    }
    for (pool, section) in &read {
        if let Some(overflow) = pool.as_ref().and_then(|pool| pool.overflow.as_ref())
            && !names.contains(overflow)
        {
            section.error("overflow", unknown("pool", overflow.as_str()));
        }
    }
    warn_of_unused(root, known, &read);
    let all = read.iter().filter_map(|(pool, _)| pool.clone()).collect();
    let pools = Pools::new(settings, all).unwrap_or_else(|error| {
        report(root, &read, &error);
        Pools::default()
    });
    read.into_iter().for_each(|(_, section)| section.close());
    (pools, names)
}

/// What was not reported at its key.
fn report(root: &Section<'_>, read: &[(Option<PoolSettings>, Section<'_>)], error: &PoolsError) {
    match error {
        PoolsError::NoDefault => {
            let remedy =
                "add a [[pool]] with name = \"default\": mail of tenants without a pool of their own goes by it";
            root.error("pool", Problem::new(error.to_string(), remedy));
        }
        PoolsError::Cycle(name) => {
            let of_name = |pool: &Option<PoolSettings>| pool.as_ref().is_some_and(|pool| pool.name == *name);
            if let Some((_, section)) = read.iter().find(|(pool, _)| of_name(pool)) {
                let remedy = "end the chain at a pool without overflow";
                section.error("overflow", Problem::new("leads back to this pool", remedy));
            }
        }
        PoolsError::Shared { pool, source_name } => {
            let of_name = |read: &Option<PoolSettings>| read.as_ref().is_some_and(|read| read.name == *pool);
            if let Some((_, section)) = read.iter().find(|(read, _)| of_name(read)) {
                let problem = format!("{:?} is in another pool, too, and this one is managed", source_name.as_str());
                let remedy = "leave it in one of them: the managed pool alone decides when it is used";
                section.error("sources", Problem::new(problem, remedy));
            }
        }
        // Of names that stand twice, of members and overflow pools: said at their keys.
        PoolsError::Twice(_) | PoolsError::Empty(_) | PoolsError::Member { .. } | PoolsError::Overflow { .. } => {}
    }
}

fn pool(section: &mut Section<'_>, known: &[Known]) -> Option<PoolSettings> {
    let name = section.required("name", "\"default\"", |value| name_form(value, PoolName::parse));
    let sources = section.list("sources", Vec::new(), "[\"mta-1\", \"mta-2\"]", |value| {
        let name = name_form(value, SourceName::parse)?;
        let is_known = known.iter().any(|known| known.source.name == name);
        if is_known { Ok(name) } else { Err(unknown("source", name.as_str())) }
    });
    if !section.has("sources") {
        section.error("sources", Problem::new("is missing", "write sources = [\"a\"], names of [[source]]"));
    } else if sources.is_empty() {
        section.error("sources", Problem::new("names no source", "write sources = [\"a\"], names of [[source]]"));
    }
    let mut members: Vec<Member> = Vec::new();
    for source in sources {
        if members.iter().any(|member| member.source == source) {
            let remedy = "leave it there once; weights give it a larger share";
            section.error("sources", Problem::new(format!("{:?} stands there twice", source.as_str()), remedy));
        } else {
            members.push(Member { source, weight: 1 });
        }
    }
    let names: Vec<SourceName> = members.iter().map(|member| member.source.clone()).collect();
    let weights = section.entries("weights", "{ a = 3 }", |name, value| {
        let member = names.iter().find(|known| known.as_str() == name);
        let member = member.ok_or_else(|| {
            Problem::new(format!("{name:?} is not among the sources of this pool"), "add it to sources, or remove it")
        })?;
        Ok((member.clone(), value.count(&(1..=WEIGHT_MAX))?))
    });
    for (source, weight) in weights {
        members.iter_mut().filter(|member| member.source == source).for_each(|member| member.weight = weight);
    }
    let overflow = section.optional("overflow", |value| name_form(value, PoolName::parse));
    let rates = rates(section);
    let managed = managed(section, members.len());
    Some(PoolSettings { name: name?, members, overflow, rates, managed })
}

/// Whether the pool takes its sources into use by itself.
fn managed(section: &mut Section<'_>, members: usize) -> Option<ManagedPool> {
    let default = ManagedPool::default();
    let is_managed = section.flag("managed", false);
    let keys = ["active_min", "messages_per_source", "activate_at_percent", "rest_at_percent", "rest_after_days"];
    for key in keys {
        if section.has(key) && !is_managed {
            let problem =
                Problem::new("has no effect on a pool that is not managed", "write managed = true, or remove it");
            section.error(key, problem);
        }
    }
    let pool = ManagedPool {
        active_min: section.count("active_min", default.active_min, 1..=1_000),
        messages_per_source: section.count("messages_per_source", default.messages_per_source, 1..=RATE_MAX),
        activate_at_percent: section.count("activate_at_percent", default.activate_at_percent, 1..=100),
        rest_at_percent: section.count("rest_at_percent", default.rest_at_percent, 1..=100),
        rest_after_days: section.count("rest_after_days", default.rest_after_days, 1..=400),
    };
    if is_managed && pool.rest_at_percent >= pool.activate_at_percent {
        let problem = Problem::new(
            "is not below activate_at_percent: a source would rest and be activated in turns",
            "write a lower one",
        );
        section.error("rest_at_percent", problem);
    }
    if is_managed && usize::try_from(pool.active_min).is_ok_and(|least| least > members) {
        section.error("active_min", Problem::new("is above the number of sources", "write a lower one"));
    }
    is_managed.then_some(pool)
}

fn warn_of_unused(root: &Section<'_>, known: &[Known], read: &[(Option<PoolSettings>, Section<'_>)]) {
    let used: BTreeSet<&str> = read
        .iter()
        .filter_map(|(pool, _)| pool.as_ref())
        .flat_map(|pool| pool.members.iter().map(|member| member.source.as_str()))
        .collect();
    for source in known.iter().map(|known| known.source.name.as_str()).filter(|name| !used.contains(name)) {
        let problem = format!("source {source:?} is in no pool, so nothing is sent from it");
        root.warn("pool", Problem::new(problem, "add it to the sources of a [[pool]]"));
    }
}

/// The name of a source or pool, by its `parse`.
pub(super) fn name_form<T>(value: &Value<'_>, parse: impl Fn(&str) -> Option<T>) -> Result<T, Problem> {
    let text = value.text()?;
    let remedy = "write 1 to 64 letters, digits, dots, colons, - or _";
    parse(text).ok_or_else(|| Problem::new(format!("{text:?} cannot be a name"), remedy))
}

fn taken(what: &str, name: &str) -> Problem {
    Problem::new(format!("{name:?} is the name of an earlier {what}"), format!("give each {what} its own name"))
}

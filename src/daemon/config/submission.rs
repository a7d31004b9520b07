//! Who may send, as whom, how much: `[relay]`, `[sending]`, `[[tenant]]`, `[[credential]]`, `[[identity]]`,
//! `[[configuration_set]]`. `plans`: of warm-ups. How many there can be is bounded by the size of a config.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use super::findings::Problem;
use super::intake;
use super::reputation as of_reputation;
use super::return_path;
use super::section::{Section, Value};
use super::sources::name_form as name_form_of;
use super::unsubscribe::https_url;
use super::warmup::Plans;
use crate::admission::Directory;
use crate::admission::directory::{
    ConfigurationSet, Credential, LOCAL_TENANT, Name, Quota, Relay, Senders, Tenant, Way,
};
use crate::admission::identity::{Identity, IdentityName};
use crate::admission::password::{self, HashError, Strength};
use crate::message::is_tag;
use crate::policy::reputation::Settings;
use crate::queue::Granularity;
use crate::types::{PoolName, Priority, SuppressionReasons};

/// What SES allows a configuration set.
const DELIVERY_TIME: std::ops::RangeInclusive<Duration> = Duration::from_secs(300)..=Duration::from_secs(50_400);
/// SES's sandbox, in recipients.
const SANDBOX_PER_DAY: u64 = 200;
const SANDBOX_PER_SECOND: u32 = 1;
/// A user name is shown in events and logs.
const USER_BYTES_MAX: usize = 128;
/// One in force, and one that takes its place.
const SECRETS_MAX: usize = 2;

/// What configuration sets may have that stands elsewhere.
pub(super) struct OfSets<'a> {
    /// Of warm-ups.
    pub(super) plans: &'a Plans,
    /// For bulk sets without one of their own.
    pub(super) unsubscribe_url: Option<&'a Arc<str>>,
}

/// All of it. `lifetime` is that of the queue, `pools` are the names of all pools; `reputation` is what `[reputation]` says.
pub(super) fn directory(
    root: &mut Section<'_>,
    lifetime: Duration,
    pools: &BTreeSet<PoolName>,
    of_sets: &OfSets<'_>,
    mut reputation: Settings,
) -> Directory {
    let mut tenants: BTreeMap<Name, Arc<Tenant>> = BTreeMap::new();
    for section in root.children("tenant").unwrap_or_default() {
        if let Some(tenant) = tenant(section, &tenants, pools, &mut reputation) {
            tenants.insert(tenant.name.clone(), Arc::new(tenant));
        }
    }
    let mut relay = root.child("relay");
    let networks = intake::relay_networks(&mut relay);
    let relay_tenant = relay.optional("tenant", name_form);
    let mut directory = Directory::relay_only(networks.clone(), lifetime);
    for tenant in tenants.into_values() {
        let is_relay = tenant.name.as_str() == relay_tenant.as_ref().map_or(LOCAL_TENANT, Name::as_str);
        if is_relay {
            directory.relay = Relay { networks: networks.clone(), tenant: Arc::clone(&tenant) };
        }
        directory.add_tenant(tenant);
    }
    if let Some(name) = relay_tenant.filter(|name| directory.tenant(name.as_str()).is_none()) {
        relay.error("tenant", unknown("tenant", name.as_str()));
    }
    relay.close();
    for section in root.children("configuration_set").unwrap_or_default() {
        configuration_set(section, &mut directory, pools, of_sets, &mut reputation);
    }
    directory.reputation = Arc::new(reputation);
    sending(root.child("sending"), &mut directory);
    for section in root.children("identity").unwrap_or_default() {
        identity(section, &mut directory);
    }
    for section in root.children("credential").unwrap_or_default() {
        credential(section, &mut directory);
    }
    directory
}

fn sending(mut section: Section<'_>, directory: &mut Directory) {
    directory.sending = section.flag("enabled", true);
    directory.quota = quota(&mut section);
    directory.configuration_set = known_set(&mut section, directory);
    section.close();
}

fn tenant(
    mut section: Section<'_>,
    others: &BTreeMap<Name, Arc<Tenant>>,
    pools: &BTreeSet<PoolName>,
    reputation: &mut Settings,
) -> Option<Tenant> {
    let name = section.required("name", "\"shop\"", name_form);
    let senders = [("identities", Senders::Identities), ("any", Senders::Any)];
    let senders = section.word("senders", Senders::Identities, &senders);
    let sending = section.flag("sending", true);
    let mut quota = quota(&mut section);
    let is_sandboxed = section.flag("sandbox", false);
    let recipients =
        section.list("sandbox_recipients", Vec::new(), "[\"qa@example.com\", \"lab.example.com\"]", identity_name);
    if is_sandboxed {
        quota.per_day = Some(quota.per_day.unwrap_or(SANDBOX_PER_DAY).min(SANDBOX_PER_DAY));
        quota.per_second = Some(quota.per_second.unwrap_or(SANDBOX_PER_SECOND).min(SANDBOX_PER_SECOND));
    } else if section.has("sandbox_recipients") {
        let problem = Problem::new("has no effect without the sandbox", "write sandbox = true, or remove it");
        section.error("sandbox_recipients", problem);
    }
    let suppression = suppression(&mut section).unwrap_or_default();
    let way = way(&mut section, pools);
    let limits = of_reputation::own_limits(&mut section, &reputation.limits);
    if let (Some(name), Some(limits)) = (&name, limits) {
        reputation.tenants.insert(name.as_str().into(), limits);
    }
    if let Some(name) = name.as_ref().filter(|name| others.contains_key(*name)) {
        section.error("name", taken("tenant", name.as_str()));
    }
    section.close();
    let sandbox = is_sandboxed.then_some(recipients);
    Some(Tenant { name: name?, senders, sending, quota, sandbox, suppression, way })
}

fn configuration_set(
    mut section: Section<'_>,
    directory: &mut Directory,
    pools: &BTreeSet<PoolName>,
    of_sets: &OfSets<'_>,
    reputation: &mut Settings,
) {
    let name = section.required("name", "\"receipts\"", name_form);
    let tenants = section.list("tenants", Vec::new(), "[\"shop\"]", |value| {
        let name = name_form(value)?;
        if directory.tenant(name.as_str()).is_none() {
            return Err(unknown("tenant", name.as_str()));
        }
        Ok(name)
    });
    let is_bulk = section.flag("bulk", false);
    let set = name.map(|name| ConfigurationSet {
        name,
        tenants,
        sending: section.flag("sending", true),
        tls_required: section.word("tls", false, &[("optional", false), ("require", true)]),
        lifetime: section.optional("delivery_time_max", |value| value.duration(&DELIVERY_TIME)),
        suppression: suppression(&mut section),
        return_path: section.word(
            "return_path",
            Granularity::PerRecipient,
            &[("per-recipient", Granularity::PerRecipient), ("per-message", Granularity::PerMessage)],
        ),
        tags: section.list("tags", Vec::new(), "[\"team=shop\"]", tag),
        quota: quota(&mut section),
        is_bulk,
        unsubscribe_url: section
            .optional("unsubscribe_url", https_url)
            .or_else(|| of_sets.unsubscribe_url.filter(|_| is_bulk).cloned()),
        way: way(&mut section, pools),
        warmup: section.optional("warmup", |value| of_sets.plans.named(value)),
    });
    let limits = of_reputation::own_limits(&mut section, &reputation.limits);
    if let (Some(set), Some(limits)) = (&set, limits) {
        reputation.sets.insert(set.name.as_str().into(), limits);
    }
    if let Some(set) = &set
        && directory.set(set.name.as_str()).is_some()
    {
        section.error("name", taken("configuration set", set.name.as_str()));
    }
    section.close();
    if let Some(set) = set {
        directory.add_set(set);
    }
}

fn identity(mut section: Section<'_>, directory: &mut Directory) {
    let name = section.required("name", "\"example.com\", or an address", identity_name);
    let tenant = known_tenant(&mut section, directory);
    let configuration_set = known_set(&mut section, directory);
    let mail_from = return_path::mail_from(&mut section, name.as_ref());
    let delegates = section.list("delegates", Vec::new(), "[\"user name\"]", user);
    let forward_feedback = section.optional("forward_feedback", Value::flag);
    if let Some(name) = name.as_ref().filter(|name| directory.identity(name).is_some()) {
        section.error("name", taken("identity", &name.to_string()));
    }
    section.close();
    if let (Some(name), Some(tenant)) = (name, tenant) {
        let tenant = tenant.name.clone();
        directory.add_identity(Identity { name, tenant, configuration_set, mail_from, forward_feedback, delegates });
    }
}

fn credential(mut section: Section<'_>, directory: &mut Directory) {
    let user = section.required("user", "\"shop-1\"", user);
    let secrets =
        section.list("secrets", Vec::new(), "[\"$argon2id$...\"], as `posthaste credential hash` prints", secret);
    if !section.has("secrets") {
        let remedy = "write secrets = [\"$argon2id$...\"], as `posthaste credential hash` prints";
        section.error("secrets", Problem::new("is missing, so nobody can log in", remedy));
    }
    if secrets.len() > SECRETS_MAX {
        let remedy = "keep the one in force and the one that takes its place";
        section.error("secrets", Problem::new(format!("more than {SECRETS_MAX} secrets"), remedy));
    }
    if secrets.iter().any(|secret| password::check(secret) == Ok(Strength::Weak)) {
        let problem = "a hash is faster to guess than OWASP's minimum";
        section.warn("secrets", Problem::new(problem, "make one with `posthaste credential hash`"));
    }
    let tenant = known_tenant(&mut section, directory);
    let networks: Vec<IpNet> = section.list("networks", Vec::new(), "[\"10.0.0.0/8\"]", intake::network);
    let has_identities = section.has("identities");
    let identities = section.list("identities", Vec::new(), "[\"example.com\"]", identity_name);
    let configuration_set = known_set(&mut section, directory);
    let quota = quota(&mut section);
    if let Some(user) = user.as_ref().filter(|user| directory.credential(user).is_some()) {
        section.error("user", taken("credential", user));
    }
    section.close();
    if let (Some(user), Some(tenant)) = (user, tenant) {
        let identities = has_identities.then_some(identities);
        let credential = Credential { user, secrets, tenant, networks, identities, configuration_set, quota };
        directory.add_credential(credential);
    }
}

fn quota(section: &mut Section<'_>) -> Quota {
    Quota {
        per_day: section.optional("quota_per_day", |value| value.count(&(0..=1_000_000_000_000))),
        per_second: section.optional("quota_per_second", |value| value.count(&(1..=1_000_000))),
    }
}

fn suppression(section: &mut Section<'_>) -> Option<SuppressionReasons> {
    let is_there = section.has("suppression");
    let words = [("bounce", true), ("complaint", false)];
    let reasons = section.list("suppression", Vec::new(), "[\"bounce\", \"complaint\"]", |value| value.word(&words));
    is_there.then(|| SuppressionReasons { bounce: reasons.contains(&true), complaint: reasons.contains(&false) })
}

fn way(section: &mut Section<'_>, pools: &BTreeSet<PoolName>) -> Way {
    let words = Priority::ALL.map(|priority| (priority.name(), priority));
    Way {
        pool: section.optional("pool", |value| {
            let name = name_form_of(value, PoolName::parse)?;
            if pools.contains(&name) { Ok(name) } else { Err(unknown("pool", name.as_str())) }
        }),
        priority: section.optional("priority", |value| value.word(&words)),
    }
}

fn known_tenant(section: &mut Section<'_>, directory: &Directory) -> Option<Arc<Tenant>> {
    section.required("tenant", "the name of a [[tenant]]", |value| {
        let name = name_form(value)?;
        directory.tenant(name.as_str()).cloned().ok_or_else(|| unknown("tenant", name.as_str()))
    })
}

fn known_set(section: &mut Section<'_>, directory: &Directory) -> Option<Name> {
    section.optional("configuration_set", |value| {
        let name = name_form(value)?;
        let is_known = directory.set(name.as_str()).is_some();
        if is_known { Ok(name) } else { Err(unknown("configuration_set", name.as_str())) }
    })
}

pub(super) fn unknown(table: &str, name: &str) -> Problem {
    Problem::new(format!("there is no {table} named {name:?}"), format!("add [[{table}]] with name = {name:?}"))
}

fn taken(what: &str, name: &str) -> Problem {
    Problem::new(format!("{name:?} is the name of an earlier {what}"), format!("give each {what} its own name"))
}

pub(super) fn name_form(value: &Value<'_>) -> Result<Name, Problem> {
    let text = value.text()?;
    let remedy = "write 1 to 64 letters, digits, - or _";
    Name::parse(text).ok_or_else(|| Problem::new(format!("{text:?} cannot be a name"), remedy))
}

fn identity_name(value: &Value<'_>) -> Result<IdentityName, Problem> {
    let text = value.text()?;
    let remedy = "write one such as \"example.com\" or \"news@example.com\"; a domain covers its subdomains";
    IdentityName::parse(text)
        .ok_or_else(|| Problem::new(format!("{text:?} is neither a domain nor an address"), remedy))
}

fn user(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    let is_shown = |c: char| !c.is_control() && !c.is_whitespace();
    if text.is_empty() || text.len() > USER_BYTES_MAX || !text.chars().all(is_shown) {
        let remedy = "write 1 to 128 octets without white space";
        return Err(Problem::new(format!("{text:?} cannot be a user name"), remedy));
    }
    Ok(text.into())
}

/// Never shown: it may be the secret itself that was written here.
fn secret(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    match password::check(text) {
        Ok(_) => Ok(text.into()),
        Err(HashError::NotArgon2id) => {
            let remedy = "write what `posthaste credential hash` prints, never the secret";
            Err(Problem::new("a secret is not a hash of argon2id", remedy))
        }
        Err(HashError::TooCostly) => {
            let problem = "a hash asks for more than 256 MiB, 16 passes or 8 lanes";
            Err(Problem::new(problem, "make one with `posthaste credential hash`"))
        }
    }
}

fn tag(value: &Value<'_>) -> Result<(String, String), Problem> {
    let text = value.text()?;
    let pair = text.split_once('=').filter(|(name, value)| is_tag(name, value));
    let remedy = "write one such as \"team=shop\": letters, digits, _ and -";
    pair.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| Problem::new(format!("{text:?} is not a tag"), remedy))
}

//! Reads a file of provider rules, `[[provider]]` by `[[provider]]`, as strictly as one of reply rules.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::{HostPattern, Overrides, Provider};
use crate::policy::limits::Rates;
use crate::policy::replies::Origin;
use crate::tables::findings::{Findings, Problem};
use crate::tables::section::{Section, Value};
use crate::tables::{self, ConfigErrors};

/// Rules in one file. More: an error.
const PROVIDERS_MAX: usize = 10_000;
/// Octets of a provider's name. Longer: an error.
const NAME_BYTES_MAX: usize = 64;
/// Connections, of one source or all together.
const CONNECTIONS_MAX: u32 = 100_000;
/// Messages on a connection or in a time.
const MESSAGES_MAX: u32 = 1_000_000_000;

/// The rules of a text in front of `base`; those with a name of `base` change it in its place.
pub(super) fn read(text: &str, name: &str, base: &[Provider]) -> Result<Vec<Provider>, ConfigErrors> {
    let findings = RefCell::new(Findings::new(name, text));
    let own =
        tables::read(text, &findings, "docs/RULES.md", |root| read_root(root, base, &findings)).unwrap_or_default();
    findings.into_inner().finish()?;
    let is_base = |name: &str| base.iter().any(|rule| &*rule.name == name);
    let front = own.iter().filter(|(rule, _)| !is_base(&rule.name)).map(|(rule, _)| rule.clone());
    let behind = base.iter().filter_map(|rule| match own.iter().find(|(own, _)| own.name == rule.name) {
        Some((own, enabled)) => enabled.then(|| own.clone()),
        None => Some(rule.clone()),
    });
    Ok(front.chain(behind).collect())
}

/// Each rule, and whether it is in force.
fn read_root(mut root: Section<'_>, base: &[Provider], findings: &RefCell<Findings>) -> Vec<(Provider, bool)> {
    let sections = root.children("provider").unwrap_or_default();
    if sections.len() > PROVIDERS_MAX {
        let problem = format!("there are {} providers, at most {PROVIDERS_MAX} are taken", sections.len());
        root.error("provider", Problem::new(problem, "join those with the same limits into one"));
        return Vec::new();
    }
    let mut rules: Vec<(Provider, bool)> = Vec::new();
    let mut names = BTreeSet::new();
    for mut section in sections {
        let place = findings.borrow().file_and_line(&section.span());
        let rule = provider(&mut section, base, &place);
        if let Some((rule, _)) = &rule
            && !names.insert(Arc::clone(&rule.name))
        {
            let problem = format!("a provider named {:?} stands above", &*rule.name);
            section.error("name", Problem::new(problem, "give each provider a name of its own"));
        }
        if let Some((rule, enabled)) = &rule {
            check(&section, rule, *enabled, &rules, base);
        }
        section.close();
        rules.extend(rule);
    }
    root.close();
    rules
}

fn provider(section: &mut Section<'_>, base: &[Provider], place: &str) -> Option<(Provider, bool)> {
    let name = section.required("name", "\"our-partner\"", provider_name);
    let enabled = section.flag("enabled", true);
    let mx = section.items("mx", "[\".mail.example.com\"]", host_pattern);
    let domains = section.items("domains", "[\"example.com\"]", Value::domain);
    let connections = |value: &Value<'_>| value.count(&(1..=CONNECTIONS_MAX));
    let messages = |value: &Value<'_>| value.count(&(1..=MESSAGES_MAX));
    let limits = Overrides {
        connections: section.optional("connections", connections),
        connections_total: section.optional("connections_total", connections),
        messages_per_connection: section.optional("messages_per_connection", messages),
        rates: Rates {
            second: section.optional("messages_per_second", messages),
            minute: section.optional("messages_per_minute", messages),
            hour: section.optional("messages_per_hour", messages),
            day: section.optional("messages_per_day", messages),
        },
    };
    let name = name?;
    let rule = match base.iter().find(|rule| rule.name == name) {
        Some(base) => Provider {
            name,
            mx: mx.map_or_else(|| base.mx.clone(), Vec::into_boxed_slice),
            domains: domains.map_or_else(|| base.domains.clone(), Vec::into_boxed_slice),
            limits: over(limits, base.limits),
            origin: Origin::Changed(place.into()),
        },
        None => Provider {
            name,
            mx: mx.unwrap_or_default().into_boxed_slice(),
            domains: domains.unwrap_or_default().into_boxed_slice(),
            limits,
            origin: if base.is_empty() { Origin::BuiltIn } else { Origin::Own(place.into()) },
        },
    };
    Some((rule, enabled))
}

fn over(own: Overrides, base: Overrides) -> Overrides {
    Overrides {
        connections: own.connections.or(base.connections),
        connections_total: own.connections_total.or(base.connections_total),
        messages_per_connection: own.messages_per_connection.or(base.messages_per_connection),
        rates: Rates {
            second: own.rates.second.or(base.rates.second),
            minute: own.rates.minute.or(base.rates.minute),
            hour: own.rates.hour.or(base.rates.hour),
            day: own.rates.day.or(base.rates.day),
        },
    }
}

/// What only the rule as a whole can show.
fn check(section: &Section<'_>, rule: &Provider, enabled: bool, above: &[(Provider, bool)], base: &[Provider]) {
    let is_base = |name: &str| base.iter().any(|rule| &*rule.name == name);
    if !enabled && !is_base(&rule.name) {
        section.error("enabled", Problem::new("only a built-in provider can be switched off", "remove this one"));
    }
    if rule.mx.is_empty() && rule.domains.is_empty() && !section.has("mx") && !section.has("domains") {
        let problem = Problem::new("takes no site", "write mx = [\".mail.example.com\"], or domains, or both");
        section.error("mx", problem);
    }
    if let (Some(total), Some(connections)) = (rule.limits.connections_total, rule.limits.connections)
        && total < connections
    {
        let problem = format!("{total} for all sources is less than {connections} for one");
        section.error("connections_total", Problem::new(problem, "write at least as many as connections"));
    }
    let is_taken = |pattern: &HostPattern, by: &Provider| by.mx.iter().any(|wide| covers(wide, pattern));
    let shadowed_by = above.iter().map(|(rule, _)| rule).filter(|above| !is_base(&above.name)).find(|above| {
        rule.mx.iter().all(|pattern| is_taken(pattern, above))
            && rule.domains.iter().all(|domain| above.domains.contains(domain))
    });
    if let Some(above) = shadowed_by.filter(|above| above.name != rule.name && !is_base(&rule.name)) {
        let problem = format!("takes no site: {} ({}) takes all that it would", above.name, above.origin);
        section.error("", Problem::new(problem, "put the narrower rule in front, or remove one of them"));
    }
}

/// Whether all hosts of `narrow` are hosts of `wide`.
fn covers(wide: &HostPattern, narrow: &HostPattern) -> bool {
    match (wide, narrow) {
        (HostPattern::Exact(wide), HostPattern::Exact(narrow)) => wide == narrow,
        (HostPattern::Exact(_), HostPattern::Below(_)) => false,
        (HostPattern::Below(parent), HostPattern::Exact(host)) => is_below(host.as_str(), parent.as_str()),
        (HostPattern::Below(parent), HostPattern::Below(narrow)) => {
            parent == narrow || is_below(narrow.as_str(), parent.as_str())
        }
    }
}

fn is_below(host: &str, parent: &str) -> bool {
    host.strip_suffix(parent).is_some_and(|labels| labels.ends_with('.'))
}

fn provider_name(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    let remedy = format!(
        "write 1 to {NAME_BYTES_MAX} lower-case letters, digits, \"-\" or \"_\"; no dot, since sites have this name"
    );
    Err(Problem::new(format!("{text:?} is not a name"), remedy))
}

fn host_pattern(value: &Value<'_>) -> Result<HostPattern, Problem> {
    let text = value.text()?;
    HostPattern::parse(text).ok_or_else(|| {
        let remedy = "write a host such as \"mx.example.com\", or \".example.com\" for all below a domain";
        Problem::new(format!("{text:?} is not a host name"), remedy)
    })
}

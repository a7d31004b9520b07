//! Files of rules, and replies against them.

use std::sync::Arc;

use posthaste::policy::replies::with_own;
use posthaste::policy::{BounceType, Disposition, Providers, Rules, Stage};
use posthaste::smtp::client::ReplyParser;
use posthaste::tables::ConfigErrors;
use posthaste::types::{Domain, Severity};

/// A file of reply rules, and the same text as one of provider rules.
pub fn rules(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let providers = Providers::with_own(text, "fuzz.toml");
    let known = providers.as_ref().map_or_else(|_| Providers::built_in().names(), Providers::names);
    match with_own(text, "fuzz.toml", Some(&known)) {
        Ok(rules) => {
            for spec in rules.specs() {
                assert!(spec.outcome.is_sound(), "{} sends mail to the lane that blocks it", spec.name);
                let (bounce_type, sub_type) = spec.outcome.bounce;
                assert!(sub_type.is_of(bounce_type), "{}: no words of SES", spec.name);
                assert!(spec.providers.iter().all(|name| known.contains(name)), "{}: no such provider", spec.name);
            }
        }
        Err(found) => has_reasons(&found),
    }
    match providers {
        Ok(providers) => {
            let hosts: Vec<Domain> =
                text.split_whitespace().filter_map(|word| Domain::parse(word).ok()).take(8).collect();
            for host in &hosts {
                let _ = providers.find(host, &hosts);
            }
            for provider in providers.all() {
                let limits = providers.limits(Some(&provider.name), Default::default());
                assert!(
                    limits.connections > 0 && limits.messages_per_connection > 0,
                    "{} lets nothing through",
                    provider.name
                );
            }
        }
        Err(found) => has_reasons(&found),
    }
}

fn has_reasons(found: &ConfigErrors) {
    assert!(!found.errors.is_empty(), "refused without an error");
    for error in &found.errors {
        assert!(error.place.is_some() && !error.problem.is_empty() && !error.remedy.is_empty(), "{error}");
    }
}

/// A reply as a host writes it, at every stage, at a site of a provider and elsewhere. Octet 0 chooses the provider. What stands
/// behind a line with `--` only is a file of own rules.
pub fn classify(data: &[u8]) {
    let Some((choice, octets)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(octets);
    let (reply, own) = text.split_once("\n--\n").unwrap_or((&text, ""));
    let mut parser = ReplyParser::new();
    parser.push(reply.as_bytes());
    parser.push(b"\r\n");
    let Ok(Some(reply)) = parser.next_reply() else { return };
    let names = Providers::built_in().names();
    let provider = names.get(usize::from(*choice)).map(|name| &**name);
    let own = with_own(own, "fuzz.toml", None).map_or_else(|_| Rules::built_in(), Arc::new);
    for stage in Stage::ALL {
        for rules in [&Rules::built_in(), &own] {
            let verdict = rules.classify(&reply, stage, provider);
            assert_eq!(verdict, rules.classify(&reply, stage, provider), "the same reply, another verdict");
            let is_delivered = verdict.disposition == Disposition::Delivered;
            assert_eq!(is_delivered, reply.severity() == Severity::Positive, "{reply} at {stage}");
            assert!(is_delivered || rules.names().any(|name| *name == *verdict.rule), "{reply} at {stage} has no rule");
            if verdict.disposition == Disposition::Deferred {
                assert_ne!(verdict.bounce_type, BounceType::Permanent, "{reply} at {stage}: patience ended, no more");
            }
        }
    }
}

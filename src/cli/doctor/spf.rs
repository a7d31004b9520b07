//! SPF (RFC 7208) of the domains that our mail comes from at MAIL FROM, and of the EHLO name: one record, that lets every
//! source send, within ten lookups.

use std::collections::HashSet;
use std::net::IpAddr;

use super::finding::{Check, Finding, Subject};
use super::spf_record::{Term, cost, fresh, invalid_terms, is_spf, terms, with_sources};
use super::world::{Looked, World};
use crate::cli::{format, zone};
use crate::net::spf::SpfVerdict;
use crate::types::Domain;

/// Lookups that a receiver makes for one record at most (RFC 7208 §4.6.4).
const LOOKUPS_ALLOWED: usize = 10;
/// Records that are read to count lookups. A record with more is far above ten already.
const RECORDS_READ_MAX: usize = 24;

/// What the name is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Receivers check it for every message.
    MailFrom,
    /// Receivers check it for bounces, whose sender is empty.
    Ehlo,
}

/// A record, and all that it includes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Walk {
    lookups: usize,
    problems: Vec<String>,
}

pub(super) async fn check(world: &World, domain: &Domain, role: Role) -> Vec<Finding> {
    let subject = match role {
        Role::MailFrom => Subject::domain(domain),
        Role::Ehlo => Subject::host(domain),
    };
    let check = Check::new("spf", subject);
    let looked = world.texts(domain).await;
    let walked = match records(&looked).as_slice() {
        [record] => walk(world, domain, record).await,
        _ => Walk::default(),
    };
    let mut verdicts = Vec::new();
    let sources = match role {
        Role::MailFrom => world.setup.public_sources().collect(),
        Role::Ehlo => world.setup.sources_of(domain),
    };
    for source in sources {
        verdicts.push((source, world.spf(source, domain).await));
    }
    judge(&check, domain, role, &looked, &walked, &verdicts)
}

fn records(looked: &Looked<String>) -> Vec<&str> {
    looked.records().iter().map(String::as_str).filter(|text| is_spf(text)).collect()
}

/// Counts as if no term before matched: what the unluckiest receiver counts.
async fn walk(world: &World, domain: &Domain, record: &str) -> Walk {
    let mut walk = Walk::default();
    let mut seen: HashSet<Domain> = HashSet::from([domain.clone()]);
    let mut waiting = vec![(domain.clone(), record.to_owned())];
    while let Some((owner, record)) = waiting.pop() {
        let found = cost(&record);
        walk.lookups += found.lookups;
        let problems = invalid_terms(&record).into_iter().map(|term| format!("\"{term}\" in the record of {owner}"));
        walk.problems.extend(problems);
        for target in found.targets {
            // A macro stands for something else for each message.
            if target.contains('%') || seen.len() >= RECORDS_READ_MAX {
                continue;
            }
            let Ok(name) = Domain::parse(target) else {
                walk.problems.push(format!("\"{target}\" in the record of {owner} is no domain"));
                continue;
            };
            if !seen.insert(name.clone()) {
                continue;
            }
            let looked = world.texts(&name).await;
            match (records(&looked).as_slice(), &looked) {
                (_, Looked::Unknown(_)) => {}
                ([record], _) => waiting.push((name, (*record).to_owned())),
                ([], _) => walk.problems.push(format!("{owner} refers to {name}, which has no SPF record")),
                _ => walk.problems.push(format!("{owner} refers to {name}, which has several SPF records")),
            }
        }
    }
    walk
}

/// What it all means.
fn judge(
    check: &Check,
    domain: &Domain,
    role: Role,
    looked: &Looked<String>,
    walked: &Walk,
    verdicts: &[(IpAddr, SpfVerdict)],
) -> Vec<Finding> {
    let sources: Vec<IpAddr> = verdicts.iter().map(|(source, _)| *source).collect();
    let line = |text: String| zone::txt(domain.as_str(), &text);
    if let Looked::Unknown(reason) = looked {
        return vec![check.unknown(reason)];
    }
    match records(looked).as_slice() {
        [] => {
            let missing = match role {
                Role::MailFrom => check.error("missing", format!("{domain} has no SPF record")),
                Role::Ehlo => check.warning(
                    "missing",
                    format!("{domain}, the EHLO name, has no SPF record: bounces are sent without SPF"),
                ),
            };
            let missing = missing.advice("publish a TXT record");
            vec![if sources.is_empty() { missing } else { missing.publish([line(fresh(&sources))]) }]
        }
        [record] => judge_record(check, domain, record, walked, verdicts),
        several => {
            let seen = format!("{domain} has {} SPF records: receivers treat that as an error", several.len());
            let missing: Vec<IpAddr> = sources
                .into_iter()
                .filter(|source| !several.iter().any(|record| names_source(record, *source)))
                .collect();
            let advice = "publish this one record in place of all of them";
            vec![check.error("several", seen).advice(advice).publish([line(with_sources(several, &missing))])]
        }
    }
}

fn names_source(record: &str, source: IpAddr) -> bool {
    with_sources(&[record], &[source]).split(' ').count() == with_sources(&[record], &[]).split(' ').count()
}

fn judge_record(
    check: &Check,
    domain: &Domain,
    record: &str,
    walked: &Walk,
    verdicts: &[(IpAddr, SpfVerdict)],
) -> Vec<Finding> {
    let not_passing: Vec<IpAddr> = verdicts
        .iter()
        .filter(|(_, verdict)| !matches!(verdict, SpfVerdict::Pass | SpfVerdict::TempError))
        .map(|(source, _)| *source)
        .collect();
    let publish = || [zone::txt(domain.as_str(), &with_sources(&[record], &not_passing))];
    let mut findings = Vec::new();
    let broken = invalid_terms(record);
    if !broken.is_empty() {
        // RFC 7208 §4.6: one term of wrong form is an error before anything is evaluated. Lax receivers skip it.
        let seen = format!("\"{}\" is no term of SPF: {record}", broken.join("\", \""));
        let advice = "publish this record in place of the SPF record that is there";
        return vec![check.error("permerror", seen).advice(advice).publish(publish())];
    }
    for (source, verdict) in verdicts {
        let (code, what) = match verdict {
            SpfVerdict::Pass => continue,
            SpfVerdict::TempError => {
                findings.push(check.unknown(format!("whether {record} lets {source} send: DNS fails")).item(source));
                continue;
            }
            SpfVerdict::Fail => ("fail", "fail".to_owned()),
            SpfVerdict::SoftFail => ("softfail", "softfail".to_owned()),
            SpfVerdict::Neutral | SpfVerdict::None => ("neutral", "neutral".to_owned()),
            SpfVerdict::PermError if walked.problems.is_empty() => {
                ("permerror", format!("permerror ({})", format::count(walked.lookups, "lookup")))
            }
            SpfVerdict::PermError => ("permerror", format!("permerror ({})", walked.problems.join(", "))),
        };
        let seen = format!("{what}: {record}");
        let advice = "publish this record in place of the SPF record that is there";
        findings.push(check.error(code, seen).item(source).advice(advice).publish(publish()));
    }
    if terms(record).iter().any(Term::allows_everybody) {
        let closed =
            record.split(' ').map(|word| if Term::is_open(word) { "~all" } else { word }).collect::<Vec<_>>().join(" ");
        let seen = format!("anybody may send: {record}");
        findings.push(
            check
                .warning("open", seen)
                .advice("end it with ~all or -all")
                .publish([zone::txt(domain.as_str(), &closed)]),
        );
    }
    if walked.lookups > LOOKUPS_ALLOWED {
        let seen = format!("{} lookups, {LOOKUPS_ALLOWED} are allowed: {record}", walked.lookups);
        let advice = "take out what no longer sends, or name addresses (ip4:, ip6:) instead of include:";
        findings.push(check.warning("lookups", seen).advice(advice));
    } else if !walked.problems.is_empty() && not_passing.is_empty() {
        let advice = "take it out: behind a term that does not match, it makes the whole record an error";
        findings.push(check.warning("faulty", walked.problems.join(", ")).advice(advice));
    }
    if findings.is_empty() {
        findings.push(check.ok(format!("passes for every source: {record}")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "192.0.2.1";

    fn judged(records: &[&str], lookups: usize, problems: &[&str], verdict: SpfVerdict) -> Vec<Finding> {
        let domain = Domain::parse("example.com").unwrap();
        let looked = match records {
            [] => Looked::Missing,
            _ => Looked::Found(records.iter().map(|record| (*record).to_owned()).collect()),
        };
        let walked = Walk { lookups, problems: problems.iter().map(|problem| (*problem).to_owned()).collect() };
        let check = Check::new("spf", Subject::domain(&domain));
        judge(&check, &domain, Role::MailFrom, &looked, &walked, &[(SOURCE.parse().unwrap(), verdict)])
    }

    #[track_caller]
    fn expect(records: &[&str], lookups: usize, verdict: SpfVerdict, expected: &[(&str, &str)]) {
        let findings = judged(records, lookups, &[], verdict);
        let found: Vec<(&str, String)> = findings
            .iter()
            .map(|finding| (finding.code, finding.publish.concat().replace("example.com. IN TXT ", "")))
            .collect();
        let expected: Vec<(&str, String)> = expected.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
        assert_eq!(found, expected, "{records:?} {verdict:?}");
    }

    #[test]
    fn each_verdict_has_its_finding_and_its_record() {
        use SpfVerdict::{Fail, Neutral, None, Pass, PermError, SoftFail};
        let healed = "\"v=spf1 ip4:192.0.2.1 a -all\"";
        expect(&["v=spf1 a -all", "other"], 1, Pass, &[("ok", "")]);
        expect(&["v=spf1 a -all"], 1, Fail, &[("fail", healed)]);
        expect(&["v=spf1 a -all"], 1, SoftFail, &[("softfail", healed)]);
        expect(&["v=spf1 a -all"], 1, Neutral, &[("neutral", healed)]);
        expect(&["v=spf1 a -all"], 1, PermError, &[("permerror", healed)]);
        expect(&["v=spf1 a -all"], 11, PermError, &[("permerror", healed), ("lookups", "")]);
        expect(&["v=spf1 a -all"], 11, Pass, &[("lookups", "")]);
        expect(&["v=spf1 +all"], 0, Pass, &[("open", "\"v=spf1 ~all\"")]);
        expect(&[], 0, None, &[("missing", "\"v=spf1 ip4:192.0.2.1 -all\"")]);
        expect(&["google-site-verification=x"], 0, None, &[("missing", "\"v=spf1 ip4:192.0.2.1 -all\"")]);
        let two = ["v=spf1 a -all", "v=spf1 ip4:192.0.2.1 ~all"];
        expect(&two, 0, PermError, &[("several", "\"v=spf1 a ip4:192.0.2.1 -all\"")]);
        let two = ["v=spf1 a -all", "v=spf1 mx -all"];
        expect(&two, 0, PermError, &[("several", "\"v=spf1 ip4:192.0.2.1 a mx -all\"")]);
    }

    #[test]
    fn what_nobody_knows_is_a_warning_and_never_missing() {
        let findings = judged(&["v=spf1 a -all"], 1, &[], SpfVerdict::TempError);
        assert_eq!(findings[0].code, "unknown");
        let domain = Domain::parse("example.com").unwrap();
        let check = Check::new("spf", Subject::domain(&domain));
        let looked = Looked::Unknown("SERVFAIL".to_owned());
        let findings = judge(&check, &domain, Role::MailFrom, &looked, &Walk::default(), &[]);
        assert_eq!(findings[0].code, "unknown");
        assert!(findings[0].publish.is_empty());
    }

    #[test]
    fn a_fault_that_did_not_matter_yet_is_told() {
        let findings = judged(&["v=spf1 a include:x.test -all"], 2, &["x.test has none"], SpfVerdict::Pass);
        assert_eq!(findings[0].code, "faulty");
    }

    #[test]
    fn a_term_of_wrong_form_is_an_error_whatever_a_lax_receiver_says() {
        for (verdict, healed) in [
            (SpfVerdict::PermError, "v=spf1 ip4:192.0.2.1 mx -all"),
            (SpfVerdict::Fail, "v=spf1 ip4:192.0.2.1 mx -all"),
            (SpfVerdict::Pass, "v=spf1 mx -all"),
        ] {
            let findings = judged(&["v=spf1 ipv4:1.2.3.4 mx -all"], 1, &[], verdict);
            assert_eq!((findings.len(), findings[0].code), (1, "permerror"));
            assert!(findings[0].seen.contains("ipv4:1.2.3.4"), "{findings:?}");
            assert_eq!(findings[0].publish, [format!("example.com. IN TXT \"{healed}\"")]);
        }
    }
}

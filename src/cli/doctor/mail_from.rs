//! Domains at MAIL FROM: where bounces come back. A domain of ours for bounces must lead to this server where that takes bounces
//! ([`Setup::takes_bounces`]), else to a host that collects them; any other must at least take mail, since receivers refuse
//! senders that cannot.
//!
//! [`Setup::takes_bounces`]: super::setup::Setup::takes_bounces

use std::net::IpAddr;

use super::finding::{Check, Finding, Subject};
use super::setup::MailFrom;
use super::world::{Looked, World};
use crate::cli::zone;
use crate::net::Mx;
use crate::types::Domain;

/// MX hosts whose addresses are asked for. More are taken for not ours.
const HOSTS_ASKED_MAX: usize = 8;

/// A host and what its addresses are.
type Host = (Domain, Looked<IpAddr>);

pub(super) async fn check(world: &World, mail_from: &MailFrom) -> Vec<Finding> {
    let domain = &mail_from.domain;
    let check = Check::new("mail_from", Subject::domain(domain));
    let mx = world.mx(domain).await;
    if !mail_from.is_for_bounces {
        let addresses = world.addresses(domain).await;
        return vec![judge_other(&check, domain, &mx, &addresses)];
    }
    let mut hosts: Vec<Host> = Vec::new();
    for host in mx.records().iter().filter_map(|mx| mx.host.clone()).take(HOSTS_ASKED_MAX) {
        let addresses = world.addresses(&host).await;
        hosts.push((host, addresses));
    }
    let mut ours: Vec<IpAddr> = world.setup.public_sources().collect();
    ours.extend(world.addresses(&world.setup.hostname).await.records());
    let here = Here { hostname: &world.setup.hostname, addresses: &ours };
    let judge = if world.setup.takes_bounces { judge_own } else { judge_collected };
    vec![judge(&check, domain, &here, &mx, &hosts)]
}

/// This server.
struct Here<'a> {
    hostname: &'a Domain,
    addresses: &'a [IpAddr],
}

impl Here<'_> {
    fn is(&self, (host, addresses): &Host) -> bool {
        host == self.hostname || addresses.records().iter().any(|address| self.addresses.contains(address))
    }
}

/// A domain of people, which has a mail server of its own.
fn judge_other(check: &Check, domain: &Domain, mx: &Looked<Mx>, addresses: &Looked<IpAddr>) -> Finding {
    match (mx, addresses) {
        (Looked::Unknown(reason), _) | (Looked::Missing, Looked::Unknown(reason)) => check.unknown(reason),
        (Looked::Missing, Looked::Missing) => {
            let seen =
                format!("{domain} has neither MX nor address: many receivers refuse its mail, and bounces are lost");
            check.error("no_mail", seen).advice("give the domain an MX record, or set mail_from of the identity")
        }
        (Looked::Found(records), _) if records.iter().all(|mx| mx.host.is_none()) => {
            let seen = format!("{domain} has a null MX: it takes no mail, so receivers refuse it as a sender");
            check.error("null_mx", seen).advice("give the domain an MX record, or set mail_from of the identity")
        }
        (Looked::Missing, Looked::Found(_)) => {
            check.note("no_mx", format!("{domain} has no MX; bounces go to its address"))
        }
        (Looked::Found(records), _) => check.ok(format!("bounces go to {}", names(records))),
    }
}

/// A domain for bounces that others collect: some host takes its mail, and that is not this server.
fn judge_collected(check: &Check, domain: &Domain, here: &Here<'_>, mx: &Looked<Mx>, hosts: &[Host]) -> Finding {
    // No line to publish: nobody but the administrator knows the host.
    let advice = format!("publish, with the name of the host that collects bounces: {domain}. IN MX 10 HOST.");
    let records = match mx {
        Looked::Unknown(reason) => return check.unknown(reason),
        Looked::Missing => {
            return check.error("no_mx", format!("{domain} has no MX: bounces do not come back")).advice(advice);
        }
        Looked::Found(records) if records.iter().all(|mx| mx.host.is_none()) => {
            let seen = format!("{domain} has a null MX: bounces do not come back, and receivers refuse it as a sender");
            return check.error("null_mx", seen).advice(advice);
        }
        Looked::Found(records) => records,
    };
    let names = names(records);
    let lost: Vec<&str> = hosts
        .iter()
        .filter(|(_, addresses)| matches!(addresses, Looked::Missing))
        .map(|(host, _)| host.as_str())
        .collect();
    if !lost.is_empty() {
        let seen = format!("{}, of the MX records of {domain}, has no address", lost.join(", "));
        let finding = match lost.len() == hosts.len() {
            true => check.error("no_address", format!("{seen}: bounces do not come back")),
            false => check.warning("no_address", seen),
        };
        return finding.advice("give each host an address, or remove its MX record");
    }
    if hosts.iter().all(|(_, addresses)| matches!(addresses, Looked::Unknown(_))) {
        return check.unknown(format!("whether {names} has an address"));
    }
    if hosts.iter().any(|host| here.is(host)) {
        let seen = format!("bounces lead to {names}, and that is this server: posthaste does not take them yet");
        let finding = check.warning("here", seen);
        return finding.advice(format!("unless another program collects them here, {advice}"));
    }
    check.note(
        "elsewhere",
        format!("bounces lead to {names}, which must collect them: posthaste does not take them yet"),
    )
}

/// A domain for bounces: its MX hosts are this server.
fn judge_own(check: &Check, domain: &Domain, here: &Here<'_>, mx: &Looked<Mx>, hosts: &[Host]) -> Finding {
    let publish = || [zone::mx(domain, here.hostname)];
    let records = match mx {
        Looked::Unknown(reason) => return check.unknown(reason),
        Looked::Missing => {
            let seen = format!("{domain} has no MX: bounces do not come back");
            return check.error("no_mx", seen).advice("publish an MX record to this server").publish(publish());
        }
        Looked::Found(records) => records,
    };
    let ours = hosts.iter().filter(|host| here.is(host)).count();
    let is_known = hosts.iter().all(|(_, addresses)| !matches!(addresses, Looked::Unknown(_)));
    let names = names(records);
    match ours {
        0 if !is_known => check.unknown(format!("whether {names} is this server")),
        0 => {
            let seen = format!("the MX of {domain} is {names}, which is not this server: bounces go elsewhere");
            check
                .error("elsewhere", seen)
                .advice("publish this in place of the MX records that are there")
                .publish(publish())
        }
        _ if ours < records.len() && is_known => {
            let seen = format!("the MX records of {domain} are {names}, and not all are this server");
            let advice = "publish this in place of the MX records that are there, unless the others pass bounces on";
            check.warning("partly_elsewhere", seen).advice(advice).publish(publish())
        }
        _ => check.ok(format!("bounces come back by {names}")),
    }
}

fn names(records: &[Mx]) -> String {
    let names: Vec<&str> = records.iter().map(|mx| mx.host.as_ref().map_or(".", Domain::as_str)).collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Severity;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn looked(hosts: &[&str]) -> Looked<Mx> {
        if hosts.is_empty() {
            return Looked::Missing;
        }
        let mx = |host: &&str| Mx { preference: 10, host: (*host != ".").then(|| domain(host)) };
        Looked::Found(hosts.iter().map(mx).collect())
    }

    type Judge = fn(&Check, &Domain, &Here<'_>, &Looked<Mx>, &[Host]) -> Finding;

    fn at(text: &str) -> Looked<IpAddr> {
        Looked::Found(vec![text.parse().unwrap()])
    }

    /// What is said of a domain for bounces with these MX hosts.
    fn judged(judge: Judge, hosts: Vec<(&str, Looked<IpAddr>)>) -> Finding {
        let names: Vec<&str> = hosts.iter().map(|(name, _)| *name).collect();
        let mx = looked(&names);
        let hosts = hosts.into_iter().filter(|(name, _)| *name != ".");
        let hosts: Vec<Host> = hosts.map(|(name, addresses)| (domain(name), addresses)).collect();
        let (name, hostname) = (domain("bounce.test"), domain("mail.test"));
        let here = Here { hostname: &hostname, addresses: &["192.0.2.1".parse().unwrap()] };
        judge(&Check::new("mail_from", Subject::domain(&name)), &name, &here, &mx, &hosts)
    }

    #[test]
    fn where_bounces_are_taken_they_must_come_back_to_this_server() {
        for (hosts, code) in [
            (vec![], "no_mx"),
            (vec![("mail.test", Looked::Missing)], "ok"),
            (vec![("alias.test", at("192.0.2.1"))], "ok"),
            (vec![("other.test", at("192.0.2.9"))], "elsewhere"),
            (vec![("other.test", Looked::Missing)], "elsewhere"),
            (vec![("other.test", Looked::Unknown("SERVFAIL".to_owned()))], "unknown"),
            (vec![("mail.test", Looked::Missing), ("other.test", at("192.0.2.9"))], "partly_elsewhere"),
        ] {
            let finding = judged(judge_own, hosts);
            assert_eq!(finding.code, code, "{finding:?}");
            let publish = matches!(code, "no_mx" | "elsewhere" | "partly_elsewhere");
            let line = "bounce.test. IN MX 10 mail.test.".to_owned();
            assert_eq!(finding.publish, if publish { vec![line] } else { vec![] });
        }
    }

    #[test]
    fn where_bounces_are_not_taken_another_host_must_collect_them_and_none_is_told_to_lead_here() {
        let unknown = || Looked::Unknown("SERVFAIL".to_owned());
        for (hosts, severity, code) in [
            (vec![], Severity::Error, "no_mx"),
            (vec![(".", Looked::Missing)], Severity::Error, "null_mx"),
            (vec![("other.test", Looked::Missing)], Severity::Error, "no_address"),
            (vec![("a.test", Looked::Missing), ("b.test", at("192.0.2.9"))], Severity::Warning, "no_address"),
            (vec![("a.test", unknown())], Severity::Warning, "unknown"),
            (vec![("a.test", unknown()), ("b.test", at("192.0.2.9"))], Severity::Note, "elsewhere"),
            (vec![("other.test", at("192.0.2.9"))], Severity::Note, "elsewhere"),
            (vec![("mail.test", at("192.0.2.9"))], Severity::Warning, "here"),
            (vec![("other.test", at("192.0.2.9")), ("alias.test", at("192.0.2.1"))], Severity::Warning, "here"),
        ] {
            let finding = judged(judge_collected, hosts);
            assert_eq!((finding.severity, finding.code), (severity, code), "{finding:?}");
            assert!(finding.publish.is_empty() && !finding.advice.contains("mail.test"), "{finding:?}");
            let proposes = finding.advice.contains("bounce.test. IN MX 10 HOST.");
            assert_eq!(proposes, matches!(code, "no_mx" | "null_mx" | "here"), "{finding:?}");
        }
    }

    #[test]
    fn a_sender_that_takes_no_mail_is_an_error() {
        let some = Looked::Found(vec!["192.0.2.9".parse().unwrap()]);
        for (hosts, addresses, code) in [
            (vec!["mx.test"], Looked::Missing, "ok"),
            (vec!["."], some.clone(), "null_mx"),
            (vec![], some, "no_mx"),
            (vec![], Looked::Missing, "no_mail"),
            (vec![], Looked::Unknown("timeout".to_owned()), "unknown"),
        ] {
            let name = domain("people.test");
            let check = Check::new("mail_from", Subject::domain(&name));
            assert_eq!(judge_other(&check, &name, &looked(&hosts), &addresses).code, code, "{hosts:?}");
        }
    }
}

//! Names of this host: the PTR record of each source leads to a name that leads back (RFC 8601 §2.7.3 "iprev", which
//! large providers demand), and the EHLO name (RFC 5321 §4.1.1.1) is a full name that leads to the sources.

use std::net::IpAddr;

use super::finding::{Check, Finding, Subject};
use super::world::{Looked, World};
use crate::cli::zone;
use crate::types::Domain;

/// PTR names whose addresses are asked for.
const NAMES_ASKED_MAX: usize = 4;
/// Ends of names that mean nothing outside a network (RFC 6762, RFC 8375 and habit).
const INNER_ENDS: [&str; 7] = [".local", ".localdomain", ".lan", ".internal", ".home", ".home.arpa", ".corp"];

/// A name and what its addresses are.
type Named = (Domain, Looked<IpAddr>);

pub(super) async fn check_source(world: &World, source: IpAddr, ehlo_name: &Domain) -> Vec<Finding> {
    let check = Check::new("ptr", Subject::source(source));
    let names = world.names(source).await;
    let mut named: Vec<Named> = Vec::new();
    for name in names.records().iter().take(NAMES_ASKED_MAX) {
        named.push((name.clone(), world.addresses(name).await));
    }
    let ehlo = world.addresses(ehlo_name).await;
    vec![judge_ptr(&check, source, ehlo_name, &names, &named, &ehlo)]
}

pub(super) async fn check_ehlo(world: &World, hostname: &Domain) -> Vec<Finding> {
    let check = Check::new("ehlo", Subject::host(hostname));
    if let Some(problem) = fault_of_name(hostname) {
        let seen = format!("{hostname} {problem}: receivers refuse such an EHLO name");
        let advice = "set hostname in the config to a name that is in public DNS and leads to this host";
        return vec![check.error("not_qualified", seen).advice(advice)];
    }
    let addresses = world.addresses(hostname).await;
    let sources = world.setup.sources_of(hostname);
    vec![judge_ehlo(&check, hostname, &sources, &addresses)]
}

fn fault_of_name(hostname: &Domain) -> Option<&'static str> {
    let name = hostname.as_str();
    let Some((_, last)) = name.rsplit_once('.') else { return Some("has no domain") };
    if last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("is no name");
    }
    INNER_ENDS.iter().any(|end| name.ends_with(end)).then_some("means nothing outside of your network")
}

fn judge_ptr(
    check: &Check,
    source: IpAddr,
    hostname: &Domain,
    names: &Looked<Domain>,
    named: &[Named],
    ehlo: &Looked<IpAddr>,
) -> Finding {
    let leads_back = |addresses: &Looked<IpAddr>| addresses.records().contains(&source);
    let mut healing = vec![zone::ptr(source, hostname)];
    if matches!(ehlo, Looked::Found(_) | Looked::Missing) && !leads_back(ehlo) {
        healing.push(zone::address(hostname, source));
    }
    let advice = "the PTR record is set by whoever gave you the address: ask your provider for it";
    let names = match names {
        Looked::Unknown(reason) => return check.unknown(reason),
        Looked::Missing => {
            let seen = format!("{source} has no PTR record: large providers refuse its mail");
            return check.error("missing", seen).advice(advice).publish(healing);
        }
        Looked::Found(names) => names,
    };
    let shown = names.iter().map(Domain::as_str).collect::<Vec<_>>().join(", ");
    if named.iter().any(|(name, addresses)| name == hostname && leads_back(addresses)) {
        return check.ok(format!("{shown}, and back"));
    }
    if named.iter().any(|(_, addresses)| leads_back(addresses)) {
        let seen = format!("{source} is {shown}, not the EHLO name {hostname}");
        return check.warning("differs", seen).advice(advice).publish(healing);
    }
    if named.iter().any(|(_, addresses)| matches!(addresses, Looked::Unknown(_))) {
        return check.unknown(format!("whether {shown} leads back to {source}"));
    }
    if names.contains(hostname) {
        healing.remove(0);
    }
    let seen = format!("{source} is {shown}, which does not lead back to it: large providers refuse its mail");
    check.error("unconfirmed", seen).advice("let the name of the PTR record lead to the address").publish(healing)
}

fn judge_ehlo(check: &Check, hostname: &Domain, sources: &[IpAddr], addresses: &Looked<IpAddr>) -> Finding {
    let line = |source: &IpAddr| zone::address(hostname, *source);
    let found = match addresses {
        Looked::Unknown(reason) => return check.unknown(reason),
        Looked::Missing => {
            let seen = format!("{hostname} has no address: receivers refuse an EHLO name that does not exist");
            let advice = "publish its addresses, or set hostname in the config to a name that exists";
            return check.error("unresolvable", seen).advice(advice).publish(sources.iter().map(line));
        }
        Looked::Found(found) => found,
    };
    let missing: Vec<&IpAddr> = sources.iter().filter(|source| !found.contains(source)).collect();
    let shown = found.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(", ");
    if missing.is_empty() {
        return check.ok(format!("leads to {shown}"));
    }
    let seen = format!("{hostname} leads to {shown}, not to every source");
    let advice = "publish these beside the addresses that are there";
    check.warning("other_address", seen).advice(advice).publish(missing.into_iter().map(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: &str = "192.0.2.1";

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn at(text: &str) -> Looked<IpAddr> {
        match text {
            "" => Looked::Missing,
            "?" => Looked::Unknown("SERVFAIL".to_owned()),
            _ => Looked::Found(vec![text.parse().unwrap()]),
        }
    }

    #[track_caller]
    fn expect_ptr(names: &[(&str, &str)], ehlo: &str, code: &str, publish: &[&str]) {
        let named: Vec<Named> = names.iter().map(|(name, address)| (domain(name), at(address))).collect();
        let names = match named.as_slice() {
            [] => Looked::Missing,
            _ => Looked::Found(named.iter().map(|(name, _)| name.clone()).collect()),
        };
        let source = SOURCE.parse().unwrap();
        let check = Check::new("ptr", Subject::source(source));
        let finding = judge_ptr(&check, source, &domain("mail.test"), &names, &named, &at(ehlo));
        assert_eq!(finding.code, code, "{}", finding.seen);
        assert_eq!(finding.publish, publish);
    }

    #[test]
    fn a_source_has_a_name_that_leads_back_and_is_the_ehlo_name() {
        let ptr = "1.2.0.192.in-addr.arpa. IN PTR mail.test.";
        let a = "mail.test. IN A 192.0.2.1";
        expect_ptr(&[("mail.test", SOURCE)], SOURCE, "ok", &[]);
        expect_ptr(&[("other.test", SOURCE), ("mail.test", SOURCE)], SOURCE, "ok", &[]);
        expect_ptr(&[], SOURCE, "missing", &[ptr]);
        expect_ptr(&[], "192.0.2.9", "missing", &[ptr, a]);
        expect_ptr(&[("mail.test", "192.0.2.9")], "192.0.2.9", "unconfirmed", &[a]);
        expect_ptr(&[("other.test", "")], SOURCE, "unconfirmed", &[ptr]);
        expect_ptr(&[("other.test", SOURCE)], SOURCE, "differs", &[ptr]);
        expect_ptr(&[("other.test", "?")], SOURCE, "unknown", &[]);
    }

    #[test]
    fn the_ehlo_name_leads_to_every_source() {
        let sources = [SOURCE.parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let both = ["mail.test. IN A 192.0.2.1", "mail.test. IN AAAA 2001:db8::1"];
        let host = domain("mail.test");
        let check = Check::new("ehlo", Subject::host(&host));
        for (addresses, code, publish) in [
            (at(""), "unresolvable", both.to_vec()),
            (at(SOURCE), "other_address", both[1..].to_vec()),
            (at("192.0.2.9"), "other_address", both.to_vec()),
            (Looked::Found(sources.to_vec()), "ok", vec![]),
            (at("?"), "unknown", vec![]),
        ] {
            let finding = judge_ehlo(&check, &host, &sources, &addresses);
            assert_eq!((finding.code, finding.publish.iter().map(String::as_str).collect()), (code, publish));
        }
    }

    #[test]
    fn a_name_of_the_inner_network_is_no_ehlo_name() {
        for (name, bad) in [
            ("mail.example.com", false),
            ("localhost", true),
            ("mail", true),
            ("mail.local", true),
            ("mx.corp.internal", true),
            ("192.0.2.1", true),
        ] {
            assert_eq!(fault_of_name(&domain(name)).is_some(), bad, "{name}");
        }
    }
}

//! Domains at MAIL FROM: where bounces come back. A domain of ours for bounces must lead to this server; any other must at
//! least take mail, since receivers refuse senders that cannot.

use std::net::IpAddr;

use super::finding::{Check, Finding, Subject};
use super::world::{Looked, World};
use crate::cli::zone;
use crate::net::Mx;
use crate::types::Domain;

/// MX hosts whose addresses are asked for. More are taken for not ours.
const HOSTS_ASKED_MAX: usize = 8;

/// A host and what its addresses are.
type Host = (Domain, Looked<IpAddr>);

pub(super) async fn check(world: &World, domain: &Domain, is_for_bounces: bool) -> Vec<Finding> {
    let check = Check::new("mail_from", Subject::domain(domain));
    let mx = world.mx(domain).await;
    if !is_for_bounces {
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
    vec![judge_own(&check, domain, &world.setup.hostname, &mx, &hosts, &ours)]
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

/// A domain for bounces: its MX hosts are this server.
fn judge_own(
    check: &Check,
    domain: &Domain,
    hostname: &Domain,
    mx: &Looked<Mx>,
    hosts: &[Host],
    ours: &[IpAddr],
) -> Finding {
    let publish = || [zone::mx(domain, hostname)];
    let records = match mx {
        Looked::Unknown(reason) => return check.unknown(reason),
        Looked::Missing => {
            let seen = format!("{domain} has no MX: bounces do not come back");
            return check.error("no_mx", seen).advice("publish an MX record to this server").publish(publish());
        }
        Looked::Found(records) => records,
    };
    let is_ours = |host: &Domain, addresses: &Looked<IpAddr>| {
        host == hostname || addresses.records().iter().any(|address| ours.contains(address))
    };
    let here = hosts.iter().filter(|(host, addresses)| is_ours(host, addresses)).count();
    let is_known = hosts.iter().all(|(_, addresses)| !matches!(addresses, Looked::Unknown(_)));
    let names = names(records);
    match here {
        0 if !is_known => check.unknown(format!("whether {names} is this server")),
        0 => {
            let seen = format!("the MX of {domain} is {names}, which is not this server: bounces go elsewhere");
            check
                .error("elsewhere", seen)
                .advice("publish this in place of the MX records that are there")
                .publish(publish())
        }
        _ if here < records.len() && is_known => {
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

    #[test]
    fn bounces_must_come_back_to_this_server() {
        let ours = ["192.0.2.1".parse().unwrap()];
        let at = |text: &str| Looked::Found(vec![text.parse::<IpAddr>().unwrap()]);
        for (hosts, code) in [
            (vec![], "no_mx"),
            (vec![("mail.test", Looked::Missing)], "ok"),
            (vec![("alias.test", at("192.0.2.1"))], "ok"),
            (vec![("other.test", at("192.0.2.9"))], "elsewhere"),
            (vec![("other.test", Looked::Missing)], "elsewhere"),
            (vec![("other.test", Looked::Unknown("SERVFAIL".to_owned()))], "unknown"),
            (vec![("mail.test", Looked::Missing), ("other.test", at("192.0.2.9"))], "partly_elsewhere"),
        ] {
            let names: Vec<&str> = hosts.iter().map(|(name, _)| *name).collect();
            let mx = looked(&names);
            let hosts: Vec<Host> = hosts.into_iter().map(|(name, addresses)| (domain(name), addresses)).collect();
            let name = domain("bounce.test");
            let check = Check::new("mail_from", Subject::domain(&name));
            let finding = judge_own(&check, &name, &domain("mail.test"), &mx, &hosts, &ours);
            assert_eq!(finding.code, code, "{hosts:?}");
            let publish = matches!(code, "no_mx" | "elsewhere" | "partly_elsewhere");
            let line = "bounce.test. IN MX 10 mail.test.".to_owned();
            assert_eq!(finding.publish, if publish { vec![line] } else { vec![] });
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

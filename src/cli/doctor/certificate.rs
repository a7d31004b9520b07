//! The certificates of listeners with TLS, as applications will see them.

use std::time::Duration;

use super::finding::{Check, Finding, Subject};
use super::setup::Listener;
use super::world::World;
use crate::net::certificate::{Examination, Issuer, Validity, examine};
use crate::types::{Domain, Timestamp};

/// A certificate that ends within this time should have been renewed by now.
const AHEAD: Duration = Duration::from_secs(14 * 86_400);

pub(super) fn check(world: &World, listener: &Listener) -> Vec<Finding> {
    let check = Check::new("certificate", Subject::listener(&listener.name));
    let setup = &world.setup;
    let now = world.clock.now();
    let found = examine(&listener.certificate, &listener.key, &listener.host, &setup.extra_roots_pem, now, AHEAD);
    match found {
        Ok(examination) => judge(&check, &listener.host, &examination, now),
        Err(error) => vec![check.error("unusable", error.to_string()).advice("name a chain and its key in the config")],
    }
}

fn judge(check: &Check, hostname: &Domain, found: &Examination, now: Timestamp) -> Vec<Finding> {
    let day = |time: Timestamp| time.to_iso8601().chars().take(10).collect::<String>();
    let mut findings = Vec::new();
    match found.validity {
        Validity::Good => {}
        Validity::EndsSoon(end) => {
            let days = end.since(now).as_secs() / 86_400;
            let seen = format!("ends on {}, in {days} days", day(end));
            findings.push(check.warning("ends_soon", seen).advice("renew it, then reload posthaste"));
        }
        Validity::Expired(end) => {
            let seen = format!("has expired on {}: applications cannot connect", day(end));
            findings.push(check.error("expired", seen).advice("renew it, then reload posthaste"));
        }
        Validity::NotYet(begin) => {
            let seen = format!("counts only from {} on: applications cannot connect", day(begin));
            findings.push(check.error("not_yet", seen).advice("see whether the clock of this host is right"));
        }
    }
    if !found.covers_name {
        let seen = format!("is not for {hostname}, the name in the greeting, or in links");
        let advice = "get one for the name that applications connect to; that is fine where it is another one";
        findings.push(check.warning("other_name", seen).advice(advice));
    }
    let advice = "get one of a public authority, or let applications trust it (then name the root with --ca)";
    match &found.issuer {
        Issuer::Known => {}
        Issuer::Itself => findings
            .push(check.warning("self_signed", "is self-signed: no application trusts it by itself").advice(advice)),
        Issuer::Unknown => {
            let seen = "is of no known authority, or intermediate certificates are missing in the file";
            findings.push(check.warning("unknown_issuer", seen).advice(advice));
        }
        Issuer::Broken(reason) => {
            findings.push(check.warning("not_verified", format!("cannot be verified: {reason}")).advice(advice));
        }
    }
    if findings.is_empty() {
        findings.push(check.ok(format!("is for {hostname}, and known")));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_flaw_of_a_certificate_has_its_finding() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let soon = now.plus(Duration::from_secs(3 * 86_400 + 60));
        let host = Domain::parse("mail.test").unwrap();
        let check = Check::new("certificate", Subject::listener("smtp"));
        for (validity, covers_name, issuer, codes) in [
            (Validity::Good, true, Issuer::Known, vec!["ok"]),
            (Validity::EndsSoon(soon), true, Issuer::Known, vec!["ends_soon"]),
            (Validity::Expired(now), true, Issuer::Known, vec!["expired"]),
            (Validity::NotYet(soon), true, Issuer::Known, vec!["not_yet"]),
            (Validity::Good, false, Issuer::Known, vec!["other_name"]),
            (Validity::Good, true, Issuer::Itself, vec!["self_signed"]),
            (Validity::Good, true, Issuer::Unknown, vec!["unknown_issuer"]),
            (Validity::Good, true, Issuer::Broken("x".to_owned()), vec!["not_verified"]),
            (Validity::Expired(now), false, Issuer::Itself, vec!["expired", "other_name", "self_signed"]),
        ] {
            let found = Examination { validity, covers_name, issuer };
            let findings = judge(&check, &host, &found, now);
            assert_eq!(findings.iter().map(|finding| finding.code).collect::<Vec<_>>(), codes, "{found:?}");
            if codes == ["ends_soon"] {
                assert_eq!(findings[0].seen, "ends on 2027-01-18, in 3 days");
            }
        }
    }
}

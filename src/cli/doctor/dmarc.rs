//! DMARC (RFC 7489): the policy of an identity's domain, and whether our signatures and MAIL FROM domains align with it.

use mail_auth::common::parse::TxtRecordParser;
use mail_auth::dmarc::Dmarc;

use super::finding::{Check, Finding, Subject};
use super::setup::Identity;
use super::world::{Looked, World};
use crate::cli::zone;
use crate::message::tags::Tags;
use crate::types::{Domain, EmailAddress};

pub(super) async fn check(world: &World, identity: &Identity) -> Vec<Finding> {
    let domain = &identity.signer.domain;
    let check = Check::new("dmarc", Subject::domain(domain));
    let own = world.texts_below("_dmarc", domain).await;
    let parent = organizational(domain);
    let (owner, looked) = match &own {
        Looked::Unknown(_) => (domain.clone(), own),
        _ if !records(&own).is_empty() || parent == *domain => (domain.clone(), own),
        _ => (parent.clone(), world.texts_below("_dmarc", &parent).await),
    };
    let mut findings = judge(&check, domain, &owner, &looked);
    let policy = match records(&looked).as_slice() {
        [record] => Tags::parse(record).ok(),
        _ => None,
    };
    findings.extend(policy.as_ref().and_then(|policy| judge_reports(&check, policy, &world.setup.dmarc_reports)));
    let signers: Vec<Domain> = identity.signer.keys.iter().map(|key| key.domain.clone()).collect();
    for mail_from in &identity.mail_from {
        let finding = judge_alignment(&check, domain, policy.as_ref(), &signers, &mail_from.domain);
        let is_one_of_several = identity.mail_from.len() > 1;
        findings.push(if is_one_of_several { finding.item(&mail_from.domain) } else { finding });
    }
    findings
}

fn records(looked: &Looked<String>) -> Vec<&str> {
    let is_dmarc = |text: &&str| text.get(..8).is_some_and(|version| version.eq_ignore_ascii_case("v=DMARC1"));
    looked.records().iter().map(String::as_str).filter(is_dmarc).collect()
}

/// The domain that its owner registered: one label below a public suffix (RFC 7489 §3.2). A name that is a public suffix, or
/// of a lab, is its own.
pub(super) fn organizational(domain: &Domain) -> Domain {
    psl::domain_str(domain.as_str()).and_then(|text| Domain::parse(text).ok()).unwrap_or_else(|| domain.clone())
}

/// What the record of `owner` means for mail from `domain`.
fn judge(check: &Check, domain: &Domain, owner: &Domain, looked: &Looked<String>) -> Vec<Finding> {
    let line = |text: &str| zone::txt(&format!("_dmarc.{owner}"), text);
    let usual = format!("v=DMARC1; p=none; rua=mailto:dmarc-reports@{owner}");
    if let Looked::Unknown(reason) = looked {
        return vec![check.unknown(reason)];
    }
    let record = match records(looked).as_slice() {
        [] => {
            let seen = format!(
                "neither {domain} nor the domain above it has a DMARC record: large providers refuse bulk mail"
            );
            let advice =
                "publish this record, with an address that takes reports; see them, then make the policy stricter";
            return vec![check.error("missing", seen).advice(advice).publish([line(&usual)])];
        }
        [record] => *record,
        several => {
            let seen = format!("_dmarc.{owner} has {} DMARC records: receivers ignore all of them", several.len());
            let first = several.iter().find(|record| fault_of(record).is_none()).copied().unwrap_or(&usual);
            return vec![check.error("several", seen).advice("keep one").publish([line(first)])];
        }
    };
    let tags = match (fault_of(record), Tags::parse(record)) {
        (None, Ok(tags)) => tags,
        (Some(problem), _) | (None, Err(problem)) => {
            let seen = format!("{problem}: {record}");
            let advice = "publish this record in place of what is there";
            return vec![check.error("malformed", seen).advice(advice).publish([line(&usual)])];
        }
    };
    let mut findings = judge_policy(check, domain, owner, record, &tags);
    if tags.get("rua").unwrap_or_default().is_empty() {
        let healed = tags.with("rua", &format!("mailto:dmarc-reports@{owner}")).to_string();
        let finding = check.warning("no_reports", format!("no rua=: nobody learns of mail that fails: {record}"));
        findings.push(finding.advice("name an address that takes reports").publish([line(&healed)]));
    }
    if findings.is_empty() {
        findings.push(check.ok(format!("_dmarc.{owner}: {record}")));
    }
    findings
}

/// `None`: receivers can read it.
fn fault_of(record: &str) -> Option<String> {
    let tags = match Tags::parse(record) {
        Ok(tags) => tags,
        Err(problem) => return Some(problem),
    };
    if tags.get("p").is_none() {
        return Some("has no p=".to_owned());
    }
    Dmarc::parse(record.as_bytes()).err().map(|_| "cannot be read".to_owned())
}

/// Which policy counts for `domain`, and whether it is one.
fn judge_policy(check: &Check, domain: &Domain, owner: &Domain, record: &str, tags: &Tags) -> Vec<Finding> {
    let name = if domain != owner && tags.get("sp").is_some() { "sp" } else { "p" };
    let policy = tags.get(name).unwrap_or_default();
    let line = |text: &str| zone::txt(&format!("_dmarc.{owner}"), text);
    if policy.eq_ignore_ascii_case("none") {
        let healed = tags.clone().with(name, "quarantine");
        let healed = if healed.get("rua").unwrap_or_default().is_empty() {
            healed.with("rua", &format!("mailto:dmarc-reports@{owner}"))
        } else {
            healed
        };
        let finding = check.warning("policy_none", format!("{name}=none protects {domain} from nobody: {record}"));
        let advice = "once the reports show that all your mail passes, publish a stricter policy";
        return vec![finding.advice(advice).publish([line(&healed.to_string())])];
    }
    if let Some(percent) = tags.get("pct")
        && percent != "100"
    {
        return vec![
            check.note("partial", format!("pct={percent}: the policy counts for a part of the mail: {record}")),
        ];
    }
    Vec::new()
}

/// Whether reports come to this server, where it waits for any.
fn judge_reports(check: &Check, policy: &Tags, own: &[EmailAddress]) -> Option<Finding> {
    let rua = policy.get("rua").filter(|rua| !rua.is_empty())?;
    let first = own.first()?;
    let is_own = |uri: &str| {
        let (scheme, address) = uri.trim().split_once(':').unwrap_or_default();
        let address = address.split_once('!').map_or(address, |(address, _)| address);
        let address = EmailAddress::parse(address, true).ok().filter(|_| scheme.eq_ignore_ascii_case("mailto"));
        address.is_some_and(|address| own.iter().any(|known| known.is_same_mailbox(&address)))
    };
    if rua.split(',').any(is_own) {
        return None;
    }
    let seen = format!("rua={rua} names no address of [feedback] dmarc_reports: reports do not come to this server");
    let advice = format!("add mailto:{} to rua, or remove it from the config", first.as_str());
    Some(check.note("reports_elsewhere", seen).advice(advice))
}

/// RFC 7489 §3.1: DMARC passes with a signature or a MAIL FROM domain that belongs to the From domain.
fn judge_alignment(
    check: &Check,
    domain: &Domain,
    policy: Option<&Tags>,
    signers: &[Domain],
    mail_from: &Domain,
) -> Finding {
    let is_strict =
        |tag: &str| policy.and_then(|tags| tags.get(tag)).is_some_and(|value| value.eq_ignore_ascii_case("s"));
    let aligns =
        |other: &Domain, strict: bool| other == domain || (!strict && organizational(other) == organizational(domain));
    let dkim = signers.iter().any(|signer| aligns(signer, is_strict("adkim")));
    let spf = aligns(mail_from, is_strict("aspf"));
    match (dkim, spf) {
        (true, true) => check.ok(format!("DKIM and MAIL FROM {mail_from} align with {domain}")),
        (true, false) => check.note(
            "spf_unaligned",
            format!("MAIL FROM {mail_from} does not align with {domain}: DMARC rests on DKIM alone"),
        ),
        (false, true) => {
            let seen = format!("only MAIL FROM {mail_from} aligns with {domain}: a forwarded message fails DMARC");
            check.warning("dkim_unaligned", seen).advice(sign_with(domain))
        }
        (false, false) => {
            let seen = format!("neither a signature nor MAIL FROM {mail_from} aligns with {domain}: DMARC fails");
            check.error("unaligned", seen).advice(sign_with(domain))
        }
    }
}

fn sign_with(domain: &Domain) -> String {
    format!("sign as {domain}: posthaste dkim generate --domain {domain}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    #[track_caller]
    fn expect(name: &str, owner: &str, records: &[&str], expected: &[(&str, &str)]) {
        let looked = match records {
            [] => Looked::Missing,
            _ => Looked::Found(records.iter().map(|record| (*record).to_owned()).collect()),
        };
        let check = Check::new("dmarc", Subject::domain(&domain(name)));
        let findings = judge(&check, &domain(name), &domain(owner), &looked);
        let found: Vec<(&str, String)> =
            findings.iter().map(|finding| (finding.code, finding.publish.concat())).collect();
        let expected: Vec<(&str, String)> = expected
            .iter()
            .map(|(code, text)| {
                (*code, if text.is_empty() { String::new() } else { zone::txt(&format!("_dmarc.{owner}"), text) })
            })
            .collect();
        assert_eq!(found, expected, "{records:?}");
    }

    #[test]
    fn each_fault_has_its_finding_and_its_record() {
        let usual = "v=DMARC1; p=none; rua=mailto:dmarc-reports@b.test";
        expect("b.test", "b.test", &["v=DMARC1; p=reject; rua=mailto:x@b.test"], &[("ok", "")]);
        expect("b.test", "b.test", &[], &[("missing", usual)]);
        expect("b.test", "b.test", &["hello"], &[("missing", usual)]);
        expect("b.test", "b.test", &["v=DMARC1; rua=mailto:x@b.test"], &[("malformed", usual)]);
        expect("b.test", "b.test", &["v=DMARC1; p=rejekt"], &[("malformed", usual)]);
        expect("b.test", "b.test", &["v=DMARC1 p=none"], &[("malformed", usual)]);
        expect("b.test", "b.test", &["v=DMARC1; p=reject; adkim=x"], &[("malformed", usual)]);
        let two = ["v=DMARC1; p=rejekt", "v=DMARC1; p=reject; rua=mailto:x@b.test"];
        expect("b.test", "b.test", &two, &[("several", "v=DMARC1; p=reject; rua=mailto:x@b.test")]);
        let healed = "v=DMARC1; p=reject; rua=mailto:dmarc-reports@b.test";
        expect("b.test", "b.test", &["v=DMARC1; p=reject"], &[("no_reports", healed)]);
        let healed = "v=DMARC1; p=quarantine; rua=mailto:x@b.test";
        expect("b.test", "b.test", &["v=DMARC1; p=none; rua=mailto:x@b.test"], &[("policy_none", healed)]);
        expect("b.test", "b.test", &["v=DMARC1; p=reject; pct=5; rua=mailto:x@b.test"], &[("partial", "")]);
    }

    #[test]
    fn a_subdomain_falls_under_sp_of_the_domain_above() {
        let record = "v=DMARC1; p=reject; sp=none; rua=mailto:x@b.test";
        expect("b.test", "b.test", &[record], &[("ok", "")]);
        let healed = "v=DMARC1; p=reject; sp=quarantine; rua=mailto:x@b.test";
        expect("news.b.test", "b.test", &[record], &[("policy_none", healed)]);
        expect("news.b.test", "b.test", &["v=DMARC1; p=reject; rua=mailto:x@b.test"], &[("ok", "")]);
    }

    #[test]
    fn a_record_whose_reports_go_to_others_only_is_told_of_where_this_server_takes_any() {
        let own = [EmailAddress::parse("dmarc@op.test", true).unwrap()];
        let check = Check::new("dmarc", Subject::domain(&domain("b.test")));
        for (rua, is_told) in [
            ("rua=mailto:dmarc@op.test", false),
            ("rua=mailto:x@b.test , MAILTO:DMARC@op.test!1m", false),
            ("rua=mailto:x@b.test", true),
            ("rua=https://op.test/dmarc@op.test", true),
            ("rua=dmarc@op.test", true),
            ("rua=", false),
            ("sp=none", false),
        ] {
            let policy = Tags::parse(&format!("v=DMARC1; p=none; {rua}")).unwrap();
            let found = judge_reports(&check, &policy, &own);
            assert_eq!(found.map(|finding| finding.code), is_told.then_some("reports_elsewhere"), "{rua}");
            assert!(judge_reports(&check, &policy, &[]).is_none(), "nothing is waited for");
        }
    }

    #[test]
    fn the_organizational_domain_is_one_label_below_a_public_suffix() {
        for (name, expected) in [
            ("example.com", "example.com"),
            ("a.b.example.com", "example.com"),
            ("news.shop.co.uk", "shop.co.uk"),
            ("co.uk", "co.uk"),
            ("localhost", "localhost"),
            ("a.b.test", "b.test"),
        ] {
            assert_eq!(organizational(&domain(name)).as_str(), expected);
        }
    }

    #[test]
    fn alignment_is_by_organization_unless_the_policy_is_strict() {
        for (policy, signers, mail_from, code) in [
            ("v=DMARC1; p=none", vec!["shop.co.uk"], "bounce.shop.co.uk", "ok"),
            ("v=DMARC1; p=none; aspf=s", vec!["shop.co.uk"], "bounce.shop.co.uk", "spf_unaligned"),
            ("v=DMARC1; p=none; adkim=s; aspf=s", vec!["news.shop.co.uk"], "bounce.shop.co.uk", "unaligned"),
            ("v=DMARC1; p=none; adkim=s", vec!["news.shop.co.uk", "shop.co.uk"], "x.test", "spf_unaligned"),
            ("v=DMARC1; p=none", vec!["other.co.uk"], "third.co.uk", "unaligned"),
            ("v=DMARC1; p=none", vec![], "bounce.shop.co.uk", "dkim_unaligned"),
            ("v=DMARC1; p=none", vec![], "bounces.esp.test", "unaligned"),
        ] {
            let signers: Vec<Domain> = signers.into_iter().map(domain).collect();
            let name = domain("shop.co.uk");
            let check = Check::new("dmarc", Subject::domain(&name));
            let policy = Tags::parse(policy).unwrap();
            let finding = judge_alignment(&check, &name, Some(&policy), &signers, &domain(mail_from));
            assert_eq!(finding.code, code, "{policy} {signers:?} {mail_from}");
        }
    }
}

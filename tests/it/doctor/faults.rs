//! One fault at a time: its finding, its exit code, and what heals it.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::clinic::{Clinic, DOMAIN, HOST, key_record, set_mode};
use crate::harness::{Answer, Certificate, Stage};

/// Rounds of publishing until nothing is left: the worst takes two, as a new DMARC record begins with p=none.
const ROUNDS_MAX: usize = 3;

/// What a broken setup must be told.
struct Expected {
    check: &'static str,
    code: &'static str,
    exit: i32,
    /// Publishing what is printed leaves nothing to do.
    heals: bool,
}

const fn heals(check: &'static str, code: &'static str, exit: i32) -> Expected {
    Expected { check, code, exit, heals: true }
}

const fn stays(check: &'static str, code: &'static str, exit: i32) -> Expected {
    Expected { check, code, exit, heals: false }
}

#[track_caller]
fn check(breaks: impl FnOnce(&mut Clinic), expected: &Expected) {
    let mut clinic = Clinic::new();
    breaks(&mut clinic);
    let report = clinic.doctor();
    let Expected { check, code, exit, heals } = *expected;
    let finding = report.finding(check, code).unwrap_or_else(|| panic!("{check} {code}: {}", report.text()));
    assert_eq!(report.code, exit, "{check} {code}: {}", report.text());
    assert!(!finding["advice"].as_str().unwrap().is_empty(), "{finding}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DOCTOR.md")).unwrap();
    assert!(page.contains(&format!("\n| `{check}` | `{code}` | ")), "docs/DOCTOR.md has no row of {check} {code}");
    if !heals {
        return;
    }
    assert!(!finding["publish"].as_array().unwrap().is_empty(), "{finding}");
    let mut report = report;
    for round in 0..ROUNDS_MAX {
        let lines: Vec<Value> =
            report.findings().iter().flat_map(|finding| finding["publish"].as_array().unwrap().clone()).collect();
        lines.iter().for_each(|line| clinic.publish(line.as_str().unwrap()));
        report = clinic.doctor();
        assert!(round > 0 || report.finding(check, code).is_none(), "{check} {code}: {lines:?}: {}", report.text());
        if report.code == 0 {
            return;
        }
    }
    panic!("{check} {code} is not healed: {}", report.text());
}

fn replace_txt(clinic: &Clinic, name: &str, beginning: &str, records: &[&str]) {
    clinic.lab.dns.remove_txt(name, beginning);
    for record in records {
        let (first, rest) = record.split_at(record.len().min(255));
        let strings = if rest.is_empty() { vec![first] } else { vec![first, rest] };
        clinic.lab.dns.txt(name, &strings);
    }
}

fn dkim_fault(records: &[&str], code: &'static str, exit: i32) {
    let breaks = |clinic: &mut Clinic| replace_txt(clinic, &format!("ph2._domainkey.{DOMAIN}"), "", records);
    check(breaks, &heals("dkim", code, exit));
}

#[test]
fn faults_of_dkim_records() {
    let right = key_record("ed25519");
    dkim_fault(&[], "missing", 2);
    dkim_fault(&[&right.replace("; p=", "; p=AAAA")], "key_differs", 2);
    dkim_fault(&["v=DKIM1; k=ed25519; p="], "revoked", 2);
    dkim_fault(&[&right.replace("; p=", "; t=y; p=")], "testing", 1);
    dkim_fault(&[&key_record("rsa2048")], "algorithm", 2);
    dkim_fault(&[&right.replace("; p=", "; h=sha1; p=")], "hash", 2);
    dkim_fault(&[&right, &right], "several", 2);
    dkim_fault(&["v=DKIM1, k=ed25519"], "malformed", 2);
}

#[test]
fn faults_of_keys() {
    check(
        |clinic| {
            clinic.write(
                &clinic
                    .config()
                    .without_tables("dkim")
                    .table(&clinic.key_table("esp.test", "ph1", "ed25519", "current")),
            )
        },
        &stays("dkim", "no_key", 2),
    );
    let only_next = |clinic: &mut Clinic| {
        let keys = [("esp.test", "ph1", "current"), (DOMAIN, "ph9", "next")];
        let tables = keys.map(|(domain, selector, state)| clinic.key_table(domain, selector, "ed25519", state));
        clinic.write(&tables.iter().fold(clinic.config().without_tables("dkim"), |config, table| config.table(table)));
    };
    check(only_next, &stays("dkim", "no_current_key", 2));
    let published = |clinic: &mut Clinic| {
        only_next(clinic);
        clinic.lab.dns.txt(&format!("ph9._domainkey.{DOMAIN}"), &[&key_record("ed25519")]);
        clinic.lab.dns.remove_txt(DOMAIN, "v=spf1");
    };
    // The other fault alone is left.
    check(published, &heals("spf", "missing", 2));
    check(
        |clinic| set_mode(&clinic.lab.dir().join(format!("{DOMAIN}.ph1.pem")), 0o640),
        &stays("dkim", "key_exposed", 1),
    );
    check(|clinic| clinic.lab.dns.remove("ph1._domainkey.esp.test"), &heals("dkim", "missing", 2));
}

#[test]
fn a_next_key_waits_for_its_record_without_a_warning() {
    let clinic = Clinic::new();
    clinic.write(&clinic.config().table(&clinic.key_table(DOMAIN, "ph3", "rsa2048-pkcs1", "next")));
    let report = clinic.doctor();
    let finding = report.finding("dkim", "next_not_visible").unwrap_or_else(|| panic!("{}", report.text()));
    assert_eq!((finding["severity"].as_str(), report.code), (Some("note"), 0));
    clinic.publish(finding["publish"][0].as_str().unwrap());
    let report = clinic.doctor();
    assert_eq!(report.code, 0, "{}", report.text());
    let is_ready = |finding: &&Value| finding["item"] == "ph3" && finding["severity"] == "ok";
    assert!(report.findings().iter().any(|finding| is_ready(&finding)), "{}", report.text());
}

fn spf_fault(records: &[&str], expected: &Expected) {
    check(|clinic| replace_txt(clinic, DOMAIN, "v=spf1", records), expected);
}

#[test]
fn faults_of_spf_records() {
    spf_fault(&[], &heals("spf", "missing", 2));
    spf_fault(&["v=spf1 ip4:192.0.2.1 -all"], &heals("spf", "fail", 2));
    spf_fault(&["v=spf1 ~all"], &heals("spf", "softfail", 2));
    spf_fault(&["v=spf1 ip4:192.0.2.1"], &heals("spf", "neutral", 2));
    spf_fault(&["v=spf1 mx -all", "v=spf1 a -all"], &heals("spf", "several", 2));
    spf_fault(&["v=spf1 ipv4:192.0.2.1 -all"], &heals("spf", "permerror", 2));
    spf_fault(&["v=spf1 +all"], &heals("spf", "open", 1));
    spf_fault(&["v=spf1 include:nowhere.test -all"], &stays("spf", "permerror", 2));
    check(|clinic| replace_txt(clinic, HOST, "v=spf1", &[]), &heals("spf", "missing", 1));
}

#[test]
fn eleven_lookups_are_one_too_many() {
    let names: Vec<String> = (0..11).map(|number| format!("a:a{number}.test")).collect();
    let breaks = |clinic: &mut Clinic| {
        let record = format!("v=spf1 {} ip4:{} -all", names.join(" "), clinic.source);
        names.iter().for_each(|name| clinic.lab.dns.a(name.trim_start_matches("a:"), "192.0.2.7".parse().unwrap()));
        replace_txt(clinic, DOMAIN, "v=spf1", &[&record]);
    };
    check(breaks, &stays("spf", "permerror", 2));
    let mut clinic = Clinic::new();
    breaks(&mut clinic);
    let report = clinic.doctor();
    let finding = report.finding("spf", "permerror").unwrap();
    assert!(finding["seen"].as_str().unwrap().contains("11 lookups"), "{finding}");
    clinic.publish(finding["publish"][0].as_str().unwrap());
    // Our mail passes, as its address comes first now. What others count is still to be mended by hand.
    let report = clinic.doctor();
    assert!(report.finding("spf", "permerror").is_none(), "{}", report.text());
    assert!(report.finding("spf", "lookups").is_some(), "{}", report.text());
    assert_eq!(report.code, 1);
}

#[test]
fn ten_lookups_are_not_too_many_and_those_of_includes_count() {
    for (below, exit) in [(9, 0), (10, 1)] {
        let clinic = Clinic::new();
        let names: Vec<String> = (0..below).map(|number| format!("a:a{number}.test")).collect();
        clinic.lab.dns.txt("spf.test", &[&format!("v=spf1 {} -all", names.join(" "))]);
        let record = format!("v=spf1 ip4:{} include:spf.test -all", clinic.source);
        replace_txt(&clinic, DOMAIN, "v=spf1", &[&record]);
        let report = clinic.doctor();
        assert_eq!(report.code, exit, "{below}: {}", report.text());
        assert_eq!(report.finding("spf", "lookups").is_some(), exit == 1, "{below}: {}", report.text());
    }
}

fn dmarc_fault(records: &[&str], expected: &Expected) {
    check(|clinic| replace_txt(clinic, &format!("_dmarc.{DOMAIN}"), "", records), expected);
}

#[test]
fn faults_of_dmarc_records() {
    dmarc_fault(&[], &heals("dmarc", "missing", 2));
    dmarc_fault(&["v=DMARC1; p=none; rua=mailto:dmarc@shop.test"], &heals("dmarc", "policy_none", 1));
    dmarc_fault(&["v=DMARC1; p=reject"], &heals("dmarc", "no_reports", 1));
    dmarc_fault(&["v=DMARC1; p=rejekt"], &heals("dmarc", "malformed", 2));
    let two = ["v=DMARC1; p=reject; rua=mailto:dmarc@shop.test", "v=DMARC1; p=none"];
    dmarc_fault(&two, &heals("dmarc", "several", 2));
}

#[test]
fn a_signature_of_the_domain_above_does_not_align_where_alignment_is_strict() {
    let breaks = |clinic: &mut Clinic| {
        clinic.options = vec!["--identity".to_owned(), format!("news.{DOMAIN}")];
        let dns = &clinic.lab.dns;
        dns.txt(&format!("news.{DOMAIN}"), &[&format!("v=spf1 ip4:{} -all", clinic.source)]);
        dns.mx(&format!("news.{DOMAIN}"), &[(10, "mx4.shop.test")]);
        dns.txt(&format!("_dmarc.news.{DOMAIN}"), &["v=DMARC1; p=reject; adkim=s; rua=mailto:dmarc@shop.test"]);
    };
    check(breaks, &stays("dmarc", "dkim_unaligned", 1));
}

#[test]
fn faults_of_names() {
    check(|clinic| clinic.lab.dns.remove(&crate::harness::reverse_name(clinic.source)), &heals("ptr", "missing", 2));
    let elsewhere = |clinic: &mut Clinic| {
        clinic.lab.dns.remove(&crate::harness::reverse_name(clinic.source));
        clinic.lab.dns.ptr(clinic.source, "pool-9.provider.test");
    };
    check(elsewhere, &heals("ptr", "unconfirmed", 2));
    let other_name = |clinic: &mut Clinic| {
        elsewhere(clinic);
        clinic.lab.dns.a("pool-9.provider.test", clinic.source);
    };
    check(other_name, &heals("ptr", "differs", 1));
    let without_address = |clinic: &mut Clinic| {
        let dns = &clinic.lab.dns;
        dns.remove(HOST);
        dns.txt(HOST, &[&format!("v=spf1 ip4:{} -all", clinic.source)]);
    };
    check(without_address, &heals("ehlo", "unresolvable", 2));
    let other_address = |clinic: &mut Clinic| {
        without_address(clinic);
        clinic.lab.dns.a(HOST, clinic.lab.ip(77));
    };
    check(other_address, &heals("ehlo", "other_address", 2));
    check(
        |clinic| clinic.write(&clinic.config().set("hostname", "\"mail.internal\"")),
        &stays("ehlo", "not_qualified", 2),
    );
}

#[test]
fn faults_of_the_senders_domain() {
    let without_mx = |clinic: &mut Clinic| clinic.lab.dns.mx(DOMAIN, &[]);
    check(without_mx, &stays("mail_from", "no_mail", 2));
    check(|clinic| clinic.lab.dns.mx(DOMAIN, &[(0, ".")]), &stays("mail_from", "null_mx", 2));
}

const BOUNCE: &str = "bounce.shop.test";

/// Gives the identity a domain for bounces, with all that belongs to it.
fn with_mail_from(clinic: &Clinic) {
    let identity = format!("[[identity]]\nname = \"{DOMAIN}\"\ntenant = \"shop\"\nmail_from = \"{BOUNCE}\"\n");
    clinic.write(&clinic.config().without_tables("identity").table(&identity));
    clinic.lab.dns.mx(BOUNCE, &[(10, "mx4.shop.test")]);
    clinic.lab.dns.txt(BOUNCE, &[&format!("v=spf1 ip4:{} -all", clinic.source)]);
}

#[test]
fn a_domain_for_bounces_is_looked_at_in_place_of_the_senders() {
    let clinic = Clinic::new();
    with_mail_from(&clinic);
    // What stands there is of no matter now.
    clinic.lab.dns.remove(DOMAIN);
    let report = clinic.doctor();
    assert_eq!(report.code, 0, "{}", report.text());
    let finding = report.finding("mail_from", "elsewhere").unwrap_or_else(|| panic!("{}", report.text()));
    assert_eq!((finding["subject"]["name"].as_str(), finding["severity"].as_str()), (Some(BOUNCE), Some("note")));
    // Posthaste refuses this mail, so nothing may lead an administrator to send it here.
    assert!(finding["seen"].as_str().unwrap().contains("mx4.shop.test, which must collect them"), "{finding}");
    assert_eq!((&finding["advice"], &finding["publish"]), (&json!(""), &json!([])));
}

#[test]
fn an_address_with_a_domain_for_bounces_of_its_own_is_looked_at_too() {
    let mut clinic = Clinic::new();
    with_mail_from(&clinic);
    let ann = format!("[[identity]]\nname = \"ann@{DOMAIN}\"\ntenant = \"shop\"\nmail_from = \"ann.{DOMAIN}\"\n");
    let config = std::fs::read_to_string(clinic.lab.dir().join("config.toml")).unwrap();
    std::fs::write(clinic.lab.dir().join("config.toml"), format!("{config}\n{ann}")).unwrap();
    let name = format!("ann.{DOMAIN}");
    let report = clinic.doctor();
    let codes = |check: &str, name: &str| -> Vec<String> {
        let of_name = |finding: &&Value| finding["check"] == check && finding["subject"]["name"] == name;
        let found = report.findings().iter().filter(of_name);
        found.map(|finding| finding["code"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(
        (codes("mail_from", &name), codes("spf", &name)),
        (vec!["no_mx".to_owned()], vec!["missing".to_owned()])
    );
    assert_eq!(codes("mail_from", BOUNCE), ["elsewhere"], "that of the domain is looked at all the same");
    let aligned = report.findings().iter().filter(|finding| finding["check"] == "dmarc" && finding["item"].is_string());
    let aligned: Vec<&str> = aligned.filter_map(|finding| finding["item"].as_str()).collect();
    assert_eq!(aligned, [name.as_str(), BOUNCE]);
    clinic.options = vec!["--identity".to_owned(), DOMAIN.to_owned()];
    assert!(clinic.doctor().findings().iter().any(|finding| finding["subject"]["name"] == *name));
}

#[test]
fn faults_of_a_domain_for_bounces() {
    let with_mx = |clinic: &mut Clinic, hosts: &[(u16, &str)]| {
        with_mail_from(clinic);
        clinic.lab.dns.mx(BOUNCE, hosts);
    };
    check(|clinic| with_mx(clinic, &[]), &stays("mail_from", "no_mx", 2));
    check(|clinic| with_mx(clinic, &[(0, ".")]), &stays("mail_from", "null_mx", 2));
    check(|clinic| with_mx(clinic, &[(10, "gone.shop.test")]), &stays("mail_from", "no_address", 2));
    let one_gone = [(10, "mx4.shop.test"), (20, "gone.shop.test")];
    check(|clinic| with_mx(clinic, &one_gone), &stays("mail_from", "no_address", 1));
    check(|clinic| with_mx(clinic, &[(10, HOST)]), &stays("mail_from", "here", 1));
    let without_spf = |clinic: &mut Clinic| {
        with_mail_from(clinic);
        clinic.lab.dns.remove_txt(BOUNCE, "v=spf1");
    };
    check(without_spf, &heals("spf", "missing", 2));
}

#[test]
fn bounces_to_the_operators_domain_leave_dmarc_to_the_signature() {
    let operators = |clinic: &mut Clinic| {
        clinic.write(&clinic.config().set("return_path.domain", "\"bounces.esp.test\""));
        clinic.lab.dns.mx("bounces.esp.test", &[(10, "mx4.shop.test")]);
        clinic.lab.dns.txt("bounces.esp.test", &[&format!("v=spf1 ip4:{} -all", clinic.source)]);
    };
    let mut clinic = Clinic::new();
    operators(&mut clinic);
    let report = clinic.doctor();
    assert_eq!(report.finding("dmarc", "spf_unaligned").unwrap()["severity"], "note");
    assert_eq!(report.code, 0, "{}", report.text());
    let strict = |clinic: &mut Clinic| {
        operators(clinic);
        clinic.options = vec!["--identity".to_owned(), format!("news.{DOMAIN}")];
        let policy = "v=DMARC1; p=reject; adkim=s; rua=mailto:dmarc@shop.test";
        clinic.lab.dns.txt(&format!("_dmarc.news.{DOMAIN}"), &[policy]);
    };
    check(strict, &stays("dmarc", "unaligned", 2));
}

#[test]
fn faults_of_certificates() {
    check(|clinic| clinic.trust(&Certificate::expired(HOST)), &stays("certificate", "expired", 2));
    check(|clinic| clinic.trust(&Certificate::for_name("other.test")), &stays("certificate", "other_name", 1));
    check(
        |clinic| std::fs::write(clinic.lab.dir().join("ca.pem"), "").unwrap(),
        &stays("certificate", "self_signed", 1),
    );
}

#[test]
fn faults_of_the_clock() {
    for (ahead_seconds, code, exit) in [(10, "off", 1), (-10, "off", 1), (-900, "far_off", 2)] {
        check(|clinic| clinic.time.ahead_seconds.store(ahead_seconds, Ordering::Relaxed), &stays("clock", code, exit));
    }
}

#[test]
fn a_time_server_that_does_not_answer_is_a_note() {
    let clinic = Clinic::new();
    let nobody = format!("{}:{}", clinic.lab.ip(8), clinic.lab.port());
    let report = clinic.doctor_with(&["--time-server", &nobody]);
    assert_eq!(report.finding("clock", "no_answer").unwrap()["severity"], "note");
    assert_eq!(report.code, 0, "{}", report.text());
}

#[test]
fn where_a_smart_host_takes_all_mail_no_other_host_is_asked() {
    let mut clinic = Clinic::new();
    clinic.mx = None;
    clinic.write(&clinic.config().table("[[route]]\ndomains = [\"*\"]\nhost = \"192.0.2.25\"\n"));
    let report = clinic.doctor();
    assert!(report.finding("port25", "routed").is_some(), "{}", report.text());
    assert_eq!(report.code, 0, "{}", report.text());
}

#[test]
fn faults_of_the_way_out() {
    check(|clinic| drop(clinic.mx.take()), &stays("port25", "shut", 2));
    let one_shut = |clinic: &mut Clinic| {
        clinic.lab.domain("closed.test", &[5]);
        clinic.options = ["--probe", "probe.test", "--probe", "closed.test"].map(str::to_owned).to_vec();
    };
    check(one_shut, &stays("port25", "partly_shut", 1));
    let blocked = |clinic: &mut Clinic| {
        clinic.mx = None;
        clinic.mx = Some(clinic.lab.mx_scripted(6, |ask| match ask.stage {
            Stage::Connect => Answer::SayAndClose("554 5.7.1 your address is on our block list".to_owned()),
            _ => Answer::Usual,
        }));
        clinic.lab.domain("probe.test", &[6]);
    };
    check(blocked, &stays("port25", "refused", 1));
}

//! `posthaste doctor` against a small internet of its own: a DNS server, mail hosts, a time server. A setup without a fault
//! is told good; each single fault has its finding and exit code, and where DNS can heal it, publishing exactly the printed
//! lines does.

mod clinic;
mod faults;

use std::process::Command;

use clinic::{Clinic, DOMAIN, HOST};
use serde_json::Value;

use crate::harness::DnsMode;

#[test]
fn a_setup_without_a_fault_is_told_good() {
    let clinic = Clinic::new();
    let report = clinic.doctor();
    assert_eq!(report.code, 0, "{}", report.text());
    assert_eq!(report.json["summary"]["errors"], 0);
    assert_eq!(report.json["summary"]["warnings"], 0);
    for (check, subject) in [
        ("source", clinic.source.to_string()),
        ("ptr", clinic.source.to_string()),
        ("port25", clinic.source.to_string()),
        ("ehlo", HOST.to_owned()),
        ("spf", HOST.to_owned()),
        ("clock", HOST.to_owned()),
        ("certificate", "smtp".to_owned()),
        ("dkim", DOMAIN.to_owned()),
        ("dkim", "esp.test".to_owned()),
        ("spf", DOMAIN.to_owned()),
        ("dmarc", DOMAIN.to_owned()),
        ("mail_from", DOMAIN.to_owned()),
    ] {
        let about = |finding: &&Value| finding["check"] == check && finding["subject"]["name"] == *subject;
        let findings: Vec<&Value> = report.findings().iter().filter(about).collect();
        assert!(!findings.is_empty(), "nothing of {check} on {subject}: {}", report.text());
        assert!(findings.iter().all(|finding| finding["severity"] == "ok"), "{findings:#?}");
    }
}

#[test]
fn the_json_is_as_its_page_says() {
    let clinic = Clinic::new();
    clinic.lab.dns.remove_txt(DOMAIN, "v=spf1");
    let report = clinic.doctor();
    let object = report.json.as_object().unwrap();
    assert_eq!(object.keys().collect::<Vec<_>>(), ["findings", "summary"]);
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/DOCTOR.md")).unwrap();
    let mut counts = std::collections::BTreeMap::new();
    for finding in report.findings() {
        let severity = finding["severity"].as_str().unwrap();
        *counts.entry(severity).or_insert(0) += 1;
        let subject = &finding["subject"];
        assert!(["host", "source", "listener", "domain"].contains(&subject["kind"].as_str().unwrap()), "{finding}");
        assert!(!subject["name"].as_str().unwrap().is_empty(), "{finding}");
        assert!(!finding["seen"].as_str().unwrap().is_empty(), "{finding}");
        assert!(finding["publish"].as_array().unwrap().iter().all(Value::is_string), "{finding}");
        assert!(matches!(severity, "ok" | "note") || !finding["advice"].as_str().unwrap().is_empty(), "{finding}");
        let check = finding["check"].as_str().unwrap();
        assert!(page.contains(&format!("| `{check}` |")), "docs/DOCTOR.md has no row of {check}");
    }
    let count = |name: &str| report.json["summary"][name].as_u64().unwrap();
    assert_eq!(counts.get("error").copied().unwrap_or_default(), count("errors"));
    assert_eq!(counts.get("ok").copied().unwrap_or_default(), count("ok"));
    assert_eq!(count("errors"), 1, "{}", report.text());
}

#[test]
fn the_text_has_the_record_to_publish_under_its_finding() {
    let clinic = Clinic::new();
    clinic.lab.dns.remove_txt(DOMAIN, "v=spf1");
    let output = clinic.command(&[]).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let line = format!("{DOMAIN}. IN TXT \"v=spf1 ip4:{} -all\"", clinic.source);
    let fault = text.find("has no SPF record").unwrap_or_else(|| panic!("{text}"));
    let record = text.find(&line).unwrap_or_else(|| panic!("{text}"));
    assert!(fault < record, "{text}");
    assert!(text.trim_end().ends_with("ok"), "{text}");
    assert!(text.contains("\n1 error, 0 warnings, 0 notes, "), "{text}");
}

#[test]
fn dns_that_is_down_makes_everything_unknown_and_nothing_missing() {
    let clinic = Clinic::new();
    for zone in ["test", "arpa"] {
        clinic.lab.dns.set_mode(zone, DnsMode::ServFail);
    }
    let report = clinic.doctor();
    assert_eq!(report.code, 1, "{}", report.text());
    for check in ["dkim", "spf", "dmarc", "mail_from", "ptr", "ehlo", "port25"] {
        let of_check = |finding: &&Value| finding["check"] == check;
        let codes: Vec<&str> =
            report.findings().iter().filter(of_check).filter_map(|finding| finding["code"].as_str()).collect();
        assert!(codes.contains(&"unknown"), "{check}: {codes:?}");
        assert!(!codes.contains(&"missing"), "{check}: {codes:?}");
    }
}

#[test]
fn what_has_no_answer_in_time_is_unknown_and_the_end_comes_in_time() {
    let clinic = Clinic::new();
    clinic.lab.dns.set_mode("probe.test", DnsMode::Silent);
    let report = clinic.doctor_with(&["--timeout", "1"]);
    let finding = report.finding("port25", "unknown").unwrap_or_else(|| panic!("{}", report.text()));
    assert!(finding["seen"].as_str().unwrap().contains("within the 1 s"), "{finding}");
    assert_eq!(report.code, 1);
}

#[test]
fn records_of_others_cannot_move_the_cursor() {
    let clinic = Clinic::new();
    clinic.lab.dns.remove_txt(DOMAIN, "v=spf1");
    clinic.lab.dns.txt(DOMAIN, &["v=spf1 \u{1b}[2J -all"]);
    clinic.lab.dns.remove(&format!("_dmarc.{DOMAIN}"));
    clinic.lab.dns.txt(&format!("_dmarc.{DOMAIN}"), &["v=DMARC1; p=\u{1b}]0;x\u{7}"]);
    for arguments in [&[][..], &["--json"]] {
        let output = clinic.command(arguments).output().unwrap();
        let bad: Vec<&u8> = output.stdout.iter().filter(|byte| **byte < b' ' && **byte != b'\n').collect();
        assert!(bad.is_empty(), "{bad:?}: {}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(output.status.code(), Some(2));
    }
}

#[test]
fn a_config_that_cannot_be_used_is_no_finding() {
    let clinic = Clinic::new();
    for arguments in [vec!["--config", "/nonexistent/config.toml"], vec!["--ca", "/nonexistent/ca.pem"]] {
        let output = clinic.command(&arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(3), "{arguments:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(text.contains("/nonexistent/"), "{text}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn one_identity_is_looked_at_where_one_is_named() {
    let clinic = Clinic::new();
    let report = clinic.doctor_with(&["--identity", "stranger.test"]);
    let domains: Vec<&Value> =
        report.findings().iter().filter(|finding| finding["subject"]["kind"] == "domain").collect();
    let about = |name: &str| domains.iter().any(|finding| finding["subject"]["name"] == name);
    assert!(about("stranger.test") && !about(DOMAIN), "{}", report.text());
    let finding = report.finding("dkim", "no_key").unwrap();
    assert_eq!(finding["advice"], "run: posthaste dkim generate --domain stranger.test");
    assert_eq!(report.code, 2);
}

#[test]
fn a_private_source_is_told_and_mail_goes_out_by_it() {
    let mut clinic = Clinic::new();
    clinic.write(&clinic.config().set("delivery.allow_private_addresses", "false"));
    clinic.names_source = false;
    let report = clinic.doctor();
    let finding = report.finding("source", "private").unwrap_or_else(|| panic!("{}", report.text()));
    assert_eq!(finding["subject"]["name"], clinic.lab.ip(9).to_string());
    assert!(report.findings().iter().all(|finding| finding["check"] != "ptr"), "{}", report.text());
    let is_open = |finding: &Value| finding["check"] == "port25" && finding["severity"] == "ok";
    assert!(report.findings().iter().any(is_open), "{}", report.text());
    assert_eq!(report.code, 1, "{}", report.text());
}

#[test]
fn each_source_is_looked_at_with_its_own_ehlo_name() {
    let mut clinic = Clinic::new();
    let own = "mta-2.shop.test";
    clinic.lab.dns.a(own, clinic.lab.ip(7));
    let source = |name: &str, text: &str| format!("[[source]]\nname = \"{name}\"\n{text}\n");
    let config = clinic
        .config()
        .set("delivery.sources", "[]")
        .table(&source("one", &format!("address = \"{}\"", clinic.source)))
        .table(&source("two", &format!("address = \"203.0.113.10\"\nehlo_name = \"{own}\"")))
        .table(&source("three", "socks5 = \"127.0.0.1:9\""));
    clinic.write(&config);
    clinic.names_source = false;
    let report = clinic.doctor();
    let of = |check: &str, subject: &str| {
        let about = |finding: &&Value| finding["check"] == check && finding["subject"]["name"] == subject;
        let codes: Vec<&str> =
            report.findings().iter().filter(about).filter_map(|found| found["code"].as_str()).collect();
        codes.join(",")
    };
    assert_eq!(of("ehlo", HOST), "ok", "of its own source only: {}", report.text());
    assert_eq!(of("ehlo", own), "other_address", "{}", report.text());
    assert_eq!(of("spf", own), "missing", "{}", report.text());
    assert_eq!(of("ptr", &clinic.source.to_string()), "ok", "{}", report.text());
    assert_eq!(of("ptr", "203.0.113.10"), "missing", "{}", report.text());
    let finding = report.finding("ptr", "missing").unwrap();
    assert!(finding["publish"][0].as_str().unwrap().ends_with(&format!("IN PTR {own}.")), "{finding}");
    let finding = report.finding("source", "address_not_said").unwrap();
    assert!(finding["seen"].as_str().unwrap().contains("source three goes out by socks5 127.0.0.1:9"), "{finding}");
}

#[test]
fn a_source_of_the_config_that_this_host_does_not_have_reaches_nobody() {
    let mut clinic = Clinic::new();
    clinic.write(&clinic.config().set("delivery.sources", &format!("[\"{}\"]", clinic.source)));
    clinic.names_source = false;
    let report = clinic.doctor();
    let finding = report.finding("port25", "shut").unwrap_or_else(|| panic!("{}", report.text()));
    assert!(finding["seen"].as_str().unwrap().contains("is it an address of this host?"), "{finding}");
}

#[test]
fn a_generated_key_signs_for_its_domain_once_its_record_is_published() {
    let clinic = Clinic::new();
    let output = Command::new(env!("CARGO_BIN_EXE_posthaste"))
        .args(["dkim", "generate", "--domain", "new.test", "--algorithm", "ed25519", "--out", "new.pem"])
        .current_dir(clinic.lab.dir())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    // The config takes no path that hangs on where somebody stood.
    let path = clinic.lab.dir().join("new.pem");
    assert!(text.contains(&format!("\nkey_file = {path:?}\n")), "{text}");
    let table = format!("[[dkim]]{}", text.split_once("[[dkim]]").unwrap().1);
    clinic.write(&clinic.config().table(&table));
    let report = clinic.doctor_with(&["--identity", "new.test"]);
    let finding = report.finding("dkim", "missing").unwrap_or_else(|| panic!("{}", report.text()));
    let line = text.lines().find(|line| line.contains(" IN TXT ")).unwrap();
    assert_eq!(finding["publish"], serde_json::json!([line]));
    clinic.publish(line);
    let report = clinic.doctor_with(&["--identity", "new.test"]);
    let finding = report.findings().iter().find(|finding| finding["check"] == "dkim").unwrap();
    assert_eq!(finding["severity"], "ok", "{}", report.text());
}

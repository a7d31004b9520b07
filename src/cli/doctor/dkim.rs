//! DKIM (RFC 6376 §3.6.1): the record of each of our keys is there, can be read, and carries that key.

use base64ct::{Base64Unpadded, Encoding};

use super::finding::{Check, Finding, Subject};
use super::setup::{SigningKey, Signer};
use super::tags::Tags;
use super::world::{Looked, World};
use crate::cli::zone;

/// Permission bits of a key file that let others than its owner read it.
const READABLE_BY_OTHERS: u32 = 0o044;

pub(super) async fn check(world: &World, signer: &Signer) -> Vec<Finding> {
    let check = Check::new("dkim", Subject::domain(&signer.domain));
    if signer.keys.is_empty() {
        let seen = format!("no key: messages from {} go out without its signature", signer.domain);
        let advice = format!("run: posthaste dkim generate --domain {}", signer.domain);
        return vec![check.error("no_key", seen).advice(advice)];
    }
    let mut findings = Vec::new();
    for key in &signer.keys {
        let looked = world.texts_below(&format!("{}._domainkey", key.selector), &key.domain).await;
        findings.push(judge(&check, key, &looked));
        findings.extend(judge_file(&check, key));
    }
    if signer.keys.iter().all(|key| key.is_next) {
        let advice = "set state = \"current\" for the one whose record is published";
        findings.push(check.error("no_current_key", "every key waits as \"next\": nothing is signed").advice(advice));
    }
    findings
}

/// What a record says of a key of ours.
fn judge(check: &Check, key: &SigningKey, looked: &Looked<String>) -> Finding {
    let owner = format!("{}._domainkey.{}", key.selector, key.domain);
    let done = |finding: Finding| finding.item(&key.selector);
    let fault = |code, seen: String| {
        let finding = match key.is_next {
            true => check.warning(code, seen),
            false => check.error(code, seen),
        };
        let advice = "publish this record in place of what is there";
        done(finding.advice(advice).publish([zone::txt(&owner, &key.record)]))
    };
    match looked {
        Looked::Unknown(reason) => done(check.unknown(reason)),
        Looked::Missing if key.is_next => {
            let note = check.note("next_not_visible", format!("{owner} is not published yet; the key waits for it"));
            done(note.advice("publish this record").publish([zone::txt(&owner, &key.record)]))
        }
        Looked::Missing => fault("missing", format!("{owner} does not exist: no receiver can verify our signatures")),
        Looked::Found(records) => match fault_of(key, records) {
            Some((code, seen)) => fault(code, seen),
            None => done(tested_or_good(check, key, records, &owner)),
        },
    }
}

/// `t=y` asks receivers to treat signed mail as if it were not.
fn tested_or_good(check: &Check, key: &SigningKey, records: &[String], owner: &str) -> Finding {
    let flags = records.first().and_then(|record| Tags::parse(record).ok());
    let is_tested = flags.is_some_and(|tags| tags.list("t").unwrap_or_default().contains(&"y"));
    if is_tested {
        let finding = check.warning("testing", "t=y: receivers may treat signed mail as unsigned");
        return finding.advice("publish the record without t=y").publish([zone::txt(owner, &key.record)]);
    }
    let algorithm = Tags::parse(&key.record).ok().and_then(|tags| tags.get("k").map(str::to_owned));
    let state = if key.is_next { "next, and visible: it may sign" } else { "the record carries our key" };
    check.ok(format!("{}: {state}", algorithm.as_deref().unwrap_or("rsa")))
}

/// Why receivers cannot verify with what is published.
fn fault_of(key: &SigningKey, records: &[String]) -> Option<(&'static str, String)> {
    let [record] = records else {
        return Some(("several", format!("{} TXT records where one must be: receivers take any", records.len())));
    };
    let tags = match Tags::parse(record) {
        Ok(tags) => tags,
        Err(problem) => return Some(("malformed", format!("cannot be read: {problem}"))),
    };
    if let Some(version) = tags.get("v")
        && (version != "DKIM1" || tags.first_name() != Some("v"))
    {
        return Some(("malformed", format!("begins with v={version}, not with v=DKIM1")));
    }
    let ours = Tags::parse(&key.record).ok()?;
    let (kind, our_kind) = (tags.get("k").unwrap_or("rsa"), ours.get("k").unwrap_or("rsa"));
    let Some(published) = tags.get("p").map(without_space) else {
        return Some(("malformed", format!("has no p=: {record}")));
    };
    if published.is_empty() {
        return Some(("revoked", "p= is empty: the key is revoked".to_owned()));
    }
    if !kind.eq_ignore_ascii_case(our_kind) {
        return Some(("algorithm", format!("k={kind}, and our key is {our_kind}")));
    }
    if !is_same_key(&published, &without_space(ours.get("p").unwrap_or_default())) {
        return Some(("key_differs", "carries another key than ours: every signature fails".to_owned()));
    }
    if let Some(hashes) = tags.list("h")
        && !hashes.contains(&"sha256")
    {
        return Some(("hash", format!("h={} does not allow sha256", hashes.join(":"))));
    }
    if let Some(services) = tags.list("s")
        && !services.iter().any(|service| matches!(*service, "*" | "email"))
    {
        return Some(("service", format!("s={} does not allow mail", services.join(":"))));
    }
    None
}

fn without_space(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// Both are Base64 of DER. An RSA key may also stand there without its algorithm (RFC 8017 `RSAPublicKey`), which is the
/// end of what we publish (RFC 5280 `SubjectPublicKeyInfo`).
fn is_same_key(published: &str, ours: &str) -> bool {
    /// The least modulus that we sign with, in octets: a shorter end of our key is no key.
    const KEY_BYTES_MIN: usize = 256;
    if published == ours {
        return true;
    }
    let (Some(published), Some(ours)) = (octets(published), octets(ours)) else {
        return false;
    };
    published == ours || (published.len() > KEY_BYTES_MIN && published.first() == Some(&0x30) && ours.ends_with(&published))
}

/// Padding is left out by some.
fn octets(text: &str) -> Option<Vec<u8>> {
    Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok()
}

fn judge_file(check: &Check, key: &SigningKey) -> Option<Finding> {
    if key.mode & READABLE_BY_OTHERS == 0 {
        return None;
    }
    let path = key.file.display();
    let seen = format!("{path} has mode {:04o}: others than its owner can read the key", key.mode & 0o7777);
    Some(check.warning("key_exposed", seen).item(&key.selector).advice(format!("run: chmod 0600 {path}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Domain;

    const OURS: &str = "v=DKIM1; k=ed25519; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
    const OTHERS: &str = "v=DKIM1; k=ed25519; p=21qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";

    fn key(record: &str, is_next: bool) -> SigningKey {
        SigningKey {
            domain: Domain::parse("example.com").unwrap(),
            selector: "ph1".to_owned(),
            record: record.to_owned(),
            is_next,
            file: "/etc/posthaste/dkim/example.com.ph1.pem".into(),
            mode: 0o100_600,
        }
    }

    fn judged(key: &SigningKey, looked: &Looked<String>) -> Finding {
        let check = Check::new("dkim", Subject::domain(&key.domain));
        judge(&check, key, looked)
    }

    fn found(records: &[&str]) -> Looked<String> {
        Looked::Found(records.iter().map(|record| (*record).to_owned()).collect())
    }

    #[test]
    fn each_fault_of_a_record_is_named_and_the_right_record_is_printed() {
        for (records, code) in [
            (vec![OURS], "ok"),
            (vec!["k=ed25519;p=11qYAYKxCrfVS/7TyWQHOg7hcvPapi MlrwIaaPcHURo"], "ok"),
            (vec!["v=DKIM1; k=ed25519; s=email:x; h=sha1:sha256; t=s; n=note; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "ok"),
            (vec![OTHERS], "key_differs"),
            (vec!["v=DKIM1; k=ed25519; p=not base64!"], "key_differs"),
            (vec![OURS, OTHERS], "several"),
            (vec!["v=DKIM1; k=ed25519; p="], "revoked"),
            (vec!["v=DKIM1; k=rsa; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "algorithm"),
            (vec!["v=DKIM1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "algorithm"),
            (vec!["v=DKIM1; k=ed25519"], "malformed"),
            (vec!["k=ed25519; v=DKIM1; p=11qY"], "malformed"),
            (vec!["v=DKIM2; k=ed25519; p=11qY"], "malformed"),
            (vec!["v=DKIM1 k=ed25519 p"], "malformed"),
            (vec!["v=spf1 -all"], "malformed"),
            (vec!["v=DKIM1; k=ed25519; h=sha1; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "hash"),
            (vec!["v=DKIM1; k=ed25519; s=tlsrpt; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "service"),
            (vec!["v=DKIM1; k=ed25519; t=s:y; p=11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="], "testing"),
        ] {
            let finding = judged(&key(OURS, false), &found(&records));
            assert_eq!(finding.code, code, "{records:?}: {}", finding.seen);
            assert_eq!(finding.publish.is_empty(), code == "ok", "{records:?}");
            let line = format!("ph1._domainkey.example.com. IN TXT \"{OURS}\"");
            assert!(finding.publish.iter().all(|published| *published == line), "{:?}", finding.publish);
        }
    }

    #[test]
    fn a_missing_record_is_an_error_for_a_current_key_and_a_note_for_the_next() {
        use super::super::finding::Severity;
        assert_eq!(judged(&key(OURS, false), &Looked::Missing).severity, Severity::Error);
        assert_eq!(judged(&key(OURS, true), &Looked::Missing).severity, Severity::Note);
        assert_eq!(judged(&key(OURS, true), &found(&[OTHERS])).severity, Severity::Warning);
        let unknown = judged(&key(OURS, false), &Looked::Unknown("SERVFAIL".to_owned()));
        assert_eq!((unknown.severity, unknown.code), (Severity::Warning, "unknown"));
    }

    #[test]
    fn an_rsa_key_may_stand_there_with_or_without_its_algorithm() {
        let bare: Vec<u8> = std::iter::once(0x30).chain((0..269_u32).map(|octet| octet.to_le_bytes()[0])).collect();
        let whole: Vec<u8> = [vec![0x30, 0x82, 0x01, 0x22], bare.clone()].concat();
        let other: Vec<u8> = bare.iter().map(|octet| octet ^ 0x01).collect();
        let text = |octets: &[u8]| Base64Unpadded::encode_string(octets);
        assert!(is_same_key(&text(&bare), &text(&whole)));
        assert!(!is_same_key(&text(&other), &text(&whole)));
        assert!(!is_same_key(&text(&bare[200..]), &text(&whole)), "a short end is no key");
    }

    #[test]
    fn a_key_file_that_others_can_read_is_told() {
        let check = Check::new("dkim", Subject::listener("x"));
        for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o100_644, true)] {
            let finding = judge_file(&check, &SigningKey { mode, ..key(OURS, false) });
            assert_eq!(finding.is_some(), exposed, "{mode:o}");
        }
    }
}

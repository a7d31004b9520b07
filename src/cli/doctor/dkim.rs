//! DKIM (RFC 6376 §3.6.1): the record of each of our keys is there, can be read, and carries that key.

use super::finding::{Check, Finding, Subject};
use super::setup::{Signer, SigningKey};
use super::world::{Looked, World};
use crate::cli::zone;
use crate::message::dkim::{self, RecordFault};
use crate::message::tags::Tags;

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
    findings.extend(judge_all(&check, signer, &findings));
    findings
}

/// A domain all of whose keys are to come signs only once the record of one is seen.
fn judge_all(check: &Check, signer: &Signer, findings: &[Finding]) -> Option<Finding> {
    let signs = !signer.keys.iter().all(|key| key.is_next) || findings.iter().any(|finding| finding.code == "ok");
    let seen = format!("every key of {} waits as \"next\": nothing is signed", signer.domain);
    let advice = "publish the record of one, or set state = \"current\" where it is published";
    (!signs).then(|| check.error("no_current_key", seen).advice(advice))
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
        let advice = match looked {
            Looked::Missing => "publish this record",
            _ => "publish this record in place of what is there",
        };
        done(finding.advice(advice).publish([zone::txt(&owner, &key.key.record())]))
    };
    match looked {
        Looked::Unknown(reason) => done(check.unknown(reason)),
        Looked::Missing if key.is_next => {
            let note = check.note("next_not_visible", format!("{owner} is not published yet; the key waits for it"));
            done(note.advice("publish this record").publish([zone::txt(&owner, &key.key.record())]))
        }
        Looked::Missing => fault("missing", format!("{owner} does not exist: no receiver can verify our signatures")),
        Looked::Found(records) => match fault_of(key, records) {
            Some(RecordFault { code, text }) => fault(code, text),
            None => done(tested_or_good(check, key, records, &owner)),
        },
    }
}

fn fault_of(key: &SigningKey, records: &[String]) -> Option<RecordFault> {
    let records: Vec<&str> = records.iter().map(String::as_str).collect();
    dkim::fault_of(&key.key, &records)
}

/// `t=y` asks receivers to treat signed mail as if it were not.
fn tested_or_good(check: &Check, key: &SigningKey, records: &[String], owner: &str) -> Finding {
    let flags = records.first().and_then(|record| Tags::parse(record).ok());
    let is_tested = flags.is_some_and(|tags| tags.list("t").unwrap_or_default().contains(&"y"));
    if is_tested {
        let finding = check.warning("testing", "t=y: receivers may treat signed mail as unsigned");
        return finding.advice("publish the record without t=y").publish([zone::txt(owner, &key.key.record())]);
    }
    let state = if key.is_next { "next, and visible: it signs" } else { "the record carries our key" };
    check.ok(format!("{}, {} bits: {state}", key.key.algorithm().name(), key.key.bits()))
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
    use std::sync::Arc;

    use base64ct::{Base64Unpadded, Encoding};

    use super::*;
    use crate::message::dkim::Key;
    use crate::types::Domain;

    /// The public half of tests/data/dkim/ed25519.pem.
    const P: &str = "Bbu6WzIeoY0SxUKMI1jJHbiLjyBKcDNmdTdoV2e6CiI=";

    fn ours() -> String {
        format!("v=DKIM1; k=ed25519; p={P}")
    }

    fn key(is_next: bool) -> SigningKey {
        key_of("ed25519", is_next)
    }

    fn key_of(name: &str, is_next: bool) -> SigningKey {
        let pem = std::fs::read(format!("{}/tests/data/dkim/{name}.pem", env!("CARGO_MANIFEST_DIR"))).unwrap();
        SigningKey {
            domain: Domain::parse("example.com").unwrap(),
            selector: Domain::parse("ph1").unwrap(),
            key: Arc::new(Key::from_pem(&pem).unwrap()),
            is_next,
            file: "/etc/posthaste/dkim/example.com.ph1.pem".into(),
            mode: 0o100_600,
        }
    }

    fn judged(key: &SigningKey, looked: &Looked<String>) -> Finding {
        let check = Check::new("dkim", Subject::domain(&key.domain));
        judge(&check, key, looked)
    }

    #[test]
    fn each_fault_of_a_record_is_named_and_the_right_record_is_printed() {
        let spaced = format!("{} {}", P.get(..20).unwrap(), P.get(20..).unwrap().trim_end_matches('='));
        let other = P.replacen(char::is_alphanumeric, "+", 1);
        for (records, code) in [
            (vec![ours()], "ok"),
            (vec![format!("k=ed25519;p={spaced}")], "ok"),
            (vec![format!("v=DKIM1; k=ed25519; s=email:x; h=sha1:sha256; t=s; n=note; p={P}")], "ok"),
            (vec![format!("v=DKIM1; k=ed25519; p={other}")], "key_differs"),
            (vec!["v=DKIM1; k=ed25519; p=not base64!".to_owned()], "key_differs"),
            (vec![ours(), ours()], "several"),
            (vec!["v=DKIM1; k=ed25519; p=".to_owned()], "revoked"),
            (vec![format!("v=DKIM1; k=rsa; p={P}")], "algorithm"),
            (vec![format!("v=DKIM1; p={P}")], "algorithm"),
            (vec!["v=DKIM1; k=ed25519".to_owned()], "malformed"),
            (vec![format!("k=ed25519; v=DKIM1; p={P}")], "malformed"),
            (vec![format!("v=DKIM2; k=ed25519; p={P}")], "malformed"),
            (vec!["v=DKIM1 k=ed25519 p".to_owned()], "malformed"),
            (vec!["v=spf1 -all".to_owned()], "malformed"),
            (vec![format!("v=DKIM1; k=ed25519; h=sha1; p={P}")], "hash"),
            (vec![format!("v=DKIM1; k=ed25519; s=tlsrpt; p={P}")], "service"),
            (vec![format!("v=DKIM1; k=ed25519; t=s:y; p={P}")], "testing"),
        ] {
            let finding = judged(&key(false), &Looked::Found(records.clone()));
            assert_eq!(finding.code, code, "{records:?}: {}", finding.seen);
            assert_eq!(finding.publish.is_empty(), code == "ok", "{records:?}");
            let line = format!("ph1._domainkey.example.com. IN TXT \"{}\"", ours());
            assert!(finding.publish.iter().all(|published| *published == line), "{:?}", finding.publish);
        }
    }

    #[test]
    fn a_missing_record_is_an_error_for_a_current_key_and_a_note_for_the_next() {
        use super::super::finding::Severity;
        assert_eq!(judged(&key(false), &Looked::Missing).severity, Severity::Error);
        assert_eq!(judged(&key(true), &Looked::Missing).severity, Severity::Note);
        assert_eq!(judged(&key(true), &Looked::Found(vec!["v=DKIM1; p=".to_owned()])).severity, Severity::Warning);
        let unknown = judged(&key(false), &Looked::Unknown("SERVFAIL".to_owned()));
        assert_eq!((unknown.severity, unknown.code), (Severity::Warning, "unknown"));
    }

    #[test]
    fn an_rsa_key_may_stand_there_with_or_without_its_algorithm() {
        let key = key_of("rsa2048", false);
        let whole = key.key.public().to_vec();
        // The header of a SubjectPublicKeyInfo of 2048 bits.
        let bare = whole.get(24..).unwrap().to_vec();
        let short = whole.get(40..).unwrap().to_vec();
        for (octets, code) in [(whole, "ok"), (bare, "ok"), (short, "key_differs")] {
            let record = format!("v=DKIM1; p={}", Base64Unpadded::encode_string(&octets));
            assert_eq!(judged(&key, &Looked::Found(vec![record])).code, code);
        }
    }

    #[test]
    fn a_key_file_that_others_can_read_is_told() {
        let check = Check::new("dkim", Subject::listener("x"));
        for (mode, exposed) in [(0o600, false), (0o400, false), (0o640, true), (0o604, true), (0o100_644, true)] {
            let finding = judge_file(&check, &SigningKey { mode, ..key(false) });
            assert_eq!(finding.is_some(), exposed, "{mode:o}");
        }
    }
}

//! Signatures verified by mail-auth; tests/it/signing.rs asks others.

use std::borrow::Borrow;
use std::hash::Hash;
use std::time::Instant;

use hickory_resolver::config::{ResolverConfig, ResolverOpts};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::common::verify::DomainKey;
use mail_auth::{AuthenticatedMessage, DkimResult, MessageAuthenticator, Parameters, ResolverCache, Txt};
use proptest::prelude::*;

use super::super::{BodyHasher, Key};
use super::*;

/// Answers every question for a TXT record with the record of the key whose selector it names.
struct Records;

impl ResolverCache<Box<str>, Txt> for Records {
    fn get<Q>(&self, name: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let names: [Box<str>; 2] = ["rsa._domainkey.a.test.".into(), "ed._domainkey.a.test.".into()];
        let (_, key) = names.iter().zip([RSA, ED25519]).find(|(own, _)| (*own).borrow() == name)?;
        let record = load(key).record();
        Some(Txt::DomainKey(Arc::new(DomainKey::parse(record.as_bytes()).unwrap())))
    }

    fn remove<Q>(&self, _: &Q) -> Option<Txt>
    where
        Box<str>: Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        None
    }

    fn insert(&self, _: Box<str>, _: Txt, _: Instant) {}
}

const RSA: &str = "rsa2048";
const ED25519: &str = "ed25519";

fn load(name: &str) -> Key {
    let path = format!("{}/tests/data/dkim/{name}.pem", env!("CARGO_MANIFEST_DIR"));
    Key::from_pem(&std::fs::read(path).unwrap()).unwrap()
}

fn signers() -> Vec<Arc<Signer>> {
    let signer = |selector: &str, key| {
        let (domain, selector) = (Domain::parse("a.test").unwrap(), Domain::parse(selector).unwrap());
        Arc::new(Signer { domain, selector, key: Arc::new(load(key)) })
    };
    vec![signer("rsa", RSA), signer("ed", ED25519)]
}

fn signed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let mut hasher = BodyHasher::default();
    hasher.push(body);
    let at = Timestamp::from_millis(1_600_000_000_123);
    let mut message = sign(&[header], hasher.finish(), at, &signers()).unwrap();
    message.extend_from_slice(header);
    message.extend_from_slice(body);
    message
}

/// The verdicts on both signatures, in order.
fn verdicts(message: &[u8]) -> Vec<bool> {
    let resolver = MessageAuthenticator::new(ResolverConfig::default(), ResolverOpts::default()).unwrap();
    let message = AuthenticatedMessage::parse(message).expect("a message");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outputs = runtime.block_on(resolver.verify_dkim(Parameters::new(&message).with_txt_cache(&Records)));
    outputs.iter().map(|output| *output.result() == DkimResult::Pass).collect()
}

const HEADER: &[u8] = b"Received: x\r\nFrom: Shop <a@a.test>\r\nTo: b@b.test\r\nSubject: Hello\r\n\tthere  \r\n\r\n";

#[test]
fn both_kinds_of_keys_sign_so_that_others_verify() {
    let message = signed(HEADER, b"Hello\r\n\r\nWorld \r\n\r\n");
    assert_eq!(verdicts(&message), [true, true]);
    let text = String::from_utf8(message).unwrap();
    for part in ["a=rsa-sha256; s=rsa; d=a.test; c=relaxed/relaxed;", "a=ed25519-sha256; s=ed;", "t=1600000000;"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(text.split("\r\n").all(|line| line.len() <= 78), "{text}");
}

#[test]
fn a_changed_body_or_an_added_field_breaks_them() {
    let message = String::from_utf8(signed(HEADER, b"Hello\r\n")).unwrap();
    assert_eq!(verdicts(message.replace("Hello\r\n\r\n", "hello\r\n\r\n").as_bytes()), [true, true], "not in there");
    assert_eq!(verdicts(message.replace("\r\n\r\nHello", "\r\n\r\nHallo").as_bytes()), [false, false]);
    for name in OVERSIGNED {
        let forged = message.replace("Received: x\r\n", &format!("Received: x\r\n{name}: forged@c.test\r\n"));
        assert_eq!(verdicts(forged.as_bytes()), [false, false], "{name}");
    }
    // What a hop may do: trace fields in front, folds and white space changed.
    let hop =
        format!("Received: y\r\nX-Hop: 1\r\n{message}").replace("Subject: Hello\r\n\tthere  ", "SUBJECT:Hello there");
    assert_eq!(verdicts(hop.as_bytes()), [true, true]);
}

#[test]
fn fields_in_two_blocks_are_signed_as_one_header() {
    let mut hasher = BodyHasher::default();
    hasher.push(b"x\r\n");
    let own = b"List-Unsubscribe: <https://u.test/1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
    let at = Timestamp::from_millis(1_600_000_000_000);
    let signatures = sign(&[own, HEADER], hasher.finish(), at, &signers()).unwrap();
    let message = [&signatures, &own[..], HEADER, b"x\r\n"].concat();
    assert_eq!(verdicts(&message), [true, true]);
    let other = String::from_utf8(message).unwrap().replace("u.test/1", "u.test/2");
    assert_eq!(verdicts(other.as_bytes()), [false, false]);
}

#[test]
fn repeated_fields_are_signed_up_to_a_limit() {
    let header = [&b"References: <x>\r\n".repeat(200)[..], HEADER].concat();
    let message = signed(&header, b"x\r\n");
    assert_eq!(verdicts(&message), [true, true]);
    let text = String::from_utf8_lossy(&message).into_owned();
    let signature = text.split("References: <x>").next().unwrap();
    assert_eq!(signature.matches("References").count(), 16, "{signature}");
}

#[test]
fn fields_that_are_signed_once_more_are_all_signed() {
    let header = [&b"List-Unsubscribe: <mailto:x@a.test>\r\nFeedback-ID: a\r\n".repeat(20)[..], HEADER].concat();
    let message = signed(&header, b"x\r\n");
    assert_eq!(verdicts(&message), [true, true]);
    let forged = [&b"Feedback-ID: b\r\n"[..], &message].concat();
    assert_eq!(verdicts(&forged), [false, false]);
}

#[test]
fn the_relaxed_form_is_that_of_the_rfc() {
    for (field, form) in [
        ("A: X\r\n", "a:X\r\n"),
        ("B : Y\t\r\n\tZ  \r\n", "b:Y Z\r\n"),
        ("SubJect:\r\n", "subject:\r\n"),
        ("S: \r\n  \r\n x \r\n \r\n", "s:x\r\n"),
        ("S: a\x0cb \x0c\r\n", "s:a\x0cb \x0c\r\n"),
        ("S:a", "s:a\r\n"),
    ] {
        let mut out = Vec::new();
        canonicalize(&Fields::new(field.as_bytes()).next().unwrap(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), form, "{field:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_header_is_signed_so_that_others_verify(
        fields in prop::collection::vec(
            (
                prop::sample::select(vec!["From", "to", "SUBJECT", "X-Any", "Received", "List-Id", "Sender", "References"]),
                "([ -~]|\u{e9}|\r\n[ \t][!-~]){0,60}",
            ),
            1..12,
        ),
        body in "([ -~]|\r\n){0,80}",
    ) {
        let mut header: String = fields.iter().map(|(name, value)| format!("{name}:{value}\r\n")).collect();
        header.push_str("From: a@a.test\r\n\r\n");
        // mail-auth 0.13 itself hashes lines of blanks at the end wrongly.
        let body = format!("{}\r\n", body.trim_end());
        prop_assert_eq!(verdicts(&signed(header.as_bytes(), body.as_bytes())), [true, true]);
    }
}

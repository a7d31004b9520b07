//! What holds for every message.

use mail_parser::{Message, MessageParser, MimeHeaders, PartType};
use proptest::prelude::*;

use super::reader::{Leaf, read};
use super::trees::{lines, orderly, wild};
use super::*;

/// What mail-parser makes of a message: of each part its type, its name, its content.
fn parsed(message: &[u8]) -> Vec<(String, Option<String>, Vec<u8>)> {
    let message = MessageParser::default().parse(message).unwrap();
    let mut found = Vec::new();
    collect(&message, &mut found);
    found
}

fn collect(message: &Message<'_>, found: &mut Vec<(String, Option<String>, Vec<u8>)>) {
    for part in &message.parts {
        let kind = part.content_type().map_or("text/plain".to_owned(), |found| {
            format!("{}/{}", found.ctype(), found.subtype().unwrap_or_default())
        });
        let content = match &part.body {
            PartType::Multipart(parts) => parts.len().to_string().into_bytes(),
            PartType::Message(inner) => {
                found.push(("subject".to_owned(), inner.subject().map(str::to_owned), Vec::new()));
                collect(inner, found);
                Vec::new()
            }
            _ => part.contents().to_vec(),
        };
        let name = part.attachment_name().or(part.content_description()).map(str::to_owned);
        found.push((kind, name, content));
    }
}

/// What any host asks of a body, and what the plan says of it.
fn assert_deliverable(done: &Done) -> Result<(), TestCaseError> {
    let is_long = |line: &[u8]| line.strip_suffix(b"\r").unwrap_or(line).len() > 998;
    let left = done.plan.left();
    let body = done.whole_body();
    prop_assert_eq!(left.eight_bit, !body.is_ascii());
    prop_assert_eq!(left.long_line, body.split(|byte| *byte == b'\n').any(is_long));
    let mut remaining = Dirt::default();
    for one in done.plan.remaining() {
        remaining |= one.dirt;
    }
    prop_assert_eq!(remaining, left);
    Ok(())
}

/// The same parts with the same contents. A charset may have been added.
fn assert_same(before: &[Leaf], after: &[Leaf]) -> Result<(), TestCaseError> {
    prop_assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(after) {
        prop_assert_eq!((&before.path, &before.content_type), (&after.path, &after.content_type));
        prop_assert_eq!(String::from_utf8_lossy(&before.content), String::from_utf8_lossy(&after.content));
        prop_assert_eq!(&before.content, &after.content);
        prop_assert!(before.charset.is_none() || before.charset == after.charset);
        // A raw name is what a reader guesses.
        let is_raw = before.name.as_ref().is_some_and(|name| !name.is_ascii());
        prop_assert!(is_raw || before.name == after.name);
    }
    Ok(())
}

fn check(message: &[u8], step: usize) -> Result<(), TestCaseError> {
    let done = run(message);
    let by_step = run_by(message, EightBitBodies::Encode, step);
    prop_assert_eq!(&done.body, &by_step.body);
    prop_assert_eq!(&done.header, &by_step.header);
    prop_assert!(!done.plan.is_clean() || done.body == cut(message).1);
    assert_deliverable(&done)?;
    assert_same(&read(message), &read(&done.message()))?;
    let again = run(&done.message());
    prop_assert!(again.plan.is_clean());
    prop_assert_eq!(again.message(), done.message());
    prop_assert_eq!(again.plan.found(), done.plan.left());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: rounds(), ..ProptestConfig::default() })]

    #[test]
    fn any_tree_says_what_it_said_and_can_be_carried(message in wild(), step in 1_usize..60) {
        check(&message, step).map_err(|error| shown(error, &message))?;
    }

    #[test]
    fn mail_parser_reads_the_same_before_and_after(message in orderly()) {
        let done = run(&message);
        prop_assert_eq!(done.plan.left(), Dirt::default());
        assert_deliverable(&done)?;
        let text = String::from_utf8(done.message()).unwrap();
        for label in ["8bit", "binary"] {
            prop_assert!(!text.contains(&format!("Content-Transfer-Encoding: {label}")), "{}", text);
        }
        // mail-parser 0.11.9 panics on some nested messages ("Invalid part ID"): it says nothing of those.
        let readable = std::panic::catch_unwind(|| parsed(&message));
        prop_assume!(readable.is_ok());
        let before = readable.unwrap_or_default();
        prop_assert_eq!(before, parsed(&done.message()), "{}", String::from_utf8_lossy(&done.message()));
    }

    #[test]
    fn a_message_without_mime_becomes_one(text in lines()) {
        let message = [b"From: a@b.test\r\n\r\n".as_slice(), &text].concat();
        let done = run(&message);
        let added = String::from_utf8(done.header.clone()).unwrap();
        prop_assert_eq!(done.plan.is_clean(), !added.contains("MIME-Version: 1.0\r\n"));
        prop_assert_eq!(done.plan.is_clean(), !added.contains("Content-Transfer-Encoding: "));
        prop_assert_eq!(done.plan.found().eight_bit, added.contains("Content-Type: text/plain; charset="));
        prop_assert_eq!(&read(&done.message())[0].content, &text);
    }

    #[test]
    fn of_clean_bodies_nothing_but_labels_is_ever_changed(message in wild()) {
        let mut message = message;
        message.retain(u8::is_ascii);
        let short: Vec<&[u8]> = message.split_inclusive(|byte| *byte == b'\n').filter(|line| line.len() <= 1_000).collect();
        let message = short.concat();
        let done = run(&message);
        prop_assert_eq!(unlabelled(&done.message()), unlabelled(&message));
        prop_assert_eq!(done.plan.is_clean(), done.body == cut(&message).1);
    }

    #[test]
    fn any_octets_are_rewritten_without_a_panic(
        message in wild(),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..20),
        step in 1_usize..9,
    ) {
        let mut message = message;
        for (at, byte) in noise {
            let at = at.index(message.len());
            message[at] = byte;
        }
        let whole = run(&message);
        prop_assert_eq!(run_by(&message, EightBitBodies::Encode, step).body, whole.body);
    }

    #[test]
    fn octets_that_may_pass_do(message in wild()) {
        let done = run_by(&message, EightBitBodies::Pass, 100);
        let is_long = |line: &[u8]| line.len() > 999;
        if !message.split(|byte| *byte == b'\n').any(is_long) {
            prop_assert!(done.plan.is_clean());
            prop_assert_eq!(&done.message(), &message);
        }
        prop_assert_eq!(done.plan.left().eight_bit, !done.whole_body().is_ascii());
        prop_assert!(done.plan.remaining().iter().all(|one| !one.dirt.eight_bit && one.dirt.long_line));
        assert_same(&read(&message), &read(&done.message())).map_err(|error| shown(error, &message))?;
    }
}

/// Without the lines of encodings.
fn unlabelled(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let is_label = |line: &str| line.to_ascii_lowercase().starts_with("content-transfer-encoding:");
    text.split_inclusive('\n').filter(|line| !is_label(line)).collect()
}

fn shown(error: TestCaseError, message: &[u8]) -> TestCaseError {
    TestCaseError::fail(format!("{error}\n{}", String::from_utf8_lossy(message)))
}

/// `POSTHASTE_MIME_ROUNDS` for a long run.
fn rounds() -> u32 {
    std::env::var("POSTHASTE_MIME_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(256)
}

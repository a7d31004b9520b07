//! The corpus: messages as mail programs write them, with what is expected of each, from `corpus/`.
//!
//! `dsn.txt` and `text.txt` hold shapes: `=== shape NAME`, then a message with placeholders. `cases.txt` holds one message a line: a
//! shape, what fills it, and the expectation, stated by hand. `mails.txt` holds whole messages: `=== mail NAME`, lines `@` with
//! what is known of the envelope, lines `>` with expectations, then the message. All of it was composed from RFCs and documented formats,
//! but for the shapes `live-*`: servers wrote these in `tests/it/peers/reports.rs`.

use std::collections::BTreeMap;

const SHAPES: [&str; 2] = [include_str!("corpus/dsn.txt"), include_str!("corpus/text.txt")];
const CASES: &str = include_str!("corpus/cases.txt");
const MAILS: [&str; 3] = [
    include_str!("corpus/complaints.txt"),
    include_str!("corpus/autoreplies.txt"),
    include_str!("corpus/ordinary.txt"),
];

/// The token of the return path in all messages.
pub(super) const TOKEN: &str = "aebagbafaydqqcikbmga2dqpcaireeyuculbogazdinryhi6d4qcc333";

/// The header of our message, as reports return it.
const ORIGINAL: &str = "Return-Path: <{{token}}@bounce.sender.example>
Received: from app1 (app1.sender.example [10.0.0.4])
\tby mail.sender.example with ESMTPSA id 8vMZ; Fri, 5 May 2023 21:00:20 +0000
From: Shop <news@sender.example>
To: {{rcpt}}
Subject: Your order 1234
Message-ID: <0100018f@sender.example>
Date: Fri, 5 May 2023 21:00:20 +0000
Feedback-ID: camp7:sender:posthaste
CFBL-Feedback-ID: 111:222:333
X-Campaign: spring
List-Unsubscribe: <https://u.sender.example/{{token}}>, <mailto:{{token}}@u.sender.example>
MIME-Version: 1.0
Content-Type: text/plain

Thank you for your order.
";

/// One message and what is expected.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) message: Vec<u8>,
    /// Words behind `@`.
    pub(super) envelope: Vec<String>,
    pub(super) expected: Vec<String>,
}

/// All bounces.
pub(super) fn bounces() -> Vec<Entry> {
    let shapes: BTreeMap<&str, &str> = SHAPES.into_iter().flat_map(|file| sections(file, "=== shape ")).collect();
    let lines = CASES.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| case(&shapes, line)).collect()
}

/// All whole messages.
pub(super) fn mails() -> Vec<Entry> {
    let sections = MAILS.into_iter().flat_map(|file| sections(file, "=== mail "));
    sections
        .map(|(name, text)| {
            let is_note = |line: &&str| line.starts_with(['@', '>']);
            let notes: Vec<&str> = text.lines().take_while(is_note).collect();
            let body: Vec<&str> = text.lines().skip_while(is_note).collect();
            let of = |mark: char| {
                notes.iter().filter_map(|line| line.strip_prefix(mark)).map(|line| line.trim().to_owned()).collect()
            };
            let values = BTreeMap::from([("rcpt", "bob@example.net".to_owned())]);
            Entry {
                name: name.to_owned(),
                message: fill(&body.join("\n"), &values),
                envelope: of('@'),
                expected: of('>'),
            }
        })
        .collect()
}

fn sections<'a>(file: &'a str, mark: &str) -> Vec<(&'a str, &'a str)> {
    let mark = format!("\n{mark}");
    file.split(mark.as_str()).skip(1).map(|section| section.split_once('\n').unwrap()).collect()
}

fn case(shapes: &BTreeMap<&str, &str>, line: &str) -> Entry {
    let parts: Vec<&str> = line.split(" ~ ").collect();
    let [shape, rcpt, status, diag, expected] = parts[..] else { panic!("not five parts: {line}") };
    let (expected, more) = expected.split_once(" ; ").unwrap_or((expected, ""));
    let (local, domain) = rcpt.rsplit_once('@').unwrap();
    let mut values = BTreeMap::from([
        ("rcpt", rcpt.to_owned()),
        ("rcptqp", rcpt.replace('=', "=3D")),
        ("rcptx", rcpt.replace('+', "+2B")),
        ("local", local.to_owned()),
        ("domain", domain.to_owned()),
        ("host", format!("out{}.relay.example", rcpt.len())),
        ("status", status.to_owned()),
        ("diag", diag.replace("\\n", "\n")),
    ]);
    values.extend(more.split_once('=').map(|(name, value)| (name, value.to_owned())));
    let template = shapes.get(shape).unwrap_or_else(|| panic!("no shape {shape}"));
    // A program that says nothing has no such field.
    let template =
        if diag == "-" { template.replace("Diagnostic-Code: smtp; {{diag}}\n", "") } else { (*template).to_owned() };
    let expected = expected
        .split(" + ")
        .map(|one| if one.contains('@') || one.starts_with("- ") { one.to_owned() } else { format!("{rcpt} {one}") });
    Entry {
        name: line.to_owned(),
        message: fill(&template, &values),
        envelope: Vec::new(),
        expected: expected.collect(),
    }
}

fn fill(template: &str, values: &BTreeMap<&str, String>) -> Vec<u8> {
    let original = ORIGINAL.to_owned();
    let mut text = template.replace("{{orig}}", &original);
    let to = format!("{TOKEN}@bounce.sender.example");
    text = text.replace("{{to}}", &to).replace("{{token}}", TOKEN);
    while let Some(start) = text.find("{{b64:") {
        let end = start + text[start..].find("}}").unwrap();
        let mut plain = text[start + 6..end].replace("\\n", "\r\n");
        for (name, value) in values {
            plain = plain.replace(&name.to_uppercase(), value);
        }
        text.replace_range(start..end + 2, &base64(plain.as_bytes()));
    }
    for (name, value) in values {
        // A value within a folded field goes on in the next line with white space, in a text without.
        text = text.replace(&format!("{{{{{name}}}}}"), value);
    }
    assert!(!text.contains("{{"), "a placeholder without a value: {text}");
    text.replace('\n', "\r\n").into_bytes()
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for (at, chunk) in bytes.chunks(3).enumerate() {
        if at > 0 && at % 19 == 0 {
            text.push('\n');
        }
        let bits = chunk.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..4 {
            let value = (bits >> (18 - 6 * digit)) as usize & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

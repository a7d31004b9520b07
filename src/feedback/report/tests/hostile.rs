//! What strangers write to break a reader: nothing panics, all that comes out is bounded, and the work grows as the input does.

use proptest::prelude::*;

use super::super::corpus::{bounces, mails};
use super::super::mail::{DEPTH_MAX, Mail, PARTS_MAX};
use super::super::*;

const ADDRESSED: [Addressed; 6] = [
    Addressed::ReturnPath,
    Addressed::Complaints,
    Addressed::Unsubscribe,
    Addressed::Dmarc,
    Addressed::TlsRpt,
    Addressed::Postmaster,
];

/// Reads at every address and with both senders; checks the bounds of what comes out.
fn read_everywhere(message: &[u8]) {
    let rules = Rules::built_in();
    for addressed in ADDRESSED {
        for is_null_sender in [false, true] {
            check_bounds(&read(message, &Context { is_null_sender, addressed, rules: &rules }));
        }
    }
}

/// Reads at one address, by number.
fn read_somewhere(message: &[u8], number: usize) {
    let addressed =
        if number.is_multiple_of(2) { Addressed::ReturnPath } else { ADDRESSED[number / 2 % ADDRESSED.len()] };
    check_bounds(&read(
        message,
        &Context { is_null_sender: number.is_multiple_of(3), addressed, rules: &Rules::built_in() },
    ));
}

fn check_bounds(report: &Report) {
    match report {
        Report::Delivery(report) => {
            assert!((1..=RECIPIENTS_MAX).contains(&report.recipients.len()));
            check_original(&report.original);
            for recipient in &report.recipients {
                assert!(recipient.named.len() <= 320);
                assert!(recipient.diagnostic.as_ref().is_none_or(|diagnostic| diagnostic.text.len() <= 2_000));
                assert!(recipient.reply.as_ref().is_none_or(|reply| reply.to_string().len() <= 2_100));
                assert_eq!(recipient.outcome.bounce().is_some(), recipient.action == Action::Failed);
            }
        }
        Report::Complaint(complaint) => {
            check_original(&complaint.original);
            assert!(complaint.recipients.len() <= 51 && complaint.reported_uris.len() <= 50 && complaint.incidents > 0);
            assert!(complaint.clues.tokens.len() <= 20 && complaint.clues.x_fields.len() <= 70);
        }
        Report::Unsubscribe(request) => assert!(request.subject.len() <= 200 && request.clues.tokens.len() <= 20),
        Report::DmarcAggregate(report) => assert!(report.rows.len() <= ROWS_MAX),
        Report::TlsReport(_) | Report::AutoReply(_) | Report::NotUnderstood(_) => {}
    }
}

fn check_original(original: &Original) {
    assert!(original.fields.len() <= 100 && original.recipients.len() <= 20);
    assert!(original.fields.iter().all(|(_, value)| value.len() <= 1_000));
}

/// Every message of the corpus, cut and changed at many places.
#[test]
fn a_corpus_that_was_cut_and_changed_breaks_nothing() {
    let octets = [0, b'\r', b'\n', b' ', b';', b'-', b'"', b':', b'<', b'@', b'=', 0x80, 0xff];
    for (number, entry) in bounces().into_iter().chain(mails()).enumerate() {
        let message = entry.message;
        let step = message.len() / 12 + 1;
        for at in (number % step..message.len()).step_by(step) {
            read_somewhere(&message[..at], at + number);
            let mut changed = message.clone();
            changed[at] = octets[(at + number) % octets.len()];
            changed.splice(at..at, message[at / 2..at].iter().copied());
            read_somewhere(&changed, at);
        }
    }
}

/// Repeats of what parsers dwell on: each as long as a report may be.
#[test]
fn giants_are_read_within_their_bounds() {
    let head = "From: MAILER-DAEMON@example.net\r\nSubject: failure notice\r\n";
    let report =
        "Content-Type: multipart/report; boundary=a\r\n\r\n--a\r\nContent-Type: message/delivery-status\r\n\r\n";
    for (start, unit) in [
        (head, "a@b.test "),
        (head, "X: y\r\n"),
        (head, "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n"),
        (head, "Content-Type: message/rfc822\r\n\r\n"),
        (head, "\r\n<a@b.test>: 550 5.1.1 no\r\n"),
        (head, "\r\n550 550-5.1.1 550 "),
        ("\r\n", "@"),
        ("\r\n", "5.1.1."),
        ("Subject: ", "=?utf-8?q?a?= "),
        ("Subject: ", "=?"),
        ("Content-Type: text/html\r\n\r\n", "<a@b"),
        ("Content-Type: text/html\r\n\r\n", "&#x41"),
        ("Content-Type: text/plain; ", "a=b;"),
        ("Content-Type: multipart/mixed; boundary=a\r\n\r\n", "--a\r\n\r\n"),
        (report, "Final-Recipient: rfc822; a@b.test\r\nAction: failed\r\n\r\n"),
        (report, "\r\n"),
        (report, "Diagnostic-Code: smtp; 550\r\n "),
        (report, "x400; /rfc-822="),
    ] {
        let message = format!("{start}{}", unit.repeat((1 << 20) / unit.len()));
        let mail = Mail::parse(message.as_bytes());
        assert!(mail.parts.len() <= PARTS_MAX && mail.parts.iter().all(|part| part.depth <= DEPTH_MAX));
        read_everywhere(message.as_bytes());
    }
    let huge = vec![b'a'; MESSAGE_BYTES_MAX + 1];
    let rules = Rules::built_in();
    let context = Context { is_null_sender: true, addressed: Addressed::ReturnPath, rules: &rules };
    assert_eq!(read(&huge, &context), Report::NotUnderstood(NotUnderstood::TooLarge));
}

/// Each level of a message sees its octets once: what all parts hold together is at most the message times the depth.
#[test]
fn the_work_of_taking_apart_is_linear() {
    for size in [1_000_usize, 10_000, 100_000] {
        let nested = "Content-Type: message/rfc822\r\n\r\n".repeat(size);
        let wide = format!("Content-Type: multipart/mixed; boundary=a\r\n\r\n{}", "--a\r\n\r\nx\r\n".repeat(size));
        for message in [nested, wide] {
            let mail = Mail::parse(message.as_bytes());
            let seen: usize = mail.parts.iter().map(|part| part.size_bytes() + part.header_raw.len()).sum();
            assert!(seen <= message.len() * (DEPTH_MAX + 1), "{seen} of {}", message.len());
        }
    }
}

#[test]
fn a_report_with_a_thousand_recipients_gives_the_first_hundred() {
    let groups: String = (0..1_000)
        .map(|n| format!("\r\nFinal-Recipient: rfc822; u{n}@a.test\r\nAction: failed\r\nStatus: 5.1.1\r\n"))
        .collect();
    let message = format!("Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n{groups}");
    let rules = Rules::built_in();
    let context = Context { is_null_sender: true, addressed: Addressed::ReturnPath, rules: &rules };
    let Report::Delivery(report) = read(message.as_bytes(), &context) else { panic!() };
    assert_eq!(report.recipients.len(), RECIPIENTS_MAX);
    assert_eq!(report.recipients[99].final_recipient.as_ref().unwrap().as_str(), "u99@a.test");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_octets_are_read(octets in prop::collection::vec(any::<u8>(), 0..2_000)) {
        read_everywhere(&octets);
    }

    #[test]
    fn any_pieces_of_reports_are_read(pieces in prop::collection::vec(piece(), 0..60)) {
        read_everywhere(&pieces.concat());
    }
}

/// What reports are made of.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let words = prop::sample::select(vec![
        "\r\n",
        "\n",
        "\r\n\r\n",
        ": ",
        ";",
        "--a\r\n",
        "--a--\r\n",
        "Content-Type: ",
        "multipart/report; boundary=a\r\n",
        "message/delivery-status\r\n\r\n",
        "message/feedback-report\r\n\r\n",
        "message/rfc822\r\n\r\n",
        "text/html\r\n\r\n",
        "Content-Transfer-Encoding: base64\r\n",
        "Content-Transfer-Encoding: quoted-printable\r\n",
        "Final-Recipient: rfc822; ",
        "a@b.test",
        "Original-Recipient: ",
        "Action: failed\r\n",
        "Status: 5.1.1\r\n",
        "Diagnostic-Code: smtp; ",
        "550 5.1.1 ",
        "<a@b.test>:",
        "Subject: ",
        "failure notice",
        "From: MAILER-DAEMON\r\n",
        "=?utf-8?b?",
        "?=",
        "Feedback-Type: abuse\r\n",
        "User-Agent: x\r\n",
        "+2B",
        "\\x{41}",
        "Below this line is a copy of the message.",
        "Received: from",
        "X-Failed-Recipients: ",
        "could not be delivered",
        "charset=iso-2022-jp",
    ]);
    prop_oneof![
        9 => words.prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..20),
    ]
}

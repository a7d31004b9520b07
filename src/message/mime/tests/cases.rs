//! Odd messages one by one.

use super::*;

#[track_caller]
fn check(message: &str, expected: &str) {
    check_octets(message.as_bytes(), expected);
}

#[track_caller]
fn check_octets(message: &[u8], expected: &str) {
    let done = run(message);
    assert_eq!(String::from_utf8_lossy(&done.message()), expected);
    assert_eq!(done.plan.is_clean(), done.body == cut(message).1);
    assert_settled(&done.message());
}

/// Only the header of the message changes.
#[track_caller]
fn check_header(message: &str, expected: &str) {
    check(message, expected);
    assert!(run(message.as_bytes()).plan.is_clean());
    assert!(message != expected);
}

/// Nothing is changed, for one reason.
#[track_caller]
fn remains(message: &[u8], reason: Reason, dirt: Dirt) {
    let done = run(message);
    assert_eq!(String::from_utf8_lossy(&done.message()), String::from_utf8_lossy(message));
    assert!(done.plan.is_clean());
    assert_eq!(done.plan.remaining(), [Remaining { reason, dirt }]);
    assert_eq!(done.plan.left(), dirt);
    assert_eq!(done.plan.is_seven_bit(), !dirt.eight_bit);
}

const EIGHT_BIT: Dirt = Dirt { eight_bit: true, long_line: false };
const LONG_LINE: Dirt = Dirt { eight_bit: false, long_line: true };

#[test]
fn a_message_without_mime_gets_a_charset_and_an_encoding() {
    check(
        "Subject: x\r\n\r\nGrüße\r\n",
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=C3=BC=C3=9Fe\r\n",
    );
    check_octets(
        b"Subject: x\r\n\r\nGr\xfc\xdfe\r\n",
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\nGr=FC=DFe\r\n",
    );
    // Only a long line: the default charset is right, and need not be said.
    let done = run([b"A: b\r\n\r\n", "y".repeat(999).as_bytes(), b"\r\n"].concat().as_slice());
    assert_eq!(
        String::from_utf8(done.header).unwrap(),
        "A: b\r\nMIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
    );
    check("", "");
    check("\r\n", "\r\n");
    check(
        "ü\r\n",
        "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
        Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n",
    );
}

#[test]
fn a_body_without_an_empty_line_before_it_is_a_body() {
    check(
        "Subject: x\r\nDear ü\r\n\r\nyours\r\n",
        "Subject: x\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Transfer-Encoding: quoted-printable\r\n\r\nDear =C3=BC\r\n\r\nyours\r\n",
    );
}

#[test]
fn fields_are_replaced_in_place_and_keep_what_they_say() {
    check(
        "MIME-Version: 1.0\r\ncontent-transfer-encoding: 8bit (raw)\r\nContent-type: text/html;\r\n\tformat=x;\r\nX: y\r\n\r\nü\r\n",
        "MIME-Version: 1.0\r\nContent-Transfer-Encoding: quoted-printable\r\nContent-type: text/html;\r\n\tformat=x; charset=utf-8\r\n\
         X: y\r\n\r\n=C3=BC\r\n",
    );
    let long = format!("Content-Type: text/plain; x=\"{}\"", "y".repeat(60));
    check(
        &format!("MIME-Version: 1.0\r\n{long}\r\n\r\nü\r\n"),
        &format!(
            "MIME-Version: 1.0\r\n{long};\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"
        ),
    );
    // A charset that is there is right or wrong, but theirs; HTML may name its own.
    for kind in ["text/plain; charset=us-ascii", "text/plain; x=\"", "nonsense"] {
        let header = format!("MIME-Version: 1.0\r\nContent-Type: {kind}\r\n");
        check(
            &format!("{header}\r\nü\r\n"),
            &format!("{header}Content-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n"),
        );
    }
    check_octets(
        b"MIME-Version: 1.0\r\nContent-Type: text/html\r\n\r\n<meta charset=koi8-r>\xc1\r\n",
        "MIME-Version: 1.0\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         <meta charset=3Dkoi8-r>=C1\r\n",
    );
}

#[test]
fn parts_are_encoded_each_for_itself_and_what_holds_them_is_seven_bit_then() {
    let text = "ü and much more text that is plain";
    check(
        &format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n\
             --b\r\n\r\n{text}\r\n--b \r\nContent-Type: image/x\r\nContent-Transfer-Encoding: binary\r\n\r\näöü\r\n--b\r\n\
             Content-Transfer-Encoding: 8bit\r\n\r\nplain\r\n--b--\r\n"
        ),
        &format!(
            "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n\
             --b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n{}\r\n\
             --b \r\nContent-Type: image/x\r\nContent-Transfer-Encoding: base64\r\n\r\nw6TDtsO8\r\n--b\r\n\
             Content-Transfer-Encoding: 7bit\r\n\r\nplain\r\n--b--\r\n",
            text.replace('ü', "=C3=BC")
        ),
    );
}

#[test]
fn a_label_that_is_not_needed_becomes_7bit_in_the_header_alone() {
    for label in ["8bit", "8BIT", "binary", " (raw)\r\n 8bit (x)", "Binary"] {
        check_header(
            &format!("MIME-Version: 1.0\r\nContent-Transfer-Encoding: {label}\r\nX: y\r\n\r\nplain \r\n=\r\n"),
            "MIME-Version: 1.0\r\nContent-Transfer-Encoding: 7bit\r\nX: y\r\n\r\nplain \r\n=\r\n",
        );
    }
    let composite =
        "Content-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n";
    check_header(composite, &composite.replace("8bit", "7bit"));
    let attached = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: binary\r\n\r\nA: b\r\n\r\nx\r\n";
    check_header(attached, &attached.replace("binary", "7bit"));
    // Where the body begins without an empty line, and where there is none.
    check_header(
        "Content-Transfer-Encoding: 8bit\r\nDear x\r\n\r\nyours\r\n",
        "Content-Transfer-Encoding: 7bit\r\n\r\nDear x\r\n\r\nyours\r\n",
    );
    check_header("Content-Transfer-Encoding: 8bit", "Content-Transfer-Encoding: 7bit\r\n\r\n");
}

#[test]
fn labels_of_parts_that_are_not_needed_become_7bit() {
    let message = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Transfer-Encoding: 8bit\r\nX: y\r\n\r\nplain\r\n\
                   --b\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n\r\nA: b\r\n\
                   Content-Transfer-Encoding: binary\r\n\r\nx\r\n--b\r\nContent-Transfer-Encoding: 8bit\r\n--b--\r\n";
    let expected = message.replace("8bit", "7bit").replace("binary", "7bit");
    check(message, &expected.replace("7bit\r\n--b--", "7bit\r\n\r\n--b--"));
}

#[test]
fn labels_stay_where_octets_may_pass_and_where_nothing_may_change() {
    let label = "Content-Transfer-Encoding: 8bit\r\n";
    let plain = format!("{label}\r\nplain\r\n");
    let part = format!("Content-Type: multipart/mixed; boundary=b\r\n{label}\r\n--b\r\n{label}\r\nplain\r\n--b--\r\n");
    for message in [&plain, &part] {
        let done = run_by(message.as_bytes(), EightBitBodies::Pass, 9);
        assert!(done.plan.is_clean() && done.message() == message.as_bytes());
    }
    for kind in [
        "multipart/signed; boundary=b",
        "multipart/encrypted; boundary=b",
        "message/partial",
        "message/delivery-status",
        "multipart/mixed",
        "multipart/mixed; boundary=nowhere",
        "text/plain\r\nContent-Type: text/html",
    ] {
        let message = format!("Content-Type: {kind}\r\n{label}\r\n--b\r\n{label}\r\nplain\r\n--b--\r\n");
        check(&message, &message);
    }
}

#[test]
fn the_label_of_what_holds_octets_that_stay_stays() {
    let label = "Content-Transfer-Encoding: 8bit\r\n";
    let message = |inner: &str, text: &str| {
        format!(
            "Content-Type: multipart/mixed; boundary=b\r\n{label}\r\n--b\r\n{inner}\r\nplain\r\n--b\r\n\
             Content-Type: multipart/signed; boundary=s\r\n{label}\r\n--s\r\n{label}\r\n{text}\r\n--s--\r\n--b--\r\n"
        )
    };
    let relabelled = label.replace('8', "7");
    check(&message(label, "ü"), &message(&relabelled, "ü"));
    // Only what is signed stays, once all is plain.
    check(&message(label, "u"), &message(&relabelled, "u").replacen("8bit", "7bit", 1));
    // A field that cannot be encoded is content of what is around it, and not of its own part.
    let field =
        "Content-Type: message/rfc822\r\n{}\r\nFrom: <ü@x.test>\r\nContent-Transfer-Encoding: 8bit\r\n\r\nx\r\n";
    let message = field.replace("{}", label);
    let at = message.rfind("8bit").unwrap();
    check(&message, &format!("{}7bit{}", &message[..at], &message[at + 4..]));
    // The field that is replaced does not count.
    check(
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 8bit\r\n\r\n--b\r\n\
         Content-Transfer-Encoding: 8bit; \"ü\r\n\r\nplain\r\n--b--\r\n",
        "MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\nContent-Transfer-Encoding: 7bit\r\n\r\n--b\r\n\
         Content-Transfer-Encoding: 7bit\r\n\r\nplain\r\n--b--\r\n",
    );
}

#[test]
fn text_with_many_such_octets_and_what_is_no_text_become_what_is_shorter() {
    let encoding = |kind: &str, body: &str| {
        let message = format!("MIME-Version: 1.0\r\nContent-Type: {kind}\r\n\r\n{body}\r\n");
        let header = String::from_utf8(run(message.as_bytes()).header).unwrap();
        header.split("Encoding: ").nth(1).unwrap().trim().to_owned()
    };
    let mostly_ascii = format!("{}ü", "words ".repeat(50));
    assert_eq!(encoding("text/plain; charset=utf-8", &mostly_ascii), "quoted-printable");
    assert_eq!(encoding("application/json", &mostly_ascii), "quoted-printable");
    assert_eq!(encoding("text/plain; charset=utf-8", &"日本語".repeat(50)), "base64");
    assert_eq!(encoding("application/pdf", &"日\r\n".repeat(50)), "base64");
    // What else must be escaped counts the same.
    for escaped in ["=", "\u{1b}", "\u{7f}"] {
        let mostly_escaped = format!("{}ü", format!("{}\r\n", escaped.repeat(70)).repeat(20));
        assert_eq!(encoding("text/plain; charset=utf-8", &mostly_escaped), "base64");
        assert_eq!(encoding("application/json", &mostly_escaped), "base64");
        let few = format!("{}ü", format!("{escaped}name value\r\n").repeat(20));
        assert_eq!(encoding("text/plain; charset=utf-8", &few), "quoted-printable");
    }
    // Text may be somewhat longer for the sake of those who read it as it is, and by a few octets in any case.
    let text = "größer als andere ".repeat(20);
    assert_eq!(encoding("text/plain; charset=utf-8", &text), "quoted-printable");
    assert_eq!(encoding("application/json", &text), "base64");
    assert_eq!(encoding("text/plain; charset=utf-8", "Zażółć"), "quoted-printable");
}

#[test]
fn line_ends_of_binary_content_are_octets() {
    let line = "{\"a\": \"b\"}".repeat(8);
    check(
        &format!("MIME-Version: 1.0\r\nContent-Type: application/json\r\n\r\n{line}\r\nü\r\n"),
        &format!(
            "MIME-Version: 1.0\r\nContent-Type: application/json\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
             {}=\r\n{}=0D=0A=C3=BC=0D=0A",
            line.split_at(75).0,
            line.split_at(75).1
        ),
    );
}

#[test]
fn what_is_encoded_already_is_wrapped_anew_where_its_lines_are_long() {
    let digits = "QUJD".repeat(300);
    let wrapped: Vec<&str> = (0..1_200).step_by(76).map(|at| &digits[at..(at + 76).min(1_200)]).collect();
    let header = "Content-Transfer-Encoding: base64\r\n\r\n";
    check(&format!("{header}{digits}\r\n"), &format!("{header}{}\r\n", wrapped.join("\r\n")));
    check(&format!("{header}QU JD\r\nQUI=\r\n"), &format!("{header}QU JD\r\nQUI=\r\n"));
    let header = "Content-Transfer-Encoding: quoted-printable\r\n\r\n";
    check(&format!("{header}=C3=BC=\r\nü\r\n"), &format!("{header}=C3=BC=\r\n=C3=BC\r\n"));
}

#[test]
fn in_a_digest_parts_are_messages() {
    check(
        "MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: Grüße\r\n\r\nü\r\n--b--\r\n",
        "MIME-Version: 1.0\r\nContent-Type: multipart/digest; boundary=b\r\n\r\n--b\r\n\r\nSubject: =?utf-8?B?R3LDvMOfZQ==?=\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n\
         =C3=BC\r\n--b--\r\n",
    );
}

#[test]
fn attached_messages_are_read_and_what_no_encoding_can_say_stays() {
    let outer = "Content-Type: message/global\r\n\r\n";
    check(
        &format!("{outer}From: \"Ü\" <u@x.test>\r\n\r\nx\r\n"),
        &format!("{outer}From: =?utf-8?B?w5w=?= <u@x.test>\r\n\r\nx\r\n"),
    );
    let message = format!("{outer}From: <ü@x.test>\r\n\r\nx\r\n");
    remains(message.as_bytes(), Reason::HeaderField, EIGHT_BIT);
    remains("Content-Type: message/rfc822\r\n\r\nFrom me\r\nA: ü\r\n\r\nx\r\n".as_bytes(), Reason::MboxLine, EIGHT_BIT);
    // An encoding makes it one opaque part.
    let encoded = "Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n\r\nU3ViamVjdA==\r\n";
    check(encoded, encoded);
}

#[test]
fn what_no_reader_shows_is_made_plain() {
    let long = "z".repeat(1_200);
    let (head, rest) = long.split_at(998);
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--ü\r\n--b\r\n\r\nx\r\n--b--\r\n{long}-\r\n"),
        &format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n --??\r\n--b\r\n\r\nx\r\n--b--\r\n{head}\r\n{rest}-\r\n"
        ),
    );
}

#[test]
fn signed_and_sealed_parts_stay() {
    for kind in
        ["multipart/signed; boundary=s", "multipart/encrypted; boundary=s", "message/partial; id=1", "message/news"]
    {
        let part = format!("--s\r\n\r\nü\r\n--s\r\nContent-Type: text/html\r\n\r\n{}\r\n--s--\r\n", "y".repeat(999));
        let reason = if kind.starts_with("multipart") { Reason::Signed } else { Reason::MessageType };
        let both = Dirt { eight_bit: true, long_line: true };
        let message = format!("Content-Type: {kind}\r\n\r\n{part}");
        remains(message.as_bytes(), reason, both);
        let around =
            format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n{message}--b\r\n\r\nplain\r\n--b--\r\n");
        remains(around.as_bytes(), reason, both);
        // What stands beside it is helped.
        let done = run(around.replace("plain", "ü").as_bytes());
        assert!(!done.plan.is_clean() && !done.plan.is_seven_bit());
        assert!(String::from_utf8_lossy(&done.body).contains(&part));
    }
}

#[test]
fn what_cannot_be_told_for_sure_stays() {
    for (header, reason) in [
        ("Content-Transfer-Encoding: x-uuencode\r\n", Reason::UnknownEncoding),
        ("Content-Type: multipart/mixed\r\n", Reason::NoBoundary),
        ("Content-Type: multipart/mixed; boundary=\"ü\"\r\n", Reason::NoBoundary),
        ("Content-Type: multipart/mixed; boundary=a b\r\n", Reason::NoBoundary),
        ("Content-Type: multipart/mixed; boundary=nowhere\r\n", Reason::NoParts),
        ("Content-Type: text/plain\r\ncontent-type: text/html\r\n", Reason::RepeatedField),
        ("Content-Transfer-Encoding: 8bit\r\nContent-Transfer-Encoding: base64\r\n", Reason::RepeatedField),
    ] {
        remains(format!("{header}\r\n--b\r\n\r\nü\r\n--b--\r\n").as_bytes(), reason, EIGHT_BIT);
        remains(format!("{header}\r\n{}\r\n", "y".repeat(999)).as_bytes(), reason, LONG_LINE);
    }
}

#[test]
fn what_is_beyond_the_bounds_stays() {
    let open = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";
    let long_header = format!("{open}--b\r\nX: {}\r\n ü\r\n\r\nü\r\n--b--\r\n", "y".repeat(65_536));
    remains(long_header.as_bytes(), Reason::HeaderTooLong, Dirt { eight_bit: true, long_line: true });
    let many = format!("{open}{}--b\r\n\r\nü\r\n--b--\r\n", "--b\r\n\r\nx\r\n".repeat(1_000));
    remains(many.as_bytes(), Reason::TooManyParts, EIGHT_BIT);
    let deep = "Content-Type: message/rfc822\r\n\r\n".repeat(33);
    remains(format!("{deep}A: b\r\n\r\nü\r\n").as_bytes(), Reason::TooDeep, EIGHT_BIT);
    let enough = "Content-Type: message/rfc822\r\n\r\n".repeat(32);
    assert!(run(format!("{enough}A: b\r\n\r\nü\r\n").as_bytes()).plan.is_seven_bit());
}

#[test]
fn long_fields_of_parts_are_folded() {
    let word = "w".repeat(600);
    check(
        &format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX-A: {word} {word}\r\n\r\nx\r\n--b--\r\n"),
        &format!(
            "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX-A: {word}\r\n {word}\r\n\r\nx\r\n--b--\r\n"
        ),
    );
    let whole =
        format!("Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nX-A: {word}{word}\r\n\r\nx\r\n--b--\r\n");
    remains(whole.as_bytes(), Reason::HeaderField, LONG_LINE);
}

#[test]
fn an_outer_boundary_ends_inner_parts() {
    check(
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\r\nü\r\n\
         --b\r\n\r\nx\r\n--b--\r\n",
        "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary=i\r\n\r\n--i\r\n\
         Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n=C3=BC\r\n\
         --b\r\n\r\nx\r\n--b--\r\n",
    );
}

#[test]
fn a_boundary_that_is_open_already_is_unclear() {
    for inner in ["b", "b--"] {
        remains(
            format!(
                "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: multipart/mixed; boundary={inner}\r\n\r\n\
                 ü\r\n--{inner}\r\n\r\nx\r\n--{inner}--\r\n--b--\r\n"
            )
            .as_bytes(),
            Reason::NoBoundary,
            EIGHT_BIT,
        );
    }
}

#[test]
fn every_reason_says_something_of_its_own() {
    let reasons = [
        Reason::Signed,
        Reason::MessageType,
        Reason::UnknownEncoding,
        Reason::NoBoundary,
        Reason::NoParts,
        Reason::RepeatedField,
        Reason::HeaderField,
        Reason::MboxLine,
        Reason::HeaderTooLong,
        Reason::TooManyParts,
        Reason::TooDeep,
    ];
    let texts: std::collections::BTreeSet<&str> = reasons.iter().map(|reason| reason.text()).collect();
    assert_eq!(texts.len(), reasons.len());
    assert_eq!(Reason::TooDeep.to_string(), Reason::TooDeep.text());
}

#[test]
fn octets_above_127_and_long_lines_are_found_in_the_body_only() {
    let long = format!("{}\r\n", "y".repeat(999));
    for (header, body, eight_bit, long_line) in [
        ("a: b\r\n\r\n", "c\r\n", false, false),
        ("a: \u{fc}\r\n\r\n", "c\r\n", false, false),
        ("a: b\r\n\r\n", "\u{fc}\r\n", true, false),
        ("\u{fc}: b\r\n\r\n", "\u{fc}\r\n", true, false),
        ("a: b\r\n\r\n", long.as_str(), false, true),
        ("a: b\r\n\r\n", &long[1..], false, false),
    ] {
        for step in [1, 7, 10_000] {
            let mut scanner = Scanner::new(header.as_bytes(), EightBitBodies::Encode);
            body.as_bytes().chunks(step).for_each(|piece| scanner.push(piece));
            assert_eq!(scanner.finish().found(), Dirt { eight_bit, long_line }, "{header:?} {body:?} by {step}");
        }
    }
}

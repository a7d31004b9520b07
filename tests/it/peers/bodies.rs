//! Re-encoded bodies, read by Python's email package: the same parts with the same contents as before.

use std::process::Command;

use posthaste::message::header::block_end;
use posthaste::message::mime::{EightBitBodies, Rewriter, Scanner};
use serde_json::Value;

use super::tools::{program, run, script};

/// The message as it would be sent.
fn rewritten(message: &[u8]) -> Vec<u8> {
    let (header, body) = message.split_at(block_end(message, 0).unwrap());
    let mut scanner = Scanner::new(header, EightBitBodies::Encode);
    scanner.push(body);
    let plan = scanner.finish();
    let mut out = plan.header(header).into_owned();
    let mut rewriter = Rewriter::new(header, &plan);
    rewriter.push(body, &mut out);
    rewriter.finish(&mut out);
    assert!(!plan.is_clean() && plan.remaining().is_empty(), "{plan:?}");
    assert!(out.is_ascii() && out.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
    out
}

fn parts(message: &[u8]) -> Vec<Value> {
    let printed = run(Command::new(program("python3")).arg(script("mime_reader.py")), message);
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Python finds as many parts as expected, and in each the same before and after. What was added to a part that named no
/// charset is `utf-8`; a name in raw octets is one that Python does not read, and is expected behind them.
#[track_caller]
fn check(message: &[u8], expected_parts: usize) -> Vec<Value> {
    let crlf = String::from_utf8_lossy(message).replace('\n', "\r\n");
    let (before, after) = (parts(crlf.as_bytes()), parts(&rewritten(crlf.as_bytes())));
    assert_eq!((before.len(), after.len()), (expected_parts, expected_parts));
    for (before, after) in before.iter().zip(&after) {
        for name in ["path", "type", "content"] {
            assert_eq!(before[name], after[name]);
        }
        assert!(before["charset"] == after["charset"] || before["charset"].is_null() && after["charset"] == "utf-8");
        assert!(!before["content"].as_str().unwrap().is_empty());
    }
    after
}

#[test]
fn python_reads_a_plain_message_as_before() {
    let text = "From: a@b.test\nSubject: x\n\nGrüße aus Köln,\n\n.\n..\nFrom here on:  \n-- \nJürgen = ich\n";
    let after = check(text.as_bytes(), 1);
    assert_eq!(after[0]["charset"], "utf-8");
}

#[test]
fn python_reads_a_newsletter_as_before() {
    let html =
        format!("<html><body>{}ü</body></html>", "<p class=\"x\">One line of a template engine.</p>".repeat(200));
    let text = format!(
        "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/related; boundary=\"outer\"; type=\"multipart/alternative\"\n\n\
         This is a multi-part message – of course.\n--outer\nContent-Type: multipart/alternative; boundary=\"outer-1\"\n\n\
         --outer-1\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nHallo Jörg \n\n--outer is no boundary here\n\
         --outer-1\nContent-Type: text/html; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n{html}\n--outer-1--\n\n--outer\n\
         Content-Type: image/gif; name*=utf-8''gr%C3%BCn.gif\nContent-Transfer-Encoding: base64\nContent-ID: <i@b.test>\n\n{}\n\
         --outer--\nScanned for viruses – none found\n",
        "R0lGODlhAQABAIAAAAUEBA".repeat(60)
    );
    let after = check(text.as_bytes(), 3);
    assert_eq!(after[2]["name"], "grün.gif");
}

#[test]
fn python_reads_attachments_and_their_names_as_before() {
    let text = "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\nContent-Transfer-Encoding: 8bit\n\n\
                --b\n\nSiehe Anlage – danke\n--b\nContent-Type: application/json\n\n{\"größe\": \"äöü\"}\n\n\
                --b\nContent-Type: text/calendar; method=REQUEST\n\nBEGIN:VCALENDAR\nSUMMARY:Frühstück\nEND:VCALENDAR\n\
                --b\nContent-Type: text/csv; charset=utf-8\nContent-Disposition: attachment; filename=\"Übersicht.csv\"\n\n\
                a;ü\n1;ß\n--b--\n";
    let after = check(text.as_bytes(), 4);
    assert_eq!(after[3]["name"], "Übersicht.csv");
    assert_eq!(after[2]["charset"], "utf-8");
}

#[test]
fn python_reads_attached_messages_as_before() {
    let text = "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/digest; boundary=b\n\n\
                --b\n\nSubject: =?utf-8?q?=C3=BC?=\nTo: x@y.test\n\nErste Nachricht, größer\n\n--b\nContent-Type: message/rfc822\n\n\
                Subject: two\nMIME-Version: 1.0\nContent-Type: multipart/alternative; boundary=i\n\n--i\n\nzwölf\n--i\n\
                Content-Type: text/html\n\n<b>zwölf</b>\n--i--\n--b--\n";
    check(text.as_bytes(), 3);
}

#[test]
fn python_reads_broken_structure_as_before() {
    // No delimiter at the end of either multipart, and one of the outer within the inner.
    let text = "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\
                Content-Type: multipart/mixed; boundary=bb\n\n--bb\n\nföö\n--b  \nContent-Type: text/plain; charset=utf-8\n\n--b-\nbär\n";
    check(text.as_bytes(), 2);
}

#[test]
fn python_reads_what_was_encoded_already_as_before() {
    let text = format!(
        "From: a@b.test\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
         --b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n{}=\nund roh: ü\n\
         --b\nContent-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n{}RA==\n--b--\n",
        "Gr=C3=BC=C3=9Fe ohne Ende ".repeat(60),
        "QUJD".repeat(600)
    );
    check(text.as_bytes(), 2);
}

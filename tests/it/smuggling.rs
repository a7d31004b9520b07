//! Messages that some host might see as two, or that no host should see: what reaches the next host is clean, and one.

use crate::harness::*;

const FROM: &str = "app@sender.example";

/// What an attacker hides in a message: were the octets before it taken for an end of data, this would be a second one.
const HIDDEN: &str = "MAIL FROM:<evil@sender.example>\r\nRCPT TO:<victim@example.test>\r\nDATA\r\n\
    From: evil@sender.example\r\nSubject: hidden\r\n\r\nhidden\r\n";

/// Everything that is no CRLF.CRLF and was taken for one by some server.
const FALSE_ENDS: [&[u8]; 14] = [
    b"\n.\n",
    b"\n.\r\n",
    b"\n.\r",
    b"\r.\r",
    b"\r.\r\n",
    b"\r.\n",
    b"\r\n.\n",
    b"\r\n.\r",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\r\n.\r\0\n",
    b"\r\0\n.\r\n",
    b"\n\n.\n\n",
    b"\r\r.\r\r\n",
];

/// A host that takes everything, and the daemon before it with this hygiene.
fn with_hygiene(hygiene: &str) -> (Lab, Mx, Daemon) {
    with(&[("reception.hygiene", &format!("\"{hygiene}\""))])
}

/// A daemon with these settings, and the mail host of `example.test`.
fn with(settings: &[(&str, &str)]) -> (Lab, Mx, Daemon) {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let config = settings.iter().fold(lab.config(), |config, (key, value)| config.set(key, value));
    let daemon = lab.daemon_with(config);
    (lab, mx, daemon)
}

/// Hands in the octets as a message of its own connection; the one reply that there must be.
fn hand_in(lab: &Lab, daemon: &Daemon, message: &[u8]) -> Reply {
    let mut client = lab.client(daemon);
    client.envelope(FROM, &["you@example.test"]).unwrap();
    // In one write, as an attacker would, with a command behind it whose reply must be the next.
    client.write(&[message, b"\r\n.\r\nNOOP\r\n"].concat()).unwrap();
    let reply = client.reply().unwrap();
    let next = client.reply().unwrap();
    assert_eq!(next.code, 250, "one reply for the message, then one for NOOP: {reply:?}, {next:?}");
    assert!(!next.text.contains("-000000"), "not another message: {next:?}");
    reply
}

/// Fails unless the octets are what RFC 5321 and 5322 allow on the wire, and just one message.
fn assert_clean(got: &Transaction) {
    let raw = &got.raw;
    let shown = String::from_utf8_lossy(raw);
    assert!(!raw.contains(&0), "a NUL in {shown:?}");
    for (at, byte) in raw.iter().enumerate() {
        let before = at.checked_sub(1).and_then(|before| raw.get(before));
        match byte {
            b'\n' => assert_eq!(before, Some(&b'\r'), "a bare LF at {at} in {shown:?}"),
            b'\r' => assert_eq!(raw.get(at + 1), Some(&b'\n'), "a bare CR at {at} in {shown:?}"),
            _ => {}
        }
    }
    let ends = raw.windows(5).filter(|window| *window == b"\r\n.\r\n").count();
    assert_eq!(ends, 1, "more than one end of data in {shown:?}");
    for line in raw.split(|byte| *byte == b'\n') {
        assert!(line.len() < 1_000, "a line of {} octets", line.len() + 1);
    }
}

fn message(body: &[u8]) -> Vec<u8> {
    [b"From: app@sender.example\r\nTo: you@example.test\r\nSubject: outer\r\n\r\n".as_slice(), body].concat()
}

/// All that reached the host, once the queue is empty. None of it is the hidden message.
fn arrived(mx: &Mx, daemon: &Daemon) -> Vec<Transaction> {
    daemon.wait_empty();
    let got = mx.transactions();
    for one in &got {
        assert_eq!((one.from.as_str(), one.subject().as_str()), (FROM, "outer"));
        assert_eq!(one.recipients, ["you@example.test"]);
        assert_clean(one);
    }
    got
}

#[test]
fn false_ends_of_data_are_refused() {
    let (lab, mx, daemon) = with_hygiene("refuse");
    for end in FALSE_ENDS {
        let body = [b"before".as_slice(), end, HIDDEN.as_bytes(), b"after"].concat();
        let reply = hand_in(&lab, &daemon, &message(&body));
        assert_eq!((reply.code, reply.text.starts_with("5.6.11 ")), (550, true), "{end:?}: {reply:?}");
    }
    assert!(arrived(&mx, &daemon).is_empty());
}

#[test]
fn false_ends_of_data_are_repaired_to_one_message_that_stays_one() {
    let (lab, mx, daemon) = with_hygiene("repair");
    for end in FALSE_ENDS {
        let body = [b"before".as_slice(), end, HIDDEN.as_bytes(), b"after"].concat();
        let reply = hand_in(&lab, &daemon, &message(&body));
        assert_eq!(reply.code, 250, "{end:?}: {reply:?}");
    }
    let got = arrived(&mx, &daemon);
    assert_eq!(got.len(), FALSE_ENDS.len());
    for one in got {
        let text = one.text();
        assert!(text.contains("before") && text.contains("after") && text.contains("Subject: hidden"), "{text:?}");
    }
}

#[test]
fn lines_that_begin_with_dots_arrive_as_they_were_written() {
    let (lab, mx, daemon) = with_hygiene("refuse");
    // As on the wire: each first dot is doubled.
    let reply = hand_in(&lab, &daemon, &message(b"..\r\n...\r\n..a\r\nb.\r\n...."));
    assert_eq!(reply.code, 250, "{reply:?}");
    let got = arrived(&mx, &daemon);
    assert!(got[0].data.ends_with(b"\r\n\r\n.\r\n..\r\n.a\r\nb.\r\n...\r\n"), "{:?}", got[0].text());
}

#[test]
fn a_body_that_is_only_dots_cannot_end_the_data_early() {
    let (lab, mx, daemon) = with_hygiene("refuse");
    let reply = hand_in(&lab, &daemon, &message(&b"..\r\n".repeat(2_000)));
    assert_eq!(reply.code, 250, "{reply:?}");
    let got = arrived(&mx, &daemon);
    let dots = got[0].text().lines().filter(|line| *line == ".").count();
    assert_eq!(dots, 2_000);
}

#[test]
fn bare_line_ends_and_nul_in_the_header_are_refused_or_repaired() {
    for header in [b"X-Bad: a\nX-Worse: b\r\n".as_slice(), b"X-Bad: a\rX-Worse: b\r\n", b"X-Bad: a\0b\r\n"] {
        for (hygiene, code) in [("refuse", 550), ("repair", 250)] {
            let (lab, mx, daemon) = with_hygiene(hygiene);
            let reply = hand_in(&lab, &daemon, &[header, &message(b"body")].concat());
            assert_eq!(reply.code, code, "{hygiene} {header:?}: {reply:?}");
            assert_eq!(arrived(&mx, &daemon).len(), usize::from(code == 250));
        }
    }
}

#[test]
fn eight_bit_header_fields_are_made_seven_bit() {
    let (lab, mx, daemon) = with_hygiene("refuse");
    let reply = hand_in(&lab, &daemon, &[b"X-Name: J\xfcrgen\r\n".as_slice(), &message(b"body")].concat());
    assert_eq!(reply.code, 250, "{reply:?}");
    let got = arrived(&mx, &daemon);
    let field = b"X-Name: =?iso-8859-1?B?SvxyZ2Vu?=\r\n";
    assert!(got[0].data.windows(field.len()).any(|window| window == field), "{:?}", got[0].text());
}

#[test]
fn a_line_of_5000_octets_is_refused_or_encoded_so_that_any_host_takes_it() {
    let (lab, mx, daemon) = with(&[("reception.long_lines", "\"refuse\"")]);
    let reply = hand_in(&lab, &daemon, &message(&b"x".repeat(5_000)));
    assert_eq!((reply.code, reply.text.starts_with("5.6.11 ")), (550, true), "{reply:?}");
    assert!(arrived(&mx, &daemon).is_empty());

    let (lab, mx, daemon) = with(&[]);
    let reply = hand_in(&lab, &daemon, &message(&b"x".repeat(5_000)));
    assert_eq!(reply.code, 250, "{reply:?}");
    let got = arrived(&mx, &daemon);
    let text = got[0].text();
    let (header, body) = text.split_once("\r\n\r\n").unwrap();
    assert!(header.contains("\r\nContent-Transfer-Encoding: quoted-printable"), "{header}");
    // Soft line breaks only: who decodes it has the one line again.
    assert_eq!(body.replace("=\r\n", ""), format!("{}\r\n", "x".repeat(5_000)));
    assert!(body.lines().all(|line| line.len() <= 76), "{body:?}");
}

#[test]
fn a_long_header_field_is_refused_or_folded() {
    let header = format!("X-Long: {}\r\n", "word ".repeat(1_000));
    for (long_lines, code) in [("\"refuse\"", 550), ("\"encode\"", 250)] {
        let (lab, mx, daemon) = with(&[("reception.long_lines", long_lines)]);
        let reply = hand_in(&lab, &daemon, &[header.as_bytes(), &message(b"body")].concat());
        assert_eq!(reply.code, code, "{long_lines}: {reply:?}");
        let got = arrived(&mx, &daemon);
        assert_eq!(got.iter().filter(|one| one.text().matches("word").count() == 1_000).count(), got.len());
        assert_eq!(got.len(), usize::from(code == 250));
    }
}

#[test]
fn commands_behind_the_end_of_data_are_commands_and_not_another_message_of_somebody_else() {
    let (lab, mx, daemon) = with_hygiene("refuse");
    let mut client = lab.client(&daemon);
    client.envelope(FROM, &["you@example.test"]).unwrap();
    // Pipelined, and legal: two messages of one client.
    let second = "MAIL FROM:<app@sender.example>\r\nRCPT TO:<you@example.test>\r\nDATA\r\n";
    client.write(&[&message(b"one"), b"\r\n.\r\n".as_slice(), second.as_bytes()].concat()).unwrap();
    let codes: Vec<u16> = (0..4).map(|_| client.reply().unwrap().code).collect();
    assert_eq!(codes, [250, 250, 250, 354]);
    assert_eq!(client.body(&[message(b"two"), b"\r\n".to_vec()].concat()).unwrap().code, 250);
    assert_eq!(arrived(&mx, &daemon).len(), 2);
}

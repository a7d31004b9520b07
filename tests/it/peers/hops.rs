//! A signed message over a hop that knows no 8BITMIME (RFC 6152), and what a receiver makes of it: signatures and DMARC.

use std::net::{IpAddr, SocketAddr};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig, ResolverOpts};
use mail_auth::dmarc::verify::DmarcParameters;
use mail_auth::{AuthenticatedMessage, DkimResult, DmarcResult, MessageAuthenticator, Parameters, SpfOutput};

use super::dkim::{Records, TestKey, verdicts};
use super::message_id;
use super::postfix::Postfix;
use crate::harness::*;

const AUTHOR: &str = "shop.test";
const LABEL: &str = "Content-Transfer-Encoding: 8bit\r\n";

/// Without 8BITMIME.
fn old_host() -> MxOptions {
    MxOptions { extensions: vec!["PIPELINING", "SIZE 50000000", "ENHANCEDSTATUSCODES"], ..MxOptions::default() }
}

fn messages() -> Vec<String> {
    let head = format!("From: Shop <news@{AUTHOR}>\r\nTo: you@receiver.test\r\n");
    let mime = "MIME-Version: 1.0\r\nContent-Type:";
    vec![
        format!("{head}Subject: plain\r\n\r\nHello \r\n\r\n.\r\nFrom here\r\n \r\nend\r\n"),
        format!("{head}Subject: Gr\u{fc}\u{df}e\r\n\r\nZa\u{17c}\u{f3}\u{142}\u{107}  \r\n"),
        format!(
            "{head}Subject: line\r\n{mime} text/html; charset=utf-8\r\n\r\n<p>{}\u{fc}</p>\r\n",
            "long ".repeat(1_000)
        ),
        format!(
            "{head}Subject: parts\r\n{mime} multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Content-Transfer-Encoding: 8bit\r\n\r\nGr\u{fc}\u{df}e\r\n--b\r\nContent-Type: text/x; name=\"\u{e4}.txt\"\r\n\r\n\
             {}\r\n--b--\r\n",
            "x".repeat(5_000)
        ),
        // Labels that say more than is there, by which Postfix goes.
        format!(
            "{head}Subject: label\r\n{mime} text/plain; charset=utf-8\r\n{LABEL}\r\nAll of it is ASCII = plain\r\n"
        ),
        format!(
            "{head}Subject: labels\r\n{mime} multipart/alternative; boundary=b\r\n{LABEL}\r\n--b\r\n\
             Content-Type: text/plain; charset=utf-8\r\n{LABEL}\r\n1 = 1, in ASCII \r\n--b\r\n\
             Content-Type: text/html; charset=utf-8\r\n{LABEL}\r\n<p>Gr\u{fc}\u{df}e</p>\r\n--b--\r\n"
        ),
        format!(
            "{head}Subject: label of a part\r\n{mime} multipart/mixed; boundary=b\r\n\r\n--b\r\n\
             Content-Type: text/plain; charset=utf-8\r\n{LABEL}\r\n1 = 1\r\n--b\r\n\r\nmore\r\n--b--\r\n"
        ),
    ]
}

#[test]
fn signatures_survive_a_postfix_that_offers_no_8bitmime_and_dmarc_passes() {
    survives("smtpd_discard_ehlo_keywords = 8bitmime\n");
}

#[test]
fn signatures_survive_a_postfix_before_a_host_that_offers_no_8bitmime() {
    survives("");
}

fn survives(postfix_settings: &str) {
    let lab = Lab::new();
    let last = lab.mx_with(3, old_host(), |_| Answer::Usual);
    let hop = SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port());
    lab.domain("receiver.test", &[2]);
    let postfix = Postfix::upstream(hop, last.address(), postfix_settings);
    let config = lab
        .config()
        .set("signing.operator_domain", "\"mail.operator.test\"")
        .table(&TestKey::Rsa.table(lab.dir(), AUTHOR, "r1"))
        .table(&TestKey::Ed25519.table(lab.dir(), AUTHOR, "e1"))
        .table(&TestKey::Ed25519.table(lab.dir(), "mail.operator.test", "e1"));
    let records = Records::from([
        (format!("r1._domainkey.{AUTHOR}"), TestKey::Rsa.record()),
        (format!("e1._domainkey.{AUTHOR}"), TestKey::Ed25519.record()),
        ("e1._domainkey.mail.operator.test".to_owned(), TestKey::Ed25519.record()),
    ]);
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    for message in messages() {
        let stuffed = message.replace("\r\n.", "\r\n..");
        client.envelope(&format!("news@{AUTHOR}"), &["you@receiver.test"]).unwrap();
        let reply = client.body(stuffed.as_bytes()).unwrap();
        assert_eq!(message_id(&reply.text).len(), 60);
    }
    let arrived: Vec<Vec<u8>> =
        last.wait_accepted(messages().len()).into_iter().map(|transaction| transaction.data).collect();
    for message in &arrived {
        assert!(message.is_ascii(), "{}", String::from_utf8_lossy(message));
        assert_eq!(
            message.windows(10).filter(|part| *part == b"\r\nReceived").count(),
            1,
            "below Postfix's, which is first"
        );
    }
    let found = verdicts(&records, &arrived);
    assert_eq!(found.dkimpy, vec!["111"; arrived.len()], "{}", postfix.log());
    assert_eq!(found.opendkim, vec!["111"; arrived.len()]);
    assert_eq!(found.mail_dkim, vec!["100"; arrived.len()], "RSA only");
    for (name, text) in &records {
        let (head, tail) = text.split_at(text.len().min(200));
        lab.dns.txt(name, &[head, tail]);
    }
    lab.dns.txt(&format!("_dmarc.{AUTHOR}"), &["v=DMARC1; p=reject; adkim=s"]);
    for message in &arrived {
        assert_dmarc(&lab, message);
    }
}

/// DMARC by DKIM alone, whoever the envelope sender is.
fn assert_dmarc(lab: &Lab, message: &[u8]) {
    let mut udp = ConnectionConfig::udp();
    udp.port = lab.dns.address().port();
    let server = NameServerConfig::new(lab.dns.address().ip(), true, vec![udp]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let verifier = MessageAuthenticator::new(config, ResolverOpts::default()).unwrap();
    let parsed = AuthenticatedMessage::parse(message).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let verdict = runtime.block_on(async {
        let dkim = verifier.verify_dkim(Parameters::new(&parsed)).await;
        assert_eq!(dkim.iter().filter(|output| *output.result() == DkimResult::Pass).count(), 3, "{dkim:?}");
        let spf = SpfOutput::new("elsewhere.test".to_owned());
        verifier.verify_dmarc(DmarcParameters::new(&parsed, &dkim, "elsewhere.test", &spf)).await.dkim_result().clone()
    });
    assert_eq!(verdict, DmarcResult::Pass);
}

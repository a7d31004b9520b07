//! Signed mail, from the client to what others say of it.

use crate::harness::*;
use crate::peers::dkim::{Records, TestKey, verdicts};

const OPERATOR: &str = "mail.operator.test";
const AUTHOR: &str = "shop.test";

/// Both kinds of keys for the author's domain and for the operator's.
fn config(lab: &Lab) -> ConfigText {
    let dir = lab.dir();
    lab.config()
        .set("signing.operator_domain", &format!("{OPERATOR:?}"))
        .table(&TestKey::Rsa.table(dir, AUTHOR, "r1"))
        .table(&TestKey::Ed25519.table(dir, AUTHOR, "e1"))
        .table(&TestKey::Rsa.table(dir, OPERATOR, "r1"))
        .table(&TestKey::Ed25519.table(dir, OPERATOR, "e1"))
}

/// What is published of them.
fn records() -> Records {
    let both = |domain: &str| {
        let record = |selector: &str, key: TestKey| (format!("{selector}._domainkey.{domain}"), key.record());
        [record("r1", TestKey::Rsa), record("e1", TestKey::Ed25519)]
    };
    [both(AUTHOR), both(OPERATOR)].into_iter().flatten().collect()
}

/// A daemon, and the mail host of `example.test`.
fn setup(lab: &Lab, config: ConfigText) -> (Daemon, Mx) {
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    (lab.daemon_with(config), mx)
}

fn message(fields: &str, body: &str) -> String {
    format!("From: Shop <news@{AUTHOR}>\r\nTo: you@example.test\r\n{fields}\r\n{body}")
}

/// The values of all fields of this name, unfolded.
fn fields(message: &str, name: &str) -> Vec<String> {
    let header = message.split("\r\n\r\n").next().unwrap().replace("\r\n\t", " ").replace("\r\n ", " ");
    let lines = header.lines().filter_map(|line| line.split_once(':'));
    lines.filter(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned()).collect()
}

/// `d=` of each signature, in order.
fn signed_by(message: &str) -> Vec<String> {
    let tag = |field: &String| field.split("d=").nth(1).and_then(|rest| rest.split(';').next()).map(str::to_owned);
    fields(message, "DKIM-Signature").iter().filter_map(tag).collect()
}

/// Sends the messages and gives what came of each, in order.
fn through(daemon: &Daemon, mx: &Mx, messages: &[String]) -> Vec<Vec<u8>> {
    let before = mx.accepted().len();
    let mut client = Client::hello(daemon.smtp_addr());
    let ids: Vec<String> =
        messages.iter().map(|text| client.send(&format!("news@{AUTHOR}"), &["you@example.test"], text)).collect();
    let arrived = mx.wait_accepted(before + messages.len());
    let of = |id: &String| arrived.iter().find(|t| t.text().contains(id.as_str())).map(|t| t.data.clone());
    ids.iter().map(|id| of(id).unwrap_or_else(|| panic!("{id} has not come"))).collect()
}

#[test]
fn others_verify_both_kinds_of_signatures_of_author_and_operator() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab));
    let long = format!("Subject: {}\r\nX-Long: {}\r\n", "word ".repeat(500), "x".repeat(900));
    let attachment = "YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4eXowMTIzNDU2Nzg5YWJjZGVmZ2hpamtsbW5vcHFyc3R1dnd4\r\n";
    let messages = [
        message("Subject: usual\r\n", "Hello\r\n"),
        message("Subject: folded\r\n\tonce \r\n  and  again\r\nX-Empty:\r\n", "Hello  there \t\r\n"),
        message(&long, "Hello\r\n"),
        message("Subject : space before the colon\r\n", "Hello\r\n"),
        message("Subject: =?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\nSubject-X: y\r\n", "Hello\r\n"),
        message("Subject: raw Gr\u{fc}\u{df}e\r\n", "Hello\r\n"),
        message("", ""),
        message("Subject: blank lines behind\r\n", "Hello\r\n\r\n\r\n\r\n"),
        message("Subject: lines of blanks behind\r\n", "Hello\r\n \r\n\t\r\n  \r\n"),
        message("Subject: only blanks\r\n", " \r\n\t\r\n"),
        message("Subject: blank lines within\r\n", "\r\n\r\nHello\r\n\r\n\r\nWorld\r\n"),
        message("Subject: dots\r\n", "..\r\n...dots\r\n"),
        message("Subject: 8-bit\r\n", "Gr\u{fc}\u{df}e \u{4f60}\u{597d}\r\n"),
        message(
            "Subject: long line\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n",
            &format!("{}\r\n", "x ".repeat(2_500)),
        ),
        // Spooled, and rewritten: read from the spool a second time.
        message("Subject: large and 8-bit\r\n", &"Gr\u{fc}\u{df}e aus dem Norden\r\n".repeat(60_000)),
        // Spooled: its header is signed after the body has gone to disk.
        message("Subject: large\r\nContent-Type: text/plain\r\n", &attachment.repeat(40_000)),
        "From: Shop <news@shop.test>\r\nno header line, no empty line before the body\r\n\r\nmore\r\n".to_owned(),
    ];
    let arrived = through(&daemon, &mx, &messages);
    for message in &arrived {
        assert!(message.is_ascii() && message.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
        assert_eq!(signed_by(&String::from_utf8_lossy(message)), [AUTHOR, AUTHOR, OPERATOR, OPERATOR]);
    }
    let found = verdicts(&records(), &arrived);
    assert_eq!(found.dkimpy, vec!["1111"; arrived.len()]);
    assert_eq!(found.opendkim, vec!["1111"; arrived.len()]);
    assert_eq!(found.mail_dkim, vec!["1010"; arrived.len()], "Debian 12's Mail::DKIM knows RSA only");
}

#[test]
fn a_message_of_40_mb_is_signed() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab));
    let line = format!("{}\r\n", "0123456789abcdef".repeat(5));
    // A dot-stuffed line and blanks at the edges of parts, too.
    let body = format!("{}..\r\n \r\n{}\r\n \r\n", line.repeat(250_000), line.repeat(250_000));
    let arrived = through(&daemon, &mx, &[message("Subject: 40 MB\r\n", &body)]);
    assert!(arrived[0].len() > 40_000_000);
    let found = verdicts(&records(), &arrived);
    assert_eq!((&found.dkimpy[..], &found.opendkim[..]), (&["1111".to_owned()][..], &["1111".to_owned()][..]));
    assert_eq!(found.mail_dkim, ["1010"]);
}

/// The lines of this type in the audit stream of a daemon that has stopped.
fn audit(lab: &Lab, kind: &str) -> Vec<serde_json::Value> {
    audit_lines(lab.dir()).into_iter().filter(|line| line["type"] == kind).collect()
}

#[test]
fn keys_serve_subdomains_and_never_another_tenant() {
    let lab = Lab::new();
    let identity = |name: &str, tenant: &str| format!("[[identity]]\nname = {name:?}\ntenant = {tenant:?}\n");
    let config = lab
        .config()
        .set("relay.tenant", "\"guest\"")
        .table("[[tenant]]\nname = \"owner\"\n")
        .table("[[tenant]]\nname = \"guest\"\n")
        .table(&identity(AUTHOR, "owner"))
        .table(&identity(&format!("guest.{AUTHOR}"), "guest"))
        .table(&identity("own.test", "guest"))
        .table(&TestKey::Ed25519.table(lab.dir(), AUTHOR, "e1"))
        .table(&TestKey::Ed25519.table(lab.dir(), "own.test", "e1"));
    let (daemon, mx) = setup(&lab, config);
    let mut client = Client::hello(daemon.smtp_addr());
    for (author, signer) in [
        // Below a domain that another tenant owns.
        (format!("a@guest.{AUTHOR}"), None),
        ("a@own.test".to_owned(), Some("own.test")),
        ("a@deep.below.own.test".to_owned(), Some("own.test")),
    ] {
        let before = mx.accepted().len();
        client.send(&author, &["you@example.test"], &format!("From: {author}\r\nSubject: x\r\n\r\nx\r\n"));
        let arrived = mx.wait_accepted(before + 1).remove(before).text();
        assert_eq!(signed_by(&arrived), signer.into_iter().collect::<Vec<_>>(), "{author}");
    }
    daemon.stop();
    let lints = audit(&lab, "lint");
    assert_eq!(lints.len(), 1, "{lints:?}");
    assert_eq!((&lints[0]["lint"], &lints[0]["domain"]), (&"unsigned".into(), &format!("guest.{AUTHOR}").into()));
}

#[test]
fn an_applications_own_signature_stays_valid_beside_ours() {
    let lab = Lab::new();
    let (mut daemon, mx) = setup(&lab, config(&lab));
    let text = "Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <own@shop.test>\r\nSubject: own\r\n";
    let first = through(&daemon, &mx, &[message(text, "Hello\r\n")]).remove(0);
    let first = String::from_utf8(first).unwrap();
    // What the first daemon signed is handed in again, as an application would that signs for itself.
    let from = first.find("DKIM-Signature: ").unwrap();
    let own = format!("{}{}", &first[from..first.find("Received: ").unwrap()], message(text, "Hello\r\n"));
    daemon.restart();
    let arrived = through(&daemon, &mx, &[own]).remove(0);
    assert_eq!(signed_by(&String::from_utf8_lossy(&arrived)).len(), 8);
    let found = verdicts(&records(), &[arrived]);
    assert_eq!((found.dkimpy[0].as_str(), found.opendkim[0].as_str()), ("11111111", "11111111"));
}

#[test]
fn a_reload_brings_new_keys_and_a_broken_one_changes_nothing() {
    let lab = Lab::new();
    let plain = lab.config();
    let (mut daemon, mx) = setup(&lab, plain.clone());
    let signers = |daemon: &Daemon, mx: &Mx| {
        let before = mx.accepted().len();
        Client::hello(daemon.smtp_addr()).send("a@b.test", &["you@example.test"], &message("Subject: x\r\n", "x\r\n"));
        signed_by(&mx.wait_accepted(before + 1).remove(before).text())
    };
    assert!(signers(&daemon, &mx).is_empty());
    let table = TestKey::Ed25519.table(lab.dir(), AUTHOR, "e1");
    daemon.reload(|config| config.table(&table));
    assert_eq!(signers(&daemon, &mx), [AUTHOR]);
    let path = lab.dir().join("ed25519.pem");
    std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    let line = daemon.wait_log_from(mark, "dkim.key_file");
    assert!(line.contains("neither RSA") && line.contains("posthaste dkim generate"), "{line}");
    assert_eq!(signers(&daemon, &mx), [AUTHOR]);
    // Readable by others: taken, with a warning.
    TestKey::Ed25519.write(lab.dir());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    daemon.wait_log_from(mark, "others than its owner can read");
    daemon.wait_log_from(mark, "config reloaded");
    daemon.reload(|_| plain);
    assert!(signers(&daemon, &mx).is_empty());
}

#[test]
fn a_next_key_signs_once_its_record_is_seen_and_steps_back_when_it_is_gone() {
    let lab = Lab::new();
    let next = TestKey::Rsa.table(lab.dir(), AUTHOR, "new");
    // One algorithm, one place: the current key is of the same kind. The two share a file here.
    let config = lab
        .config()
        .set("signing.check_interval", "\"30s\"")
        .table(&TestKey::Rsa.table(lab.dir(), AUTHOR, "old"))
        .table(&format!("{next}state = \"next\"\n"));
    let name = format!("new._domainkey.{AUTHOR}");
    lab.dns.txt(&name, &["v=DKIM1; k=rsa; p=AAAA"]);
    let (mut daemon, mx) = setup(&lab, config);
    let selector = |daemon: &Daemon| {
        let before = mx.accepted().len();
        Client::hello(daemon.smtp_addr()).send("a@b.test", &["you@example.test"], &message("Subject: x\r\n", "x\r\n"));
        let arrived = mx.wait_accepted(before + 1).remove(before).text();
        fields(&arrived, "DKIM-Signature")[0].split("s=").nth(1).unwrap().split(';').next().unwrap().to_owned()
    };
    lab.dns.wait_asked(&name, 0);
    assert_eq!(selector(&daemon), "old", "another key is published there");
    let record = TestKey::Rsa.record();
    lab.dns.remove(&name);
    lab.dns.txt(&name, &[&record[..200], &record[200..]]);
    // A reload looks at once, but an answer lives a second in the cache of the resolver.
    let reload_until = |daemon: &mut Daemon, wanted: &mut dyn FnMut(&Daemon) -> bool| {
        let look = || {
            daemon.reload(|config| config);
            wanted(daemon).then_some(())
        };
        poll(look, || "the watch of keys has not looked".to_owned());
    };
    reload_until(&mut daemon, &mut |daemon| selector(daemon) == "new");
    lab.dns.set_mode(&name, DnsMode::ServFail);
    let asked = lab.dns.asked(&name);
    reload_until(&mut daemon, &mut |_| lab.dns.asked(&name) > asked + 1);
    assert_eq!(selector(&daemon), "new", "what is not known changes nothing");
    lab.dns.set_mode(&name, DnsMode::NxDomain);
    reload_until(&mut daemon, &mut |daemon| selector(daemon) == "old");
    daemon.stop();
    let lines = audit(&lab, "dkim");
    let mut signs: Vec<_> = lines.iter().map(|line| line["signs"].as_str().unwrap()).collect();
    signs.dedup();
    assert_eq!(signs, ["new", "old"]);
}

#[test]
fn notifications_are_signed_as_this_server() {
    let lab = Lab::new();
    let (mx, sender_mx) = (
        lab.mx_scripted(2, |ask| match ask.stage {
            Stage::Rcpt => Answer::say("550 5.1.1 No such user"),
            _ => Answer::Usual,
        }),
        lab.mx(3),
    );
    lab.domain("example.test", &[2]);
    lab.domain("app.test", &[3]);
    let config = lab.config().set("dsn.bounce_messages", "\"always\"").table(&TestKey::Rsa.table(
        lab.dir(),
        "sender.example",
        "r1",
    ));
    let daemon = lab.daemon_with(config);
    Client::hello(daemon.smtp_addr()).send("a@app.test", &["nobody@example.test"], &message("Subject: x\r\n", "x\r\n"));
    let notification = sender_mx.wait_accepted(1).remove(0);
    assert_eq!(signed_by(&notification.text()), ["sender.example"]);
    let records = Records::from([("r1._domainkey.sender.example".to_owned(), TestKey::Rsa.record())]);
    let found = verdicts(&records, &[notification.data]);
    assert_eq!((found.dkimpy, found.opendkim, found.mail_dkim), (vec!["1".into()], vec!["1".into()], vec!["1".into()]));
    assert!(mx.accepted().is_empty());
}

#[test]
fn feedback_id_names_set_tenant_and_sender_and_is_signed() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab).set("signing.feedback_id", "\"operator1\""));
    let arrived = through(
        &daemon,
        &mx,
        &[
            message("X-SES-CONFIGURATION-SET: receipts\r\nSubject: x\r\n", "x\r\n"),
            message("Feedback-ID: mine:a:b:other\r\nSubject: x\r\n", "x\r\n"),
        ],
    );
    let ids: Vec<_> = arrived.iter().map(|message| fields(&String::from_utf8_lossy(message), "Feedback-ID")).collect();
    assert_eq!(ids, [["receipts:local::operator1"], ["mine:a:b:other"]]);
    assert_eq!(verdicts(&records(), &arrived).dkimpy, ["1111", "1111"]);
    let signature = fields(&String::from_utf8_lossy(&arrived[0]), "DKIM-Signature").remove(0).replace(' ', "");
    assert!(signature.contains("Feedback-ID:Feedback-ID"), "{signature}");
}

/// The URI of the one-click pair, which both must be there.
fn one_click(message: &str) -> String {
    assert_eq!(fields(message, "List-Unsubscribe-Post"), ["List-Unsubscribe=One-Click"]);
    let fields = fields(message, "List-Unsubscribe");
    assert_eq!(fields.len(), 1, "{message}");
    fields[0].split('<').nth(1).unwrap().split('>').next().unwrap().to_owned()
}

#[test]
fn each_recipient_gets_a_signed_one_click_pair_of_its_own() {
    let lab = Lab::new();
    let url = "https://mail.operator.test/unsubscribe/";
    let set = format!("[[configuration_set]]\nname = \"news\"\nbulk = true\nunsubscribe_url = \"{url}\"\n");
    let (mut daemon, mx) = setup(&lab, config(&lab).table(&set));
    let text =
        message("X-SES-CONFIGURATION-SET: news\r\nSubject: x\r\nList-Unsubscribe: <mailto:off@shop.test>\r\n", "x\r\n");
    let recipients = ["a@example.test", "b@example.test", "c@example.test"];
    let mut client = Client::hello(daemon.smtp_addr());
    client.send("news@shop.test", &recipients, &text);
    client.send("news@shop.test", &recipients[..1], &text);
    let arrived = mx.wait_accepted(4);
    let mut uris = std::collections::BTreeSet::new();
    for transaction in &arrived {
        assert_eq!(transaction.recipients.len(), 1);
        let text = transaction.text();
        let uri = one_click(&text);
        assert!(uri.starts_with(url) && uri.len() > url.len() + 40, "{uri}");
        assert!(text.contains("<mailto:off@shop.test>"));
        assert!(uris.insert(uri), "its own");
        assert_eq!(signed_by(&text), [AUTHOR, AUTHOR, OPERATOR, OPERATOR]);
    }
    let messages: Vec<_> = arrived.into_iter().map(|transaction| transaction.data).collect();
    let found = verdicts(&records(), &messages);
    assert_eq!((found.dkimpy, found.opendkim), (vec!["1111".to_owned(); 4], vec!["1111".to_owned(); 4]));

    // A large one has its body in the spool; all of it survives a kill before the first attempt.
    let (held, gate) = lab.mx_holding_dots(3);
    lab.domain("later.test", &[3]);
    let large = message("X-SES-CONFIGURATION-SET: news\r\nSubject: large\r\n", &"0123456789abcdef\r\n".repeat(100_000));
    let mut client = Client::hello(daemon.smtp_addr());
    client.send("news@shop.test", &["a@later.test", "b@later.test"], &large);
    daemon.kill();
    gate.change(|is_open| *is_open = true);
    daemon.start_again();
    let arrived: Vec<_> = held.wait_accepted(2).into_iter().map(|transaction| transaction.data).collect();
    assert_eq!(verdicts(&records(), &arrived).dkimpy, vec!["1111"; arrived.len()]);
    let uris: std::collections::BTreeSet<_> =
        arrived.iter().map(|data| one_click(&String::from_utf8_lossy(data))).collect();
    assert_eq!(uris.len(), 2);
}

#[test]
fn a_pair_of_the_application_stays_and_bulk_mail_without_one_is_told_of() {
    let lab = Lab::new();
    let sets = "[[configuration_set]]\nname = \"adds\"\nunsubscribe_url = \"https://u.test/\"\n[[configuration_set]]\nname = \"looks\"\nbulk = true\n";
    let (daemon, mx) = setup(&lab, config(&lab).table(sets));
    let set = |name: &str| format!("X-SES-CONFIGURATION-SET: {name}\r\nSubject: x\r\n");
    let own = "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\nList-Unsubscribe: <mailto:o@shop.test>,\r\n <https://shop.test/u?1>\r\n";
    let arrived = through(
        &daemon,
        &mx,
        &[
            message(&format!("{}{own}", set("adds")), "x\r\n"),
            message(&format!("{}{own}", set("looks")), "x\r\n"),
            message(&set("looks"), "x\r\n"),
            message(&set("looks"), "x\r\n"),
        ],
    );
    for message in &arrived[..2] {
        assert!(String::from_utf8_lossy(message).contains(own), "both, in their order");
    }
    assert!(fields(&String::from_utf8_lossy(&arrived[2]), "List-Unsubscribe").is_empty());
    assert_eq!(verdicts(&records(), &arrived[..1]).opendkim, ["1111"]);
    let signature = fields(&String::from_utf8_lossy(&arrived[0]), "DKIM-Signature").remove(0).replace(' ', "");
    assert!(
        signature.contains("List-Unsubscribe:List-Unsubscribe:List-Unsubscribe-Post:List-Unsubscribe-Post"),
        "{signature}"
    );
    daemon.stop();
    let lints = audit(&lab, "lint");
    assert_eq!(lints.len(), 1, "{lints:?}");
    assert_eq!((&lints[0]["lint"], &lints[0]["configuration_set"]), (&"one-click-missing".into(), &"looks".into()));
}

#[test]
fn trusted_clients_get_no_other_tenants_signature() {
    let lab = Lab::new();
    // The relay's own tenant may send as anybody; the domain is another's.
    let config = config(&lab)
        .table("[[tenant]]\nname = \"shop\"\n")
        .table(&format!("[[identity]]\nname = {AUTHOR:?}\ntenant = \"shop\"\nmail_from = \"bounce.{AUTHOR}\"\n"));
    let (mut daemon, mx) = setup(&lab, config);
    let send = |daemon: &Daemon| {
        let before = mx.accepted().len();
        let text = message("Subject: x\r\n", "x\r\n");
        Client::hello(daemon.smtp_addr()).send("app@elsewhere.test", &["you@example.test"], &text);
        let arrived = mx.wait_accepted(before + 1).remove(before);
        (signed_by(&arrived.text()), arrived.from)
    };
    assert_eq!(send(&daemon), (vec![OPERATOR.to_owned(); 2], "app@elsewhere.test".to_owned()));
    daemon.reload(|config| config.set("relay.tenant", "\"shop\""));
    let text = message("Subject: x\r\n", "x\r\n");
    Client::hello(daemon.smtp_addr()).send(&format!("news@{AUTHOR}"), &["you@example.test"], &text);
    let arrived = mx.wait_accepted(2).remove(1);
    assert_eq!(signed_by(&arrived.text()), [AUTHOR, AUTHOR, OPERATOR, OPERATOR]);
    assert!(arrived.from.ends_with(&format!("@bounce.{AUTHOR}")), "{}", arrived.from);
}

#[test]
fn a_body_that_its_application_signed_is_left_as_it_is() {
    let lab = Lab::new();
    let (daemon, mx) = setup(&lab, config(&lab));
    let own = "DKIM-Signature: v=1; a=rsa-sha256; d=shop.test; s=own; h=from; bh=AAAA; b=AAAA\r\nSubject: x\r\n";
    let body = "Gr\u{fc}\u{df}e\r\n";
    through(&daemon, &mx, &[message(own, body), message("Subject: x\r\n", body)]);
    let arrived = mx.accepted();
    let of = |is_own: bool| arrived.iter().find(|one| one.text().contains("s=own") == is_own).unwrap();
    assert!(of(true).mail.contains("BODY=8BITMIME") && of(true).text().ends_with(&format!("\r\n\r\n{body}")));
    assert!(!of(false).mail.contains("BODY=8BITMIME") && of(false).data.is_ascii());
    assert_eq!(signed_by(&of(true).text()).len(), 5);
}

#[test]
fn what_is_refused_is_not_spooled_first_and_too_many_own_headers_are_not_signed() {
    let lab = Lab::new();
    let set = "[[configuration_set]]\nname = \"news\"\nunsubscribe_url = \"https://u.test/\"\n";
    let config = config(&lab).table(set).set("reception.recipients_max", "3000").set("reception.errors_max", "1000");
    let (daemon, _mx) = setup(&lab, config);
    let mut client = Client::hello(daemon.smtp_addr());
    let large = "0123456789abcdef\r\n".repeat(150_000);
    client.envelope("news@shop.test", &["you@example.test"]).unwrap();
    let reply = client.body(format!("To: you@example.test\r\n\r\n{large}").as_bytes()).unwrap();
    assert_eq!((reply.code, reply.text.as_str()), (554, "5.6.0 Transaction failed: Missing 'From' header."));
    let recipients: Vec<String> = (0..2_000).map(|number| format!("r{number}@example.test")).collect();
    let recipients: Vec<&str> = recipients.iter().map(String::as_str).collect();
    client.envelope("news@shop.test", &recipients).unwrap();
    let reply = client.body(message("X-SES-CONFIGURATION-SET: news\r\nSubject: x\r\n", "x\r\n").as_bytes()).unwrap();
    assert_eq!((reply.code, reply.text.as_str()), (552, "5.3.4 Message has too many recipients for its header"));
}

//! Who may send as whom, and how a configuration set changes what becomes of a message: over relay networks bound to a tenant.
//! What needs a login is in `peers`.

use serde_json::{Value, json};

use crate::harness::*;

/// Relay clients are the tenant `shop`, which owns `shop.test`.
fn shop(lab: &Lab) -> ConfigText {
    lab.config()
        .set("relay.tenant", "\"shop\"")
        .table("[[tenant]]\nname = \"shop\"\n")
        .table("[[identity]]\nname = \"shop.test\"\ntenant = \"shop\"\n")
}

/// A message from `from` with more header fields.
fn message(from: &str, more: &str) -> String {
    format!("From: {from}\r\nTo: you@example.test\r\nSubject: s\r\n{more}\r\nHello.\r\n")
}

/// The reply to a message from `sender`.
fn answer(client: &mut Client, sender: &str, message: &str) -> String {
    client.envelope(sender, &["you@example.test"]).unwrap();
    let reply = client.body(message.as_bytes()).unwrap();
    format!("{} {}", reply.code, reply.text)
}

fn tags<'a>(event: &'a Value, name: &str) -> &'a Value {
    &event["mail"]["tags"][name]
}

#[test]
fn only_the_tenants_own_senders_pass_and_the_refusal_names_every_other() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(shop(&lab));
    let mut client = lab.client(&daemon);
    let id = client.send("bounce@mail.shop.test", &["you@example.test"], &message("Shop <a@SHOP.test>", ""));
    daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(
        answer(&mut client, "x@evil.test", &message("Shop <a@shop.test>, y@evil.test", "Sender: z@evil.test\r\n")),
        "554 5.7.1 Message rejected: Email address is not verified. The following identities failed the check: \
         x@evil.test, y@evil.test, z@evil.test"
    );
    let hidden = message("=?utf-8?q?a=40shop=2Etest?= <y@evil.test>", "");
    assert!(answer(&mut client, "a@shop.test", &hidden).ends_with("failed the check: y@evil.test"));
    let path = message("a@shop.test", "Return-Path: <y@evil.test>\r\n");
    assert!(answer(&mut client, "a@shop.test", &path).ends_with("failed the check: y@evil.test"));
    // A message too large for memory is judged as well, and nothing of it stays.
    let large =
        message("y@evil.test", "") + &"0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n".repeat(40_000);
    assert!(answer(&mut client, "a@shop.test", &large).starts_with("554 5.7.1 Message rejected"));
    client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", ""));
    daemon.wait_empty();
    assert_eq!(mx.accepted().len(), 2);
}

#[test]
fn a_reload_takes_an_identity_away_from_open_sessions() {
    let lab = Lab::new();
    lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(shop(&lab));
    let mut client = lab.client(&daemon);
    client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", ""));
    // The next message has begun when the identity goes.
    client.envelope("a@shop.test", &["you@example.test"]).unwrap();
    daemon.reload(|config| config.without_tables("identity"));
    let reply = client.body(message("a@shop.test", "").as_bytes()).unwrap();
    assert_eq!((reply.code, reply.text.ends_with("failed the check: a@shop.test")), (554, true), "{reply:?}");
    daemon.reload(|config| config.table("[[identity]]\nname = \"a@shop.test\"\ntenant = \"shop\"\n"));
    client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", ""));
    assert!(answer(&mut client, "a@shop.test", &message("b@shop.test", "")).starts_with("554"));
}

#[test]
fn a_reload_takes_an_identity_away_from_a_message_whose_header_was_judged_before() {
    let lab = Lab::new();
    let mut daemon = lab.daemon_with(shop(&lab));
    let mut client = lab.client(&daemon);
    client.envelope("a@shop.test", &["you@example.test"]).unwrap();
    client.write(message("a@shop.test", "").as_bytes()).unwrap();
    // Far more than fits between the two: the daemon has taken, and spooled, most of it.
    let part = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789ab\r\n".repeat(1_000);
    (0..300).for_each(|_| client.write(part.as_bytes()).unwrap());
    daemon.reload(|config| config.without_tables("identity"));
    let reply = client.body(b"The end.\r\n").unwrap();
    assert_eq!((reply.code, reply.text.ends_with("failed the check: a@shop.test")), (554, true), "{reply:?}");
    daemon.wait_empty();
}

#[test]
fn under_load_a_right_that_is_taken_away_is_gone_for_every_session_at_once() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let own = "[[identity]]\nname = \"sender.example\"\ntenant = \"shop\"\n";
    let mut daemon = lab.daemon_with(shop(&lab).table(own));
    let load = Load::start(daemon.smtp_addr(), 4, &["example.test"]);
    load.wait_accepted(50);
    daemon.reload(|config| config.without_tables("identity"));
    // Whatever was accepted after this line would have been judged by the old directory.
    let accepted = load.accepted();
    // Each client goes on until it is refused.
    let sent = load.join();
    assert_eq!(sent.errors.len(), 4, "{:?}", sent.errors);
    assert!(sent.errors.iter().all(|error| error.contains("554")), "{:?}", sent.errors);
    // A reply that was on its way is counted after it came: one a session.
    assert!(sent.accepted.len() <= accepted + 4, "{} after {accepted}", sent.accepted.len());
    daemon.wait_empty();
    daemon.stop();
    assert_nothing_lost_or_doubled(&sent.accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
}

#[test]
fn a_configuration_set_gives_tags_and_chooses_event_files_and_its_header_does_not_go_out() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let config = shop(&lab)
        .table("[[configuration_set]]\nname = \"receipts\"\ntags = [\"team=shop\", \"kind=mail\"]\n")
        .table("[[configuration_set]]\nname = \"news\"\n")
        .set("sending.configuration_set", "\"news\"")
        .table("[[events.file]]\n")
        .table("[[events.file]]\nname = \"receipts\"\nconfiguration_sets = [\"receipts\"]\n");
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    let control = "X-SES-CONFIGURATION-SET: receipts\r\nX-SES-MESSAGE-TAGS: kind=receipt, bad tag, order=7\r\n";
    let receipt = client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", control));
    let news = client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", ""));
    let event = daemon.events().wait_kind("Delivery", &receipt, "you@example.test");
    assert_eq!(tags(&event, "ses:configuration-set"), &json!(["receipts"]));
    assert_eq!(tags(&event, "kind"), &json!(["receipt"]));
    assert_eq!(tags(&event, "team"), &json!(["shop"]));
    assert_eq!(tags(&event, "order"), &json!(["7"]));
    let event = daemon.events().wait_kind("Delivery", &news, "you@example.test");
    assert_eq!(tags(&event, "ses:configuration-set"), &json!(["news"]));
    daemon.wait_empty();
    daemon.stop();
    let of_set = Events::read_all(&daemon.events_path().with_file_name("receipts.jsonl"));
    let ids: Vec<&Value> = of_set.iter().map(|event| &event["mail"]["messageId"]).collect();
    assert_eq!(ids, [&json!(receipt), &json!(receipt)], "Send and Delivery of that set and no other");
    assert!(mx.accepted().iter().all(|sent| !sent.text().contains("X-SES-")));
    // Without any configured set the name is a tag.
    let daemon = lab.daemon_with(shop(&lab));
    let mut client = lab.client(&daemon);
    client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", "X-SES-CONFIGURATION-SET: any\r\n"));
}

#[test]
fn an_unknown_or_paused_set_is_refused_with_its_name() {
    let lab = Lab::new();
    let mut daemon = lab.daemon_with(shop(&lab).table("[[configuration_set]]\nname = \"receipts\"\nsending = false\n"));
    let mut client = lab.client(&daemon);
    let ask = |set: &str| message("a@shop.test", &format!("X-SES-CONFIGURATION-SET: {set}\r\n"));
    assert_eq!(
        answer(&mut client, "a@shop.test", &ask("nowhere")),
        "554 5.7.1 Message rejected: Configuration set nowhere does not exist"
    );
    let paused = "454 4.7.0 Sending is paused for configuration set receipts";
    assert_eq!(answer(&mut client, "a@shop.test", &ask("receipts")), paused);
    daemon.reload(|config| config.set("sending.enabled", "false"));
    let reply = client.command("MAIL FROM:<a@shop.test>").unwrap();
    assert_eq!((reply.code, reply.text.as_str()), (454, "4.7.0 Sending is paused for this server"));
}

#[test]
fn in_the_sandbox_mail_goes_to_listed_recipients_only() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let tenant = "[[tenant]]\nname = \"shop\"\nsandbox = true\nsandbox_recipients = [\"you@example.test\"]\n";
    let daemon = lab.daemon_with(shop(&lab).without_tables("tenant").table(tenant));
    let mut client = lab.client(&daemon);
    client.envelope("a@shop.test", &["you@example.test", "other@example.test"]).unwrap();
    let reply = client.body(message("a@shop.test", "").as_bytes()).unwrap();
    assert_eq!(reply.code, 554, "{reply:?}");
    assert!(reply.text.ends_with("The following identities failed the check: other@example.test"), "{reply:?}");
    client.send("a@shop.test", &["you@example.test"], &message("a@shop.test", ""));
    mx.wait_accepted(1);
}

#[test]
fn a_set_that_requires_tls_never_goes_in_clear_and_does_not_hold_up_what_may() {
    let lab = Lab::new();
    let clear = lab.mx(2);
    lab.domain("example.test", &[2]);
    let config = shop(&lab)
        .table("[[configuration_set]]\nname = \"secret\"\ntls = \"require\"\ndelivery_time_max = \"5m\"\n")
        .table("[[configuration_set]]\nname = \"open\"\n");
    let mut daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    let ask = |set: &str| message("a@shop.test", &format!("X-SES-CONFIGURATION-SET: {set}\r\n"));
    let secret = client.send("a@shop.test", &["you@example.test"], &ask("secret"));
    let waiting = daemon.wait_queue("a reason", |queue| queue.iter().any(|job| job.to_string().contains("STARTTLS")));
    assert_eq!(waiting.len(), 1);
    // That the host has no TLS says nothing of the host to other mail.
    let sites = daemon.status()["sites"].clone();
    assert!(sites.as_array().unwrap().iter().all(|site| site["mode"] == "open"), "{sites:#}");
    // Beside it the same host gets mail that may go in clear; the message that may not stays over a restart.
    let open = client.send("a@shop.test", &["you@example.test"], &ask("open"));
    daemon.events().wait_kind("Delivery", &open, "you@example.test");
    daemon.restart();
    drop(clear);
    let certificate = Certificate::for_name("another.name");
    let options = MxOptions { tls: Some(MxTls::Works(certificate)), ..MxOptions::default() };
    let tls = lab.mx_with(2, options, |_| Answer::Usual);
    daemon.events().wait_kind("Delivery", &secret, "you@example.test");
    assert!(tls.accepted().iter().all(|sent| sent.is_tls));
    assert!(tls.accepted().len() == 1, "it went once");
}

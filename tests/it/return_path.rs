//! What hosts see as the envelope sender: tokens at the return path's domain, one for each recipient or one for the message.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use posthaste::policy::token::{Addressee, KeyRing, Purpose, TokenContent, verify};
use posthaste::types::{Clock, SystemClock};
use serde_json::Value;

use crate::harness::*;

const DAY: Duration = Duration::from_secs(86_400);
const THREE: [&str; 3] = ["a@example.test", "b@example.test", "c@example.test"];

fn with_domain(config: ConfigText) -> ConfigText {
    config.set("return_path.domain", "\"bounces.op.test\"")
}

fn key_file(lab: &Lab) -> PathBuf {
    lab.dir().join("queue/token-keys")
}

/// What the return path of a transaction says, by the keys on the disk, and its domain.
fn read(lab: &Lab, from: &str) -> (TokenContent, String) {
    let (token, domain) = from.split_once('@').unwrap_or_else(|| panic!("{from:?} is no return path"));
    let keys = KeyRing::parse(&std::fs::read_to_string(key_file(lab)).unwrap()).unwrap().to_keys();
    let read = verify(&keys, Purpose::ReturnPath, token, SystemClock.now(), 60 * DAY);
    (read.unwrap_or_else(|error| panic!("{from}: {error}")), domain.to_owned())
}

fn index_of(recipient: &str) -> usize {
    THREE.iter().position(|known| *known == recipient).unwrap()
}

/// Defers every recipient while the gate is shut.
fn gated(lab: &Lab, host: u8) -> (Mx, Watched<bool>) {
    let gate = Watched::new(false);
    let open = gate.clone();
    let mx = lab.mx_scripted(host, move |ask| {
        let defers = ask.stage == Stage::Rcpt && !*open.lock();
        if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
    });
    (mx, gate)
}

fn is_deferred(queue: &[Value]) -> bool {
    !queue.is_empty() && queue.iter().all(|message| message["state"] == "deferred")
}

/// The reverse-paths of all MAIL commands so far.
fn mails(mx: &Mx) -> Vec<String> {
    let commands = mx.commands().into_iter().filter(|(_, line)| line.starts_with("MAIL"));
    commands.map(|(_, line)| line.split(['<', '>']).nth(1).unwrap().to_owned()).collect()
}

#[test]
fn each_recipient_has_its_own_return_path_and_events_keep_the_submitted_sender() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(with_domain(lab.config()));
    let id = lab.client(&daemon).send_simple("app@sender.example", &THREE, "three");
    let got = mx.wait_accepted(3);
    let mut paths = BTreeSet::new();
    for transaction in &got {
        let [recipient] = transaction.recipients.as_slice() else { panic!("{transaction:?} is not of one recipient") };
        let (content, domain) = read(&lab, &transaction.from);
        assert_eq!((content.id.to_string(), domain.as_str()), (id.clone(), "bounces.op.test"));
        assert_eq!(content.addressee, Addressee::recipient(index_of(recipient)));
        assert!(transaction.from.split('@').next().unwrap().len() <= 64);
        paths.insert(transaction.from.clone());
    }
    assert_eq!((got.len(), paths.len(), mx.connections()), (3, 3, 1));
    for recipient in THREE {
        let delivery = daemon.events().wait_kind("Delivery", &id, recipient);
        assert_eq!(
            (delivery["mail"]["source"].as_str(), delivery["posthaste"]["attempt"].as_u64()),
            (Some("app@sender.example"), Some(1))
        );
    }
    daemon.wait_empty();
}

#[test]
fn a_set_may_have_one_return_path_for_the_message_and_recipients_of_a_site_share_a_transaction() {
    let lab = Lab::new();
    let [mx, other] = lab.one_and_two();
    let set = "[[configuration_set]]\nname = \"bulk\"\nreturn_path = \"per-message\"\n";
    let daemon = lab.daemon_with(with_domain(lab.config()).table(set).set("sending.configuration_set", "\"bulk\""));
    let to = ["a@one.test", "b@one.test", "c@two.test"];
    let id = lab.client(&daemon).send_simple("app@sender.example", &to, "three");
    let (got, at_two) = (mx.wait_accepted(1), other.wait_accepted(1));
    assert_eq!(got[0].recipients, to[..2]);
    let (content, domain) = read(&lab, &got[0].from);
    assert_eq!((content.id.to_string(), domain.as_str()), (id, "bounces.op.test"));
    assert_eq!(content.addressee, Addressee::Message);
    assert_eq!(at_two[0].from, got[0].from, "one return path for the message, at every site");
    daemon.wait_empty();
    assert_eq!((mx.accepted().len(), other.accepted().len()), (1, 1));
}

#[test]
fn the_null_reverse_path_stays_null_and_without_a_domain_senders_stay_as_submitted() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(with_domain(lab.config()));
    lab.client(&daemon).send_simple("", &THREE, "null");
    let got = mx.wait_accepted(1);
    assert_eq!((got[0].from.as_str(), got[0].recipients.len()), ("", 3));
    daemon.wait_empty();
    daemon.edit_config(|_| lab.config());
    daemon.restart();
    lab.client(&daemon).send_simple("app@sender.example", &THREE, "plain");
    let got = mx.wait_accepted(2);
    assert_eq!((got[1].from.as_str(), got[1].recipients.len()), ("app@sender.example", 3));
}

#[test]
fn a_retry_after_a_kill_has_the_same_return_path() {
    let lab = Lab::new();
    let (mx, gate) = gated(&lab, 2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(with_domain(lab.config()));
    lab.client(&daemon).send_simple("app@sender.example", &THREE, "later");
    daemon.wait_queue("all are deferred", is_deferred);
    let before: BTreeSet<String> = mails(&mx).into_iter().collect();
    assert_eq!(before.len(), 3);
    daemon.kill();
    gate.change(|open| *open = true);
    daemon.start_again();
    let after = mx.wait_accepted(3);
    let after: BTreeSet<String> = after.into_iter().map(|transaction| transaction.from).collect();
    assert_eq!(after, before);
}

#[test]
fn the_domain_is_that_of_the_identity_or_of_one_above_it_or_the_operators() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let identity = |name: &str, more: &str| format!("[[identity]]\nname = {name:?}\ntenant = \"shop\"\n{more}");
    let config = with_domain(lab.config())
        .set("relay.tenant", "\"shop\"")
        .table("[[tenant]]\nname = \"shop\"\n")
        .table(&identity("shop.test", "mail_from = \"bounce.shop.test\"\n"))
        .table(&identity("news.shop.test", ""))
        .table(&identity("own.shop.test", "mail_from = \"r.own.shop.test\"\n"))
        .table(&identity("plain.test", ""));
    let daemon = lab.daemon_with(config);
    let mut client = lab.client(&daemon);
    let expected = [
        ("a@shop.test", "bounce.shop.test"),
        ("a@sub.news.shop.test", "bounce.shop.test"),
        ("a@own.shop.test", "r.own.shop.test"),
        ("a@plain.test", "bounces.op.test"),
    ];
    for (sent, (from, domain)) in (1..).zip(expected) {
        let message = format!("From: {from}\r\nSubject: {domain}\r\n\r\nHello.\r\n");
        client.send(from, &["you@example.test"], &message);
        let got = mx.wait_accepted(sent);
        assert_eq!(read(&lab, &got[sent - 1].from).1, domain, "{from}");
    }
    daemon.wait_empty();
}

#[test]
fn a_reload_that_changes_the_domain_changes_new_mail_only() {
    let lab = Lab::new();
    let (mx, gate) = gated(&lab, 2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(with_domain(lab.config()).set("retry.steps", "[\"1h\"]"));
    lab.client(&daemon).send_simple("app@sender.example", &["a@example.test"], "old");
    daemon.wait_queue("it is deferred", is_deferred);
    daemon.reload(|config| config.set("return_path.domain", "\"new.op.test\""));
    gate.change(|open| *open = true);
    lab.client(&daemon).send_simple("app@sender.example", &["b@example.test"], "new");
    mx.wait_accepted(1);
    daemon.signal(Signal::USR2);
    let got = mx.wait_accepted(2);
    let domain = |subject: &str| {
        let transaction = got.iter().find(|transaction| transaction.subject() == subject).unwrap();
        read(&lab, &transaction.from).1
    };
    assert_eq!((domain("new").as_str(), domain("old").as_str()), ("new.op.test", "bounces.op.test"));
}

#[test]
fn after_a_rotation_new_mail_has_the_new_key_and_tokens_of_the_old_one_still_count() {
    let lab = Lab::new();
    let (mx, gate) = gated(&lab, 2);
    lab.domain("example.test", &[2]);
    std::fs::create_dir(lab.dir().join("queue")).unwrap();
    let ring = KeyRing::new(SystemClock.now().minus(100 * DAY), Default::default());
    std::fs::write(key_file(&lab), ring.to_text().as_bytes()).unwrap();
    std::fs::set_permissions(key_file(&lab), PermissionsExt::from_mode(0o640)).unwrap();
    let mut daemon = lab.daemon_with(with_domain(lab.config()).set("retry.steps", "[\"1h\"]"));
    daemon.wait_log_from(0, "others than the owner have access to the token keys");
    lab.client(&daemon).send_simple("app@sender.example", &["a@example.test"], "old");
    daemon.wait_queue("it is deferred", is_deferred);
    let of_old_key = mails(&mx).remove(0);
    daemon.reload(|config| config.set("return_path.key_age_max", "\"90d\""));
    daemon.wait_log_from(0, "token keys were rotated");
    gate.change(|open| *open = true);
    lab.client(&daemon).send_simple("app@sender.example", &["b@example.test"], "new");
    let of_new_key = mx.wait_accepted(1).remove(0).from;
    assert!(
        of_old_key.starts_with("aa") && !of_new_key.starts_with("aa"),
        "{of_old_key} {of_new_key}: the first octet is the key"
    );
    daemon.restart();
    daemon.signal(Signal::USR2);
    assert_eq!(mx.wait_accepted(2)[1].from, of_old_key, "mail of before keeps its return path");
    read(&lab, &of_old_key);
    read(&lab, &of_new_key);
    let mode = std::fs::metadata(key_file(&lab)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn keys_are_made_for_the_owner_alone_and_a_damaged_file_stops_the_start_and_not_a_reload() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(with_domain(lab.config()));
    let mode = std::fs::metadata(key_file(&lab)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let text = std::fs::read_to_string(key_file(&lab)).unwrap();
    let damaged = text.replace("end 1", "");
    std::fs::write(key_file(&lab), &damaged).unwrap();
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    let line = daemon.wait_log_from(mark, "config not reloaded");
    assert!(line.contains("token-keys") && line.contains("backup"), "{line}");
    lab.client(&daemon).send_simple("app@sender.example", &["a@example.test"], "still");
    assert!(mx.wait_accepted(1)[0].from.ends_with("@bounces.op.test"));
    daemon.wait_empty();
    daemon.stop();
    daemon.launch_again();
    assert!(!daemon.wait_exit(PATIENCE).success());
    let log = daemon.log_tail();
    assert!(log.contains("token keys") && log.contains("token-keys: line "), "{log}");
    let shown: Vec<&str> = text.split_whitespace().filter(|word| word.len() == 64 && log.contains(word)).collect();
    assert_eq!(shown, Vec::<&str>::new(), "a secret in the log");
    assert_eq!(std::fs::read_to_string(key_file(&lab)).unwrap(), damaged);
    std::fs::write(key_file(&lab), &text).unwrap();
    daemon.start_again();
}

#[test]
fn where_the_keys_in_use_are_gone_a_reload_says_so_and_tokens_of_before_still_count() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(with_domain(lab.config()));
    let away = lab.dir().join("away");
    std::fs::rename(key_file(&lab), &away).unwrap();
    let mark = daemon.log_len();
    daemon.reload(|config| config.set("return_path.domain", "\"new.op.test\""));
    let line = daemon.wait_log_from(mark, "those in memory stay in use");
    assert!(line.contains("ERROR") && line.contains("token-keys") && line.contains("from a backup"), "{line}");
    lab.client(&daemon).send_simple("app@sender.example", &["a@example.test"], "still");
    let got = mx.wait_accepted(1);
    daemon.wait_empty();
    assert!(!key_file(&lab).exists(), "other keys would make every token that is under way worthless");
    std::fs::rename(&away, key_file(&lab)).unwrap();
    let (_, domain) = read(&lab, &got[0].from);
    assert_eq!(domain, "new.op.test", "the rest of the config counts");
}

#[test]
fn a_bounce_is_told_to_the_submitted_sender() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| {
        let refuses = ask.stage == Stage::Rcpt && ask.recipient == "b@example.test";
        if refuses { Answer::say("550 5.1.1 Nobody here") } else { Answer::Usual }
    });
    let home = lab.mx(3);
    lab.domain("example.test", &[2]);
    lab.domain("sender.example", &[3]);
    let daemon = lab.daemon_with(with_domain(lab.config()).set("dsn.bounce_messages", "\"always\""));
    let id = lab.client(&daemon).send_simple("app@sender.example", &THREE, "one is gone");
    let told = home.wait_accepted(1);
    assert_eq!(
        (told[0].from.as_str(), told[0].recipients.as_slice()),
        ("", ["app@sender.example".to_owned()].as_slice())
    );
    let bounce = daemon.events().wait_kind("Bounce", &id, "b@example.test");
    assert_eq!(bounce["mail"]["source"], "app@sender.example");
    daemon.wait_empty();
    assert_eq!(mx.accepted().len(), 2);
}

#[test]
fn a_sender_beyond_ascii_needs_no_smtputf8_behind_a_return_path() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(with_domain(lab.config()));
    let from = "<grün@sender.example> SMTPUTF8";
    let id = lab.client(&daemon).send(from, &["a@example.test"], &simple("plain"));
    let got = mx.wait_accepted(1);
    assert!(got[0].from.ends_with("@bounces.op.test") && !got[0].mail.contains("SMTPUTF8"), "{}", got[0].mail);
    let delivery = daemon.events().wait_kind("Delivery", &id, "a@example.test");
    assert_eq!(delivery["mail"]["source"], "grün@sender.example");
}

/// A host that ends its connections after each message, by this answer to the next MAIL.
fn one_message_a_connection(answer: Answer) {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, move |ask| {
        let is_over = ask.stage == Stage::Mail && ask.messages == 1;
        if is_over { answer.clone() } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon_with(with_domain(lab.config()).set("retry.steps", "[\"1h\"]"));
    let to: Vec<String> = (0..6).map(|n| format!("r{n}@example.test")).collect();
    let to: Vec<&str> = to.iter().map(String::as_str).collect();
    let id = lab.client(&daemon).send_simple("app@sender.example", &to, "six");
    mx.wait_accepted(6);
    daemon.wait_empty();
    for recipient in to {
        assert_eq!(daemon.events().wait_kind("Delivery", &id, recipient)["posthaste"]["attempt"], 1);
    }
    assert_eq!(mx.connections(), 6);
}

#[test]
fn a_host_that_says_421_between_the_transactions_of_a_message_gets_the_rest_on_new_connections() {
    one_message_a_connection(Answer::SayAndClose("421 4.7.0 Enough for one connection".to_owned()));
}

#[test]
fn a_host_that_closes_between_the_transactions_of_a_message_gets_the_rest_on_new_connections() {
    one_message_a_connection(Answer::Close);
}

#[test]
fn the_transactions_of_a_message_keep_to_the_messages_of_a_connection() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let config = with_domain(lab.config()).set("delivery.messages_per_connection_max", "2");
    let daemon = lab.daemon_with(config);
    lab.client(&daemon).send_simple("app@sender.example", &THREE, "three");
    let got = mx.wait_accepted(3);
    let connections: Vec<usize> = got.iter().map(|transaction| transaction.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
    let quits = mx.commands().into_iter().filter(|(connection, line)| *connection == 1 && line == "QUIT").count();
    assert_eq!(quits, 1);
}

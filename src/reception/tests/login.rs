//! AUTH over the whole session: offers, verdicts, revocation in open sessions.

use std::sync::Arc;

use super::rig::{Client, Rig, settings};
use crate::admission::Directory;
use crate::admission::password::weak_hash;
use crate::admission::testing::{add_user, directory};
use crate::reception::settings::{ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls};

/// `\0app\0right`
const RIGHT: &str = "AUTH PLAIN AGFwcAByaWdodA==";
/// `\0app\0wrong`
const WRONG: &str = "AUTH PLAIN AGFwcAB3cm9uZw==";

fn listener(auth: ListenerAuth) -> ListenerSettings {
    ListenerSettings {
        name: "memory".to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
        tls: ListenerTls::None,
        auth,
        takes: ListenerTakes::Messages,
    }
}

/// Nobody relays; `app` has the secret `right`, from `networks`.
fn with_app(hash: &str, networks: &[&str]) -> Directory {
    let mut directory = directory(&[]);
    add_user(&mut directory, "app", &[hash], networks);
    directory
}

fn rig(auth: ListenerAuth, directory: Directory) -> Rig {
    let rig = Rig::new(settings(), &[listener(auth)]);
    rig.admission.store(Arc::new(directory));
    rig
}

async fn greeted(rig: &Rig) -> (Client, String) {
    let mut client = rig.connect();
    client.expect("220").await;
    client.send("EHLO client.test\r\n").await;
    let ehlo = client.read_once().await;
    (client, ehlo)
}

async fn send_message(client: &mut Client) {
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("x: y\r\n\r\n.", "250 2.0.0 Ok").await;
}

#[tokio::test]
async fn a_login_sends_as_its_user_and_received_says_so() {
    let rig = rig(ListenerAuth::Clear, with_app(&weak_hash("right"), &[]));
    let (mut client, ehlo) = greeted(&rig).await;
    assert!(ehlo.contains("250-AUTH PLAIN LOGIN\r\n"), "{ehlo}");
    client.say("MAIL FROM:<a@a.test>", "530 5.7.0 Authentication required").await;
    client.say(WRONG, "535 5.7.8 Authentication Credentials Invalid").await;
    client.say(RIGHT, "235 2.7.0 Authentication successful").await;
    send_message(&mut client).await;
    let body = rig.queue.bodies().remove(0);
    assert!(body.contains("with ESMTPA (clear) as app"), "{body}");
}

#[tokio::test]
async fn auth_is_offered_where_the_listener_says_and_somebody_can_log_in() {
    for (auth, offered) in [(ListenerAuth::Clear, true), (ListenerAuth::Tls, false), (ListenerAuth::Never, false)] {
        let rig = rig(auth, with_app(&weak_hash("right"), &[]));
        let (mut client, ehlo) = greeted(&rig).await;
        assert_eq!(ehlo.contains("AUTH"), offered, "{auth:?}: {ehlo}");
        client.say(RIGHT, if offered { "235" } else { "502 5.5.1" }).await;
    }
    let rig = rig(ListenerAuth::Clear, directory(&["192.0.2.0/24"]));
    let (mut client, ehlo) = greeted(&rig).await;
    assert!(!ehlo.contains("AUTH"), "{ehlo}");
    client.say(RIGHT, "502 5.5.1").await;
    send_message(&mut client).await;
}

#[tokio::test]
async fn a_credential_that_is_revoked_ends_the_login_of_an_open_session() {
    let old = weak_hash("right");
    let rig = rig(ListenerAuth::Clear, with_app(&old, &[]));
    let (mut client, _) = greeted(&rig).await;
    client.say(RIGHT, "235").await;
    send_message(&mut client).await;
    // The same secret under another hash is another secret.
    let new = crate::admission::password::hash(b"right");
    rig.admission.store(Arc::new(with_app(&new, &[])));
    client.say("MAIL FROM:<a@a.test>", "535 5.7.8 Authentication Credentials Invalid").await;
    client.say("MAIL FROM:<a@a.test>", "530 5.7.0 Authentication required").await;
    client.say(RIGHT, "235").await;
    send_message(&mut client).await;
    rig.admission.store(Arc::new(directory(&[])));
    client.say("MAIL FROM:<a@a.test>", "535 5.7.8").await;
    client.say(RIGHT, "535 5.7.8").await;
}

#[tokio::test]
async fn rights_that_end_within_a_message_refuse_it() {
    let rig = rig(ListenerAuth::Clear, with_app(&weak_hash("right"), &[]));
    let (mut client, _) = greeted(&rig).await;
    client.say(RIGHT, "235").await;
    client.start_transaction().await;
    client.say("DATA", "354").await;
    rig.admission.store(Arc::new(directory(&[])));
    client.say("x: y\r\n\r\n.", "535 5.7.8").await;
    client.say("MAIL FROM:<a@a.test>", "530 5.7.0").await;
    assert!(rig.queue.bodies().is_empty());
}

#[tokio::test]
async fn a_credential_is_worth_nothing_outside_of_its_networks() {
    let rig = rig(ListenerAuth::Clear, with_app(&weak_hash("right"), &["198.51.100.0/24"]));
    let (mut client, _) = greeted(&rig).await;
    client.say(RIGHT, "235").await;
    let denied = "554 5.7.1 Access denied: User app is not authorized to perform ses:SendRawEmail on resource a@a.test";
    client.say("MAIL FROM:<a@a.test>", denied).await;
    client.say("MAIL FROM:<a@a.test>", denied).await;
}

#[tokio::test]
async fn guessing_in_one_session_ends_it_and_in_many_is_put_off() {
    let rig = rig(ListenerAuth::Clear, with_app(&weak_hash("right"), &[]));
    let (mut client, _) = greeted(&rig).await;
    for _ in 0..3 {
        client.say(WRONG, "535 5.7.8").await;
    }
    client.expect("421 4.7.0 Too many failed authentications").await;
    client.expect("closed").await;
    let (mut client, _) = greeted(&rig).await;
    client.say(WRONG, "535").await;
    client.say(WRONG, "535").await;
    client.say(RIGHT, "454 4.7.0 Temporary authentication failure").await;
    let mut other = rig.connect_from("198.51.100.1:1000");
    other.expect("220").await;
    other.say("EHLO client.test", "250").await;
    other.say("AUTH PLAIN AG90aGVyAHdyb25n", "535").await;
}

#[tokio::test]
async fn pipelined_commands_behind_a_login_wait_for_its_verdict() {
    let rig = rig(ListenerAuth::Clear, with_app(&weak_hash("right"), &[]));
    let (mut client, _) = greeted(&rig).await;
    client.send(&format!("{RIGHT}\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n")).await;
    for reply in ["235", "250 2.1.0", "250 2.1.5", "354"] {
        client.expect(reply).await;
    }
}

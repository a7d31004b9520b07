//! A listener for feedback: mail for us, from anybody, and nothing else.

use super::rig::{Client, Rig, settings};
use crate::reception::settings::{ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls, Settings};
use crate::types::{EnhancedStatus, Reply, ReplyCode, ReversePath};

fn rig(settings: Settings) -> Rig {
    let listener = ListenerSettings {
        name: "memory".to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
        tls: ListenerTls::None,
        auth: ListenerAuth::Clear,
        takes: ListenerTakes::Feedback,
    };
    Rig::new(settings, &[listener])
}

/// A stranger, who may not relay.
async fn greeted(rig: &Rig) -> Client {
    let mut client = rig.connect_from("198.51.100.9:1000");
    client.expect("220").await;
    client.send("EHLO mx.stranger.test\r\n").await;
    let ehlo = client.read_once().await;
    assert!(!ehlo.contains("AUTH"), "{ehlo}");
    client
}

#[tokio::test]
async fn a_stranger_brings_mail_for_us_and_for_nobody_else() {
    let rig = rig(settings());
    let mut client = greeted(&rig).await;
    client.say("MAIL FROM:<>", "250 2.1.0").await;
    client.say("RCPT TO:<someone@elsewhere.test>", "550 5.1.1 No such address here").await;
    client.say("DATA", "554 5.5.1 No valid recipients").await;
    client.say("RCPT TO:<known@here.test>", "250 2.1.5").await;
    client.say("RCPT TO:<Postmaster>", "250 2.1.5").await;
    client.say("DATA", "354").await;
    // A host of long ago.
    client.say("Subject: bare\nline ends\n\nare taken\r\n.", "250 2.0.0 Ok").await;
    client.say("QUIT", "221").await;
    let taken = rig.inbox.taken.lock().unwrap();
    let [message] = &taken[..] else { panic!("{taken:?}") };
    let recipients: Vec<_> = message.recipients.iter().map(|recipient| recipient.as_str()).collect();
    assert_eq!(recipients, ["known@here.test", "postmaster@mx.test"]);
    assert_eq!(message.octets, "Subject: bare\r\nline ends\r\n\r\nare taken\r\n");
    assert_eq!((message.reverse_path.clone(), message.client), (ReversePath::Null, "198.51.100.9".parse().unwrap()));
    assert!(rig.queue.accepted.lock().unwrap().is_empty(), "nothing is queued");
}

#[tokio::test]
async fn what_cannot_be_kept_is_not_taken() {
    let rig = rig(settings());
    let status = EnhancedStatus::new(4, 3, 0);
    let refusal = Reply::new(ReplyCode::new(451).unwrap(), status, vec!["Temporary service failure".into()]);
    *rig.inbox.refusal.lock().unwrap() = Some(refusal);
    let mut client = greeted(&rig).await;
    client.say("MAIL FROM:<>", "250").await;
    client.say("RCPT TO:<known@here.test>", "250").await;
    client.say("DATA", "354").await;
    client.say("x: y\r\n\r\n.", "451 4.3.0 Temporary service failure").await;
    *rig.inbox.refusal.lock().unwrap() = None;
    client.say("MAIL FROM:<>", "250").await;
    client.say("RCPT TO:<known@here.test>", "250").await;
    client.say("DATA", "354").await;
    client.say("x: y\r\n\r\n.", "250").await;
}

#[tokio::test]
async fn of_a_large_report_the_front_is_looked_at_and_the_rest_dropped() {
    let rig = rig(settings());
    let mut client = greeted(&rig).await;
    client.say("MAIL FROM:<>", "250").await;
    client.say("RCPT TO:<known@here.test>", "250").await;
    client.say("DATA", "354").await;
    let line = "x".repeat(998) + "\r\n";
    let front = "Subject: large\r\n\r\n";
    client.send(front).await;
    for _ in 0..4_000 {
        client.send(&line).await;
    }
    client.say(".", "250 2.0.0 Ok").await;
    let taken = rig.inbox.taken.lock().unwrap();
    let expected = front.to_owned() + &line.repeat(1_049);
    assert_eq!(taken[0].octets, expected[..1 << 20]);
}

#[tokio::test]
async fn chunks_and_limits_are_those_of_submission() {
    let rig = rig(Settings { message_bytes_max: 64 * 1024, recipients_max: 1, ..settings() });
    let mut client = greeted(&rig).await;
    client.say("MAIL FROM:<> SIZE=70000", "552 5.3.4").await;
    client.say("MAIL FROM:<a@a.test>", "250").await;
    client.say("RCPT TO:<known1@here.test>", "250").await;
    client.say("RCPT TO:<known2@here.test>", "452 4.5.3").await;
    client.send("BDAT 6\r\nx: y\r\n").await;
    client.expect("250").await;
    client.send("BDAT 2 LAST\r\n\r\n").await;
    client.expect("250 2.0.0 Ok").await;
    assert_eq!(rig.inbox.taken.lock().unwrap()[0].octets, "x: y\r\n\r\n");
    client.say("MAIL FROM:<a@a.test>", "250").await;
    client.say("RCPT TO:<known1@here.test>", "250").await;
    client.say("RSET", "250").await;
    client.say("AUTH PLAIN AGFwcAByaWdodA==", "502 5.5.1").await;
}

//! Clients at the edge of the protocol: impatient, half gone, confused, or greedy. What is accepted is delivered once, what
//! is refused is told, and the daemon goes on.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};

use super::message_id;
use crate::harness::{Client, Daemon, Events, Lab, Mx, PATIENCE};

/// A daemon in front of a host that takes everything.
struct Scene {
    events: Events,
    daemon: Daemon,
    mx: Mx,
    lab: Lab,
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        lab.domain("receiver.test", &[2]);
        let mx = lab.mx(2);
        let daemon = lab.daemon();
        Self { events: daemon.events(), daemon, mx, lab }
    }

    fn client(&self) -> Client {
        self.lab.client(&self.daemon)
    }

    /// Messages that the host has, once everything in the queue is done.
    fn delivered(&self) -> usize {
        self.daemon.wait_empty();
        self.mx.accepted().len()
    }
}

/// Sends everything at once, shuts its side down, and reads to the end.
fn say_all_and_leave(address: SocketAddr, dialogue: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(dialogue.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut replies = String::new();
    stream.read_to_string(&mut replies).unwrap();
    replies
}

const ENVELOPE: &str = "MAIL FROM:<app@sender.example>\r\nRCPT TO:<you@receiver.test>\r\n";

#[test]
fn who_says_all_at_once_and_shuts_its_side_down_gets_all_replies() {
    let mut scene = Scene::new();
    let dialogue = format!(
        "EHLO app.example\r\n{ENVELOPE}DATA\r\nFrom: a@sender.example\r\nSubject: all\r\n\r\nhello\r\n.\r\nQUIT\r\n"
    );
    let replies = say_all_and_leave(scene.daemon.smtp_addr(), &dialogue);
    assert!(replies.ends_with("221 2.0.0 Bye\r\n"), "{replies}");
    scene.events.wait_kind("Delivery", &message_id(&replies), "you@receiver.test");
    assert_eq!(scene.delivered(), 1);
}

#[test]
fn a_message_that_ends_with_the_connection_is_not_accepted() {
    let mut scene = Scene::new();
    for rest in ["DATA\r\nSubject: half\r\n\r\nhello\r\n", "BDAT 100 LAST\r\nSubject: half\r\n", "BDAT 4\r\na\r\nb"] {
        let replies = say_all_and_leave(scene.daemon.smtp_addr(), &format!("EHLO app.example\r\n{ENVELOPE}{rest}"));
        assert!(!replies.contains("250 2.0.0 Ok 0"), "{rest:?}: {replies}");
    }
    let id = scene.client().send_simple("app@sender.example", &["you@receiver.test"], "whole");
    scene.events.wait_kind("Delivery", &id, "you@receiver.test");
    assert_eq!(scene.delivered(), 1);
}

#[test]
fn rset_between_chunks_forgets_the_message() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let half = format!("{ENVELOPE}BDAT 7\r\nthe old");
    for (dialogue, codes) in
        [(half.as_str(), &[250, 250, 250][..]), ("DATA\r\n", &[503]), ("RSET\r\nBDAT 0 LAST\r\n", &[250, 503])]
    {
        client.write(dialogue.as_bytes()).unwrap();
        let replies: Vec<_> = codes.iter().map(|_| client.reply().unwrap().code).collect();
        assert_eq!(replies, codes, "{dialogue:?}");
    }
    // The cut is between CR and LF, and nothing of the old one is in front.
    let whole = format!("{ENVELOPE}BDAT 30\r\nFrom: a@b.test\r\n\r\nthe new one\rBDAT 1 LAST\r\n\n");
    client.write(whole.as_bytes()).unwrap();
    let replies: Vec<_> = (0..4).map(|_| client.reply().unwrap()).collect();
    scene.events.wait_kind("Delivery", &message_id(&replies[3].text), "you@receiver.test");
    assert_eq!(scene.delivered(), 1);
    let arrived = scene.mx.accepted().remove(0).text();
    assert!(arrived.ends_with("\r\n\r\nthe new one\r\n"), "{arrived:?}");
}

#[test]
fn recipients_above_the_limit_are_left_for_another_message() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let mut dialogue = "MAIL FROM:<app@sender.example>\r\n".to_owned();
    for number in 0..110 {
        dialogue += &format!("RCPT TO:<user{number}@receiver.test>\r\n");
    }
    client
        .write(format!("{dialogue}DATA\r\nFrom: a@sender.example\r\nSubject: many\r\n\r\nhello\r\n.\r\n").as_bytes())
        .unwrap();
    let replies: Vec<_> = (0..113).map(|_| client.reply().unwrap()).collect();
    let count = |code: u16, text: &str| {
        replies.iter().filter(|reply| reply.code == code && reply.text.starts_with(text)).count()
    };
    // Far more refusals than errors are allowed: a client that sends the rest later has made none.
    assert_eq!([count(250, "2.1.5"), count(452, "4.5.3"), count(354, ""), count(250, "2.0.0 Ok")], [50, 60, 1, 1]);
    let id = message_id(&replies[112].text);
    scene.events.wait_kind("Delivery", &id, "user49@receiver.test");
    assert_eq!(client.command("NOOP").unwrap().code, 250);
}

//! Exim and OpenSMTPD as mail hosts: they take mail from two sources, and pass it on.

use std::net::{IpAddr, SocketAddr};

use super::unpacked::{Neighbours, Unpacked};
use crate::harness::*;

const MESSAGES: usize = 20;

/// Two sources, a server that passes its mail on, and a host behind it that counts where the server says it came from.
fn check(start: fn(Neighbours) -> Unpacked) {
    let lab = Lab::new();
    lab.domain("receiver.test", &[2]);
    let behind = lab.mx(3);
    let here = SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port());
    let _server = start(Neighbours { here, behind: behind.address(), home: behind.address() });
    let source = |name: &str, host: u8| format!("[[source]]\nname = \"{name}\"\naddress = \"{}\"\n", lab.ip(host));
    let daemon = lab.daemon_with(lab.config().table(&source("a", 11)).table(&source("b", 12)));
    let mut client = lab.client(&daemon);
    for number in 0..MESSAGES {
        client.send_simple("app@sender.example", &[&format!("user{number}@receiver.test")], &format!("no {number}"));
    }
    daemon.wait_empty();
    // The writer of events is behind the queue.
    daemon.stop();
    let all = behind.wait_accepted(MESSAGES);
    let from = |host: u8| {
        let address = format!("[{}]", lab.ip(host));
        all.iter().filter(|one| one.text().contains(&address)).count()
    };
    let (a, b) = (from(11), from(12));
    assert_eq!(a + b, MESSAGES, "each came from one of the sources: {a}, {b}");
    assert!(a >= MESSAGES / 4 && b >= MESSAGES / 4, "both are used: {a}, {b}");
    let mut subjects: Vec<String> = all.iter().map(Transaction::subject).collect();
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), MESSAGES, "each once");
    let is_delivery = |event: &&serde_json::Value| event["eventType"] == "Delivery";
    daemon.events().wait_until(|seen| (seen.iter().filter(is_delivery).count() == MESSAGES).then_some(()));
}

#[test]
fn exim_takes_mail_from_two_sources() {
    check(Unpacked::exim);
}

#[test]
fn opensmtpd_takes_mail_from_two_sources() {
    check(Unpacked::opensmtpd);
}

//! Scenario 20 with the real thing: a Postfix that asks postgrey, which knows each address, sender and recipient by itself.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::Command;

use super::postfix::Postfix;
use super::tools::{Background, open_to_all, poll, program};
use crate::harness::*;

/// Seconds that postgrey wants to be waited for.
const DELAY_SECONDS: u32 = 3;

#[test]
fn mail_that_postgrey_defers_is_delivered_from_the_same_one_of_three_sources() {
    let lab = Lab::new();
    lab.domain("receiver.test", &[2]);
    let policy = SocketAddr::new(IpAddr::V4(lab.ip(4)), lab.port());
    let data = tempfile::tempdir().unwrap();
    open_to_all(data.path());
    let mut postgrey = Command::new(program("postgrey"));
    postgrey.arg(format!("--inet={policy}")).arg(format!("--dbdir={}", data.path().display()));
    postgrey.arg(format!("--delay={DELAY_SECONDS}")).args(["--lookup-by-host", "--auto-whitelist-clients=0"]);
    postgrey.args(["--user=nobody", "--group=nogroup", "--whitelist-clients=/dev/null"]);
    let _postgrey = Background::start(postgrey.arg("--whitelist-recipients=/dev/null"));
    poll("postgrey listens", || TcpStream::connect(policy).ok());
    let mailboxes: Vec<String> = (0..9).map(|number| format!("r{number}@receiver.test")).collect();
    let mailboxes: Vec<&str> = mailboxes.iter().map(String::as_str).collect();
    let settings = format!(
        "smtpd_recipient_restrictions = check_policy_service inet:{policy}, permit\nsmtpd_relay_restrictions = reject_unauth_destination\n"
    );
    let postfix = Postfix::receiver_with(SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port()), &mailboxes, &settings);
    let source = |name: &str, host: u8| format!("[[source]]\nname = \"{name}\"\naddress = \"{}\"\n", lab.ip(host));
    let hosts = [("a", 11), ("b", 12), ("c", 13)];
    let config = hosts.iter().fold(lab.config(), |config, (name, host)| config.table(&source(name, *host)));
    let daemon = lab.daemon_with(config.set("retry.steps", "[\"5s\"]"));
    let mut client = lab.client(&daemon);
    for mailbox in &mailboxes {
        client.send_simple("app@sender.example", &[mailbox], "greylisted");
    }
    let mut used = std::collections::BTreeSet::new();
    for mailbox in &mailboxes {
        let text = postfix.mailbox(mailbox, 1).remove(0);
        let delayed = text.lines().find(|line| line.starts_with("X-Greylist: delayed"));
        assert!(delayed.is_some(), "postgrey says that it came again:\n{text}");
        used.extend(hosts.iter().filter(|(_, host)| text.contains(&lab.ip(*host).to_string())).map(|(name, _)| *name));
    }
    assert_eq!(used.len(), 3, "each source was used: {used:?}");
    daemon.wait_empty();
    // One refusal each: from another address the second try would have been a first one.
    let events = Events::read_all(&daemon.events_path());
    for event in events.iter().filter(|event| event["eventType"] == "Delivery") {
        assert_eq!(event["posthaste"]["attempt"], 2, "{event:#}");
    }
}

//! Programs that hand in mail: each gets an id for its message, and an event with that id tells that it was delivered.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::aiosmtpd::{Aiosmtpd, Arrived};
use super::tools::{node, program, python, run, script};
use super::{message, message_id, split_trace};
use crate::harness::{Certificate, Client, ConfigText, Daemon, Events, Lab};

pub(super) const SENDER: &str = "app@sender.example";
pub(super) const RECIPIENT: &str = "you@receiver.test";

/// A daemon with one listener of each kind, between the client under test and an aiosmtpd.
pub(super) struct Scene {
    pub(super) events: Events,
    pub(super) daemon: Daemon,
    pub(super) receiver: Aiosmtpd,
    /// Of all listeners; its name is 127.0.0.1.
    pub(super) certificate: PathBuf,
    pub(super) lab: Lab,
}

impl Scene {
    fn new() -> Self {
        Self::with(|config| config)
    }

    /// With more, or less, in the config.
    pub(super) fn with(change: impl FnOnce(ConfigText) -> ConfigText) -> Self {
        let lab = Lab::new();
        lab.domain("receiver.test", &[2]);
        let receiver = Aiosmtpd::start(SocketAddr::new(IpAddr::V4(lab.ip(2)), lab.port()), &[]);
        let (certificate, key) = Certificate::for_name("127.0.0.1").write(lab.dir());
        let listener = |name: &str| {
            format!(
                "[[listener]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\ntls = \"{name}\"\n\
                 certificate = {certificate:?}\nkey = {key:?}\n"
            )
        };
        let config = lab.config().table(&listener("starttls")).table(&listener("implicit"));
        let daemon = lab.daemon_with(change(config));
        Self { events: daemon.events(), daemon, receiver, certificate, lab }
    }

    fn clear(&self) -> SocketAddr {
        self.daemon.smtp_addr()
    }

    /// The delivery of the message whose id the client printed, and what arrived.
    fn delivered(&mut self, printed: &str) -> (Value, Arrived) {
        let id = message_id(printed);
        let event = self.events.wait_kind("Delivery", &id, RECIPIENT);
        let arrived = self.receiver.wait(1).remove(0);
        assert_eq!(arrived.sender, SENDER);
        assert_eq!(arrived.recipients, [RECIPIENT]);
        assert!(String::from_utf8_lossy(&arrived.content).contains(&format!("id {id}")), "our Received names the id");
        (event, arrived)
    }

    /// The same, where the octets of the message are known.
    fn delivered_as(&mut self, printed: &str, sent: &str) -> Value {
        let (event, arrived) = self.delivered(printed);
        let arrived = String::from_utf8(arrived.content).unwrap();
        let (trace, rest) = split_trace(&arrived);
        assert_eq!(rest, sent);
        assert_eq!(trace.len(), 1, "{trace:?}");
        event
    }
}

/// Whether the event says that the message came over TLS.
fn came_over_tls(event: &Value) -> bool {
    event["mail"]["tags"]["ses:source-tls-version"][0].as_str().is_some_and(|version| version.starts_with("TLSv1."))
}

fn swaks(server: SocketAddr, more: &[&str], message: &str) -> String {
    let mut command = Command::new(program("swaks"));
    command.args([
        "--server",
        &server.to_string(),
        "--from",
        SENDER,
        "--to",
        RECIPIENT,
        "--helo",
        "app.sender.example",
    ]);
    // It adds the last line end itself.
    let message = message.strip_suffix("\r\n").unwrap();
    run(command.args(["--data", "-"]).args(more), message.as_bytes())
}

#[test]
fn mail_from_swaks_arrives_octet_by_octet() {
    let mut scene = Scene::new();
    let sent = message("swaks", "one\r\n.two\r\n..\r\nthree");
    let printed = swaks(scene.clear(), &[], &sent);
    let event = scene.delivered_as(&printed, &sent);
    assert!(!came_over_tls(&event));
}

#[test]
fn pipelined_mail_from_swaks_over_starttls_arrives() {
    let mut scene = Scene::new();
    let sent = message("swaks-tls", "hello");
    let certificate = scene.certificate.to_str().unwrap().to_owned();
    let options = ["--tls", "--tls-verify", "--tls-ca-path", &certificate, "--pipeline"];
    let printed = swaks(scene.daemon.listener_addr("starttls"), &options, &sent);
    assert!(printed.contains("TLS started"), "{printed}");
    let event = scene.delivered_as(&printed, &sent);
    assert!(came_over_tls(&event));
}

fn smtplib(server: SocketAddr, more: &[&str]) -> Command {
    let mut command = python();
    command.arg(script("smtplib_client.py")).arg(server.ip().to_string()).arg(server.port().to_string());
    command.args([SENDER, RECIPIENT]).args(more);
    command
}

#[test]
fn mail_from_smtplib_over_starttls_arrives() {
    let mut scene = Scene::new();
    let sent = message("smtplib", "one\r\n.\r\nthree");
    let certificate = scene.certificate.to_str().unwrap().to_owned();
    let mut client = smtplib(scene.daemon.listener_addr("starttls"), &["--starttls", &certificate]);
    let printed = run(&mut client, sent.as_bytes());
    let event = scene.delivered_as(&printed, &sent);
    assert!(came_over_tls(&event));
}

fn curl(url: &str, more: &[&str], message: &str) -> String {
    let mut command = Command::new(program("curl"));
    command.args(["--silent", "--show-error", "--verbose", "--max-time", "30", url, "--mail-from", SENDER]);
    run(command.args(["--mail-rcpt", RECIPIENT, "--upload-file", "-"]).args(more), message.as_bytes())
}

#[test]
fn mail_from_curl_arrives() {
    let mut scene = Scene::new();
    let sent = message("curl", ".one\r\ntwo");
    let printed = curl(&format!("smtp://{}/app.sender.example", scene.clear()), &[], &sent);
    scene.delivered_as(&printed, &sent);
}

#[test]
fn mail_from_curl_over_implicit_tls_arrives() {
    let mut scene = Scene::new();
    let sent = message("curl-tls", "one");
    let url = format!("smtps://{}/app.sender.example", scene.daemon.listener_addr("implicit"));
    let certificate = scene.certificate.to_str().unwrap().to_owned();
    let printed = curl(&url, &["--cacert", &certificate], &sent);
    let event = scene.delivered_as(&printed, &sent);
    assert!(came_over_tls(&event));
}

/// 5 MB as base64: above what is held in memory, so it goes through the chunks on disk.
const ATTACHMENT_BYTES: u32 = 5_000_000 / 4 * 3;

#[test]
fn five_megabytes_from_nodemailer_over_starttls_arrive_octet_by_octet() {
    let mut scene = Scene::new();
    let (attachment, composed) = (scene.lab.dir().join("attachment"), scene.lab.dir().join("message"));
    let octets: Vec<u8> =
        (0..ATTACHMENT_BYTES).map(|at| u8::try_from(at.wrapping_mul(2_654_435_761) >> 24).unwrap()).collect();
    std::fs::write(&attachment, octets).unwrap();
    let server = scene.daemon.listener_addr("starttls");
    let mut command = node();
    command.arg(script("nodemailer_client.js")).arg(server.ip().to_string()).arg(server.port().to_string());
    command.args([SENDER, RECIPIENT]).args([&attachment, &composed, &scene.certificate]);
    let printed = run(&mut command, b"");
    let (event, arrived) = scene.delivered(&printed);
    assert!(came_over_tls(&event));
    let sent = std::fs::read(composed).unwrap();
    assert!(sent.len() > 5_000_000);
    assert!(arrived.content.ends_with(&sent), "{} octets sent, {} arrived", sent.len(), arrived.content.len());
}

#[test]
fn mail_in_bdat_chunks_arrives_however_it_is_cut() {
    let mut scene = Scene::new();
    let sent = message("bdat", "one\r\n.\r\n.two\r\n\r\n..three");
    let mut client = Client::hello(scene.clear());
    // All in one write: chunks of one octet, of nothing, and one that ends between CR and LF.
    let mut dialogue = format!("MAIL FROM:<{SENDER}> BODY=8BITMIME\r\nRCPT TO:<{RECIPIENT}>\r\n").into_bytes();
    let cut = sent.find("\r\n.two").unwrap() + 1;
    let parts = [&sent[..1], &sent[1..cut], "", &sent[cut..cut + 3], &sent[cut + 3..], ""];
    for (number, part) in parts.iter().enumerate() {
        let last = if number + 1 == parts.len() { " LAST" } else { "" };
        dialogue.extend_from_slice(format!("BDAT {}{last}\r\n{part}", part.len()).as_bytes());
    }
    dialogue.extend_from_slice(b"QUIT\r\n");
    client.write(&dialogue).unwrap();
    let replies: Vec<_> = (0..9).map(|_| client.reply().unwrap()).collect();
    assert_eq!(
        replies.iter().map(|reply| reply.code).collect::<Vec<_>>(),
        [250, 250, 250, 250, 250, 250, 250, 250, 221]
    );
    scene.delivered_as(&replies[7].text, &sent);
}

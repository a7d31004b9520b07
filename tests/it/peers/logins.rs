//! Programs that log in, as the guides of SES tell them to: over STARTTLS and implicit TLS, with PLAIN and with LOGIN.

use std::net::{IpAddr, SocketAddr};
use std::process::Command;

use serde_json::Value;

use super::clients::{self, RECIPIENT, SENDER};
use super::postfix::Postfix;
use super::tools::{node, program, python, run, run_any, script};
use super::{message, message_id};
use crate::harness::{audit_lines, credential_table, hashed};

const USER: &str = "shop-app";
/// With what programs get wrong. In ASCII, since Python's smtplib takes no more.
const SECRET: &str = "p@ss \"word\"\\ 1";

/// A daemon on which nobody sends without a login, with one listener of each kind.
struct Scene(clients::Scene);

impl Scene {
    fn new() -> Self {
        let credential = credential_table(USER, &[&hashed(SECRET)]);
        Self(clients::Scene::with(|config| config.set("relay.networks", "[]").table(&credential)))
    }

    fn address(&self, listener: &str) -> SocketAddr {
        self.0.daemon.listener_addr(listener)
    }

    fn certificate(&self) -> String {
        self.0.certificate.to_str().unwrap().to_owned()
    }

    /// The message whose id was printed came from our user over TLS, and arrived.
    #[track_caller]
    fn delivered(&mut self, printed: &str, mechanism: &str, listener: &str) {
        let id = message_id(printed);
        let event = self.0.events.wait_kind("Delivery", &id, RECIPIENT);
        assert_eq!(event["mail"]["callerIdentity"], USER, "{event}");
        let arrived = String::from_utf8(self.0.receiver.wait(1).remove(0).content).unwrap();
        assert!(arrived.contains("with ESMTPSA"), "{arrived}");
        let lines = self.audit();
        let line = lines.iter().find(|line| line["type"] == "authentication").unwrap();
        assert_eq!(line["user"], USER, "{line}");
        assert_eq!(line["source_ip"], "127.0.0.1", "{line}");
        assert_eq!((&line["mechanism"], &line["listener"]), (&mechanism.into(), &listener.into()), "{line}");
        assert_eq!((&line["success"], &line["reason"]), (&true.into(), &Value::Null), "{line}");
        assert!(line["tls"].as_str().unwrap().starts_with("TLSv1."), "{line}");
    }

    /// The lines of the audit stream; all are there once the daemon has stopped.
    fn audit(&self) -> Vec<Value> {
        self.0.daemon.stop();
        audit_lines(self.0.lab.dir())
    }
}

/// The four ways: listener, and mechanism.
const WAYS: [(&str, &str); 4] =
    [("starttls", "PLAIN"), ("starttls", "LOGIN"), ("implicit", "PLAIN"), ("implicit", "LOGIN")];

#[test]
fn smtplib_logs_in_over_starttls_and_implicit_tls_with_either_mechanism() {
    for (listener, mechanism) in WAYS {
        let mut scene = Scene::new();
        let (server, certificate) = (scene.address(listener), scene.certificate());
        let mut command = python();
        command.env("SECRET", SECRET).arg(script("smtplib_client.py"));
        command.args([&server.ip().to_string(), &server.port().to_string(), SENDER, RECIPIENT]);
        command.args([&format!("--{listener}"), &certificate, "--login", USER, "--mechanism", mechanism]);
        let printed = run(&mut command, message("smtplib", "hello").as_bytes());
        scene.delivered(&printed, mechanism, listener);
    }
}

#[test]
fn nodemailer_logs_in() {
    for (listener, mechanism) in WAYS {
        let mut scene = Scene::new();
        let (server, certificate) = (scene.address(listener), scene.certificate());
        let mut command = node();
        command.env("SECRET", SECRET).arg(script("nodemailer_login.js"));
        command.args([&server.ip().to_string(), &server.port().to_string(), SENDER, RECIPIENT, &certificate]);
        let printed = run(command.args([listener, USER, mechanism]), b"");
        scene.delivered(&printed, mechanism, listener);
    }
}

fn swaks(scene: &Scene, listener: &str, more: &[&str]) -> (bool, String) {
    let mut command = Command::new(program("swaks"));
    let server = scene.address(listener).to_string();
    command.args(["--server", &server, "--from", SENDER, "--to", RECIPIENT, "--helo", "app.sender.example"]);
    run_any(command.args(["--data", "-"]).args(more), message("swaks", "hello").trim_end().as_bytes())
}

#[test]
fn swaks_logs_in() {
    for (listener, mechanism) in WAYS {
        let mut scene = Scene::new();
        let tls = if listener == "starttls" { "--tls" } else { "--tls-on-connect" };
        // It takes octets as they come.
        let options = [tls, "--auth", mechanism, "--auth-user", USER, "--auth-password", SECRET];
        let (is_good, printed) = swaks(&scene, listener, &options);
        assert!(is_good && printed.contains("235 2.7.0 Authentication successful"), "{printed}");
        scene.delivered(&printed, mechanism, listener);
    }
}

#[test]
fn swaks_is_told_what_is_wrong() {
    let scene = Scene::new();
    let (_, printed) = swaks(&scene, "starttls", &["--tls"]);
    assert!(printed.contains("530 5.7.0 Authentication required"), "{printed}");
    let (_, printed) = swaks(&scene, "starttls", &["--auth", "--auth-user", USER, "--auth-password", SECRET]);
    assert!(printed.contains("did not advertise") || printed.contains("not supported"), "{printed}");
    let wrong = ["--tls", "--auth", "PLAIN", "--auth-user", USER, "--auth-password", "guess"];
    let (_, printed) = swaks(&scene, "starttls", &wrong);
    assert!(printed.contains("535 5.7.8 Authentication Credentials Invalid"), "{printed}");
    let lines = scene.audit();
    let failed: Vec<&Value> = lines.iter().filter(|line| line["success"] == false).collect();
    assert_eq!(failed.len(), 1, "{lines:?}");
    assert_eq!((&failed[0]["user"], &failed[0]["reason"]), (&USER.into(), &"wrong secret".into()));
}

#[test]
fn curl_logs_in() {
    for (listener, mechanism) in WAYS {
        let mut scene = Scene::new();
        let scheme = if listener == "starttls" { "smtp" } else { "smtps" };
        let url = format!("{scheme}://{}/app.sender.example", scene.address(listener));
        let mut command = Command::new(program("curl"));
        command.args(["--silent", "--show-error", "--verbose", "--max-time", "30", "--ssl-reqd", &url]);
        command.args(["--cacert", &scene.certificate(), "--mail-from", SENDER, "--mail-rcpt", RECIPIENT]);
        command.args(["--upload-file", "-", "--user", &format!("{USER}:{SECRET}")]);
        command.args(["--login-options", &format!("AUTH={mechanism}")]);
        let printed = run(&mut command, message("curl", "hello").as_bytes());
        scene.delivered(&printed, mechanism, listener);
    }
}

#[test]
fn msmtp_logs_in() {
    for (listener, mechanism) in WAYS {
        let mut scene = Scene::new();
        let server = scene.address(listener);
        let starttls = if listener == "starttls" { "on" } else { "off" };
        let config = format!(
            "account default\nhost {}\nport {}\nfrom {SENDER}\ndomain app.sender.example\ntls on\ntls_starttls {starttls}\n\
             tls_trust_file {}\nauth {}\nuser \"{USER}\"\npasswordeval printenv SECRET\n",
            server.ip(),
            server.port(),
            scene.certificate(),
            mechanism.to_ascii_lowercase(),
        );
        let file = scene.0.lab.dir().join("msmtprc");
        std::fs::write(&file, config).unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let mut command = Command::new(program("msmtp"));
        command.env("SECRET", SECRET).arg(format!("--file={}", file.display())).args(["--debug", RECIPIENT]);
        let printed = run(&mut command, message("msmtp", "hello").as_bytes());
        scene.delivered(&printed, mechanism, listener);
    }
}

#[test]
fn a_postfix_that_logs_in_relays_to_us() {
    let mut scene = Scene::new();
    let lab = &scene.0.lab;
    let relay = scene.address("starttls");
    let passwords = lab.dir().join("sasl_passwd");
    std::fs::write(&passwords, format!("[{}]:{} {USER}:{SECRET}\n", relay.ip(), relay.port())).unwrap();
    let settings = format!(
        "smtp_tls_security_level = verify\nsmtp_tls_verify_cert_match = 127.0.0.1\nsmtp_tls_CAfile = {}\n\
         smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:{}\nsmtp_sasl_security_options = noanonymous\n\
         smtp_sasl_mechanism_filter = plain\n",
        scene.certificate(),
        passwords.display(),
    );
    let upstream = Postfix::upstream(SocketAddr::new(IpAddr::V4(lab.ip(3)), lab.port()), relay, &settings);
    upstream.sendmail(SENDER, &[RECIPIENT], &message("postfix", "hello"));
    let printed = upstream.wait_log(&["to=<you@receiver.test>", "status=sent"]);
    scene.delivered(&printed, "PLAIN", "starttls");
}

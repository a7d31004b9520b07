//! STARTTLS and implicit TLS over loopback sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::rig::{Client, Rig, settings};
use crate::net::BoxStream;
use crate::reception::settings::{
    CertificateFiles, ListenerAuth, ListenerSettings, ListenerTakes, ListenerTls, Settings,
};

/// Writes a fresh certificate for mx.test to `dir`.
fn write_certificate(dir: &Path) -> (CertificateFiles, CertificateDer<'static>) {
    let pair = rcgen::generate_simple_self_signed(vec!["mx.test".to_owned()]).unwrap();
    let files = CertificateFiles { certificate: dir.join("crt.pem"), key: dir.join("key.pem") };
    std::fs::write(&files.certificate, pair.cert.pem()).unwrap();
    std::fs::write(&files.key, pair.signing_key.serialize_pem()).unwrap();
    (files, pair.cert.der().clone())
}

async fn handshake(stream: BoxStream, trusted: &CertificateDer<'static>) -> std::io::Result<TlsStream<BoxStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("mx.test").unwrap(), stream).await
}

fn listener(tls: ListenerTls) -> ListenerSettings {
    ListenerSettings {
        name: "smtp".to_owned(),
        address: "127.0.0.1:0".parse().unwrap(),
        tls,
        auth: ListenerAuth::Tls,
        takes: ListenerTakes::Messages,
    }
}

async fn send_message(client: &mut Client) {
    client.say("EHLO client.test", "250 ").await;
    client.start_transaction().await;
    client.say("DATA", "354").await;
    client.say("x: y\r\n\r\n.", "250 2.0.0 Ok").await;
}

async fn offer(stream: TcpStream) -> Client {
    let mut client = Client::new(Box::new(stream));
    client.expect("220").await;
    client.send("EHLO client.test\r\n").await;
    let ehlo = client.read_once().await;
    assert!(ehlo.contains("250-STARTTLS\r\n"), "{ehlo}");
    client
}

#[tokio::test]
async fn starttls_starts_a_new_session_under_tls() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let rig = Rig::new(settings(), &[listener(ListenerTls::StartTls(files))]);
    let mut client = offer(rig.dial(0).await).await;
    client.say("STARTTLS", "220 2.0.0").await;
    let mut client = Client::new(Box::new(handshake(client.stream, &certificate).await.unwrap()));
    client.say("MAIL FROM:<a@a.test>", "503 5.5.1").await;
    client.send("EHLO client.test\r\n").await;
    let ehlo = client.read_once().await;
    assert!(ehlo.ends_with("250 HELP\r\n") && !ehlo.contains("STARTTLS"), "{ehlo}");
    send_message(&mut client).await;
    client.say("QUIT", "221").await;
    client.expect("closed").await;
    let body = rig.queue.bodies().remove(0);
    assert!(body.contains("with ESMTPS (TLSv1.3)"), "{body}");
}

#[tokio::test]
async fn implicit_tls_greets_after_the_handshake() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let rig = Rig::new(settings(), &[listener(ListenerTls::Implicit(files))]);
    let stream = handshake(Box::new(rig.dial(0).await), &certificate).await.unwrap();
    let mut client = Client::new(Box::new(stream));
    client.expect("220 mx.test").await;
    send_message(&mut client).await;
    assert!(rig.queue.bodies()[0].contains("with ESMTPS (TLSv1.3)"));
}

/// A second's handshake of one client that leads to nothing, five at once, and a second's patience.
fn impatient() -> Settings {
    Settings { handshakes_per_client_rate_max: 1, command_timeout: Duration::from_secs(1), ..settings() }
}

#[tokio::test]
async fn handshakes_that_lead_to_nothing_are_held_up_and_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let rig = Arc::new(Rig::new(impatient(), &[listener(ListenerTls::Implicit(files))]));
    let mut dials = JoinSet::new();
    for _ in 0..30 {
        let (rig, certificate) = (Arc::clone(&rig), certificate.clone());
        dials.spawn(async move { handshake(Box::new(rig.dial(0).await), &certificate).await.is_ok() });
    }
    let made = dials.join_all().await.into_iter().filter(|made| *made).count();
    assert!((5..30).contains(&made), "{made} of 30 handshakes");
}

#[tokio::test(start_paused = true)]
async fn a_handshake_above_the_limit_waits_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let settings = Settings { handshakes_per_client_rate_max: 1, ..settings() };
    let rig = Rig::new(settings, &[listener(ListenerTls::Implicit(files))]);
    let begin = Instant::now();
    for _ in 0..7 {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        rig.reception.serve("smtp", Box::new(theirs), "192.0.2.1:1000".parse().unwrap());
        handshake(Box::new(ours), &certificate).await.unwrap();
    }
    assert_eq!(begin.elapsed().as_secs(), 2, "five at once, then one a second");
}

#[tokio::test]
async fn handshakes_of_a_client_that_sends_messages_are_not_held_up() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let rig = Rig::new(impatient(), &[listener(ListenerTls::StartTls(files))]);
    for round in 0..30 {
        let mut client = offer(rig.dial(0).await).await;
        client.say("STARTTLS", "220 2.0.0").await;
        let stream = handshake(client.stream, &certificate).await;
        let mut client = Client::new(Box::new(stream.unwrap_or_else(|error| panic!("round {round}: {error}"))));
        send_message(&mut client).await;
    }
}

#[tokio::test]
async fn connections_that_say_nothing_take_no_ones_turn() {
    let dir = tempfile::tempdir().unwrap();
    let (files, certificate) = write_certificate(dir.path());
    let rig = Rig::new(impatient(), &[listener(ListenerTls::Implicit(files))]);
    let mut silent = Vec::new();
    for _ in 0..30 {
        silent.push(rig.dial(0).await);
    }
    assert!(handshake(Box::new(rig.dial(0).await), &certificate).await.is_ok());
}

#[tokio::test]
async fn plaintext_behind_starttls_is_refused_and_the_connection_closed() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = write_certificate(dir.path());
    let rig = Rig::new(settings(), &[listener(ListenerTls::StartTls(files))]);
    let mut client = offer(rig.dial(0).await).await;
    client.say("STARTTLS\r\nMAIL FROM:<evil@a.test>", "554 5.5.1").await;
    client.expect("closed").await;
}

#[tokio::test]
async fn plaintext_in_place_of_a_handshake_ends_the_session() {
    let dir = tempfile::tempdir().unwrap();
    let (files, _) = write_certificate(dir.path());
    let rig = Rig::new(settings(), &[listener(ListenerTls::StartTls(files))]);
    let mut client = offer(rig.dial(0).await).await;
    client.say("STARTTLS", "220").await;
    client.send("EHLO evil.test\r\nMAIL FROM:<evil@a.test>\r\n").await;
    let answer = client.read_once().await;
    assert!(!answer.contains("250"), "{answer:?}");
}

#[tokio::test]
async fn a_new_certificate_serves_new_handshakes_and_old_sessions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let (files, first) = write_certificate(dir.path());
    let settings_of_listener = listener(ListenerTls::Implicit(files.clone()));
    let rig = Rig::new(settings(), std::slice::from_ref(&settings_of_listener));
    let mut old = Client::new(Box::new(handshake(Box::new(rig.dial(0).await), &first).await.unwrap()));
    old.expect("220").await;
    let (_, second) = write_certificate(dir.path());
    rig.reception.reload(std::slice::from_ref(&settings_of_listener)).unwrap();
    assert!(handshake(Box::new(rig.dial(0).await), &second).await.is_ok());
    assert!(handshake(Box::new(rig.dial(0).await), &first).await.is_err());
    send_message(&mut old).await;
    // A broken file keeps what is there.
    std::fs::write(&files.key, "nonsense").unwrap();
    let error = rig.reception.reload(&[settings_of_listener]).unwrap_err().to_string();
    assert!(error.contains("listener smtp") && error.contains("key.pem"), "{error}");
    assert!(handshake(Box::new(rig.dial(0).await), &second).await.is_ok());
}

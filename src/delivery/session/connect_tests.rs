//! Opening a session against scripted peers.

use tokio::time::Instant;

use super::testing::{Message, World, fates, target};
use super::*;
use crate::delivery::settings::TlsMode;
use crate::net::dial::TcpDialer;
use crate::net::tls_client::TlsClient;

const PLAIN_HOST: &str = "
    S: 220 mx.test ESMTP
    C: EHLO client.test
    S: 250-mx.test
    S: 250-SIZE 1000
    S: 250 PIPELINING
    HANG";
/// Offers STARTTLS; what happens behind the 220 follows.
const UP_TO_TLS: &str = "
    S: 220 mx.test ESMTP
    C: EHLO client.test
    S: 250-mx.test
    S: 250-CHUNKING
    S: 250 STARTTLS
    C: STARTTLS
    S: 220 go";
const BEHIND_TLS: &str = "
    TLS
    C: EHLO client.test
    S: 250-mx.test
    S: 250-AUTH LOGIN PLAIN
    S: 250 PIPELINING";

/// Connects once to `script`, which must fail; gives the failure as text.
async fn failure(script: &str, tls: TlsMode) -> ConnectFailure {
    let world = World::new(&[script]);
    let failure = world.connect(&target(tls)).await.expect_err(script);
    world.finish().await;
    failure
}

#[tokio::test(start_paused = true)]
async fn a_greeted_session_knows_its_peer() {
    let world = World::new(&[PLAIN_HOST]);
    let session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
    assert!(session.peer().offers(Extension::Pipelining));
    assert_eq!(&*session.about().greeting, "mx.test ESMTP");
    assert_eq!(session.about().tls, None);
    assert_eq!(session.about().tls_hint, TlsHint::Unknown);
    assert!(session.is_reusable());
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_its_stage_and_is_the_hosts() {
    for (script, expected) in [
        ("S: 554 5.7.1 go away\nC: QUIT\nS: 221 bye", "refused at greeting: 554 5.7.1 go away"),
        ("S: 421 4.3.2 busy", "refused at greeting: 421 4.3.2 busy"),
        ("R: 554 5.7.1 listed", "refused at greeting: 554 5.7.1 listed"),
        ("", "host closed the connection at greeting"),
        ("S: SSH-2.0-x", "failed at greeting: peer does not speak SMTP: expected a reply, got \"SSH-2.0-x\""),
        ("S: 220 hi\nC: EHLO client.test\nS: 421 4.3.2 busy", "refused at ehlo: 421 4.3.2 busy"),
        ("S: 220 hi\nC: EHLO client.test\nS: 450 later", "refused at ehlo: 450 later"),
        ("S: 220 hi\nC: EHLO client.test\nS: 550 blocked", "refused at ehlo: 550 blocked"),
        (
            "S: 220 hi\nC: EHLO client.test\nS: 502 no\nC: HELO client.test\nS: 550 blocked",
            "refused at ehlo: 550 blocked",
        ),
        ("DIAL refused", "failed at connect: connection refused"),
        ("DIAL timeout", "timeout at connect"),
    ] {
        let failure = failure(script, TlsMode::None).await;
        assert_eq!(failure.to_string(), expected);
        assert!(failure.host_fault, "{script}");
    }
    assert!(!failure("DIAL source", TlsMode::None).await.host_fault);
}

#[tokio::test(start_paused = true)]
async fn a_slow_greeting_is_awaited_for_two_minutes() {
    let world = World::new(&["WAIT 119\nS: 220 hi\nC: EHLO client.test\nS: 250 hi\nHANG", "WAIT 121"]);
    assert!(world.connect(&target(TlsMode::None)).await.is_ok());
    let started = Instant::now();
    let failure = world.connect(&target(TlsMode::None)).await.unwrap_err();
    assert_eq!(failure.to_string(), "timeout at greeting");
    assert_eq!(started.elapsed().as_secs(), 120);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn helo_follows_a_refused_ehlo() {
    let world = World::new(&["S: 220 hi\nC: EHLO client.test\nS: 500 what\nC: HELO client.test\nS: 250 hi\nHANG"]);
    let session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
    assert_eq!(session.peer(), &Capabilities::default());
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn starttls_is_used_and_only_what_is_offered_behind_it_counts() {
    let script = format!(
        "{UP_TO_TLS}{BEHIND_TLS}\nW: MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>|DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 queued\nC: QUIT\nS: 221 bye"
    );
    let world = World::new(&[&script]);
    let mut session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
    assert!(!session.peer().offers(Extension::Chunking));
    let tls = session.about().tls.clone().unwrap();
    assert_eq!((tls.version, tls.certificate_problem.as_deref()), ("TLSv1.3", Some("unknown issuer")));
    let result = Message::new(&["x@b.test"], "Subject: x\r\n\r\n.dot\r\n").send(&mut session).await;
    assert_eq!(fates(&result), ["accepted 250 queued"]);
    assert!(session.is_quiet(), "session tickets are no trouble");
    session.quit().await;
    assert_eq!(world.finish().await, ["Subject: x\r\n\r\n..dot\r\n.\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn silence_to_the_hello_means_a_small_one_and_then_clear() {
    let stalled = format!("{UP_TO_TLS}\nHANG");
    let works = format!("{UP_TO_TLS}{BEHIND_TLS}\nHANG");
    let world = World::new(&[&stalled, &works]);
    let session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
    assert!(session.about().tls.is_some());
    assert_eq!(session.about().tls_hint, TlsHint::SmallHello);
    assert_eq!(session.about().tls_failed.as_deref(), Some("timeout at tls"));
    drop(session);
    world.finish().await;

    let world = World::new(&[UP_TO_TLS, &stalled, "S: 220 hi\nC: EHLO client.test\nS: 250 hi\nHANG"]);
    let session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
    assert_eq!((world.dials(), &session.about().tls), (3, &None));
    assert_eq!(session.about().tls_hint, TlsHint::Broken);
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_broken_starttls_means_a_new_clear_connection() {
    let refused = UP_TO_TLS.replace("S: 220 go", "S: 454 4.7.0 not now\nC: QUIT\nS: 221 bye");
    let broken = format!("{UP_TO_TLS}\nWAIT 1\nS: 500 what is this\nHANG");
    let regretted = format!("{UP_TO_TLS}\nTLS\nC: EHLO client.test");
    for first in [refused, broken, regretted] {
        let world = World::new(&[&first, "S: 220 hi\nC: EHLO client.test\nS: 250-hi\nS: 250 STARTTLS\nHANG"]);
        let session = world.connect(&target(TlsMode::Opportunistic)).await.unwrap();
        assert_eq!((world.dials(), &session.about().tls), (2, &None), "{first}");
        assert_eq!(session.about().tls_hint, TlsHint::Broken);
        assert!(session.about().tls_failed.is_some());
        drop(session);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn tls_that_is_required_never_goes_in_clear() {
    let refused = UP_TO_TLS.replace("S: 220 go", "S: 454 4.7.0 not now");
    let shaken = format!("{UP_TO_TLS}\nTLS");
    let closed = format!("{UP_TO_TLS}\nWAIT 1");
    let not_offered = PLAIN_HOST.replace("HANG", "C: QUIT");
    for (scripts, expected) in [
        (vec![not_offered.as_str()], "host does not offer STARTTLS, and TLS is required"),
        (vec![&refused], "refused at tls: 454 4.7.0 not now"),
        (vec![&closed, &closed], "host closed the connection at tls (after TLS: host closed the connection at tls)"),
        (vec![&shaken], "failed at tls: invalid peer certificate: UnknownIssuer"),
    ] {
        let world = World::new(&scripts);
        let mut target = target(TlsMode::Require);
        target.tls_hint = TlsHint::Broken;
        let failure = world.connect(&target).await.unwrap_err();
        assert_eq!(failure.to_string(), expected);
        assert_eq!(failure.stage, Stage::Tls);
        world.finish().await;
    }
    let works = format!("{UP_TO_TLS}{BEHIND_TLS}\nHANG");
    let world = World::new(&[&works]);
    let session = connect(&world, &world.trusting(), &target(TlsMode::Require), &Timeouts::default()).await.unwrap();
    assert_eq!(session.about().tls.as_ref().unwrap().certificate_problem, None);
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn bytes_behind_the_reply_to_starttls_are_fatal() {
    let failure = failure(&format!("{UP_TO_TLS}\nS: 250 injected\nHANG"), TlsMode::Opportunistic).await;
    assert_eq!(failure.to_string(), "failed at tls: bytes behind the reply to STARTTLS, possibly injected");
}

#[tokio::test(start_paused = true)]
async fn hints_are_obeyed() {
    let works = format!("{UP_TO_TLS}{BEHIND_TLS}\nHANG");
    for (hint, script, encrypted) in [
        (TlsHint::Broken, "S: 220 hi\nC: EHLO client.test\nS: 250-hi\nS: 250 STARTTLS\nHANG", false),
        (TlsHint::SmallHello, works.as_str(), true),
    ] {
        let world = World::new(&[script]);
        let mut target = target(TlsMode::Opportunistic);
        target.tls_hint = hint;
        let session = world.connect(&target).await.unwrap();
        assert_eq!(session.about().tls.is_some(), encrypted, "{hint:?}");
        drop(session);
        world.finish().await;
    }
}

async fn log_in(scripts: &[&str]) -> Result<(), String> {
    let world = World::new(scripts);
    let mut target = target(TlsMode::Opportunistic);
    target.login = Some(Credentials::new("tim", Secret::new("tanstaaftanstaaf")).unwrap());
    let result = world.connect(&target).await;
    let result = result.map(drop).map_err(|failure| format!("{failure} ({})", failure.host_fault));
    world.finish().await;
    result
}

#[tokio::test(start_paused = true)]
async fn logins_need_tls_and_say_whose_fault_it_is() {
    let encrypted = format!("{UP_TO_TLS}{BEHIND_TLS}");
    let plain = format!("{encrypted}\nC: AUTH PLAIN AHRpbQB0YW5zdGFhZnRhbnN0YWFm\n");
    let login = encrypted.replace("LOGIN PLAIN", "LOGIN")
        + "\nC: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGlt\nS: 334 UGFzc3dvcmQ6\nC: dGFuc3RhYWZ0YW5zdGFhZg==\nS: 235 in\nHANG";
    assert_eq!(log_in(&[&format!("{plain}S: 235 2.7.0 in\nHANG")]).await, Ok(()));
    assert_eq!(log_in(&[&login]).await, Ok(()));
    for (script, expected) in [
        (format!("{plain}S: 535 5.7.8 wrong"), "refused at auth: 535 5.7.8 wrong (false)"),
        (format!("{plain}S: 454 4.7.0 later"), "refused at auth: 454 4.7.0 later (true)"),
        (
            encrypted.replace("AUTH LOGIN PLAIN", "AUTH GSSAPI"),
            "host offers neither AUTH PLAIN nor AUTH LOGIN: login is not possible (false)",
        ),
        (
            PLAIN_HOST.replace("PIPELINING", "AUTH PLAIN").replace("HANG", "GONE"),
            "login needs TLS, and this connection has none: the password was not sent (false)",
        ),
        (UP_TO_TLS.replace("S: 220 go", "S: 454 4.7.0 not now"), "refused at tls: 454 4.7.0 not now (true)"),
    ] {
        assert_eq!(log_in(&[&script]).await, Err(expected.to_owned()));
    }
}

#[tokio::test]
async fn a_real_connection_comes_from_the_source_of_the_target() {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut target = target(TlsMode::None);
    target.address = listener.local_addr().unwrap();
    target.via.address = Some("127.0.0.2".parse().unwrap());
    let serve = async {
        let (stream, peer) = listener.accept().await.unwrap();
        let mut stream = BufReader::new(stream);
        stream.write_all(b"220 hi\r\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        stream.write_all(b"250 hi\r\n").await.unwrap();
        stream.read_line(&mut line).await.unwrap();
        stream.write_all(b"221 bye\r\n").await.unwrap();
        (peer.ip().to_string(), line)
    };
    let (tls, timeouts) = (TlsClient::new(b"").unwrap(), Timeouts::default());
    let visit = async {
        let session = connect(&TcpDialer, &tls, &target, &timeouts).await.unwrap();
        assert_eq!(session.about().local, target.via.address);
        session.quit().await;
    };
    let ((source, lines), ()) = tokio::join!(serve, visit);
    assert_eq!((source.as_str(), lines.as_str()), ("127.0.0.2", "EHLO client.test\r\nQUIT\r\n"));
}

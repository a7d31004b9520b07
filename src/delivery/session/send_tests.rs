//! Transactions against scripted peers. The table of the protocol is tested in `smtp::client`; here it is bytes, time
//! and what lies between two transactions.

use std::collections::VecDeque;

use bytes::Bytes;
use tokio::time::Instant;

use super::testing::{Message, World, fates, target};
use super::*;
use crate::delivery::settings::TlsMode;
use crate::net::BoxFuture;

const GREETED: &str = "S: 220 hi\nC: EHLO client.test\nS: 250-mx\nS: 250 PIPELINING\n";
const GREETED_SLOW: &str = "S: 220 hi\nC: EHLO client.test\nS: 250 mx\n";
const UP_TO_DATA: &str = "W: MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>|DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\n";
const DELIVERED: &str =
    "W: MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>|DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 queued\n";

fn message() -> Message {
    Message::new(&["x@b.test"], "Subject: x\r\n\r\nhello\r\n")
}

async fn open(script: &str) -> (World, Session) {
    let world = World::new(&[script]);
    let session = world.connect(&target(TlsMode::None)).await.unwrap();
    (world, session)
}

/// Sends one message on a fresh connection.
async fn send(script: &str, message: &Message) -> (SendResult, Vec<String>) {
    let (world, mut session) = open(script).await;
    let result = message.send(&mut session).await;
    drop(session);
    (result, world.finish().await)
}

#[tokio::test(start_paused = true)]
async fn commands_are_one_write_and_the_body_is_another() {
    let script = format!("{GREETED}{UP_TO_DATA}W: Subject: x||hello|.\nS: 250 queued\nHANG");
    let (result, _) = send(&script, &message()).await;
    assert_eq!(fates(&result), ["accepted 250 queued"]);
    assert_eq!((result.after, result.stale, result.dsn_passed), (After::Reusable, false, false));
}

#[tokio::test(start_paused = true)]
async fn without_pipelining_each_command_waits_for_its_reply() {
    let script = format!(
        "{GREETED_SLOW}W: MAIL FROM:<s@a.test>\nS: 250 ok\nW: RCPT TO:<x@b.test>\nS: 550 5.1.1 no\nW: RCPT TO:<y@b.test>\nS: 250 ok\nW: DATA\nS: 354 go\nBODY\nS: 250 queued\nHANG"
    );
    let (result, kept) = send(&script, &Message::new(&["x@b.test", "y@b.test"], "a\r\n\r\n")).await;
    assert_eq!(fates(&result), ["refused rcpt 550 5.1.1 no", "accepted 250 queued"]);
    assert_eq!(kept, ["a\r\n\r\n.\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn a_final_reply_after_nine_minutes_is_one_delivery() {
    for (seconds, expected) in [(540, "accepted 250 queued"), (601, "ambiguous: timeout at dot")] {
        let script = format!("{GREETED}{UP_TO_DATA}BODY\nWAIT {seconds}\nR: 250 queued\nR: \r\n");
        let script = script.replace("R: 250 queued\nR: \r\n", if seconds < 600 { "S: 250 queued\nHANG" } else { "" });
        let started = Instant::now();
        let (result, _) = send(&script, &message()).await;
        assert_eq!(fates(&result), [expected]);
        assert!(started.elapsed().as_secs() <= 601);
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_dropped_behind_the_final_dot_is_ambiguous() {
    let (result, kept) = send(&format!("{GREETED}{UP_TO_DATA}BODY"), &message()).await;
    assert_eq!(fates(&result), ["ambiguous: host closed the connection at dot without a reply"]);
    assert_eq!(result.after, After::Closed);
    assert_eq!(kept.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_421_glued_to_the_acceptance_ends_the_connection_and_nothing_else() {
    let script = format!("{GREETED}{DELIVERED}S: 421 4.7.0 that was enough\nGONE");
    let (world, mut session) = open(&script).await;
    let result = message().send(&mut session).await;
    assert_eq!(fates(&result), ["accepted 250 queued"]);
    assert_eq!(result.after, After::Closed);
    assert!(!session.is_reusable());
    session.quit().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_the_host_closed_meanwhile_is_stale() {
    for (end, expected) in [
        ("", "not sent: host closed the connection at mail without a reply"),
        ("WAIT 5\nS: 421 4.4.2 idle", "not sent: host closed the connection at mail: 421 4.4.2 idle"),
        ("WAIT 1\nR: 25\nHANG", "not sent: protocol error at mail: unfinished reply that nobody asked for"),
        ("WAIT 5\nS: 250 odd\nHANG", "not sent: protocol error at mail: reply that nobody asked for: 250 odd"),
    ] {
        let (world, mut session) = open(&format!("{GREETED}{DELIVERED}{end}")).await;
        assert_eq!(fates(&message().send(&mut session).await), ["accepted 250 queued"]);
        tokio::time::sleep(Duration::from_secs(6)).await;
        let result = message().send(&mut session).await;
        assert_eq!(fates(&result), [expected]);
        assert_eq!((result.stale, result.after), (!end.contains("HANG"), After::Closed), "{end}");
        drop(session);
        world.finish().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_is_asked_whether_it_is_quiet() {
    let (world, mut session) = open(&format!("{GREETED}{DELIVERED}WAIT 5\nS: 421 4.4.2 idle")).await;
    message().send(&mut session).await;
    assert!(session.is_quiet());
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert!(!session.is_quiet());
    assert!(!session.is_reusable());
    let result = message().send(&mut session).await;
    assert!(result.stale);
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_transaction_left_open_is_reset_in_the_next_write() {
    let script = format!(
        "{GREETED}W: MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>|DATA\nS: 250 ok\nS: 550 no\nS: 554 none\nW: RSET|MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>|DATA\nS: 250 reset\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 queued\n{DELIVERED}C: RSET\nS: 250 ok\nC: QUIT\nS: 221 bye"
    );
    let (world, mut session) = open(&script).await;
    for expected in ["refused rcpt 550 no", "accepted 250 queued", "accepted 250 queued"] {
        assert_eq!(fates(&message().send(&mut session).await), [expected]);
    }
    assert_eq!(session.transactions(), 3);
    assert!(session.reset().await);
    session.quit().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn mailmax_of_the_peer_is_kept() {
    let script =
        format!("{GREETED}{DELIVERED}C: QUIT\nS: 221 bye").replace("250-mx", "250-mx\nS: 250-LIMITS MAILMAX=1");
    let (world, mut session) = open(&script).await;
    assert!(session.is_reusable());
    message().send(&mut session).await;
    assert!(!session.is_reusable());
    session.quit().await;
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_reply_sent_ahead_of_the_body_is_not_taken_for_an_acceptance() {
    for (ahead, expected) in [
        ("S: 250 queued", "not sent: protocol error at data: reply before the end of data: 250 queued"),
        ("S: 552 5.3.4 too big", "refused data 552 5.3.4 too big"),
        ("S: 421 4.3.2 closing", "not sent: host closed the connection at data: 421 4.3.2 closing"),
        ("R: 25", "not sent: protocol error at data: bytes behind the 354"),
    ] {
        let (result, _) = send(&format!("{GREETED}{UP_TO_DATA}{ahead}\nGONE"), &message()).await;
        assert_eq!(fates(&result), [expected]);
        assert_eq!(result.after, After::Closed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_body_goes_out_in_pieces_and_stuffed() {
    let mut large = message();
    let line = format!(".{}\r\n", "x".repeat(61));
    large.body = vec![Bytes::from(line.repeat(3_000)), Bytes::from_static(b"."), Bytes::from_static(b"end")];
    let (result, kept) = send(&format!("{GREETED}{DELIVERED}HANG"), &large).await;
    assert_eq!(fates(&result), ["accepted 250 queued"]);
    assert_eq!(kept, [format!("{}..end\r\n.\r\n", format!(".{line}").repeat(3_000))]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_taking_the_body_may_have_said_why() {
    let mut large = message();
    large.body = vec![Bytes::from("x\r\n".repeat(200_000))];
    for (end, expected, seconds) in [
        ("READ 1000\nS: 552 5.3.4 too big\nSTALL", "refused data 552 5.3.4 too big", 180),
        ("READ 1000\nS: 421 4.3.2 closing", "not sent: host closed the connection at data: 421 4.3.2 closing", 0),
        ("STALL", "not sent: timeout at data", 182),
    ] {
        let started = Instant::now();
        let (world, mut session) = open(&format!("{GREETED}{UP_TO_DATA}{end}")).await;
        let result = large.send(&mut session).await;
        assert_eq!(fates(&result), [expected]);
        assert_eq!(started.elapsed().as_secs(), seconds, "{end}");
        drop(session);
        world.finish().await;
    }
}

/// Gives its parts one by one.
struct Parts(VecDeque<Result<Bytes, String>>);

impl Parts {
    fn new(parts: &[&'static str], end: Option<&str>) -> Self {
        let good = parts.iter().map(|part| Ok(Bytes::from_static(part.as_bytes())));
        Self(good.chain(end.map(|text| Err(text.to_owned()))).collect())
    }
}

impl BodyReader for Parts {
    fn next_part(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>> {
        let next = self.0.pop_front().transpose();
        Box::pin(async move {
            tokio::task::yield_now().await;
            next
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_part_by_part_and_never_ended_by_an_error() {
    let whole = message();
    let (world, mut session) = open(&format!("{GREETED}{DELIVERED}{UP_TO_DATA}GONE")).await;
    let mut parts = Parts::new(&["Subject: x\r", "\n\r\n", ".a\r\n"], None);
    let result = session.send(&whole.transaction(), BodySource::Reader(&mut parts)).await;
    assert_eq!(fates(&result), ["accepted 250 queued"]);
    let mut parts = Parts::new(&["Subject: x\r\n\r\n"], Some("disk"));
    let result = session.send(&whole.transaction(), BodySource::Reader(&mut parts)).await;
    assert_eq!(fates(&result), ["not sent: message body not available: disk"]);
    let RecipientResult::NotSent { loss } = &result.recipients[0] else { panic!() };
    assert!(!loss.is_host_fault());
    session.quit().await;
    assert_eq!(world.finish().await, ["Subject: x\r\n\r\n..a\r\n.\r\n"]);
}

#[tokio::test(start_paused = true)]
async fn bdat_sends_exactly_what_was_declared_or_breaks_off() {
    let greeted = GREETED.replace("250-mx", "250-mx\nS: 250-CHUNKING");
    let up_to_chunk = format!("{greeted}W: MAIL FROM:<s@a.test>|RCPT TO:<x@b.test>\nS: 250 ok\nS: 250 ok\n");
    let mut ten = message();
    ten.body = vec![Bytes::from_static(b".234567890")];
    for (parts, end, expected) in [
        (&[".2345", "67890"][..], "C: BDAT 10 LAST\nREAD 10\nS: 250 queued\nHANG", "accepted 250 queued"),
        (&[".2345"], "GONE", "not sent: message body not available: body lacks 5 of 10 bytes that were declared"),
        (
            &[".234567890", "x"],
            "GONE",
            "not sent: message body not available: body is longer than the 10 bytes that were declared",
        ),
        (
            &[".2345", "67890"],
            "C: BDAT 10 LAST\nREAD 10",
            "ambiguous: host closed the connection at dot without a reply",
        ),
    ] {
        let world = World::new(&[&format!("{up_to_chunk}{end}")]);
        let mut target = target(TlsMode::None);
        target.chunking = true;
        let mut session = world.connect(&target).await.unwrap();
        let mut parts = Parts::new(parts, None);
        let result = session.send(&ten.transaction(), BodySource::Reader(&mut parts)).await;
        assert_eq!(fates(&result), [expected]);
        drop(session);
        let kept = world.finish().await;
        assert!(kept.iter().all(|body| body == ".234567890"), "{kept:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_peer_cannot_take_is_decided_without_a_word() {
    let script = format!("{GREETED}{DELIVERED}HANG")
        .replace("250-mx", "250-mx\nS: 250-SIZE 20")
        .replace("W: MAIL FROM:<s@a.test>", "W: MAIL FROM:<s@a.test> SIZE=3");
    let (world, mut session) = open(&script).await;
    let large = message();
    assert_eq!(fates(&large.send(&mut session).await), ["unsendable 5.3.4"]);
    let foreign = Message::new(&["j\u{fc}@b.test"], "a\r\n");
    assert_eq!(fates(&foreign.send(&mut session).await), ["unsendable 5.6.7"]);
    assert_eq!(session.transactions(), 0);
    assert_eq!(fates(&Message::new(&["x@b.test"], "a\r\n").send(&mut session).await), ["accepted 250 queued"]);
    drop(session);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_quit_that_is_not_answered_ends_after_five_seconds() {
    let (world, session) = open(&format!("{GREETED}C: QUIT\nHANG")).await;
    let started = Instant::now();
    session.quit().await;
    assert_eq!(started.elapsed().as_secs(), 5);
    world.finish().await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_does_not_end_a_transaction_in_its_own_task() {
    let (world, mut session) =
        open(&format!("{GREETED}{UP_TO_DATA}BODY\nWAIT 300\nS: 250 queued\nC: QUIT\nS: 221 bye")).await;
    let (report, reported) = tokio::sync::oneshot::channel();
    let worker = tokio::spawn(async move {
        let result = message().send(&mut session).await;
        report.send(fates(&result)).unwrap();
        session.quit().await;
    });
    assert!(tokio::time::timeout(Duration::from_secs(60), worker).await.is_err());
    assert_eq!(reported.await.unwrap(), ["accepted 250 queued"]);
    world.finish().await;
}

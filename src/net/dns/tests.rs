//! The adapter against a DNS server of our own on loopback; expiry by a clock that the tests move.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use hickory_resolver::proto::op::ResponseCode;
use hickory_resolver::proto::rr::RecordType;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::cache::FAILURE_TTL;
use super::responder::{Responder, Say, address, alias, mx, pointer, text};
use super::*;
use crate::types::ManualClock;

const START: Timestamp = Timestamp::from_millis(1_700_000_000_000);

struct Lab {
    server: Responder,
    clock: Arc<ManualClock>,
    resolver: HickoryResolver,
}

fn settings(servers: &[&Responder]) -> DnsSettings {
    let servers = servers.iter().map(|server| server.address).collect();
    DnsSettings { servers, timeout: Duration::from_secs(20), ..DnsSettings::default() }
}

async fn lab() -> Lab {
    let server = Responder::start().await;
    let clock = Arc::new(ManualClock::at(START));
    let resolver = HickoryResolver::new(&settings(&[&server]), clock.clone()).unwrap();
    Lab { server, clock, resolver }
}

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

impl Lab {
    /// MX records as `10 mx.test`, sorted; or `nxdomain`, or the reason of a failure.
    async fn mx(&self, name: &str) -> String {
        match self.resolver.mx(&domain(name)).await {
            Ok(answer) => {
                let show = |mx: &Mx| format!("{} {}", mx.preference, mx.host.as_ref().map_or(".", Domain::as_str));
                let mut records: Vec<String> = answer.records.iter().map(show).collect();
                records.sort();
                let stale = if answer.stale { " (stale)" } else { "" };
                format!("{}{stale}", records.join(", "))
            }
            Err(error) => show_error(error),
        }
    }

    async fn addresses(&self, name: &str) -> String {
        match self.resolver.addresses(&domain(name)).await {
            Ok(answer) => answer.records.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => show_error(error),
        }
    }
}

fn show_error(error: DnsError) -> String {
    match error {
        DnsError::NoSuchDomain(_) => "nxdomain".to_owned(),
        DnsError::Failed { reason, .. } => reason,
    }
}

async fn until(condition: impl Fn() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn mx_records_are_found_and_the_root_is_no_host() {
    let lab = lab().await;
    lab.server.say(
        "a.test",
        RecordType::MX,
        Say::Records(vec![mx("a.test", "20 m2.test"), mx("a.test", "10 M1.test")]),
    );
    lab.server.say("null.test", RecordType::MX, Say::Records(vec![mx("null.test", "0 .")]));
    assert_eq!(lab.mx("a.test").await, "10 m1.test, 20 m2.test");
    assert_eq!(lab.mx("null.test").await, "0 .");
}

#[tokio::test]
async fn nxdomain_nodata_and_servfail_are_told_apart() {
    let lab = lab().await;
    lab.server.say("gone.test", RecordType::MX, Say::NxDomain(60));
    lab.server.say("bare.test", RecordType::MX, Say::NoData(60));
    lab.server.say("broken.test", RecordType::MX, Say::Code(ResponseCode::ServFail));
    assert_eq!(lab.mx("gone.test").await, "nxdomain");
    assert_eq!(lab.mx("bare.test").await, "");
    assert_eq!(lab.mx("broken.test").await, format!("{} answered SERVFAIL", lab.server.address));
    assert_eq!(lab.mx("foreign.test").await, format!("{} answered REFUSED", lab.server.address));
}

#[tokio::test]
async fn a_name_too_long_for_dns_does_not_exist_and_is_not_asked_for() {
    let lab = lab().await;
    let name = format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(62));
    assert_eq!(name.len(), 254);
    assert_eq!(lab.mx(&name).await, "nxdomain");
    assert_eq!(lab.server.asked(&name, RecordType::MX), 0);
}

#[tokio::test]
async fn a_truncated_answer_is_asked_for_again_by_tcp_and_bounded() {
    let lab = lab().await;
    let records: Vec<_> = (0..200).map(|number| mx("big.test", &format!("{number} m{number}.test"))).collect();
    lab.server.say("big.test", RecordType::MX, Say::OnlyByTcp(records));
    let answer = lab.resolver.mx(&domain("big.test")).await.unwrap();
    assert_eq!(answer.records.len(), 64);
    assert!(answer.records.iter().all(|record| record.preference < 64), "the best ones are kept");
    let records: Vec<_> = (0..200).map(|number| address("big.test", &format!("192.0.2.{number}"))).collect();
    lab.server.say("big.test", RecordType::A, Say::OnlyByTcp(records));
    lab.server.say("big.test", RecordType::AAAA, Say::NoData(60));
    assert_eq!(lab.resolver.addresses(&domain("big.test")).await.unwrap().records.len(), 16);
}

#[tokio::test]
async fn one_family_that_fails_does_not_spoil_the_other() {
    let lab = lab().await;
    let v4 = || Say::Records(vec![address("h.test", "192.0.2.1")]);
    lab.server.say("h.test", RecordType::A, v4());
    lab.server.say("h.test", RecordType::AAAA, Say::Code(ResponseCode::ServFail));
    assert_eq!(lab.addresses("h.test").await, "192.0.2.1");
    lab.server.say("six.test", RecordType::A, Say::Code(ResponseCode::NotImp));
    lab.server.say("six.test", RecordType::AAAA, Say::Records(vec![address("six.test", "2001:db8::1")]));
    assert_eq!(lab.addresses("six.test").await, "2001:db8::1");
    lab.server.say("both.test", RecordType::A, Say::Records(vec![address("both.test", "192.0.2.2")]));
    lab.server.say("both.test", RecordType::AAAA, Say::Records(vec![address("both.test", "2001:db8::2")]));
    assert_eq!(lab.addresses("both.test").await, "2001:db8::2 192.0.2.2");
}

#[tokio::test]
async fn without_any_address_only_agreement_counts() {
    let lab = lab().await;
    for (name, v4, v6, expected) in [
        ("gone.test", Say::NxDomain(60), Say::NxDomain(60), "nxdomain"),
        ("odd.test", Say::NoData(60), Say::NxDomain(60), ""),
        ("bare.test", Say::NoData(60), Say::NoData(60), ""),
    ] {
        lab.server.say(name, RecordType::A, v4);
        lab.server.say(name, RecordType::AAAA, v6);
        assert_eq!(lab.addresses(name).await, expected, "{name}");
    }
    lab.server.say("half.test", RecordType::A, Say::Code(ResponseCode::ServFail));
    lab.server.say("half.test", RecordType::AAAA, Say::NoData(60));
    assert!(lab.addresses("half.test").await.ends_with("SERVFAIL"), "A may exist: nobody knows");
}

#[tokio::test]
async fn aliases_are_followed_within_an_answer_and_beyond() {
    let lab = lab().await;
    let in_one = vec![alias("www.test", "a.test"), mx("a.test", "10 m.test")];
    lab.server.say("www.test", RecordType::MX, Say::Records(in_one));
    assert_eq!(lab.mx("www.test").await, "10 m.test");
    lab.server.say("far.test", RecordType::MX, Say::Records(vec![alias("far.test", "near.test")]));
    lab.server.say("near.test", RecordType::MX, Say::Records(vec![mx("near.test", "10 n.test")]));
    assert_eq!(lab.mx("far.test").await, "10 n.test");
    lab.server.say(
        "mx.test",
        RecordType::A,
        Say::Records(vec![alias("mx.test", "h.test"), address("h.test", "192.0.2.1")]),
    );
    lab.server.say("mx.test", RecordType::AAAA, Say::Records(vec![alias("mx.test", "h.test")]));
    lab.server.say("h.test", RecordType::AAAA, Say::NoData(60));
    assert_eq!(lab.addresses("mx.test").await, "192.0.2.1");
    lab.server.say("dead.test", RecordType::MX, Say::Records(vec![alias("dead.test", "gone.test")]));
    lab.server.say("gone.test", RecordType::MX, Say::NxDomain(60));
    assert_eq!(lab.mx("dead.test").await, "nxdomain");
}

#[tokio::test]
async fn an_alias_loop_ends_without_records() {
    let lab = lab().await;
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![alias("a.test", "b.test"), alias("b.test", "a.test")]));
    lab.server.say("b.test", RecordType::MX, Say::Records(vec![alias("b.test", "a.test"), alias("a.test", "b.test")]));
    assert_eq!(lab.mx("a.test").await, "");
}

#[tokio::test]
async fn records_of_other_names_and_invalid_targets_are_dropped() {
    let lab = lab().await;
    let records = vec![
        mx("victim.test", "0 evil.test"),
        mx("a.test", "5 not a host.test"),
        mx("a.test", "6 -.test"),
        mx("a.test", "7 bücher.test"),
        mx("a.test", "8 a\r\nb.test"),
        mx("a.test", "10 good.test"),
        address("a.test", "192.0.2.66"),
    ];
    lab.server.say("a.test", RecordType::MX, Say::Records(records));
    assert_eq!(lab.mx("a.test").await, "10 good.test");
    lab.server.say("bad.test", RecordType::MX, Say::Records(vec![mx("bad.test", "10 not a host.test")]));
    let failure = lab.mx("bad.test").await;
    assert!(failure.ends_with("MX records that name no valid host"), "no implicit MX: {failure}");
}

#[tokio::test]
async fn answers_are_cached_for_their_ttl_and_each_type_alone() {
    let lab = lab().await;
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 m.test")]));
    for _ in 0..10 {
        assert_eq!(lab.mx("a.test").await, "10 m.test");
    }
    assert_eq!(lab.server.asked("a.test", RecordType::MX), 1);
    lab.clock.advance(Duration::from_secs(299));
    lab.mx("a.test").await;
    assert_eq!(lab.server.asked("a.test", RecordType::MX), 1);
    lab.clock.advance(Duration::from_secs(1));
    lab.mx("a.test").await;
    assert_eq!(lab.server.asked("a.test", RecordType::MX), 2);
}

#[tokio::test]
async fn the_least_ttl_of_the_aliases_counts() {
    let lab = lab().await;
    lab.server.say("w.test", RecordType::MX, Say::Records(vec![alias("w.test", "a.test"), mx("a.test", "10 m.test")]));
    let answer = lab.resolver.mx(&domain("w.test")).await.unwrap();
    assert_eq!(answer.expires_at, START.plus(Duration::from_secs(60)));
}

#[tokio::test]
async fn nxdomain_is_really_asked_for_again_within_ten_minutes() {
    let lab = lab().await;
    lab.server.say("new.test", RecordType::MX, Say::NxDomain(86_400));
    assert_eq!(lab.mx("new.test").await, "nxdomain");
    lab.server.say("new.test", RecordType::MX, Say::Records(vec![mx("new.test", "10 m.test")]));
    lab.clock.advance(Duration::from_secs(30));
    assert_eq!(lab.mx("new.test").await, "nxdomain");
    lab.clock.advance(Duration::from_secs(570));
    assert_eq!(lab.mx("new.test").await, "10 m.test");
}

#[tokio::test]
async fn a_failing_server_is_left_alone_for_seconds_and_the_last_answer_serves() {
    let lab = lab().await;
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 m.test")]));
    lab.mx("a.test").await;
    lab.server.say_always(Some(Say::Code(ResponseCode::ServFail)));
    lab.clock.advance(Duration::from_secs(3_600));
    for _ in 0..10 {
        assert_eq!(lab.mx("a.test").await, "10 m.test (stale)");
        assert!(lab.mx("b.test").await.ends_with("SERVFAIL"));
    }
    assert_eq!(lab.server.asked("a.test", RecordType::MX), 2);
    assert_eq!(lab.server.asked("b.test", RecordType::MX), 1);
    lab.clock.advance(Duration::from_secs(2 * 86_400));
    assert!(lab.mx("a.test").await.ends_with("SERVFAIL"), "too old to serve");
    lab.server.say_always(None);
    lab.clock.advance(FAILURE_TTL);
    assert_eq!(lab.mx("a.test").await, "10 m.test");
}

#[tokio::test]
async fn another_server_is_asked_where_one_refuses_fails_or_is_silent() {
    let (first, second) = (Responder::start().await, Responder::start().await);
    let mut settings = settings(&[&first, &second]);
    settings.timeout = Duration::from_millis(1_500);
    let resolver = HickoryResolver::new(&settings, Arc::new(ManualClock::at(START))).unwrap();
    let says = [Say::Code(ResponseCode::Refused), Say::Code(ResponseCode::ServFail), Say::Silence];
    for (number, say) in says.into_iter().enumerate() {
        let name = format!("n{number}.test");
        first.say(&name, RecordType::MX, say);
        second.say(&name, RecordType::MX, Say::Records(vec![mx(&name, "10 m.test")]));
        assert_eq!(resolver.mx(&domain(&name)).await.unwrap().records.len(), 1, "{name}");
    }
    second.say("next.test", RecordType::MX, Say::Records(vec![mx("next.test", "10 m.test")]));
    assert!(resolver.mx(&domain("next.test")).await.is_ok());
    assert_eq!(first.asked("next.test", RecordType::MX), 0, "a silent server is passed over");
}

#[tokio::test]
async fn a_dead_server_gives_a_failure_that_names_it() {
    let server = Responder::start().await;
    server.say_always(Some(Say::Silence));
    let mut settings = settings(&[&server]);
    settings.timeout = Duration::from_millis(100);
    let resolver = HickoryResolver::new(&settings, Arc::new(ManualClock::at(START))).unwrap();
    let error = resolver.mx(&domain("a.test")).await.unwrap_err().to_string();
    assert!(error.contains("a.test") && error.contains(&server.address.to_string()), "{error}");
    assert!(server.asked("a.test", RecordType::MX) >= 2, "a lost packet is sent again");
}

#[tokio::test]
async fn equal_questions_in_flight_become_one() {
    let lab = lab().await;
    let gate = Arc::new(Semaphore::new(0));
    lab.server.say("a.test", RecordType::MX, Say::Later(gate.clone(), vec![mx("a.test", "10 m.test")]));
    let resolver = Arc::new(lab.resolver);
    let mut lookups = JoinSet::new();
    for _ in 0..50 {
        let resolver = Arc::clone(&resolver);
        lookups.spawn(async move { resolver.mx(&domain("a.test")).await.unwrap().records.len() });
    }
    until(|| lab.server.asked("a.test", RecordType::MX) > 0).await;
    assert_eq!(resolver.fast_lane.available_permits(), LOOKUPS_MAX - 1, "one of 50 asks");
    gate.add_permits(Semaphore::MAX_PERMITS);
    assert_eq!(lookups.join_all().await, vec![1; 50]);
    assert!(resolver.flights.lock().unwrap().is_empty());
}

async fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let polled = future.take().expect("polled once").poll(context);
        std::task::Poll::Ready(polled.is_ready())
    })
    .await
}

#[tokio::test]
async fn a_caller_that_goes_away_takes_nobody_along() {
    let lab = lab().await;
    lab.server.say("a.test", RecordType::MX, Say::Silence);
    let name = domain("a.test");
    let mut leader = Box::pin(lab.resolver.mx(&name));
    let mut waiter = Box::pin(lab.resolver.mx(&name));
    assert!(!poll_once(leader.as_mut()).await);
    assert!(!poll_once(waiter.as_mut()).await);
    assert_eq!(lab.resolver.flights.lock().unwrap().len(), 1);
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 m.test")]));
    drop(leader);
    assert_eq!(waiter.await.unwrap().records.len(), 1);
    assert!(lab.resolver.flights.lock().unwrap().is_empty());
    let mut alone = Box::pin(lab.resolver.addresses(&name));
    assert!(!poll_once(alone.as_mut()).await);
    drop(alone);
    assert!(lab.resolver.flights.lock().unwrap().is_empty(), "nobody waits: nothing is kept");
}

#[tokio::test]
async fn names_without_an_answer_do_not_hold_up_others() {
    let mut lab = lab().await;
    lab.resolver.fast_lane = Semaphore::new(2);
    lab.resolver.slow_lane = Semaphore::new(1);
    lab.server.say("alive.test", RecordType::MX, Say::Records(vec![mx("alive.test", "10 m.test")]));
    let resolver = Arc::new(lab.resolver);
    let mut lookups = JoinSet::new();
    for number in 0..2 {
        let name = format!("dead{number}.test");
        lab.server.say(&name, RecordType::MX, Say::Silence);
        let resolver = Arc::clone(&resolver);
        lookups.spawn(async move { resolver.mx(&domain(&name)).await });
    }
    until(|| resolver.fast_lane.available_permits() == 0).await;
    assert!(resolver.mx(&domain("alive.test")).await.is_ok());
    let first = lookups.join_next().await.unwrap().unwrap().unwrap_err().to_string();
    assert!(first.contains("too many other names"), "the slow lane has room for one only: {first}");
    assert_eq!(lookups.len(), 1, "the other one still waits for its answer");
}

#[tokio::test]
async fn a_reload_keeps_the_cache_unless_the_servers_change() {
    let lab = lab().await;
    lab.server.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 m.test")]));
    lab.mx("a.test").await;
    lab.resolver.reload(&DnsSettings { attempts: 5, ..settings(&[&lab.server]) }).unwrap();
    assert_eq!(lab.mx("a.test").await, "10 m.test");
    assert_eq!(lab.server.asked("a.test", RecordType::MX), 1);
    let other = Responder::start().await;
    other.say("a.test", RecordType::MX, Say::Records(vec![mx("a.test", "10 other.test")]));
    lab.resolver.reload(&settings(&[&other])).unwrap();
    assert_eq!(lab.mx("a.test").await, "10 other.test");
}

#[tokio::test]
async fn special_names_never_leave_this_host() {
    let lab = lab().await;
    assert_eq!(lab.mx("a.invalid").await, "nxdomain");
    assert_eq!(lab.addresses("localhost").await, "::1 127.0.0.1");
}

#[tokio::test]
async fn the_strings_of_a_txt_record_are_joined_and_records_stay_apart() {
    let lab = lab().await;
    let long = "p".repeat(255);
    let records = vec![text("a.test", &[&long, "end"]), text("a.test", &["v=spf1 -all"])];
    lab.server.say("a.test", RecordType::TXT, Say::OnlyByTcp(records));
    lab.server.say("_dmarc.none.test", RecordType::TXT, Say::NoData(60));
    lab.server.say("_dmarc.gone.test", RecordType::TXT, Say::NxDomain(60));
    lab.server.say("_dmarc.dead.test", RecordType::TXT, Say::Code(ResponseCode::ServFail));
    let answer = lab.resolver.texts(&domain("a.test")).await.unwrap();
    let found: Vec<&str> = answer.records.iter().map(AsRef::as_ref).collect();
    assert_eq!(found, [format!("{long}end").as_str(), "v=spf1 -all"]);
    assert!(lab.resolver.texts(&domain("_dmarc.none.test")).await.unwrap().records.is_empty());
    let gone = lab.resolver.texts(&domain("_dmarc.gone.test")).await;
    assert!(matches!(gone, Err(DnsError::NoSuchDomain(_))), "{gone:?}");
    let dead = lab.resolver.texts(&domain("_dmarc.dead.test")).await;
    assert!(matches!(dead, Err(DnsError::Failed { .. })), "{dead:?}");
}

#[tokio::test]
async fn an_address_is_turned_round_for_its_names() {
    let lab = lab().await;
    for (address, owner) in [
        ("192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("::ffff:192.0.2.1", "1.2.0.192.in-addr.arpa"),
        ("2001:db8::1f", "f.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa"),
    ] {
        lab.server.say(owner, RecordType::PTR, Say::Records(vec![pointer(owner, "mail.test")]));
        let names = lab.resolver.names(address.parse().unwrap()).await.unwrap().records;
        assert_eq!(names, [domain("mail.test")], "{address}");
    }
    lab.server.say("2.2.0.192.in-addr.arpa", RecordType::PTR, Say::NxDomain(60));
    assert!(lab.resolver.names("192.0.2.2".parse().unwrap()).await.unwrap().records.is_empty());
    let unknown = lab.resolver.names("192.0.2.3".parse().unwrap()).await;
    assert!(matches!(unknown, Err(DnsError::Failed { .. })), "{unknown:?}");
}

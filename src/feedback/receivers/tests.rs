//! Which domains metrics name, and how many reports are read at once.

use super::*;
use crate::queue::model::ModelStore;
use crate::queue::{Opened, Settings};
use crate::types::{ManualClock, Timestamp};

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn receivers() -> (Receivers, Opened) {
    let clock = Arc::new(ManualClock::at(Timestamp::from_millis(1_683_244_799_000)));
    let opened = Queue::open(Arc::new(ModelStore::new()), &Settings::default(), clock, 1).unwrap();
    (Receivers::new(opened.queue.clone()), opened)
}

#[test]
fn a_domain_is_named_by_the_nearest_of_ours() {
    let own = OwnDomains::new(&[domain("news.shop.test"), domain("localhost")]);
    for (asked, expected) in [
        ("news.shop.test", Some("news.shop.test")),
        ("NEWS.Shop.test.", Some("news.shop.test")),
        ("a.b.news.shop.test", Some("news.shop.test")),
        ("shop.test", Some("shop.test")),
        ("other.shop.test", Some("shop.test")),
        ("localhost", Some("localhost")),
        ("test", None),
        ("notshop.test", None),
        ("shop.test.evil.test", None),
        ("", None),
        (".", None),
        ("..", None),
    ] {
        assert_eq!(own.nearest(asked), expected, "{asked}");
    }
    assert_eq!(own.nearest(&"a.".repeat(250)), None);
    assert_eq!(own.nearest(&format!("{}shop.test", "a.".repeat(120))), Some("shop.test"));
}

#[test]
fn strangers_names_and_those_beyond_the_limit_are_other() {
    let (receivers, _opened) = receivers();
    let all: Vec<Domain> = (0..=DOMAINS_SHOWN_MAX).map(|number| domain(&format!("d{number}.test"))).collect();
    let own = OwnDomains::new(&all);
    assert_eq!(receivers.label("evil.example", &own), OTHER);
    for name in all.iter().take(DOMAINS_SHOWN_MAX) {
        assert_eq!(receivers.label(name.as_str(), &own), name.as_str());
    }
    assert_eq!(receivers.label(all[DOMAINS_SHOWN_MAX].as_str(), &own), OTHER);
    assert_eq!(receivers.label("x.d0.test", &own), "d0.test", "those that are known stay so");
}

#[tokio::test]
async fn one_large_report_or_many_small_ones_are_read_at_once() {
    let (receivers, _opened) = receivers();
    let at = |addressed| [Recognised { addressed, token: None }];
    let large = receivers.turn(&at(Addressed::Dmarc), 1 << 20).await.unwrap();
    let small = at(Addressed::TlsRpt);
    let waiting = receivers.turn(&small, 1_000);
    tokio::pin!(waiting);
    assert!(futures_pending(waiting.as_mut()).await, "the large one is being read");
    assert!(receivers.turn(&at(Addressed::ReturnPath), 1 << 20).await.is_none(), "bounces wait for nothing");
    drop(large);
    let mut turns = vec![waiting.await.unwrap()];
    for _ in 1..UNPACKED_AT_ONCE_MAX / SMALL_BYTES {
        turns.push(receivers.turn(&small, 1_000).await.unwrap());
    }
    let one_more = receivers.turn(&small, 1_000);
    tokio::pin!(one_more);
    assert!(futures_pending(one_more).await);
}

/// Whether a look at the future finds it unfinished.
async fn futures_pending<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(|context| {
        let future = future.take().expect("polled once");
        std::task::Poll::Ready(future.poll(context).is_pending())
    })
    .await
}

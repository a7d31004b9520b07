//! Sources, sites and lanes from outside: the real daemon, mail hosts on loopback addresses, and what these hosts counted.
//!
//! | file | shows |
//! |---|---|
//! | `site_limits` | connections and rates of a site hold for all its domains together, for each source |
//! | `learning` | 421 teaches how many connections, and how many messages on one; no message pays for it |
//! | `fairness` | tenants share a slow host, whoever has most; what is urgent goes first |
//! | `blocks` | a block takes one source out at one site, for a time, and one probe brings it back |
//! | `greylists` | greylisted mail comes again from where it came |
//! | `families` | IPv6 that is refused for lack of a PTR record gives way to IPv4 |
//! | `restarts` | what was sent, learned and blocked is known after SIGTERM and after SIGKILL |
//! | `reloads` | limits, pools and weights as the config says now |
//! | `warmup` | caps of warm-ups hold, what has no room goes elsewhere or waits, managed pools, the history |
//!
//! No figure of ours is believed: connections are counted when a host greets, messages when it took them, both by the address that
//! they came from.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    clippy::indexing_slicing,
    reason = "helpers of tests: they may panic, and they look at the clock to give up"
)]

mod blocks;
mod fairness;
mod families;
mod greylists;
mod learning;
mod reloads;
mod restarts;
mod site_limits;
mod warmup;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;

use crate::harness::*;

pub(crate) const FROM: &str = "app@sender.example";

/// A reply that [`block_rule`] knows.
const BLOCKED: &str = "550 5.7.1 Your address is on the list of this test";

/// The host numbers of the sources `a`, `b`, `c` (see [`Lab::ip`]).
const A: u8 = 11;
const B: u8 = 12;
const C: u8 = 13;

fn ip(lab: &Lab, host: u8) -> IpAddr {
    IpAddr::V4(lab.ip(host))
}

/// A `[[source]]` at [`Lab::ip`] `host`, named by it: 11 is `a`.
pub(crate) fn source(lab: &Lab, host: u8) -> String {
    format!("[[source]]\nname = \"{}\"\naddress = \"{}\"\n", source_name(host), lab.ip(host))
}

fn source_name(host: u8) -> char {
    char::from(b'a' + host - A)
}

/// The lab's config with these sources, all in the pool `default`.
fn config_with(lab: &Lab, sources: &[u8]) -> ConfigText {
    sources.iter().fold(lab.config(), |config, host| config.table(&source(lab, *host)))
}

/// With a file of reply rules.
fn with_replies(lab: &Lab, config: ConfigText, rules: &str) -> ConfigText {
    let file = lab.dir().join("replies.toml");
    std::fs::write(&file, rules).unwrap();
    config.set("rules.replies", &format!("{file:?}"))
}

/// With a file of provider rules.
fn with_providers(lab: &Lab, config: ConfigText, rules: &str) -> ConfigText {
    let file = lab.dir().join("providers.toml");
    std::fs::write(&file, rules).unwrap();
    config.set("rules.providers", &format!("{file:?}"))
}

/// A reply rule: [`BLOCKED`] blocks the source for so long.
fn block_rule(lasts: &str) -> String {
    format!(
        "[[rule]]\nname = \"test-block\"\ntext = [\"on the list of this test\"]\nclass = \"ip-block\"\n\
         react = {{ do = \"block\", for = \"{lasts}\" }}\n"
    )
}

/// A message to `you@` each of these domains.
fn send_to_each(client: &mut Client, domains: impl IntoIterator<Item = String>) -> Vec<String> {
    let send = |domain: String| client.send_simple(FROM, &[&format!("you@{domain}")], &domain);
    domains.into_iter().map(send).collect()
}

/// So many messages to one domain.
fn send_some(client: &mut Client, domain: &str, count: usize) -> Vec<String> {
    let send = |number| client.send_simple(FROM, &[&format!("user{number}@{domain}")], &format!("message {number}"));
    (0..count).map(send).collect()
}

/// Messages by the address that they came from.
fn by_source(transactions: &[Transaction]) -> BTreeMap<IpAddr, usize> {
    let mut counts = BTreeMap::new();
    for transaction in transactions {
        *counts.entry(transaction.peer.ip()).or_default() += 1;
    }
    counts
}

/// The most messages that came from an address within any such time.
fn most_within(transactions: &[Transaction], address: IpAddr, span: Duration) -> usize {
    let mut times: Vec<_> = transactions.iter().filter(|one| one.peer.ip() == address).map(|one| one.at).collect();
    times.sort_unstable();
    let from = |(at, first): (usize, &std::time::Instant)| {
        times[at..].iter().take_while(|time| time.duration_since(*first) < span).count()
    };
    times.iter().enumerate().map(from).max().unwrap_or(0)
}

/// Lane events of this change, about this source where one is given.
fn changes<'a>(events: &'a [Value], change: &str, source: Option<char>) -> Vec<&'a Value> {
    let is_wanted = |event: &&Value| {
        let lane = &event["lane"];
        event["eventType"] == "Lane"
            && lane["change"] == change
            && source.is_none_or(|source| lane["source"] == source.to_string())
    };
    events.iter().filter(is_wanted).collect()
}

/// Waits for a Lane event of this change and source.
fn wait_change(events: &mut Events, change: &str, source: char) -> Value {
    events.wait_until(|seen| changes(seen, change, Some(source)).first().map(|event| (*event).clone()))
}

/// Everything was delivered, by the first attempt, and nobody was told of a delay.
fn assert_first_attempts(daemon: &Daemon, count: usize) {
    let mut events = daemon.events();
    // The writer of events is behind the queue.
    let delivered = |seen: &[Value]| seen.iter().filter(|event| event["eventType"] == "Delivery").count();
    events.wait_until(|seen| (delivered(seen) >= count).then_some(()));
    let events = events.seen();
    let of = |kind: &str| events.iter().filter(|event| event["eventType"] == kind).collect::<Vec<_>>();
    assert_eq!((of("DeliveryDelay").len(), of("Bounce").len()), (0, 0));
    let deliveries = of("Delivery");
    assert_eq!(deliveries.len(), count);
    let later: Vec<_> = deliveries.iter().filter(|event| event["posthaste"]["attempt"] != 1).collect();
    assert!(later.is_empty(), "{later:#?}");
}

/// Brings one message of each source to `domain`, so that the site and its lanes are known to work.
fn prove(client: &mut Client, mx: &Mx, domain: &str, sources: &[IpAddr]) {
    let all_used = || {
        let before = mx.accepted().len();
        client.send_simple(FROM, &[&format!("first@{domain}")], "prove");
        mx.wait_accepted(before + 1);
        let used = by_source(&mx.accepted());
        sources.iter().all(|source| used.contains_key(source)).then_some(())
    };
    poll(all_used, || format!("not all sources are used: {:?}", by_source(&mx.accepted())));
}

/// A message to a site of its own was delivered: the scheduler has looked at all that was there before.
fn mark(client: &mut Client, marker: &Mx) {
    let before = marker.accepted().len();
    client.send_simple(FROM, &["mark@marker.test"], "mark");
    marker.wait_accepted(before + 1);
}

/// The host that [`mark`] sends to.
fn marker(lab: &Lab) -> Mx {
    lab.domain("marker.test", &[200]);
    lab.mx(200)
}

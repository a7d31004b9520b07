//! Applications that hand in mail as fast as they can, and what must hold of it afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use serde_json::Value;

use super::{Client, Daemon, Events, Mx, PATIENCE, Watched, recipients, simple};

/// Numbers messages of this process, so that each subject is unique.
static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// What was answered 250.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sent {
    /// Subject by message id.
    pub(crate) accepted: BTreeMap<String, String>,
    /// Why clients ended before they were told to.
    pub(crate) errors: Vec<String>,
}

/// Sending until stopped, or until the connection breaks.
pub(crate) struct Load {
    sent: Watched<Sent>,
    stops: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Each message goes to one recipient in each of `domains`.
    pub(crate) fn start(address: SocketAddr, clients: usize, domains: &[&str]) -> Self {
        Self::start_sized(address, clients, domains, 0)
    }

    /// With bodies of about this many octets more.
    pub(crate) fn start_sized(address: SocketAddr, clients: usize, domains: &[&str], body_bytes: usize) -> Self {
        let (sent, stops) = (Watched::new(Sent::default()), Arc::new(AtomicBool::new(false)));
        let domains: Vec<String> = domains.iter().map(|&domain| domain.to_owned()).collect();
        let one = |_| {
            let (sent, stops, domains) = (sent.clone(), Arc::clone(&stops), domains.clone());
            thread::spawn(move || {
                if let Err(error) = send(address, &domains, body_bytes, &sent, &stops) {
                    sent.change(|sent| sent.errors.push(error.to_string()));
                }
            })
        };
        let threads = (0..clients).map(one).collect();
        Self { sent, stops, threads }
    }

    /// Two clients, until so many messages were accepted: these, each to one recipient in each of `domains`.
    pub(crate) fn some(address: SocketAddr, domains: &[&str], count: usize) -> BTreeMap<String, String> {
        let load = Self::start(address, 2, domains);
        load.wait_accepted(count);
        load.stop().accepted
    }

    /// Waits until this many messages were accepted.
    pub(crate) fn wait_accepted(&self, count: usize) {
        let enough = |sent: &mut Sent| (sent.accepted.len() >= count).then_some(());
        assert!(self.sent.wait(PATIENCE, enough).is_some(), "{:?}", self.sent.lock());
    }

    /// How many were accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.sent.lock().accepted.len()
    }

    /// Ends it: each client brings its message to its end. What was accepted.
    pub(crate) fn stop(self) -> Sent {
        self.stops.store(true, Ordering::Relaxed);
        self.join()
    }

    /// Waits until each client has lost its connection.
    pub(crate) fn join(self) -> Sent {
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.sent.lock().clone()
    }
}

fn send(
    address: SocketAddr,
    domains: &[String],
    body_bytes: usize,
    sent: &Watched<Sent>,
    stops: &AtomicBool,
) -> std::io::Result<()> {
    // Nothing that compresses well.
    let line = |_| format!("{:076x}\r\n", rand::random::<u128>());
    let body: String = (0..body_bytes / 78).map(line).collect();
    let mut client = Client::try_hello(address)?;
    while !stops.load(Ordering::Relaxed) {
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let subject = format!("load {number}");
        let to: Vec<String> = domains.iter().map(|domain| format!("user{number}@{domain}")).collect();
        let to: Vec<&str> = to.iter().map(String::as_str).collect();
        let id = client.try_send("app@sender.example", &to, &(simple(&subject) + &body))?;
        sent.change(|sent| sent.accepted.insert(id, subject));
    }
    Ok(())
}

/// Waits until everything is delivered or given up, stops the daemon, and checks the whole story of the run.
pub(crate) fn assert_all_ends_well<'a>(
    daemon: &Daemon,
    accepted: &BTreeMap<String, String>,
    hosts: impl IntoIterator<Item = &'a Mx>,
) {
    daemon.wait_empty();
    daemon.stop();
    let hosts: Vec<&Mx> = hosts.into_iter().collect();
    assert_nothing_lost_or_doubled(accepted, &Events::read_all(&daemon.events_path()), &hosts);
}

/// Checks the whole story of a run that has come to its end (nothing is queued): ids without a gap; one final event for
/// each recipient of each accepted message; one copy at the mail hosts, or more where an event says `ambiguous`.
pub(crate) fn assert_nothing_lost_or_doubled(accepted: &BTreeMap<String, String>, events: &[Value], hosts: &[&Mx]) {
    assert_ids_have_no_gap(events);
    let copies = copies(hosts);
    let finals = finals(events);
    let known: BTreeSet<&str> = events.iter().filter_map(|event| event["mail"]["messageId"].as_str()).collect();
    for (id, subject) in accepted {
        assert!(known.contains(id.as_str()), "{id} ({subject}) was answered 250 and has no event");
    }
    for event in events.iter().filter(|event| event["eventType"] == "Send") {
        let id = event["mail"]["messageId"].as_str().unwrap();
        let subject = event["mail"]["commonHeaders"]["subject"].as_str().unwrap_or_default();
        for recipient in recipients(event) {
            let ends = finals.get(&(id.to_owned(), recipient.clone())).cloned().unwrap_or_default();
            assert_eq!(ends.len(), 1, "{id} ({subject}) to {recipient} must have one final event: {ends:#?}");
            let count = copies.get(&(subject.to_owned(), recipient.clone())).copied().unwrap_or_default();
            let is_marked = ends[0]["posthaste"]["ambiguous"] == true;
            assert!(
                count == 1 || (count > 1 && is_marked) || ends[0]["eventType"] == "Bounce",
                "{id} ({subject}) to {recipient} arrived {count} times: {ends:#?}"
            );
        }
    }
}

/// Each event of the stream stands once, and none is missing.
pub(crate) fn assert_ids_have_no_gap(events: &[Value]) {
    let ids: Vec<u64> = events.iter().map(|event| event["posthaste"]["eventId"].as_u64().unwrap()).collect();
    let expected: Vec<u64> = (1..=u64::try_from(ids.len()).unwrap()).collect();
    if let Some((wanted, got)) = expected.iter().zip(&ids).find(|(wanted, got)| wanted != got) {
        panic!("event {got} stands where {wanted} belongs, of {}", ids.len());
    }
}

/// Final events by message id and recipient.
fn finals(events: &[Value]) -> BTreeMap<(String, String), Vec<Value>> {
    let mut finals: BTreeMap<(String, String), Vec<Value>> = BTreeMap::new();
    for event in events.iter().filter(|event| event["eventType"] == "Delivery" || event["eventType"] == "Bounce") {
        for recipient in recipients(event) {
            let id = event["mail"]["messageId"].as_str().unwrap().to_owned();
            finals.entry((id, recipient)).or_default().push(event.clone());
        }
    }
    finals
}

/// How often each message (by subject) was taken for each recipient.
fn copies(hosts: &[&Mx]) -> BTreeMap<(String, String), usize> {
    let mut copies = BTreeMap::new();
    for transaction in hosts.iter().flat_map(|host| host.accepted()) {
        for recipient in &transaction.recipients {
            *copies.entry((transaction.subject(), recipient.clone())).or_default() += 1;
        }
    }
    copies
}

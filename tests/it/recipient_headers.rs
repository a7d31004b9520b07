//! Header blocks of single recipients, from the queue to the host: each recipient gets its own in front of the common octets, from
//! memory and, after a restart, from the store.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use posthaste::admission::Directory;
use posthaste::admission::suppression::Lists;
use posthaste::delivery::dispatch::{Dispatcher, Request, Saved};
use posthaste::delivery::route::Router;
use posthaste::delivery::settings::{DomainPattern, NextHop, RouteRule, Settings as DeliverySettings, TlsMode};
use posthaste::delivery::shared::{Reloadable, Shared};
use posthaste::delivery::sources::Outlets;
use posthaste::events::schema::{CommonHeaders, Extras, Mail, MailObject, render_mail, send};
use posthaste::net::dial::TcpDialer;
use posthaste::net::dns::HickoryResolver;
use posthaste::net::tls_client::TlsClient;
use posthaste::policy::limits::LaneLimits;
use posthaste::policy::mailing::{MailRule, Mailing};
use posthaste::policy::reputation::Counting;
use posthaste::policy::token::{Addressee, KeyRing, Purpose, Secret, TokenKeys, mint};
use posthaste::policy::{Providers, Rules, retry};
use posthaste::queue::model::ModelStore;
use posthaste::queue::store::Store;
use posthaste::queue::{
    Charges, Ended, Granularity, Intake, NewBody, NewMessage, Opened, Origin, Queue, ReturnPath, Settings, invariants,
};
use posthaste::scheduler;
use posthaste::scheduler::settlement::SettlementSettings;
use posthaste::types::{
    BodyKind, Clock, Domain, EmailAddress, Envelope, MessageId, Recipient, ReversePath, SystemClock, Timestamp,
};

use crate::harness::*;

const OCTETS: &str = "From: app@sender.example\r\nSubject: common\r\n\r\nHello.\r\n..\r\n";

/// Queue and delivery, without a daemon around them.
struct Running {
    queue: Queue,
    dispatcher: Dispatcher,
    delivery: tokio::task::JoinHandle<()>,
    committer: std::thread::JoinHandle<()>,
}

impl Running {
    fn start(lab: &Lab, store: &Arc<ModelStore>) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let limits = Settings { free_space_reserve_bytes: 0, ..Settings::default() };
        let opened = Queue::open(Arc::clone(store) as Arc<dyn Store>, &limits, Arc::clone(&clock), 1).unwrap();
        let Opened { queue, handoffs, committer, .. } = opened;
        let directory = Directory::relay_only(Vec::new(), Duration::from_secs(3_600));
        let lists = Lists::new(queue.clone(), Arc::new(ArcSwap::from_pointee(directory)));
        let reloadable = Arc::new(ArcSwap::from_pointee(reloadable(lab, &clock)));
        let tokens = Arc::new(ArcSwap::from_pointee(keys()));
        let shared = Shared::new(queue.clone(), clock, Arc::new(TcpDialer), Arc::new(lists), reloadable, tokens);
        let settings = scheduler::Settings {
            jobs_max: 1_000,
            body_cache_bytes: 1 << 20,
            connections_max: 10,
            limits: LaneLimits { connections: 1, ..LaneLimits::default() },
            recipients_per_transaction_max: 50,
            ..scheduler::Settings::default()
        };
        let (dispatcher, delivery) = Dispatcher::start(shared, settings, handoffs, None, Saved::default(), false);
        Self { queue, dispatcher, delivery, committer }
    }

    /// Everything in flight has come to its end, and all is written.
    async fn stop(self) {
        let Self { queue, dispatcher, delivery, committer } = self;
        dispatcher.request(Request::Drain).await.unwrap();
        delivery.await.unwrap();
        drop((queue, dispatcher));
        tokio::task::block_in_place(|| committer.join().unwrap());
    }
}

fn keys() -> TokenKeys {
    KeyRing::new(Timestamp::EPOCH, Secret::default()).to_keys()
}

fn reloadable(lab: &Lab, clock: &Arc<dyn Clock>) -> Reloadable {
    let route = RouteRule {
        domains: DomainPattern::All,
        host: NextHop::Address(lab.ip(2).into()),
        port: lab.port(),
        tls: TlsMode::None,
        login: None,
    };
    let settings = DeliverySettings {
        hostname: "sender.example".to_owned(),
        allow_private_addresses: true,
        routes: vec![route],
        ..DeliverySettings::default()
    };
    let resolver = HickoryResolver::new(&Default::default(), Arc::clone(clock)).unwrap();
    let outlets = Outlets::new(&settings, |_| unreachable!("no proxies here")).unwrap();
    Reloadable {
        rules: Rules::built_in(),
        providers: Providers::built_in(),
        router: Router::new(&settings, &[], Arc::new(resolver), Arc::clone(clock), 1),
        settings,
        settlement: SettlementSettings {
            hostname: "sender.example".to_owned(),
            retry: retry::Settings { steps: vec![Duration::from_secs(1)], ..retry::Settings::default() },
            mail_bounces: Arc::new(Mailing::by_rule(MailRule::Never)),
            notification_lifetime: Duration::from_secs(3_600),
            signers: std::sync::Arc::default(),
            counting: Counting::default(),
            listing: std::sync::Arc::default(),
        },
        tls: TlsClient::new(&[]).unwrap(),
        outlets,
        logins: HashMap::new(),
    }
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, false).unwrap()
}

fn block(recipient: usize) -> Bytes {
    format!("X-Recipient: {recipient}{}\r\n", "x".repeat(recipient)).into()
}

/// To three recipients of one domain, each with its block; one return path for the message, so that only the blocks part them.
fn message(id: MessageId, body: NewBody) -> NewMessage {
    let recipients =
        (0..3).map(|n| Recipient { address: address(&format!("r{n}@example.test")), notify: None, orcpt: None });
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(address("app@sender.example")),
        recipients: recipients.collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    let mail_json = render_mail(&MailObject {
        message_id: id,
        source: &envelope.reverse_path,
        source_ip: None,
        caller_identity: "test",
        destination: &envelope.recipients,
        headers: &[],
        headers_truncated: false,
        common: CommonHeaders::default(),
        tags: &BTreeMap::new(),
        from_domain: None,
        configuration_set: None,
        source_tls: None,
    });
    let domain = Domain::parse("bounces.op.test").unwrap();
    NewMessage {
        id,
        envelope,
        body,
        header_bytes: 44,
        recipient_headers: (0..3).map(block).collect(),
        send_event: send(Mail { id, json: &mail_json }, &Extras::default()),
        mail_json,
        origin: Origin {
            caller: "test".into(),
            return_path: Some(ReturnPath { domain, granularity: Granularity::PerMessage }),
            ..Origin::default()
        },
        lifetime: Duration::from_secs(3_600),
        charges: Charges::default(),
        ended: Ended::default(),
    }
}

/// Inline, and as it is spooled in two parts.
async fn body(queue: &Queue, id: MessageId, spooled: bool) -> NewBody {
    if !spooled {
        return NewBody::Inline(Bytes::from_static(OCTETS.as_bytes()));
    }
    let (first, second) = OCTETS.split_at(20);
    queue.spool(id, 0, first.into()).await.unwrap();
    queue.spool(id, 1, second.into()).await.unwrap();
    NewBody::Spooled { parts: 2, bytes: OCTETS.len() as u64 }
}

/// Each recipient got its own block, and MAIL declared exactly what came.
fn check(got: &[Transaction], id: MessageId) {
    let mut seen = Vec::new();
    for transaction in got {
        let [recipient] = transaction.recipients.as_slice() else { panic!("{transaction:?} is not of one recipient") };
        let index: usize = recipient[1..2].parse().unwrap();
        let expected = format!("{}{OCTETS}", String::from_utf8_lossy(&block(index)));
        assert_eq!(transaction.text(), expected);
        assert!(transaction.mail.contains(&format!(" SIZE={}", expected.len())), "{}", transaction.mail);
        let token = mint(&keys(), Purpose::ReturnPath, id, Addressee::Message);
        assert_eq!(transaction.from, format!("{token}@bounces.op.test"));
        seen.push(index);
    }
    seen.sort_unstable();
    assert_eq!(seen, [0, 1, 2]);
}

async fn until_empty(queue: &Queue, store: &ModelStore) {
    while queue.health().messages() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(invariants::violations(store).unwrap(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn from_memory_each_recipient_gets_its_own_block() {
    for spooled in [false, true] {
        let lab = Lab::new();
        let mx = lab.mx(2);
        let store = Arc::new(ModelStore::new());
        let running = Running::start(&lab, &store);
        let id = running.queue.new_id();
        let body = body(&running.queue, id, spooled).await;
        running.queue.accept(message(id, body)).await.unwrap();
        check(&tokio::task::block_in_place(|| mx.wait_accepted(3)), id);
        until_empty(&running.queue, &store).await;
        running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_each_recipient_gets_its_own_block_from_the_store() {
    for spooled in [false, true] {
        let lab = Lab::new();
        let gate = Watched::new(false);
        let open = gate.clone();
        let mx = lab.mx_scripted(2, move |ask| {
            let defers = ask.stage == Stage::Rcpt && !*open.lock();
            if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
        });
        let store = Arc::new(ModelStore::new());
        let first = Running::start(&lab, &store);
        let id = first.queue.new_id();
        let body = body(&first.queue, id, spooled).await;
        first.queue.accept(message(id, body)).await.unwrap();
        tokio::task::block_in_place(|| mx.wait_asked("r2@example.test", 1));
        first.stop().await;
        assert_eq!(invariants::violations(&*store).unwrap(), Vec::<String>::new());
        gate.change(|open| *open = true);
        let second = Running::start(&lab, &store);
        check(&tokio::task::block_in_place(|| mx.wait_accepted(3)), id);
        until_empty(&second.queue, &store).await;
        second.stop().await;
    }
}

//! Single steps of a message's way, each alone: what a change to one of them costs, in nanoseconds.
//!
//! `cargo bench --bench micro [NAME]`. Figures move by 30 % with other load: compare only within one run. The way as a
//! whole is measured by `benches/relay.rs`, side by side with another mail server. Does not: open sockets.

mod admission;
mod lane;
mod mime;
mod scheduling;
mod signing;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use criterion::{BenchmarkId, Criterion, Throughput};
use posthaste::admission::quota::Quotas;
use posthaste::events::schema::{CommonHeaders, DeliveryInfo, Extras, Mail, MailObject, delivery, render_mail, send};
use posthaste::message::stamp::{Client, Context, stamp};
use posthaste::policy::{self, Rules};
use posthaste::queue::rocks::{RocksSettings, RocksStore};
use posthaste::queue::store::{Change, Family, Key, Store};
use posthaste::queue::{
    Charges, DueKey, EndGroup, Ended, Handoff, Intake, JobKey, NewBody, NewMessage, Next, Opened, Origin, Queue,
    Settings as QueueSettings, Settlement, StoredMessage,
};
use posthaste::smtp::client::{DotStuffer, ReplyParser};
use posthaste::smtp::command::Command;
use posthaste::smtp::framing::{DotFramer, Dotted};
use posthaste::types::{
    BodyKind, Clock, EmailAddress, Envelope, MessageId, Recipient, ReversePath, SystemClock, Timestamp,
};
use queue_format::{DueEntry, MessageRecord, RecipientEntry};
use tokio::time::Instant;

const NOW: Timestamp = Timestamp::from_millis(1_683_320_423_244);
/// Octets of a message, as in the relay bench.
const MESSAGE_BYTES: usize = 10 * 1024;
/// Sites of the scheduler's bench.
const SITES: u64 = 10_000;
/// Writers of the commit bench.
const WRITERS: [u64; 3] = [1, 8, 64];
/// Due keys that came and went before the due index is read.
const DELETED: u64 = 1_000_000;
/// Between a job's coming and its going, so many others come: more than fit into one memtable.
const WAITING: u64 = 100_000;
/// Of each so many, one stays: it was deferred.
const KEPT: u64 = 1_000;
const HEADER: &str = "From: News <news@example.com>\r\nTo: Ann <ann@example.org>\r\nSubject: Spring is here\r\n\
    MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nX-Mailer: app 1.0\r\nX-SES-MESSAGE-TAGS: c=spring\r\n\r\n";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    commands(&mut criterion);
    lane::decide(&mut criterion);
    framing(&mut criterion);
    replies(&mut criterion);
    records(&mut criterion);
    headers(&mut criterion);
    mime::bodies(&mut criterion);
    events(&mut criterion);
    scheduling::scheduling(&mut criterion);
    admission::quotas(&mut criterion);
    admission::logins(&mut criterion);
    signing::signing(&mut criterion);
    commits(&mut criterion);
    due_scans(&mut criterion);
    admission::suppression(&mut criterion);
    criterion.final_summary();
}

fn commands(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("command");
    for (name, line) in [
        ("mail", "MAIL FROM:<bounce+7@news.example.com> SIZE=10240 BODY=8BITMIME"),
        ("rcpt", "RCPT TO:<ann@example.org>"),
        ("data", "DATA"),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| Command::parse(black_box(line.as_bytes()), false)));
    }
    group.finish();
}

/// A body of lines of 78 octets, one in a hundred with a dot in front.
fn body() -> Vec<u8> {
    let lines = (0..MESSAGE_BYTES / 78).map(|number| {
        let head = if number % 100 == 0 { "." } else { "x" };
        format!("{head}{}\r\n", "y".repeat(75))
    });
    lines.collect::<String>().into_bytes()
}

fn framing(criterion: &mut Criterion) {
    let body = body();
    let mut stuffed = Vec::new();
    let mut stuffer = DotStuffer::default();
    stuffer.stuff(&body, &mut stuffed);
    stuffer.finish(&mut stuffed);
    let mut group = criterion.benchmark_group("data");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("unstuff", |bencher| bencher.iter(|| unstuff(black_box(&stuffed))));
    group.bench_function("stuff", |bencher| {
        let mut out = Vec::with_capacity(body.len() * 2);
        bencher.iter(|| {
            out.clear();
            let mut stuffer = DotStuffer::default();
            stuffer.stuff(black_box(&body), &mut out);
            stuffer.finish(&mut out);
            out.len()
        });
    });
    group.finish();
}

fn unstuff(mut input: &[u8]) -> usize {
    let mut framer = DotFramer::default();
    let mut bytes = 0;
    loop {
        let (used, dotted) = framer.next(input);
        match dotted {
            Dotted::Content(run) => bytes += run.len(),
            Dotted::End | Dotted::Incomplete => return bytes,
        }
        input = input.get(used..).unwrap_or_default();
    }
}

fn replies(criterion: &mut Criterion) {
    let octets = b"550-5.7.26 This message does not pass authentication checks\r\n550 5.7.26 see example.test\r\n";
    let parse = |octets: &[u8]| {
        let mut parser = ReplyParser::new();
        parser.push(octets);
        parser.next_reply().ok().flatten().expect("the octets are one whole reply")
    };
    let reply = parse(octets);
    let mut group = criterion.benchmark_group("reply");
    group.bench_function("parse", |bencher| bencher.iter(|| parse(black_box(octets))));
    let rules = Rules::built_in();
    group.bench_function("classify", |bencher| {
        bencher.iter(|| rules.classify(black_box(&reply), policy::Stage::Dot, None));
    });
    group.finish();
}

fn records(criterion: &mut Criterion) {
    let recipient = RecipientEntry { address: "ann@example.org".to_owned(), ..RecipientEntry::default() };
    let record = MessageRecord {
        accepted_at_ms: NOW.millis(),
        expires_at_ms: NOW.millis(),
        reverse_path: "news@example.com".to_owned(),
        recipients: vec![recipient],
        domains: vec!["example.org".to_owned()],
        body_bytes: 10_240,
        caller: "network".to_owned(),
        mail_json: mail_json(MessageId::new(NOW, 7)).to_vec(),
        ..MessageRecord::default()
    };
    let due = DueEntry { domain: "example.org".to_owned(), ..stored(0).due_entry(0, 3, None) };
    let mut out = Vec::with_capacity(4_096);
    let mut group = criterion.benchmark_group("record");
    group.bench_function("encode_message", |bencher| {
        bencher.iter(|| {
            out.clear();
            black_box(&record).encode(&mut out);
        });
    });
    let mut encoded = Vec::new();
    record.encode(&mut encoded);
    group.bench_function("decode_message", |bencher| bencher.iter(|| MessageRecord::decode(black_box(&encoded))));
    let mut encoded = Vec::new();
    due.encode(&mut encoded);
    group.bench_function("decode_due", |bencher| bencher.iter(|| DueEntry::decode(black_box(&encoded))));
    group.finish();
}

fn headers(criterion: &mut Criterion) {
    let envelope = envelope("example.org");
    let context = Context {
        id: MessageId::new(NOW, 7),
        accepted_at: NOW,
        hostname: "mail.example.com",
        client: Some(Client { address: [192, 0, 2, 10].into(), helo: "app.example.com" }),
        protocol: "ESMTP",
        tls: None,
        envelope: &envelope,
        hops_max: 50,
        eight_bit: posthaste::message::stamp::EightBitHeaders::Encode,
        date: posthaste::message::stamp::Submitted::Keep,
        message_id: posthaste::message::stamp::Submitted::Keep,
        from: posthaste::message::stamp::FromRule::Add,
    };
    criterion.bench_function("header/stamp", |bencher| bencher.iter(|| stamp(black_box(HEADER.as_bytes()), &context)));
}

fn mail_json(id: MessageId) -> Bytes {
    let envelope = envelope("example.org");
    let headers = [("From", "News <news@example.com>"), ("To", "Ann <ann@example.org>"), ("Subject", "Spring is here")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    render_mail(&MailObject {
        message_id: id,
        source: &envelope.reverse_path,
        source_ip: Some([192, 0, 2, 10].into()),
        caller_identity: "network",
        destination: &envelope.recipients,
        headers: &headers,
        headers_truncated: false,
        common: CommonHeaders { subject: Some("Spring is here"), ..CommonHeaders::default() },
        tags: &BTreeMap::new(),
        from_domain: Some("example.com"),
        configuration_set: None,
        source_tls: None,
    })
}

fn events(criterion: &mut Criterion) {
    let id = MessageId::new(NOW, 7);
    let json = mail_json(id);
    let mail = Mail { id, json: &json };
    let mut group = criterion.benchmark_group("event");
    group.bench_function("mail", |bencher| bencher.iter(|| mail_json(black_box(id))));
    group.bench_function("send", |bencher| bencher.iter(|| send(black_box(mail), &Extras::default())));
    let info = DeliveryInfo {
        at: NOW.plus(Duration::from_millis(300)),
        recipients: &["ann@example.org"],
        smtp_response: "250 2.0.0 Ok: queued as 4711",
        remote_mta_ip: [203, 0, 113, 5].into(),
        reporting_mta: "mail.example.com",
    };
    let extras =
        Extras { site: Some("mx.example.org"), domain: Some("example.org"), attempt: Some(1), ..Extras::default() };
    group.bench_function("delivery", |bencher| bencher.iter(|| delivery(black_box(mail), &info, &extras)));
    group.finish();
}

fn envelope(domain: &str) -> Envelope {
    let address = |text: &str| EmailAddress::parse(text, false).expect("built from a local part and a domain");
    Envelope {
        reverse_path: ReversePath::Mailbox(address("news@example.com")),
        recipients: vec![Recipient { address: address(&format!("ann@{domain}")), notify: None, orcpt: None }],
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

/// A message to the domain of site `number`.
fn stored(number: u64) -> StoredMessage {
    let name = scheduling::domain_of(number);
    StoredMessage {
        id: MessageId::new(NOW, u128::from(number)),
        accepted_at: NOW,
        expires_at: NOW.plus(Duration::from_secs(86_400)),
        envelope: envelope(name.as_str()),
        groups: vec![0],
        domains: vec![name],
        states: vec![None],
        header_bytes: 200,
        body_bytes: 10_240,
        body_parts: 0,
        recipient_headers: false,
        origin: Origin { caller: "network".into(), ..Origin::default() },
        mail_json: Bytes::from_static(b"{}"),
    }
}

fn new_message(queue: &Queue, octets: &Bytes) -> NewMessage {
    let id = queue.new_id();
    let mail_json = mail_json(id);
    NewMessage {
        id,
        envelope: envelope("example.org"),
        body: NewBody::Inline(octets.clone()),
        header_bytes: 200,
        recipient_headers: Vec::new(),
        send_event: send(Mail { id, json: &mail_json }, &Extras::default()),
        mail_json,
        origin: Origin { caller: "network".into(), tenant: "local".into(), ..Origin::default() },
        lifetime: Duration::from_secs(86_400),
        charges: Charges::default(),
        ended: Ended::default(),
    }
}

/// Durable acceptances on a real disk, by so many writers at once. What was accepted is settled beside it, as delivered
/// mail is.
fn commits(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("threads for the runtime");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let settings = RocksSettings { memtable_bytes: 256 << 20, ..RocksSettings::default() };
    let store = RocksStore::open(directory.path(), &settings).expect("RocksDB opens in an empty directory");
    let limits = QueueSettings { free_space_reserve_bytes: 0, ..QueueSettings::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened = Queue::open(Arc::new(store), &limits, clock, 7).expect("a fresh queue opens");
    let Opened { queue, mut handoffs, committer, .. } = opened;
    let quotas = Quotas::new(Arc::new(SystemClock), Box::new(|_| ()));
    let settling = queue.clone();
    let settler = runtime.spawn(async move {
        while let Some(handoff) = handoffs.recv().await {
            settling.settle(delivered(&handoff), || ()).await;
        }
    });
    let octets = Bytes::from(body());
    let mut group = criterion.benchmark_group("commit");
    group.throughput(Throughput::Elements(1));
    group.sample_size(10);
    for writers in WRITERS {
        group.bench_function(BenchmarkId::from_parameter(writers), |bencher| {
            bencher.iter_custom(|messages| runtime.block_on(accept(&queue, None, &octets, messages, writers)));
        });
        group.bench_function(BenchmarkId::new("charged", writers), |bencher| {
            bencher.iter_custom(|messages| runtime.block_on(accept(&queue, Some(&quotas), &octets, messages, writers)));
        });
    }
    group.finish();
    settler.abort();
    drop((queue, runtime));
    committer.join().expect("the committer does not panic");
}

/// With quotas, each message is charged to one of a thousand tenants and to the server.
async fn accept(queue: &Queue, quotas: Option<&Quotas>, octets: &Bytes, messages: u64, writers: u64) -> Duration {
    let reserve =
        |number| quotas.map(|quotas| quotas.reserve(&admission::quota_limits(number % admission::TENANTS), 1));
    let charges = |number| reserve(number).map(|room| room.expect("the limits are far").into_charges());
    let began_at = Instant::now();
    let tasks: Vec<_> = (0..writers)
        .map(|writer| {
            let (queue, octets) = (queue.clone(), octets.clone());
            // The first writers take what is left over.
            let share = messages / writers + u64::from(writer < messages % writers);
            let charges: Vec<Charges> =
                (0..share).map(|number| charges(writer * 37 + number).unwrap_or_default()).collect();
            tokio::spawn(async move {
                for charges in charges {
                    let message = NewMessage { charges, ..new_message(&queue, &octets) };
                    queue.accept(message).await.expect("the disk of a bench works");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a writer does not panic");
    }
    began_at.elapsed()
}

fn delivered(handoff: &Handoff) -> Settlement {
    let id = handoff.message.id;
    let end =
        EndGroup { id, group: 0, groups: 1, body_parts: 0, recipients: 1, recipient_headers: false, has_states: false };
    Settlement {
        key: JobKey { id, group: 0 },
        due_at: Some(handoff.due_at),
        states: Vec::new(),
        next: Next::Ended(end),
        events: Vec::new(),
        notifications: Vec::new(),
        marks: Vec::new(),
    }
}

/// The due index after a million jobs came and went, and a thousand of them stayed: read from its beginning, as a start
/// does, and from where the scheduler stands, as it does each half minute. RocksDB leaves tombstones for the deleted.
fn due_scans(criterion: &mut Criterion) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let store = RocksStore::open(directory.path(), &RocksSettings::default()).expect("RocksDB opens");
    let last = fill_due_index(&store);
    let limits = QueueSettings { free_space_reserve_bytes: 0, ..QueueSettings::default() };
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let opened = Queue::open(Arc::new(store), &limits, clock, 7).expect("the queue opens");
    let until = DueKey::at(Timestamp::MAX);
    let mut group = criterion.benchmark_group("due_after_a_million_deletes");
    group.sample_size(20);
    for (name, from) in [("from_the_beginning", DueKey::START), ("from_the_horizon", last)] {
        group.bench_function(name, |bencher| bencher.iter(|| opened.queue.due(from, until, 8_192)));
    }
    group.finish();
    drop(opened.queue);
    opened.committer.join().expect("the committer does not panic");
}

/// Writes and deletes as acceptances and outcomes do, some seconds apart; returns the place of one of the last jobs.
fn fill_due_index(store: &RocksStore) -> DueKey {
    let entry =
        DueEntry { domain: "example.org".to_owned(), expires_at_ms: NOW.millis() + 86_400_000, ..DueEntry::default() };
    let mut value = Vec::new();
    entry.encode(&mut value);
    let value = Bytes::from(value);
    let key = |number: u64| {
        let at = NOW.plus(Duration::from_micros(200 * number));
        let id = MessageId::new(at, u128::from(number));
        (at, JobKey { id, group: 0 }, Key::new(&queue_format::due_key(at.millis(), id.as_bytes(), 0)))
    };
    for batch in (0..DELETED + WAITING).step_by(1_000) {
        let puts = (batch..batch + 1_000).map(|number| Change::Put {
            family: Family::Due,
            key: key(number).2,
            value: value.clone(),
        });
        store.write(&puts.collect::<Vec<_>>(), false).expect("the disk of a bench works");
        let ended = batch.checked_sub(WAITING).into_iter().flat_map(|from| from..from + 1_000);
        let ended = ended.filter(|number| number % KEPT != 0);
        let deletes = ended.map(|number| Change::Delete { family: Family::Due, key: key(number).2 });
        store.write(&deletes.collect::<Vec<_>>(), false).expect("the disk of a bench works");
    }
    let (at, job, _) = key(DELETED);
    DueKey::of(at, job)
}

//! A reception with a fake queue and a fake stamp, and a client that speaks lines.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use crate::admission::authenticate::Authenticator;
use crate::admission::quota::Quotas;
use crate::admission::{self, Directory};
use crate::events::audit::AuditLog;
use crate::events::{EventKind, EventLine};
use crate::feedback::desk::Message;
use crate::net::{BoxFuture, BoxStream};
use crate::queue::{AcceptError, Intake, NewMessage};
use crate::reception::settings::{ListenerSettings, Settings};
use crate::reception::{Inbox, Ports, Reception, Signing, Stamp, StampContext, StampedHeader};
use crate::types::{
    EmailAddress, EnhancedStatus, ManualClock, MessageId, Reply, ReplyCode, ReversePath, SystemClock, Timestamp,
};

/// The disk of the fake queue.
pub(super) const FREE_BYTES: u64 = 1_000_000_000_000;

/// Remembers what it was given.
pub(super) struct FakeQueue {
    ids: AtomicU64,
    pub(super) accepted: Mutex<Vec<NewMessage>>,
    pub(super) parts: Mutex<Vec<(MessageId, u32, Bytes)>>,
    pub(super) discarded: Mutex<Vec<(MessageId, u32)>>,
    /// The next call fails so.
    pub(super) check_error: Mutex<Option<AcceptError>>,
    pub(super) spool_error: Mutex<Option<AcceptError>>,
    pub(super) accept_error: Mutex<Option<AcceptError>>,
    /// Each commit takes one, or waits for one.
    pub(super) commits: Semaphore,
}

impl FakeQueue {
    /// Spooled parts as they will be sent.
    pub(super) fn parts_in_order(&self) -> Vec<(MessageId, u32, Bytes)> {
        let mut parts = self.parts.lock().unwrap().clone();
        parts.sort_by_key(|(_, number, _)| *number);
        parts
    }

    pub(super) fn bodies(&self) -> Vec<String> {
        let accepted = self.accepted.lock().unwrap();
        let body = |message: &NewMessage| match &message.body {
            crate::queue::NewBody::Inline(octets) => String::from_utf8_lossy(octets).into_owned(),
            other => format!("{other:?}"),
        };
        accepted.iter().map(body).collect()
    }
}

fn fail(error: &Mutex<Option<AcceptError>>) -> Result<(), AcceptError> {
    error.lock().unwrap().take().map_or(Ok(()), Err)
}

impl Intake for FakeQueue {
    fn new_id(&self) -> MessageId {
        MessageId::new(Timestamp::from_millis(self.ids.fetch_add(1, Ordering::Relaxed)), 0)
    }

    fn check(&self, bytes: u64) -> Result<(), AcceptError> {
        if bytes > FREE_BYTES {
            return Err(AcceptError::LowDisk { free_bytes: FREE_BYTES, reserve_bytes: 0 });
        }
        fail(&self.check_error)
    }

    fn spool(&self, id: MessageId, part: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), AcceptError>> {
        Box::pin(async move {
            fail(&self.spool_error)?;
            self.parts.lock().unwrap().push((id, part, bytes));
            Ok(())
        })
    }

    fn spooled(&self, id: MessageId, part: u32) -> BoxFuture<'_, Result<Bytes, AcceptError>> {
        let parts = self.parts.lock().unwrap();
        let found =
            parts.iter().find(|(own, number, _)| (*own, *number) == (id, part)).map(|(.., octets)| octets.clone());
        Box::pin(async move { found.ok_or_else(|| AcceptError::NotDurable("no such part".to_owned())) })
    }

    fn discard(&self, id: MessageId, parts: u32) {
        self.discarded.lock().unwrap().push((id, parts));
    }

    fn accept(&self, message: NewMessage) -> BoxFuture<'_, Result<(), AcceptError>> {
        Box::pin(async move {
            self.commits.acquire().await.unwrap().forget();
            fail(&self.accept_error)?;
            if let Some(claim) = &message.charges.claim {
                claim.keep();
            }
            self.accepted.lock().unwrap().push(message);
            Ok(())
        })
    }
}

/// Puts one line in front that shows the context. `X-Refuse` is refused, `X-Panic` panics.
struct FakeStamp;

impl Stamp for FakeStamp {
    fn may_sign(&self) -> bool {
        false
    }

    fn judge(&self, raw: &[u8], context: &StampContext<'_>) -> Result<(), Reply> {
        self.stamp(raw, context).map(drop)
    }

    fn stamp(&self, raw: &[u8], context: &StampContext<'_>) -> Result<StampedHeader, Reply> {
        if raw.starts_with(b"X-Refuse") {
            let text = vec!["Too many hops".into()];
            return Err(Reply::new(ReplyCode::new(554).unwrap(), EnhancedStatus::new(5, 4, 6), text));
        }
        assert!(!raw.starts_with(b"X-Panic"), "asked for by a test");
        let tls = context.tls.map_or("clear", |tls| tls.version);
        let line = format!(
            "Received: from {} ({}) by {} with {} ({tls}) as {}\r\n",
            context.helo, context.client, context.settings.hostname, context.protocol, context.grant.caller
        );
        let bytes = Bytes::from([line.as_bytes(), raw, b"\r\n"].concat());
        let event = EventLine { kind: EventKind::Send, json: Bytes::from_static(b"{}"), id_at: 1 };
        Ok(StampedHeader {
            bytes,
            needs_smtputf8: false,
            header_is_ascii: true,
            mail_json: Bytes::from_static(b"{}"),
            send_event: event,
            authority: admission::Authority::plain(context.directory, context.grant),
            signers: Vec::new(),
            own_fields: Vec::new(),
        })
    }
}

/// A reception under test.
pub(super) struct Rig {
    pub(super) reception: Arc<Reception>,
    pub(super) queue: Arc<FakeQueue>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) admission: Arc<ArcSwap<Directory>>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) inbox: Arc<FakeInbox>,
}

/// Waits for mail to `known@`, and takes it until told otherwise.
#[derive(Default)]
pub(super) struct FakeInbox {
    pub(super) taken: Mutex<Vec<Message>>,
    pub(super) refusal: Mutex<Option<Reply>>,
}

impl Inbox for FakeInbox {
    fn admits(&self, recipient: &EmailAddress, _: &ReversePath) -> Result<(), Reply> {
        if recipient.as_str().starts_with("known") || recipient.as_str().starts_with("postmaster@") {
            return Ok(());
        }
        let status = EnhancedStatus::new(5, 1, 1);
        Err(Reply::new(ReplyCode::new(550).unwrap(), status, vec!["No such address here".into()]))
    }

    fn take(&self, message: Message) -> BoxFuture<'_, Result<(), Reply>> {
        let refusal = self.refusal.lock().unwrap().clone();
        Box::pin(async move {
            match refusal {
                Some(reply) => Err(reply),
                None => {
                    self.taken.lock().unwrap().push(message);
                    Ok(())
                }
            }
        })
    }
}

pub(super) fn settings() -> Settings {
    Settings { hostname: "mx.test".to_owned(), ..Settings::default() }
}

impl Rig {
    pub(super) fn new(settings: Settings, listeners: &[ListenerSettings]) -> Self {
        let queue = Arc::new(FakeQueue {
            ids: AtomicU64::new(1),
            accepted: Mutex::default(),
            parts: Mutex::default(),
            discarded: Mutex::default(),
            check_error: Mutex::default(),
            spool_error: Mutex::default(),
            accept_error: Mutex::default(),
            commits: Semaphore::new(1_000),
        });
        let inbox = Arc::new(FakeInbox::default());
        let settings = Arc::new(ArcSwap::from_pointee(settings));
        let networks = vec!["127.0.0.0/8".parse().unwrap(), "192.0.2.0/24".parse().unwrap()];
        let admission = Arc::new(ArcSwap::from_pointee(Directory::relay_only(networks, Duration::from_secs(60))));
        let quotas = Arc::new(Quotas::new(Arc::new(ManualClock::default()), Box::new(|_| ())));
        let ports = Ports {
            settings: Arc::clone(&settings),
            admission: Arc::clone(&admission),
            authenticator: Authenticator::new(2),
            audit: Arc::new(AuditLog::off(Arc::new(SystemClock))),
            quotas: Arc::clone(&quotas),
            intake: Arc::clone(&queue) as Arc<dyn Intake>,
            stamp: Arc::new(FakeStamp),
            signing: Arc::new(Signing::inline()),
            inbox: Arc::clone(&inbox) as Arc<dyn Inbox>,
        };
        let reception = Arc::new(Reception::start(listeners, ports).unwrap());
        Self { reception, queue, settings, admission, quotas, inbox }
    }

    /// A client at 192.0.2.1, over memory.
    pub(super) fn connect(&self) -> Client {
        self.connect_from("192.0.2.1:1000")
    }

    pub(super) fn connect_from(&self, peer: &str) -> Client {
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        self.reception.serve("memory", Box::new(theirs), peer.parse().unwrap());
        Client::new(Box::new(ours))
    }

    /// A client over a loopback socket.
    pub(super) async fn dial(&self, listener: usize) -> tokio::net::TcpStream {
        let (_, address): (String, SocketAddr) = self.reception.local_addrs().swap_remove(listener);
        tokio::net::TcpStream::connect(address).await.unwrap()
    }
}

/// Speaks SMTP by the line.
pub(super) struct Client {
    pub(super) stream: BoxStream,
    unread: String,
}

impl Client {
    pub(super) fn new(stream: BoxStream) -> Self {
        Self { stream, unread: String::new() }
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    /// One read: what the server sent in one write.
    pub(super) async fn read_once(&mut self) -> String {
        let mut octets = vec![0; 16 * 1024];
        let count = self.stream.read(&mut octets).await.unwrap_or(0);
        String::from_utf8_lossy(&octets[..count]).into_owned()
    }

    /// The last line of the next reply.
    pub(super) async fn reply(&mut self) -> String {
        loop {
            while let Some((line, rest)) = self.unread.split_once("\r\n") {
                let (line, rest) = (line.to_owned(), rest.to_owned());
                self.unread = rest;
                if line.as_bytes().get(3) != Some(&b'-') {
                    return line;
                }
            }
            let more = self.read_once().await;
            if more.is_empty() {
                return "closed".to_owned();
            }
            self.unread += &more;
        }
    }

    /// Sends lines and expects the beginning of the reply.
    pub(super) async fn say(&mut self, text: &str, expected: &str) {
        self.send(&format!("{text}\r\n")).await;
        self.expect(expected).await;
    }

    pub(super) async fn expect(&mut self, expected: &str) {
        let reply = self.reply().await;
        assert!(reply.starts_with(expected), "expected {expected}, got {reply}");
    }

    /// Greeting, EHLO, MAIL, RCPT.
    pub(super) async fn open_transaction(&mut self) {
        self.expect("220 mx.test").await;
        self.say("EHLO client.test", "250 ").await;
        self.start_transaction().await;
    }

    pub(super) async fn start_transaction(&mut self) {
        self.say("MAIL FROM:<a@a.test>", "250 2.1.0").await;
        self.say("RCPT TO:<b@b.test>", "250 2.1.5").await;
    }

    /// The same up to 354.
    pub(super) async fn open_data(&mut self) {
        self.open_transaction().await;
        self.say("DATA", "354").await;
    }
}

//! Peers driven by scripts, behind a dialer that hands them out.
//!
//! A script is one directive a line:
//!
//! ```text
//! S: text    a reply line; lines that follow each other go out in one write
//! R: text    the same without the line end, and without waiting
//! C: text    the client's next line
//! W: a|b     the client's next write as a whole, lines parted by |
//! BODY       the client's data up to the final dot, kept
//! READ n     n octets, kept
//! WAIT n     n seconds pass
//! TLS        the server's side of a handshake; the script ends where it fails
//! HANG       reads and says nothing until the client is gone
//! STALL      does not even read, until the test ends
//! GONE       the client must have closed
//! DIAL kind  the dial fails: refused, timeout, source
//! ```
//!
//! The connection is closed where the script ends.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use super::*;
use crate::delivery::settings::TlsMode;
use crate::net::tls_client::TlsClient;
use crate::net::tls_client::testing::TestServer;
use crate::net::{BoxFuture, BoxStream, Dialer, Via};
use crate::types::{BodyKind, Domain, EmailAddress, Recipient, ReversePath};

/// Socket buffers between the client and a script.
const BUFFER_BYTES: usize = 64 * 1024;

/// A world of peers. Each dial takes the next script.
pub(super) struct World {
    scripts: Mutex<VecDeque<String>>,
    peers: Mutex<Vec<JoinHandle<()>>>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
    server: TestServer,
    dials: Mutex<usize>,
}

impl World {
    pub(super) fn new(scripts: &[&str]) -> Self {
        Self {
            scripts: Mutex::new(scripts.iter().map(|script| (*script).to_owned()).collect()),
            peers: Mutex::default(),
            kept: Arc::default(),
            server: TestServer::new("mx.test"),
            dials: Mutex::new(0),
        }
    }

    pub(super) fn dials(&self) -> usize {
        *self.dials.lock().unwrap()
    }

    pub(super) fn trusting(&self) -> TlsClient {
        TlsClient::new(self.server.pem.as_bytes()).unwrap()
    }

    pub(super) async fn connect(&self, target: &Target) -> Result<Session, ConnectFailure> {
        connect(self, &TlsClient::new(b"").unwrap(), target, &Timeouts::default()).await
    }

    /// Waits for every peer to come to the end of its script; gives what they kept.
    pub(super) async fn finish(self) -> Vec<String> {
        assert!(self.scripts.lock().unwrap().is_empty(), "a script was not used");
        let peers = std::mem::take(&mut *self.peers.lock().unwrap());
        for peer in peers {
            peer.await.unwrap();
        }
        let kept = std::mem::take(&mut *self.kept.lock().unwrap());
        kept.into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }
}

impl Dialer for World {
    fn dial<'a>(&'a self, _: &'a Via, _: SocketAddr, timeout: Duration) -> BoxFuture<'a, io::Result<BoxStream>> {
        let script = self.scripts.lock().unwrap().pop_front().expect("one dial too many");
        *self.dials.lock().unwrap() += 1;
        Box::pin(async move {
            match script.trim() {
                "DIAL refused" => return Err(io::ErrorKind::ConnectionRefused.into()),
                "DIAL source" => return Err(io::ErrorKind::AddrNotAvailable.into()),
                "DIAL timeout" => {
                    tokio::time::sleep(timeout).await;
                    return Err(io::ErrorKind::TimedOut.into());
                }
                _ => {}
            }
            let (near, far) = tokio::io::duplex(BUFFER_BYTES);
            let peer = Peer { stream: Box::new(far), read: Vec::new(), kept: Arc::clone(&self.kept) };
            self.peers.lock().unwrap().push(tokio::spawn(peer.play(script, self.server.clone())));
            Ok(Box::new(near) as BoxStream)
        })
    }
}

/// The text of the next line, if it has this directive.
fn next_of(directive: &str, lines: &mut VecDeque<String>) -> Option<String> {
    let text = lines.front()?.strip_prefix(directive)?.trim_start().to_owned();
    lines.pop_front();
    Some(text)
}

struct Peer {
    stream: BoxStream,
    read: Vec<u8>,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Peer {
    async fn play(mut self, script: String, server: TestServer) {
        let mut lines: VecDeque<String> = script.lines().map(|line| line.trim().to_owned()).collect();
        lines.retain(|line| !line.is_empty());
        while let Some(line) = lines.pop_front() {
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("S:", text) => {
                    let mut reply = format!("{text}\r\n");
                    while let Some(more) = next_of("S:", &mut lines) {
                        reply.push_str(&format!("{more}\r\n"));
                    }
                    if let Some(raw) = next_of("R:", &mut lines) {
                        reply.push_str(&raw);
                    }
                    self.write(&reply).await;
                }
                ("R:", text) => self.write(text).await,
                ("C:", text) => assert_eq!(self.line().await, format!("{text}\r\n")),
                ("W:", text) => {
                    assert_eq!(self.read, b"", "the client wrote ahead");
                    assert!(self.fill().await > 0, "client is gone, expected {text}");
                    let expected = format!("{}\r\n", text.replace('|', "\r\n"));
                    assert_eq!(String::from_utf8(std::mem::take(&mut self.read)).unwrap(), expected);
                }
                ("BODY", _) => self.keep_body().await,
                ("READ", count) => self.keep(count.parse().unwrap()).await,
                ("WAIT", seconds) => tokio::time::sleep(Duration::from_secs(seconds.parse().unwrap())).await,
                ("HANG", _) => while self.fill().await > 0 {},
                ("STALL", _) => tokio::time::sleep(Duration::from_secs(86_400)).await,
                ("GONE", _) => assert_eq!(self.fill().await, 0, "client is still there"),
                ("TLS", _) => match server.accept(self.stream).await {
                    Ok(stream) => self.stream = stream,
                    Err(_) => return,
                },
                (other, _) => panic!("no such directive: {other}"),
            }
        }
        // A client that is gone already is no failure of the script.
        drop(self.stream.shutdown().await);
    }

    async fn write(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    async fn fill(&mut self) -> usize {
        self.stream.read_buf(&mut self.read).await.unwrap_or(0)
    }

    async fn take_through(&mut self, end: &[u8]) -> Vec<u8> {
        loop {
            if let Some(at) = memchr::memmem::find(&self.read, end) {
                let rest = self.read.split_off(at + end.len());
                return std::mem::replace(&mut self.read, rest);
            }
            assert!(self.fill().await > 0, "client is gone: {}", self.read.escape_ascii());
        }
    }

    async fn line(&mut self) -> String {
        String::from_utf8(self.take_through(b"\n").await).unwrap()
    }

    async fn keep_body(&mut self) {
        let body = self.take_through(b"\r\n.\r\n").await;
        self.kept.lock().unwrap().push(body);
    }

    async fn keep(&mut self, count: usize) {
        while self.read.len() < count {
            assert!(self.fill().await > 0, "client is gone");
        }
        let rest = self.read.split_off(count);
        self.kept.lock().unwrap().push(std::mem::replace(&mut self.read, rest));
    }
}

/// `mx.test` at 192.0.2.1, with this much TLS.
pub(super) fn target(tls: TlsMode) -> Target {
    Target {
        host: NextHop::Host(Domain::parse("mx.test").unwrap()),
        address: "192.0.2.1:25".parse().unwrap(),
        via: Via::default(),
        ehlo_name: EhloName::parse("client.test").unwrap(),
        tls,
        tls_hint: TlsHint::Unknown,
        login: None,
        chunking: false,
    }
}

/// A message from `s@a.test`.
pub(super) struct Message {
    reverse_path: ReversePath,
    recipients: Vec<Recipient>,
    pub(super) body: Vec<Bytes>,
}

impl Message {
    pub(super) fn new(to: &[&str], body: &str) -> Self {
        let address = |text| EmailAddress::parse(text, true).unwrap();
        Self {
            reverse_path: ReversePath::Mailbox(address("s@a.test")),
            recipients: to.iter().map(|to| Recipient { address: address(to), notify: None, orcpt: None }).collect(),
            body: vec![Bytes::copy_from_slice(body.as_bytes())],
        }
    }

    pub(super) fn transaction(&self) -> Transaction<'_> {
        Transaction {
            reverse_path: &self.reverse_path,
            recipients: &self.recipients,
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
            body_bytes: self.body.iter().map(|part| part.len() as u64).sum(),
        }
    }

    pub(super) async fn send(&self, session: &mut Session) -> SendResult {
        session.send(&self.transaction(), BodySource::Memory(&self.body)).await
    }
}

/// The fates on one line each, as short as tests want them.
pub(super) fn fates(result: &SendResult) -> Vec<String> {
    let describe = |result: &RecipientResult| match result {
        RecipientResult::Accepted { reply } => format!("accepted {reply}"),
        RecipientResult::Refused { reply, stage } => format!("refused {stage} {reply}"),
        RecipientResult::NotSent { loss } => format!("not sent: {loss}"),
        RecipientResult::Ambiguous { loss } => format!("ambiguous: {loss}"),
        RecipientResult::Unsendable { status, .. } => format!("unsendable {status}"),
    };
    result.recipients.iter().map(describe).collect()
}

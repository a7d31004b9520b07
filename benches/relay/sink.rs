//! The mail host of all destinations: port 25 on every loopback address. It accepts all mail, keeps nothing, notes in the
//! ledger which message came when, and waits before its replies if the work wants a far host. It offers PIPELINING and
//! 8BITMIME, as smtp-sink does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use memchr::memmem::Finder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::sleep;

use crate::failure::{Context, Result};
use crate::ledger::Ledger;

/// Where MX hosts listen.
pub(crate) const PORT: u16 = 25;
/// Connections that wait to be accepted.
const BACKLOG: u32 = 4_096;
/// Octets read at once.
const READ_BYTES: usize = 64 * 1024;
/// A longer command line ends the connection.
const LINE_BYTES_MAX: usize = 4_096;
/// The end of a message.
const END: &[u8] = b"\r\n.\r\n";

/// A message that came.
pub(crate) struct Received {
    /// The first that its recipients stand for.
    pub(crate) number: u32,
    pub(crate) return_path: String,
    pub(crate) recipient: String,
}

/// What a sink remembers, if it does.
type Memory = Option<Arc<Mutex<Vec<Received>>>>;

/// A listening sink; dropped, it closes everything.
pub(crate) struct Sink(JoinHandle<()>);

impl Sink {
    /// Listens on [`PORT`] of all IPv4 addresses.
    pub(crate) fn start(ledger: Arc<Ledger>, latency: Duration) -> Result<Self> {
        Self::listen(ledger, latency, None)
    }

    /// The same, at once, and remembers what came.
    pub(crate) fn remembering(ledger: Arc<Ledger>) -> Result<(Self, Arc<Mutex<Vec<Received>>>)> {
        let memory = Arc::new(Mutex::new(Vec::new()));
        Ok((Self::listen(ledger, Duration::ZERO, Some(Arc::clone(&memory)))?, memory))
    }

    fn listen(ledger: Arc<Ledger>, latency: Duration, memory: Memory) -> Result<Self> {
        let address = SocketAddr::from(([0, 0, 0, 0], PORT));
        let socket = TcpSocket::new_v4().context(|| "socket of the sink".to_owned())?;
        socket.set_reuseaddr(true).context(|| "socket of the sink".to_owned())?;
        socket.bind(address).context(|| format!("sink on {address}"))?;
        let listener = socket.listen(BACKLOG).context(|| format!("sink on {address}"))?;
        Ok(Self(tokio::spawn(async move {
            let mut sessions = JoinSet::new();
            loop {
                while sessions.try_join_next().is_some() {}
                match listener.accept().await {
                    Ok((stream, _)) => sessions.spawn(session(stream, Arc::clone(&ledger), latency, memory.clone())),
                    Err(_) => sessions.spawn(sleep(Duration::from_millis(10))),
                };
            }
        })))
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What a session waits for.
enum Expects {
    Command,
    Data,
}

/// One connection.
struct Session {
    expects: Expects,
    /// Messages that the recipients of this transaction stand for.
    recipients: Vec<u32>,
    /// Of this transaction, where a sink remembers.
    paths: (String, String),
    memory: Memory,
    replies: Vec<u8>,
    ended: bool,
}

/// Serves one client until it leaves; what goes wrong is the client's business.
async fn session(mut stream: TcpStream, ledger: Arc<Ledger>, latency: Duration, memory: Memory) {
    let _ = stream.set_nodelay(true);
    let finder = Finder::new(END);
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut session = Session {
        expects: Expects::Command,
        recipients: Vec::new(),
        paths: Default::default(),
        memory,
        replies: b"220 mx.bench.test ESMTP sink\r\n".to_vec(),
        ended: false,
    };
    loop {
        if !session.replies.is_empty() {
            if !latency.is_zero() {
                sleep(latency).await;
            }
            if stream.write_all(&session.replies).await.is_err() || session.ended {
                return;
            }
            session.replies.clear();
        }
        input.reserve(READ_BYTES);
        match stream.read_buf(&mut input).await {
            Ok(0) | Err(_) => return,
            Ok(_) => session.take(&mut input, &finder, &ledger),
        }
    }
}

impl Session {
    /// Handles all that has come.
    fn take(&mut self, input: &mut BytesMut, finder: &Finder<'_>, ledger: &Ledger) {
        while !self.ended {
            let more = match self.expects {
                Expects::Command => self.command(input),
                Expects::Data => self.data(input, finder, ledger),
            };
            if !more {
                return;
            }
        }
    }

    /// One command, if there is a whole one.
    fn command(&mut self, input: &mut BytesMut) -> bool {
        let Some(end) = memchr::memchr(b'\n', input) else {
            self.ended = input.len() > LINE_BYTES_MAX;
            return false;
        };
        let line = input.split_to(end + 1);
        let verb: Vec<u8> = line.iter().take(4).map(u8::to_ascii_uppercase).collect();
        let reply: &[u8] = match verb.as_slice() {
            b"EHLO" => b"250-mx.bench.test\r\n250-PIPELINING\r\n250 8BITMIME\r\n",
            b"HELO" | b"NOOP" => b"250 Ok\r\n",
            b"MAIL" | b"RSET" => {
                self.recipients.clear();
                if self.memory.is_some() {
                    self.paths.0 = path(&line);
                }
                b"250 2.1.0 Ok\r\n"
            }
            b"RCPT" => {
                self.recipients.extend(message_number(&line));
                if self.memory.is_some() {
                    self.paths.1 = path(&line);
                }
                b"250 2.1.5 Ok\r\n"
            }
            b"DATA" => {
                self.expects = Expects::Data;
                b"354 End data with <CR><LF>.<CR><LF>\r\n"
            }
            b"QUIT" => {
                self.ended = true;
                b"221 2.0.0 Bye\r\n"
            }
            _ => b"502 5.5.2 Error: command not recognized\r\n",
        };
        self.replies.extend_from_slice(reply);
        true
    }

    /// Message data, up to its end if that is there. What was searched is dropped but for the start of a possible end.
    fn data(&mut self, input: &mut BytesMut, finder: &Finder<'_>, ledger: &Ledger) -> bool {
        let Some(end) = finder.find(input) else {
            input.advance(input.len().saturating_sub(END.len() - 1));
            return false;
        };
        input.advance(end + END.len());
        self.expects = Expects::Command;
        self.remember();
        for number in self.recipients.drain(..) {
            ledger.receive(number);
        }
        self.replies.extend_from_slice(b"250 2.0.0 Ok\r\n");
        true
    }

    /// Before the ledger has the message: who waits for the last one finds all of them.
    fn remember(&mut self) {
        let (Some(memory), Some(number)) = (&self.memory, self.recipients.first()) else { return };
        let (return_path, recipient) = std::mem::take(&mut self.paths);
        if let Ok(mut memory) = memory.lock() {
            memory.push(Received { number: *number, return_path, recipient });
        }
    }
}

/// What stands in angle brackets.
fn path(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let inside = text.split_once('<').and_then(|(_, rest)| rest.split_once('>'));
    inside.map(|(path, _)| path.to_owned()).unwrap_or_default()
}

/// The number in `RCPT TO:<m123@...>` (and in smtp-source's `<123m@...>`).
fn message_number(line: &[u8]) -> Option<u32> {
    let start = memchr::memchr(b'<', line)? + 1;
    let local = line.get(start..)?.split(|byte| *byte == b'@').next()?;
    let digits: Vec<u8> = local.iter().copied().filter(u8::is_ascii_digit).collect();
    std::str::from_utf8(&digits).ok()?.parse().ok()
}

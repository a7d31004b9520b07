//! What submits. The built-in generator speaks as smtp-source does, command by command without pipelining, over a given
//! number of sessions, as fast as the server answers or at a given rate; it notes in the ledger when it began with a message
//! and when the server took it. A 4xx reply to a message is waited out and counted; any other surprise ends the run.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::child::Child;
use crate::dns;
use crate::failure::{Context, Failure, Result};
use crate::ledger::Ledger;
use crate::login::Login;

/// Longest wait for a reply.
const REPLY_MAX: Duration = Duration::from_secs(120);
/// After a 4xx reply.
const PAUSE: Duration = Duration::from_millis(100);
/// 4xx replies to one message before the run is given up.
const REFUSALS_MAX: u32 = 600;
/// Longest reply of a server.
const REPLY_BYTES_MAX: usize = 16 * 1024;
/// Octets of a line of a body, CRLF not counted.
const LINE_BYTES: usize = 70;

/// Where messages go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Destinations {
    /// One domain.
    One(&'static str),
    /// Message n goes to destination n modulo this.
    Many(u32),
}

/// What to submit, and how.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Submission address of the server.
    pub(crate) server: SocketAddr,
    /// TLS from the first octet, and AUTH.
    pub(crate) login: Option<Arc<Login>>,
    /// Their recipients.
    pub(crate) to: Destinations,
    /// Octets of a message.
    pub(crate) size: usize,
    /// Connections at the same time.
    pub(crate) sessions: u32,
    /// Messages on a connection.
    pub(crate) per_connection: u32,
    /// Messages a second; none: as fast as the server takes them.
    pub(crate) rate: Option<u32>,
}

/// Submits all messages of `ledger`; returns when the last is accepted.
pub(crate) async fn submit(plan: Plan, ledger: Arc<Ledger>) -> Result<()> {
    let next = Arc::new(AtomicU32::new(0));
    let body: Arc<[u8]> = body(plan.size).into();
    let plan = Arc::new(plan);
    let begin = Instant::now();
    let mut sessions = JoinSet::new();
    for _ in 0..plan.sessions {
        let session = Session {
            plan: Arc::clone(&plan),
            ledger: Arc::clone(&ledger),
            next: Arc::clone(&next),
            body: Arc::clone(&body),
            begin,
        };
        sessions.spawn(session.run());
    }
    while let Some(session) = sessions.join_next().await {
        session.context(|| "a session of the generator".to_owned())??;
    }
    Ok(())
}

/// Submits them by Postfix's smtp-source; the ledger learns the moment of the last acceptance only by its end.
pub(crate) async fn submit_by_smtp_source(plan: &Plan, ledger: &Ledger, log: &Path) -> Result<()> {
    let Destinations::One(domain) = plan.to else {
        return Err(Failure::new("smtp-source sends to one destination only: leave out --load smtp-source"));
    };
    let address = format!("inet:{}:{}", plan.server.ip(), plan.server.port());
    let numbers = [plan.sessions.to_string(), ledger.messages().to_string(), plan.size.to_string()];
    let [sessions, messages, size] = &numbers;
    let to = format!("m@{domain}");
    let arguments =
        ["-d", "-N", "-s", sessions, "-m", messages, "-l", size, "-f", "sender@load.bench.test", "-t", &to, &address];
    let mut child = Child::start(Path::new("smtp-source"), &arguments, log, "postfix")?;
    let status = child.ended().await?;
    if !status.success() {
        return Err(child.failure(&format!("ended with {status}")));
    }
    (0..ledger.messages()).for_each(|number| ledger.accept(number));
    Ok(())
}

/// One of the sessions.
struct Session {
    plan: Arc<Plan>,
    ledger: Arc<Ledger>,
    next: Arc<AtomicU32>,
    body: Arc<[u8]>,
    begin: Instant,
}

impl Session {
    /// Takes messages until there are none left.
    async fn run(self) -> Result<()> {
        let mut connection = None;
        let mut on_connection = 0;
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= self.ledger.messages() {
                break;
            }
            if let Some(rate) = self.plan.rate {
                sleep_until(self.begin + Duration::from_secs(u64::from(number)) / rate).await;
            }
            self.ledger.submit(number);
            let mut refusals = 0;
            loop {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection::open(self.plan.server, self.plan.login.as_deref()).await?,
                };
                if self.transaction(&mut open, number).await? {
                    connection = Some(open);
                    break;
                }
                refusals += 1;
                self.ledger.refused.fetch_add(1, Ordering::Relaxed);
                if refusals == REFUSALS_MAX {
                    return Err(Failure::new(format!(
                        "message {number} was refused {refusals} times with 4xx replies"
                    )));
                }
                open.quit().await;
                on_connection = 0;
                sleep(PAUSE).await;
            }
            on_connection += 1;
            if on_connection == self.plan.per_connection {
                on_connection = 0;
                if let Some(open) = connection.take() {
                    open.quit().await;
                }
            }
        }
        if let Some(open) = connection {
            open.quit().await;
        }
        Ok(())
    }

    /// One message; false if the server wants it later.
    async fn transaction(&self, connection: &mut Connection, number: u32) -> Result<bool> {
        let domain = match self.plan.to {
            Destinations::One(domain) => domain.to_owned(),
            Destinations::Many(count) => dns::many(number % count),
        };
        let recipient = format!("m{number}@{domain}");
        if !connection.command("MAIL FROM:<sender@load.bench.test>\r\n", 250).await?
            || !connection.command(&format!("RCPT TO:<{recipient}>\r\n"), 250).await?
            || !connection.command("DATA\r\n", 354).await?
        {
            return Ok(false);
        }
        let accepted = connection.message(&header(number, &recipient), &self.body).await?;
        if accepted {
            self.ledger.accept(number);
        }
        Ok(accepted)
    }
}

/// In clear or under TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A connection to the server.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    output: Vec<u8>,
    input: Vec<u8>,
}

impl Connection {
    /// Connects, reads the greeting, says EHLO, logs in. 421 is waited out.
    pub(crate) async fn open(server: SocketAddr, login: Option<&Login>) -> Result<Self> {
        for _ in 0..REFUSALS_MAX {
            let stream = TcpStream::connect(server).await.context(|| format!("connection to {server}"))?;
            stream.set_nodelay(true).context(|| format!("connection to {server}"))?;
            let stream: Box<dyn Stream> = match login {
                None => Box::new(stream),
                Some(login) => Box::new(login.handshake(stream).await?),
            };
            let mut connection = Self { stream, output: Vec::new(), input: Vec::new() };
            if connection.reply(220).await? && connection.command("EHLO load.bench.test\r\n", 250).await? {
                if let Some(login) = login {
                    connection.command(login.command(), 235).await?;
                }
                return Ok(connection);
            }
            sleep(PAUSE).await;
        }
        Err(Failure::new(format!("{server} answers 421 again and again")))
    }

    /// Sends a command; false for a 4xx reply.
    pub(crate) async fn command(&mut self, command: &str, expected: u16) -> Result<bool> {
        self.stream.write_all(command.as_bytes()).await.context(|| "submission".to_owned())?;
        self.reply(expected).await
    }

    /// Sends message data with its end in one write.
    pub(crate) async fn message(&mut self, header: &str, body: &[u8]) -> Result<bool> {
        self.output.clear();
        self.output.extend_from_slice(header.as_bytes());
        self.output.extend_from_slice(body);
        self.output.extend_from_slice(b".\r\n");
        self.stream.write_all(&self.output).await.context(|| "submission".to_owned())?;
        self.reply(250).await
    }

    /// Reads one reply: true if it is `expected`, false for 4xx.
    async fn reply(&mut self, expected: u16) -> Result<bool> {
        self.input.clear();
        while !is_whole(&self.input) {
            let read = timeout(REPLY_MAX, self.stream.read_buf(&mut self.input)).await;
            let count = read
                .map_err(|_| Failure::new(format!("no reply within {REPLY_MAX:?}")))?
                .context(|| "reply to submission".to_owned())?;
            if count == 0 || self.input.len() > REPLY_BYTES_MAX {
                return Err(Failure::new("the server closed the connection in the middle of a submission"));
            }
        }
        let text = String::from_utf8_lossy(&self.input);
        let code: u16 = text.get(..3).and_then(|code| code.parse().ok()).unwrap_or(0);
        match code {
            _ if code == expected => Ok(true),
            400..=499 => Ok(false),
            _ => Err(Failure::new(format!("the server answered {:?} where {expected} was expected", text.trim()))),
        }
    }

    /// Says QUIT and leaves when the server does.
    pub(crate) async fn quit(mut self) {
        if self.stream.write_all(b"QUIT\r\n").await.is_ok() {
            self.input.clear();
            let _ = timeout(REPLY_MAX, self.stream.read_buf(&mut self.input)).await;
        }
    }
}

/// True if `input` ends with the last line of a reply (RFC 5321 §4.2.1).
fn is_whole(input: &[u8]) -> bool {
    let Some(lines) = input.strip_suffix(b"\r\n") else { return false };
    let last = lines.rsplit(|byte| *byte == b'\n').next().unwrap_or_default();
    last.get(3).is_none_or(|separator| *separator == b' ')
}

/// The header of a message.
fn header(number: u32, recipient: &str) -> String {
    let mut header = String::with_capacity(256);
    let written = write!(
        header,
        "From: <sender@load.bench.test>\r\nTo: <{recipient}>\r\nSubject: message {number}\r\n\
         Date: Mon, 6 Jul 2026 08:00:00 +0000\r\nMessage-ID: <{number:010}.bench@load.bench.test>\r\n\r\n",
    );
    debug_assert!(written.is_ok(), "writing to a String cannot fail");
    header
}

/// Lines of characters that do not compress well, so that no server gains by compression what real mail would not give.
pub(crate) fn body(size: usize) -> Vec<u8> {
    const CHARACTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let length = size.saturating_sub(header(0, "m0@d0.bench.test").len());
    let mut body = Vec::with_capacity(length + 2);
    let mut state: u64 = 0x5851_F42D_4C95_7F2D;
    while body.len() + LINE_BYTES + 2 < length {
        for _ in 0..LINE_BYTES {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let at = usize::try_from(state >> 58).unwrap_or(0);
            body.push(CHARACTERS.get(at).copied().unwrap_or(b'A'));
        }
        body.extend_from_slice(b"\r\n");
    }
    body
}

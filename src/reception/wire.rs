//! A client's stream with its read buffer and its one timer.
//!
//! The timer is set once and moved only when it fires too early, so that a read costs no timer operation; likewise the
//! notice of the drain is one registration for the whole session.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tokio_rustls::LazyConfigAcceptor;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use zeroize::Zeroize;

use super::memory::READ_BYTES_MAX;
use super::stamp::TlsInfo;
use crate::net::BoxStream;

/// Room for a read while commands are expected: enough for a pipelined group.
const COMMAND_READ_BYTES: usize = 4 * 1024;
/// Room for a first read of message data; doubled up to [`READ_BYTES_MAX`] while reads fill it.
const DATA_READ_BYTES: usize = 16 * 1024;
/// How long a client that was cut off may read its last reply before the connection is closed on it.
const LINGER: Duration = Duration::from_secs(2);
/// Octets that such a client may still send.
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Later than any deadline: the first one moves the timer.
const FAR_AWAY: Duration = Duration::from_secs(365 * 86_400);

/// What a read ended with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// More octets are in the buffer.
    Octets,
    /// The client closed, or the connection broke.
    End,
    /// Nothing until the deadline.
    Timeout,
    /// The server stops.
    Drain,
}

/// What the client is expected to send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expect {
    /// A command: little, and the drain may interrupt.
    Command,
    /// Message data: much, and the drain waits for it.
    Data,
}

/// One connection.
pub(super) struct Wire {
    stream: BoxStream,
    /// Octets that came and were not yet used.
    pub(super) input: BytesMut,
    read_bytes: usize,
    timer: Pin<Box<Sleep>>,
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Wire {
    pub(super) fn new(stream: BoxStream, drain: &CancellationToken) -> Self {
        Self {
            stream,
            input: BytesMut::new(),
            read_bytes: DATA_READ_BYTES,
            timer: Box::pin(tokio::time::sleep(FAR_AWAY)),
            // A child has a lock of its own: sessions do not contend.
            drain: Box::pin(drain.child_token().cancelled_owned()),
        }
    }

    /// Overwrites the first octets that came, which are used: they held a secret.
    pub(super) fn wipe(&mut self, count: usize) {
        if let Some(used) = self.input.get_mut(..count) {
            used.zeroize();
        }
    }

    /// Waits for octets until `deadline`.
    pub(super) async fn read(&mut self, expect: Expect, deadline: Instant) -> Heard {
        let room = match expect {
            Expect::Command => COMMAND_READ_BYTES,
            Expect::Data => self.read_bytes,
        };
        self.make_room(room);
        set_timer(self.timer.as_mut(), deadline);
        loop {
            tokio::select! {
                biased;
                result = self.stream.read_buf(&mut self.input) => return match result {
                    Ok(count) if count > 0 => {
                        if expect == Expect::Data && count >= room {
                            self.read_bytes = (self.read_bytes * 2).min(READ_BYTES_MAX);
                        }
                        Heard::Octets
                    }
                    _ => Heard::End,
                },
                () = self.drain.as_mut(), if expect == Expect::Command => return Heard::Drain,
                () = self.timer.as_mut() => {
                    if is_over(self.timer.as_mut(), deadline) {
                        return Heard::Timeout;
                    }
                }
            }
        }
    }

    /// Sends all of `octets`, until `deadline`.
    pub(super) async fn write(&mut self, octets: &[u8], deadline: Instant) -> io::Result<()> {
        let Self { stream, timer, .. } = self;
        set_timer(timer.as_mut(), deadline);
        let send = async {
            stream.write_all(octets).await?;
            stream.flush().await
        };
        tokio::pin!(send);
        loop {
            tokio::select! {
                biased;
                result = &mut send => return result,
                () = timer.as_mut() => {
                    if is_over(timer.as_mut(), deadline) {
                        return Err(io::ErrorKind::TimedOut.into());
                    }
                }
            }
        }
    }

    /// TLS from here on. Octets that came in clear are dropped by the caller's refusal before; none are passed on. What a
    /// handshake costs begins when the client's first message is there, and its `turn` has come; an error of it ends all.
    pub(super) async fn start_tls(
        &mut self,
        config: Arc<ServerConfig>,
        deadline: Instant,
        turn: impl Future<Output = io::Result<()>>,
    ) -> io::Result<TlsInfo> {
        self.input = BytesMut::new();
        let stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let accept = async {
            let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
            turn.await?;
            hello.into_stream(config).await
        };
        let stream = tokio::time::timeout_at(deadline, accept).await??;
        let (_, connection) = stream.get_ref();
        let info = TlsInfo {
            version: version_name(connection.protocol_version()),
            cipher: connection
                .negotiated_cipher_suite()
                .map_or_else(Box::default, |suite| format!("{:?}", suite.suite()).into()),
        };
        self.stream = Box::new(stream);
        Ok(info)
    }

    /// Closes our side. A client that may still be sending gets a moment to read its last reply: closing on unread
    /// octets would reset the connection, and the reply be lost.
    pub(super) async fn close(mut self, orderly: bool) {
        let deadline = Instant::now() + LINGER;
        let finish = async {
            self.stream.shutdown().await?;
            let mut surplus = LINGER_BYTES_MAX;
            while !orderly && surplus > 0 {
                self.input.clear();
                self.input.reserve(COMMAND_READ_BYTES);
                let count = self.stream.read_buf(&mut self.input).await?;
                surplus = if count == 0 { 0 } else { surplus.saturating_sub(count) };
            }
            io::Result::Ok(())
        };
        // The session is over: neither a timeout nor an error changes anything.
        drop(tokio::time::timeout_at(deadline, finish).await);
    }

    /// A large buffer goes when it is empty and not needed: a waiting session is small.
    fn make_room(&mut self, room: usize) {
        if self.input.is_empty() && self.input.capacity() > DATA_READ_BYTES && room <= DATA_READ_BYTES {
            self.input = BytesMut::new();
            self.read_bytes = DATA_READ_BYTES;
        }
        self.input.reserve(room);
    }
}

/// An earlier deadline moves the timer; a later one is found when it fires.
fn set_timer(timer: Pin<&mut Sleep>, deadline: Instant) {
    if deadline < timer.deadline() || timer.is_elapsed() {
        timer.reset(deadline);
    }
}

/// The timer fired: is it really `deadline`? If not, it is set to it.
fn is_over(timer: Pin<&mut Sleep>, deadline: Instant) -> bool {
    let over = Instant::now() >= deadline;
    if !over {
        timer.reset(deadline);
    }
    over
}

fn version_name(version: Option<rustls::ProtocolVersion>) -> &'static str {
    match version {
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLSv1.3",
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLSv1.2",
        _ => "TLS",
    }
}

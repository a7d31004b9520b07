//! The bytes of a connection: writes with a timeout, reads replies with a timeout, keeps surplus bytes.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

use crate::delivery::settings::Timeouts;
use crate::net::BoxStream;
use crate::smtp::client::{LossReason, ReplyError, ReplyParser, Stage};
use crate::types::Reply;

/// Room made for one read.
const READ_BYTES: usize = 2 * 1024;
/// How long to look for the peer's reason when it no longer takes what we write: its words are here already, or never.
pub(super) const LAST_WORDS_WAIT: Duration = Duration::from_secs(2);

/// A stream and the replies that come out of it.
pub(super) struct Wire {
    stream: BoxStream,
    replies: ReplyParser,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").field("replies", &self.replies).finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(stream: BoxStream) -> Self {
        Self { stream, replies: ReplyParser::new() }
    }

    /// The bare stream, for the TLS handshake. What was read and not used is dropped: check [`Wire::has_surplus`].
    pub(super) fn into_stream(self) -> BoxStream {
        self.stream
    }

    /// Whether the peer has said more than was asked.
    pub(super) fn has_surplus(&self) -> bool {
        self.replies.has_surplus()
    }

    /// Writes `out`, if there is any, empties it, and reads one reply. Not cancel-safe.
    pub(super) async fn exchange(
        &mut self,
        out: &mut Vec<u8>,
        timeouts: &Timeouts,
        stage: Stage,
    ) -> Result<Reply, LossReason> {
        if !out.is_empty() {
            let written = self.write(out, timeouts.command).await;
            out.clear();
            if let Err(reason) = written {
                return self.read_reply(LAST_WORDS_WAIT).await.map_err(|_| reason);
            }
        }
        self.read_reply(limit_of(timeouts, stage)).await
    }

    /// Writes all of it within `limit`. Not cancel-safe.
    pub(super) async fn write(&mut self, bytes: &[u8], limit: Duration) -> Result<(), LossReason> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        match tokio::time::timeout(limit, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(reason_of(&error)),
            Err(_) => Err(LossReason::TimedOut),
        }
    }

    /// The next reply, whole, within `limit`. Bytes that were read when the time ran out are kept.
    pub(super) async fn read_reply(&mut self, limit: Duration) -> Result<Reply, LossReason> {
        match self.replies.next_reply() {
            Ok(Some(reply)) => Ok(reply),
            Ok(None) => tokio::time::timeout(limit, self.read_on()).await.unwrap_or(Err(LossReason::TimedOut)),
            Err(error) => Err(garbled(&error)),
        }
    }

    /// Cancel-safe: what was read is in the parser.
    async fn read_on(&mut self) -> Result<Reply, LossReason> {
        loop {
            self.replies.buffer().reserve(READ_BYTES);
            let ended = match self.stream.read_buf(self.replies.buffer()).await {
                Ok(0) => LossReason::Closed,
                Ok(_) => match self.replies.next_reply() {
                    Ok(Some(reply)) => return Ok(reply),
                    Ok(None) => continue,
                    Err(error) => return Err(garbled(&error)),
                },
                Err(error) => reason_of(&error),
            };
            return self.replies.at_end().ok_or(ended);
        }
    }

    /// What the peer said or did without being asked, as far as can be known without waiting. `None`: nothing.
    pub(super) fn unsolicited(&mut self) -> Option<LossReason> {
        let mut room = [0; READ_BYTES];
        let mut buffer = ReadBuf::new(&mut room);
        // The next read registers its own waker.
        let mut context = Context::from_waker(Waker::noop());
        let ended = match Pin::new(&mut self.stream).poll_read(&mut context, &mut buffer) {
            Poll::Pending if !self.replies.has_surplus() => return None,
            Poll::Ready(Ok(())) if buffer.filled().is_empty() => LossReason::Closed,
            Poll::Ready(Err(error)) => reason_of(&error),
            Poll::Pending | Poll::Ready(Ok(())) => {
                LossReason::Protocol("unfinished reply that nobody asked for".into())
            }
        };
        self.replies.push(buffer.filled());
        Some(match self.replies.next_reply() {
            Ok(Some(reply)) if reply.code().value() == 421 => LossReason::ShuttingDown(reply),
            Ok(Some(reply)) => LossReason::Protocol(format!("reply that nobody asked for: {reply}").into()),
            Ok(None) => ended,
            Err(error) => garbled(&error),
        })
    }

    /// QUIT, its reply and the end of the stream, all within `limit`.
    pub(super) async fn quit(&mut self, limit: Duration) {
        let goodbye = async {
            self.stream.write_all(b"QUIT\r\n").await?;
            self.stream.flush().await?;
            if !self.replies.has_surplus() {
                // Whatever it says: we leave.
                drop(self.read_on().await);
            }
            self.stream.shutdown().await
        };
        // No time left, or the peer was faster: both are the end that was wanted.
        drop(tokio::time::timeout(limit, goodbye).await);
    }
}

fn limit_of(timeouts: &Timeouts, stage: Stage) -> Duration {
    match stage {
        Stage::Connect => timeouts.connect,
        Stage::Greeting => timeouts.greeting,
        Stage::Ehlo | Stage::Tls | Stage::Auth | Stage::Mail | Stage::Rcpt | Stage::Data => timeouts.command,
        Stage::Dot => timeouts.final_dot,
    }
}

fn garbled(error: &ReplyError) -> LossReason {
    LossReason::Protocol(error.to_string().into())
}

/// A TLS peer that closes without its closing alert counts as one that closed: most mail hosts do it.
pub(super) fn reason_of(error: &io::Error) -> LossReason {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => LossReason::Closed,
        io::ErrorKind::TimedOut => LossReason::TimedOut,
        _ => LossReason::Io(error.to_string().into()),
    }
}

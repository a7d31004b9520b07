//! Writes message data: one write for a body in memory, a bounded buffer for one that is read part by part.

use bytes::Bytes;

use super::wire::{LAST_WORDS_WAIT, Wire};
use crate::delivery::settings::Timeouts;
use crate::net::BoxFuture;
use crate::smtp::client::{DotStuffer, Framing, LossReason};
use crate::types::Reply;

/// Octets of body that are put together before they are written, so that most messages go out in one write. A session
/// buffers at most about twice as much; then it waits for the peer, for [`Timeouts::data`] at most.
const WRITE_BYTES: usize = 64 * 1024;

/// A body that is read while it is sent.
pub trait BodyReader: Send {
    /// The next part, `None` at the end. An error breaks the connection off, so that nobody gets half a message; its
    /// text goes into the result.
    fn next_part(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, String>>;
}

/// Header block, empty line and body: CRLF line ends, not dot-stuffed.
pub enum BodySource<'a> {
    /// In memory, in order.
    Memory(&'a [Bytes]),
    /// From elsewhere, part by part.
    Reader(&'a mut dyn BodyReader),
}

impl BodySource<'_> {
    async fn next_part(&mut self) -> Result<Option<Bytes>, String> {
        match self {
            BodySource::Memory(parts) => Ok(parts.split_first().map(|(first, rest)| {
                *parts = rest;
                first.clone()
            })),
            BodySource::Reader(reader) => reader.next_part().await,
        }
    }
}

/// Why a body did not go out whole.
pub(super) enum BodyFailure {
    /// The connection is lost, or must be given up.
    Lost(LossReason),
    /// The peer had answered before the end.
    Answered(Reply),
}

/// What of the body has gone into the output.
struct Progress {
    framing: Framing,
    stuffer: DotStuffer,
    /// Octets of body still to come, by what was declared.
    missing_bytes: u64,
    size_bytes: u64,
}

impl Progress {
    /// Appends a piece; with BDAT, never more than was declared.
    fn append(&mut self, piece: &[u8], out: &mut Vec<u8>) -> Result<(), LossReason> {
        let length = u64::try_from(piece.len()).unwrap_or(u64::MAX);
        match self.framing {
            Framing::Dot => self.stuffer.stuff(piece, out),
            Framing::Chunk if length > self.missing_bytes => {
                let text = format!("body is longer than the {} bytes that were declared", self.size_bytes);
                return Err(LossReason::Body(text.into()));
            }
            Framing::Chunk => out.extend_from_slice(piece),
        }
        self.missing_bytes = self.missing_bytes.saturating_sub(length);
        Ok(())
    }

    fn finish(self, out: &mut Vec<u8>) -> Result<(), LossReason> {
        match self.framing {
            Framing::Dot => self.stuffer.finish(out),
            Framing::Chunk if self.missing_bytes > 0 => {
                let text = format!("body lacks {} of {} bytes that were declared", self.missing_bytes, self.size_bytes);
                return Err(LossReason::Body(text.into()));
            }
            Framing::Chunk => {}
        }
        Ok(())
    }
}

impl Wire {
    /// Writes what is in `out` and the body behind it, with its end. The last piece goes out only when the source has
    /// ended well, so a body that breaks off is never a complete message. Not cancel-safe.
    pub(super) async fn write_body(
        &mut self,
        out: &mut Vec<u8>,
        framing: Framing,
        source: &mut BodySource<'_>,
        size_bytes: u64,
        timeouts: &Timeouts,
    ) -> Result<(), BodyFailure> {
        if self.has_surplus() {
            // A reply to a message that was not yet sent must not be taken for the one to the final dot.
            return Err(self.early_reply(LossReason::Protocol("bytes behind the 354".into())).await);
        }
        let mut progress = Progress { framing, stuffer: DotStuffer::new(), missing_bytes: size_bytes, size_bytes };
        while let Some(part) = source.next_part().await.map_err(lost_body)? {
            for piece in part.chunks(WRITE_BYTES) {
                if out.len() >= WRITE_BYTES {
                    self.write_piece(out, timeouts).await?;
                }
                progress.append(piece, out).map_err(BodyFailure::Lost)?;
            }
        }
        progress.finish(out).map_err(BodyFailure::Lost)?;
        self.write_piece(out, timeouts).await
    }

    async fn write_piece(&mut self, out: &mut Vec<u8>, timeouts: &Timeouts) -> Result<(), BodyFailure> {
        let written = self.write(out, timeouts.data).await;
        out.clear();
        match written {
            Ok(()) => Ok(()),
            Err(reason) => Err(self.early_reply(reason).await),
        }
    }

    /// A peer that stops reading may have said why.
    async fn early_reply(&mut self, otherwise: LossReason) -> BodyFailure {
        match self.read_reply(LAST_WORDS_WAIT).await {
            Ok(reply) => BodyFailure::Answered(reply),
            Err(_) => BodyFailure::Lost(otherwise),
        }
    }
}

fn lost_body(text: String) -> BodyFailure {
    BodyFailure::Lost(LossReason::Body(text.into()))
}

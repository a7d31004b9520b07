//! The record of one recipient: what became of it so far. Rewritten after each attempt.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_text, put_u64, put_varint};

const KIND: RecordKind = RecordKind::Recipient;

/// The state of one recipient of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientState {
    /// Whether it still waits, or how it ended.
    pub outcome: RecipientOutcome,
    /// Attempts that reached a host or should have; waiting for limits of our own does not count.
    pub attempts: u32,
    /// Unix milliseconds; 0: no attempt yet.
    pub first_attempt_ms: u64,
    /// Unix milliseconds; 0: no attempt yet.
    pub last_attempt_ms: u64,
    /// The last reply or error, as events show it; empty: none yet.
    pub last_reply: String,
    /// The name of the rule that classified it; empty: none yet.
    pub last_rule: String,
    /// The host that gave it; empty: none yet, or no host was reached.
    pub last_host: String,
    /// Delay notices sent so far.
    pub delay_notices: u8,
    /// Unix milliseconds since when every attempt failed in the same way; 0: not failing.
    pub failing_since_ms: u64,
    /// An attempt may have delivered without our knowing: the recipient's next event says so.
    pub ambiguous: bool,
    /// Unix milliseconds: the time in the due key of the recipient's destination; 0: that of acceptance.
    pub next_attempt_ms: u64,
}

/// Whether a recipient still waits, or how it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum RecipientOutcome {
    /// Neither delivered nor given up.
    #[default]
    Pending = 0,
    /// The recipient's server took it.
    Delivered = 1,
    /// Refused for good.
    Bounced = 2,
    /// Its time was up.
    Expired = 3,
    /// An administrator ended it.
    Cancelled = 4,
}

impl RecipientOutcome {
    pub(crate) fn from_code(code: u8) -> Option<Self> {
        [Self::Pending, Self::Delivered, Self::Bounced, Self::Expired, Self::Cancelled]
            .into_iter()
            .find(|outcome| *outcome as u8 == code)
    }
}

/// 0 or 1.
fn decode_flag(fields: &mut Fields<'_>) -> Result<bool, FormatError> {
    match fields.byte("ambiguous")? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(fields.out_of_range("ambiguous")),
    }
}

impl RecipientState {
    /// At least as many bytes as [`RecipientState::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        let texts = self.last_reply.len() + self.last_rule.len() + self.last_host.len();
        FRAME_BYTES + 3 + 4 * 8 + 4 * VARINT_BYTES_MAX + texts
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(self.outcome as u8);
            out.push(self.delay_notices);
            out.push(u8::from(self.ambiguous));
            put_u64(out, self.first_attempt_ms);
            put_u64(out, self.last_attempt_ms);
            put_u64(out, self.failing_since_ms);
            put_u64(out, self.next_attempt_ms);
            put_varint(out, u64::from(self.attempts));
            put_text(out, &self.last_reply);
            put_text(out, &self.last_rule);
            put_text(out, &self.last_host);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let code = fields.byte("outcome")?;
        let outcome = RecipientOutcome::from_code(code).ok_or_else(|| fields.out_of_range("outcome"))?;
        let state = Self {
            outcome,
            delay_notices: fields.byte("delay_notices")?,
            ambiguous: decode_flag(&mut fields)?,
            first_attempt_ms: fields.u64("first_attempt_ms")?,
            last_attempt_ms: fields.u64("last_attempt_ms")?,
            failing_since_ms: fields.u64("failing_since_ms")?,
            next_attempt_ms: fields.u64("next_attempt_ms")?,
            attempts: fields.varint_u32("attempts")?,
            last_reply: fields.string("last_reply")?,
            last_rule: fields.string("last_rule")?,
            last_host: fields.string("last_host")?,
        };
        fields.end()?;
        Ok(state)
    }
}

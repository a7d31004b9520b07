//! The id of a message: what the 250 reply names, what every event carries, and the key of the queue.
//!
//! Text form, as SES writes it: four hex digits, twelve hex digits of the Unix milliseconds of acceptance, `-`, a UUID,
//! `-`, six digits: `01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000`. Key form: 22 bytes, time first, so
//! that inserts into the queue are appends.

use std::fmt;
use std::str::FromStr;

use super::Timestamp;

/// The four hex digits in front of every id. SES puts its region here; we have one.
const REGION: &str = "0101";
const MILLIS_MAX: u64 = (1 << 48) - 1;

/// Identifies a message. Ordered by time of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId([u8; MessageId::BYTES]);

/// Why a text is not a message id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a message id: expected a form like 01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000")]
pub struct MessageIdError;

impl MessageId {
    /// Length of the key form.
    pub const BYTES: usize = 22;

    /// An id for a message accepted at `accepted_at`; `random` comes from the caller's generator and gives the UUID
    /// (version 4, RFC 9562 §5.4: version and variant bits are set here).
    pub fn new(accepted_at: Timestamp, random: u128) -> Self {
        let uuid = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
        let mut bytes = [0; Self::BYTES];
        let (time, rest) = bytes.split_at_mut(6);
        let millis = accepted_at.millis().min(MILLIS_MAX).to_be_bytes();
        time.copy_from_slice(millis.split_at(2).1);
        rest.copy_from_slice(&uuid.to_be_bytes());
        Self(bytes)
    }

    /// The id from its key form.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The key form.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// When the message was accepted.
    pub fn accepted_at(&self) -> Timestamp {
        let millis = self.0.iter().take(6).fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        Timestamp::from_millis(millis)
    }

    /// 64 bits of the random part: a seed for this message's jitter.
    pub fn seed(&self) -> u64 {
        self.0.iter().rev().take(8).fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Written as a whole: the id stands in every reply, event and `Received` field.
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(60);
        text.push_str(REGION);
        for (index, byte) in self.0.iter().enumerate() {
            if matches!(index, 6 | 10 | 12 | 14 | 16) {
                text.push('-');
            }
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS.get(usize::from(digit)).copied().unwrap_or_default()));
            }
        }
        text.push_str("-000000");
        f.write_str(&text)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let hex = text.strip_prefix(REGION).and_then(|rest| rest.strip_suffix("-000000")).ok_or(MessageIdError)?;
        let mut bytes = [0; Self::BYTES];
        let mut digits = hex.bytes().filter(|byte| *byte != b'-').map(|byte| char::from(byte).to_digit(16));
        for byte in &mut bytes {
            let high = digits.next().flatten().ok_or(MessageIdError)?;
            let low = digits.next().flatten().ok_or(MessageIdError)?;
            *byte = u8::try_from(high << 4 | low).map_err(|_| MessageIdError)?;
        }
        let id = Self(bytes);
        // The comparison catches dashes in wrong places, surplus digits and upper case.
        if id.to_string() == text { Ok(id) } else { Err(MessageIdError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = "01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000";

    #[test]
    fn the_documented_sample_parses_and_prints() {
        let id: MessageId = SAMPLE.parse().unwrap();
        assert_eq!(id.to_string(), SAMPLE);
        assert_eq!(id.accepted_at().to_iso8601(), "2023-05-05T21:00:23.244Z");
    }

    #[test]
    fn a_new_id_is_a_version_4_uuid_and_sorts_by_time() {
        let early = MessageId::new(Timestamp::from_millis(1_000), u128::MAX);
        let late = MessageId::new(Timestamp::from_millis(1_001), 0);
        assert!(early < late);
        assert_eq!(early.to_string(), "01010000000003e8-ffffffff-ffff-4fff-bfff-ffffffffffff-000000");
        assert_eq!(late.to_string(), "01010000000003e9-00000000-0000-4000-8000-000000000000-000000");
        assert_eq!(early.to_string().parse(), Ok(early));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "0101", &SAMPLE[1..], &SAMPLE.to_uppercase(), &SAMPLE.replace('-', ""), &format!("{SAMPLE}0")]
        {
            assert_eq!(text.parse::<MessageId>(), Err(MessageIdError), "{text}");
        }
    }
}

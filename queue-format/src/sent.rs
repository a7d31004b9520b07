//! What is remembered of a recipient that a message was sent to: so that a bounce or complaint that comes days later finds it.
//! Written once, with the outcome. What was told of it since stands beside it, in marks of their own
//! ([`sent_mark_key`](crate::sent_mark_key)), each a meta number: the time.

use crate::RecipientOutcome;
use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{Fields, VARINT_BYTES_MAX, put_bytes, put_text, put_u64};

const KIND: RecordKind = RecordKind::Sent;

/// What is remembered of one recipient; message and position stand in its [`sent_key`](crate::sent_key).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SentRecord {
    /// How it ended. [`RecipientOutcome::Pending`] is valid, too.
    pub outcome: RecipientOutcome,
    /// Unix milliseconds: when it ended.
    pub ended_at_ms: u64,
    /// The forward path.
    pub recipient: String,
    /// MAIL FROM as it was submitted; empty for the null reverse-path.
    pub reverse_path: String,
    /// Who submitted it.
    pub caller: String,
    /// Whose mail it is; empty: of none.
    pub tenant: String,
    /// The identity by which it was accepted; empty: none.
    pub identity: String,
    /// How it was sent, by name; empty: of none.
    pub configuration_set: String,
    /// The pool that it went out by; empty: not said.
    pub pool: String,
    /// The source of its last attempt; empty: it came to none.
    pub source: String,
    /// The site of its last attempt; empty: it came to none.
    pub site: String,
    /// The `mail` object of its events, shortened. Any bytes: the format does not look inside.
    pub mail_json: Vec<u8>,
}

/// A [`SentRecord`] whose texts stay where they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SentRecordRef<'a> {
    /// How it ended. [`RecipientOutcome::Pending`] is valid, too.
    pub outcome: RecipientOutcome,
    /// Unix milliseconds: when it ended.
    pub ended_at_ms: u64,
    /// The forward path.
    pub recipient: &'a str,
    /// MAIL FROM as it was submitted; empty for the null reverse-path.
    pub reverse_path: &'a str,
    /// Who submitted it.
    pub caller: &'a str,
    /// Whose mail it is; empty: of none.
    pub tenant: &'a str,
    /// The identity by which it was accepted; empty: none.
    pub identity: &'a str,
    /// How it was sent, by name; empty: of none.
    pub configuration_set: &'a str,
    /// The pool that it went out by; empty: not said.
    pub pool: &'a str,
    /// The source of its last attempt; empty: it came to none.
    pub source: &'a str,
    /// The site of its last attempt; empty: it came to none.
    pub site: &'a str,
    /// The `mail` object of its events, shortened. Any bytes: the format does not look inside.
    pub mail_json: &'a [u8],
}

impl<'a> SentRecordRef<'a> {
    /// The texts in the order of the layout.
    fn texts(&self) -> [&'a str; 9] {
        let Self { recipient, reverse_path, caller, tenant, identity, configuration_set, pool, source, site, .. } =
            *self;
        [recipient, reverse_path, caller, tenant, identity, configuration_set, pool, source, site]
    }

    /// At least as many bytes as [`SentRecordRef::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        let texts: usize = self.texts().iter().map(|text| text.len() + VARINT_BYTES_MAX).sum();
        FRAME_BYTES + 1 + 8 + texts + VARINT_BYTES_MAX + self.mail_json.len()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.push(self.outcome as u8);
            put_u64(out, self.ended_at_ms);
            self.texts().iter().for_each(|text| put_text(out, text));
            put_bytes(out, self.mail_json);
        });
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, FormatError> {
        let mut fields = Fields::new(KIND, frame::open(KIND, bytes)?);
        let code = fields.byte("outcome")?;
        let record = Self {
            outcome: RecipientOutcome::from_code(code).ok_or_else(|| fields.out_of_range("outcome"))?,
            ended_at_ms: fields.u64("ended_at_ms")?,
            recipient: fields.text("recipient")?,
            reverse_path: fields.text("reverse_path")?,
            caller: fields.text("caller")?,
            tenant: fields.text("tenant")?,
            identity: fields.text("identity")?,
            configuration_set: fields.text("configuration_set")?,
            pool: fields.text("pool")?,
            source: fields.text("source")?,
            site: fields.text("site")?,
            mail_json: fields.bytes("mail_json")?,
        };
        fields.end()?;
        Ok(record)
    }

    /// The same with texts of its own.
    pub fn into_owned(self) -> SentRecord {
        SentRecord {
            outcome: self.outcome,
            ended_at_ms: self.ended_at_ms,
            recipient: self.recipient.to_owned(),
            reverse_path: self.reverse_path.to_owned(),
            caller: self.caller.to_owned(),
            tenant: self.tenant.to_owned(),
            identity: self.identity.to_owned(),
            configuration_set: self.configuration_set.to_owned(),
            pool: self.pool.to_owned(),
            source: self.source.to_owned(),
            site: self.site.to_owned(),
            mail_json: self.mail_json.to_vec(),
        }
    }
}

impl SentRecord {
    /// The same without texts of its own.
    pub fn borrowed(&self) -> SentRecordRef<'_> {
        SentRecordRef {
            outcome: self.outcome,
            ended_at_ms: self.ended_at_ms,
            recipient: &self.recipient,
            reverse_path: &self.reverse_path,
            caller: &self.caller,
            tenant: &self.tenant,
            identity: &self.identity,
            configuration_set: &self.configuration_set,
            pool: &self.pool,
            source: &self.source,
            site: &self.site,
            mail_json: &self.mail_json,
        }
    }

    /// At least as many bytes as [`SentRecord::encode`] appends.
    pub fn encoded_len_hint(&self) -> usize {
        self.borrowed().encoded_len_hint()
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        self.borrowed().encode(out);
    }

    /// Reads the record that `bytes` hold, all of them.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        SentRecordRef::decode(bytes).map(SentRecordRef::into_owned)
    }
}

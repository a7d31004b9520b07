//! The record of a message: its envelope and what is needed to send it, written once at acceptance.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};
use crate::wire::{ALLOCATED_PER_INPUT_BYTE_MAX, Fields, VARINT_BYTES_MAX, put_bytes, put_text, put_u64, put_varint};

const KIND: RecordKind = RecordKind::Message;

const FLAG_EIGHT_BIT: u8 = 1 << 0;
const FLAG_SMTPUTF8: u8 = 1 << 1;
const FLAG_RET_FULL: u8 = 1 << 2;
const FLAG_RET_HEADERS: u8 = 1 << 3;
const FLAG_ENVID: u8 = 1 << 4;
const FLAG_TENANT: u8 = 1 << 5;
const FLAG_CONFIGURATION_SET: u8 = 1 << 6;
const FLAG_TLS_REQUIRED: u8 = 1 << 7;

/// The second octet of flags, since version 2.
const FLAG_IDENTITY: u8 = 1 << 0;
const FLAG_RETURN_PATH_DOMAIN: u8 = 1 << 1;
const FLAG_RETURN_PATH_PER_MESSAGE: u8 = 1 << 2;
const FLAG_RECIPIENT_HEADERS: u8 = 1 << 3;
/// Since version 3.
const FLAG_POOL: u8 = 1 << 4;
const FLAG_PRIORITY: u8 = 1 << 5;
const MORE_FLAGS_KNOWN_V2: u8 = (1 << 4) - 1;
const MORE_FLAGS_KNOWN_V3: u8 = (1 << 6) - 1;
/// Since version 4, which knows all eight.
const FLAG_PREFERS_WARMING: u8 = 1 << 6;
const FLAG_SET_WARMS_UP: u8 = 1 << 7;
/// The first version with a second octet of flags.
const VERSION_MORE_FLAGS: u8 = 2;
/// The first version with pool and priority.
const VERSION_POOL: u8 = 3;
/// The first version with the flags of warm-ups.
const VERSION_WARMUP: u8 = 4;

const RECIPIENT_NOTIFY_BITS: u8 = 0b111;
const RECIPIENT_NOTIFY: u8 = 1 << 3;
const RECIPIENT_ORCPT: u8 = 1 << 4;
const RECIPIENT_FLAGS_KNOWN: u8 = (1 << 5) - 1;

/// An empty address, the index of its domain, flags.
const RECIPIENT_BYTES_MIN: usize = 3;
/// An empty text.
const DOMAIN_BYTES_MIN: usize = 1;
const _: () = assert!(size_of::<RecipientEntry>() <= RECIPIENT_BYTES_MIN * ALLOCATED_PER_INPUT_BYTE_MAX);
const _: () = assert!(size_of::<String>() <= DOMAIN_BYTES_MIN * ALLOCATED_PER_INPUT_BYTE_MAX);

/// What is known of a message from acceptance on. It does not change; what changes is in
/// [`RecipientState`](crate::RecipientState).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MessageRecord {
    /// Unix milliseconds.
    pub accepted_at_ms: u64,
    /// Unix milliseconds: when pending recipients expire.
    pub expires_at_ms: u64,
    /// MAIL FROM; empty for the null reverse-path (RFC 5321 §4.5.5).
    pub reverse_path: String,
    /// RCPT TO, in order. The position is the index in [`recipient_key`](crate::recipient_key).
    pub recipients: Vec<RecipientEntry>,
    /// The distinct domains of the recipients. The position is the group in [`due_key`](crate::due_key).
    pub domains: Vec<String>,
    /// BODY=8BITMIME (RFC 6152).
    pub eight_bit: bool,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461 §4.3).
    pub ret: Option<Ret>,
    /// ENVID=, decoded (RFC 3461 §4.4).
    pub envid: Option<String>,
    /// Octets of the header block with the empty line after it.
    pub header_bytes: u32,
    /// Octets of header block and body together, in all parts.
    pub body_bytes: u64,
    /// 0: one body record, written in the accept batch. Otherwise the number of spooled parts.
    pub body_parts: u32,
    /// Who submitted it.
    pub caller: String,
    /// Whose mail it is; empty: of none.
    pub tenant: String,
    /// How it is sent, by name; empty: of none.
    pub configuration_set: String,
    /// Delivery needs TLS.
    pub tls_required: bool,
    /// The identity by which it was accepted; empty: none.
    pub identity: String,
    /// The domain of the reverse-path that hosts see; empty: they see the one that was submitted.
    pub return_path_domain: String,
    /// Hosts see one reverse-path for the whole message, not one for each recipient.
    pub return_path_per_message: bool,
    /// Each recipient has a header block of its own, under [`recipient_header_key`](crate::recipient_header_key).
    pub recipient_headers: bool,
    /// The pool of sources that it goes out by; empty: not said.
    pub pool: String,
    /// Its priority as a number; 0: not said.
    pub priority: u8,
    /// It goes by a source that warms up, where one has room.
    pub prefers_warming: bool,
    /// Its configuration set warms up, or did when it was accepted.
    pub set_warms_up: bool,
    /// The `mail` object of the message's events. Any bytes: the format does not look inside.
    pub mail_json: Vec<u8>,
}

/// How much of a message a failure DSN returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ret {
    /// RET=FULL.
    Full,
    /// RET=HDRS.
    Headers,
}

/// One recipient of a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipientEntry {
    /// The forward path.
    pub address: String,
    /// Position of its domain in [`MessageRecord::domains`].
    pub domain_index: u16,
    /// NOTIFY= (RFC 3461 §4.1) as bits, 0 to 7: SUCCESS 1, FAILURE 2, DELAY 4, NEVER 0. `None`: not given.
    pub notify: Option<u8>,
    /// ORCPT= (RFC 3461 §4.2): address type and decoded address.
    pub orcpt: Option<(String, String)>,
}

impl MessageRecord {
    /// At least as many bytes as [`MessageRecord::encode`] appends, at little cost.
    pub fn encoded_len_hint(&self) -> usize {
        let domains: usize = self.domains.iter().map(|domain| domain.len() + VARINT_BYTES_MAX).sum();
        let recipients: usize = self.recipients.iter().map(RecipientEntry::encoded_len_hint).sum();
        let texts = self.reverse_path.len() + self.envid.as_ref().map_or(0, String::len) + self.caller.len();
        let texts = texts + self.tenant.len() + self.configuration_set.len();
        let texts = texts + self.identity.len() + self.return_path_domain.len() + self.pool.len();
        // Two bytes of flags, one of priority, two times, fourteen varints (three numbers, eleven lengths).
        FRAME_BYTES + 3 + 2 * 8 + 14 * VARINT_BYTES_MAX + texts + domains + recipients + self.mail_json.len()
    }

    /// Appends the record.
    ///
    /// # Panics
    /// Where a `domain_index` points beyond `domains` or `notify` is above 7: such a record could not be read again.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.encoded_len_hint());
        frame::write(KIND, out, |out| {
            out.extend_from_slice(&[self.flags(), self.more_flags()]);
            put_u64(out, self.accepted_at_ms);
            put_u64(out, self.expires_at_ms);
            put_varint(out, u64::from(self.header_bytes));
            put_varint(out, self.body_bytes);
            put_varint(out, u64::from(self.body_parts));
            put_text(out, &self.reverse_path);
            if let Some(envid) = &self.envid {
                put_text(out, envid);
            }
            put_text(out, &self.caller);
            for text in [&self.tenant, &self.configuration_set, &self.identity, &self.return_path_domain, &self.pool] {
                if !text.is_empty() {
                    put_text(out, text);
                }
            }
            if self.priority != 0 {
                out.push(self.priority);
            }
            put_varint(out, self.domains.len() as u64);
            for domain in &self.domains {
                put_text(out, domain);
            }
            put_varint(out, self.recipients.len() as u64);
            for recipient in &self.recipients {
                assert!(
                    usize::from(recipient.domain_index) < self.domains.len(),
                    "recipient refers to domain {} of {}",
                    recipient.domain_index,
                    self.domains.len()
                );
                recipient.put(out);
            }
            put_bytes(out, &self.mail_json);
        });
    }

    /// Reads the record that `bytes` hold, all of them, in this or an earlier version.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        let (version, payload) = frame::open_any(KIND, bytes)?;
        let mut fields = Fields::new(KIND, payload);
        let flags = fields.byte("flags")?;
        let more = if version < VERSION_MORE_FLAGS { 0 } else { fields.byte("more_flags")? };
        let known = match version {
            ..VERSION_POOL => MORE_FLAGS_KNOWN_V2,
            VERSION_POOL..VERSION_WARMUP => MORE_FLAGS_KNOWN_V3,
            VERSION_WARMUP.. => u8::MAX,
        };
        if more & !known != 0 {
            return Err(fields.out_of_range("more_flags"));
        }
        let mut record = Self {
            accepted_at_ms: fields.u64("accepted_at_ms")?,
            expires_at_ms: fields.u64("expires_at_ms")?,
            header_bytes: fields.varint_u32("header_bytes")?,
            body_bytes: fields.varint("body_bytes")?,
            body_parts: fields.varint_u32("body_parts")?,
            reverse_path: fields.string("reverse_path")?,
            eight_bit: flags & FLAG_EIGHT_BIT != 0,
            smtputf8: flags & FLAG_SMTPUTF8 != 0,
            tls_required: flags & FLAG_TLS_REQUIRED != 0,
            return_path_per_message: more & FLAG_RETURN_PATH_PER_MESSAGE != 0,
            recipient_headers: more & FLAG_RECIPIENT_HEADERS != 0,
            prefers_warming: more & FLAG_PREFERS_WARMING != 0,
            set_warms_up: more & FLAG_SET_WARMS_UP != 0,
            ret: match (flags & FLAG_RET_FULL != 0, flags & FLAG_RET_HEADERS != 0) {
                (false, false) => None,
                (true, false) => Some(Ret::Full),
                (false, true) => Some(Ret::Headers),
                (true, true) => return Err(fields.out_of_range("flags")),
            },
            ..Self::default()
        };
        if flags & FLAG_ENVID != 0 {
            record.envid = Some(fields.string("envid")?);
        }
        record.caller = fields.string("caller")?;
        for (is_there, name, text) in [
            (flags & FLAG_TENANT != 0, "tenant", &mut record.tenant),
            (flags & FLAG_CONFIGURATION_SET != 0, "configuration_set", &mut record.configuration_set),
            (more & FLAG_IDENTITY != 0, "identity", &mut record.identity),
            (more & FLAG_RETURN_PATH_DOMAIN != 0, "return_path_domain", &mut record.return_path_domain),
            (more & FLAG_POOL != 0, "pool", &mut record.pool),
        ] {
            if is_there {
                *text = fields.string(name)?;
                // A text that is empty is not written.
                if text.is_empty() {
                    return Err(fields.out_of_range(name));
                }
            }
        }
        if more & FLAG_PRIORITY != 0 {
            record.priority = fields.byte("priority")?;
            if record.priority == 0 {
                return Err(fields.out_of_range("priority"));
            }
        }
        record.take_destinations(&mut fields)?;
        record.mail_json = fields.bytes("mail_json")?.to_vec();
        fields.end()?;
        Ok(record)
    }

    fn take_destinations(&mut self, fields: &mut Fields<'_>) -> Result<(), FormatError> {
        let domains = fields.count("domains", DOMAIN_BYTES_MIN)?;
        self.domains.reserve_exact(domains);
        for _ in 0..domains {
            self.domains.push(fields.string("domain")?);
        }
        let recipients = fields.count("recipients", RECIPIENT_BYTES_MIN)?;
        self.recipients.reserve_exact(recipients);
        for _ in 0..recipients {
            self.recipients.push(RecipientEntry::take(fields, domains)?);
        }
        Ok(())
    }

    fn flags(&self) -> u8 {
        let ret = match self.ret {
            None => 0,
            Some(Ret::Full) => FLAG_RET_FULL,
            Some(Ret::Headers) => FLAG_RET_HEADERS,
        };
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        ret | flag(self.eight_bit, FLAG_EIGHT_BIT)
            | flag(self.smtputf8, FLAG_SMTPUTF8)
            | flag(self.envid.is_some(), FLAG_ENVID)
            | flag(!self.tenant.is_empty(), FLAG_TENANT)
            | flag(!self.configuration_set.is_empty(), FLAG_CONFIGURATION_SET)
            | flag(self.tls_required, FLAG_TLS_REQUIRED)
    }

    fn more_flags(&self) -> u8 {
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        flag(!self.identity.is_empty(), FLAG_IDENTITY)
            | flag(!self.return_path_domain.is_empty(), FLAG_RETURN_PATH_DOMAIN)
            | flag(self.return_path_per_message, FLAG_RETURN_PATH_PER_MESSAGE)
            | flag(self.recipient_headers, FLAG_RECIPIENT_HEADERS)
            | flag(!self.pool.is_empty(), FLAG_POOL)
            | flag(self.priority != 0, FLAG_PRIORITY)
            | flag(self.prefers_warming, FLAG_PREFERS_WARMING)
            | flag(self.set_warms_up, FLAG_SET_WARMS_UP)
    }
}

impl RecipientEntry {
    fn encoded_len_hint(&self) -> usize {
        let orcpt = self.orcpt.as_ref().map_or(0, |(kind, address)| kind.len() + address.len());
        1 + 4 * VARINT_BYTES_MAX + self.address.len() + orcpt
    }

    fn put(&self, out: &mut Vec<u8>) {
        let notify = self.notify.map_or(0, |bits| {
            assert!(bits <= RECIPIENT_NOTIFY_BITS, "NOTIFY bits {bits} are above 7");
            bits | RECIPIENT_NOTIFY
        });
        out.push(notify | if self.orcpt.is_some() { RECIPIENT_ORCPT } else { 0 });
        put_varint(out, u64::from(self.domain_index));
        put_text(out, &self.address);
        if let Some((kind, address)) = &self.orcpt {
            put_text(out, kind);
            put_text(out, address);
        }
    }

    fn take(fields: &mut Fields<'_>, domains: usize) -> Result<Self, FormatError> {
        let flags = fields.byte("recipient flags")?;
        let bits = flags & RECIPIENT_NOTIFY_BITS;
        let notify = (flags & RECIPIENT_NOTIFY != 0).then_some(bits);
        if flags & !RECIPIENT_FLAGS_KNOWN != 0 || (notify.is_none() && bits != 0) {
            return Err(fields.out_of_range("recipient flags"));
        }
        let domain_index = fields.varint_u16("domain_index")?;
        if usize::from(domain_index) >= domains {
            return Err(fields.out_of_range("domain_index"));
        }
        let address = fields.string("address")?;
        let orcpt = if flags & RECIPIENT_ORCPT == 0 {
            None
        } else {
            Some((fields.string("orcpt type")?, fields.string("orcpt address")?))
        };
        Ok(Self { address, domain_index, notify, orcpt })
    }
}

//! From the header block that a client sent to the one that goes out (RFC 5321 §4.4, §7.6; RFC 6409 §8).
//!
//! Prepends `Received`; appends `Date` and `Message-ID` where they are missing or blank, or are to be replaced; strips `Bcc`,
//! `Resent-Bcc`, `Return-Path` and `X-SES-*`; nothing else is added. Wants one author: a `From` with one address. Repairs what cannot be meant otherwise: white space before a
//! colon, folds of only white space, header lines above 998 octets (folded at white space), an mbox line in front, a
//! missing empty line. Promises: the body is not touched; what comes out has CRLF line ends only, no line above 998
//! octets, and ends with the one empty line; everything else is a [`Refusal`]. Does not: look at the body, or sign.

use std::net::IpAddr;

use super::claims::Claims;
use super::control::Control;
use super::encode;
use super::fold::{LINE_BYTES_MAX, Lines, fold, trim_start};
use super::header::{End, Field, Fields, Known, Single};
use super::original::{Collector, OriginalHeaders};
use super::received;
use crate::types::{EnhancedStatus, Envelope, MessageId, Reply, ReplyCode, ReversePath, Timestamp};

/// Fields of one header. Above: 554 5.6.0. The largest seen in the wild have a few hundred.
const FIELDS_MAX: usize = 2_000;
/// About what is added: `Received`, `Date`, `Message-ID`. Only sizes the buffer.
const ADDED_BYTES: usize = 640;
/// Octets of a field's name that a refusal shows.
const SHOWN_NAME_BYTES_MAX: usize = 64;

/// What is known of a message besides its octets.
#[derive(Clone, Debug)]
pub struct Context<'a> {
    /// Stands in `Received` and in a generated `Message-ID`.
    pub id: MessageId,
    /// When the message was accepted: the time in `Received` and in a generated `Date`.
    pub accepted_at: Timestamp,
    /// Our name.
    pub hostname: &'a str,
    /// Who submitted it; `None` hides the client.
    pub client: Option<Client<'a>>,
    /// The keyword after `with`: `SMTP`, `ESMTP`, `ESMTPS`, `ESMTPSA`, `UTF8SMTPS` and so on (RFC 3848, RFC 6531 §4.3).
    pub protocol: &'a str,
    /// Protocol version and cipher for a comment, such as `TLSv1.3 TLS_AES_256_GCM_SHA384`; `None` without TLS.
    pub tls: Option<&'a str>,
    /// Its recipient stands in `Received` if it is the only one.
    pub envelope: &'a Envelope,
    /// `Received` fields that a submitted message may have.
    pub hops_max: usize,
    /// What to do with header fields that hold octets above 127.
    pub eight_bit: EightBitHeaders,
    /// What becomes of a `Date` that came.
    pub date: Submitted,
    /// What becomes of a `Message-ID` that came.
    pub message_id: Submitted,
    /// What `From` must be.
    pub from: FromRule,
}

/// What `From` must be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FromRule {
    /// One field with one address that can be read: what DMARC judges by (RFC 7489 §6.6.1).
    #[default]
    Require,
    /// The same; a message without the field gets one with the envelope sender.
    Add,
    /// Not looked at, but for being there once at most.
    Any,
}

/// What becomes of a field that a client wrote and we could write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Submitted {
    /// It stays.
    #[default]
    Keep,
    /// Ours takes its place, as SES does it.
    Replace,
}

/// What becomes of header fields with octets above 127 that came without SMTPUTF8.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EightBitHeaders {
    /// Made 7-bit (RFC 2047, RFC 2231), so that any host can carry them; in an address: 550 5.6.7.
    Encode,
    /// 550 5.6.7.
    Refuse,
    /// Passed on as they came.
    Pass,
}

/// The client, as `Received` shows it.
#[derive(Clone, Copy, Debug)]
pub struct Client<'a> {
    /// Where it connected from.
    pub address: IpAddr,
    /// What it said in EHLO or HELO; any text.
    pub helo: &'a str,
}

/// A stamped message.
#[derive(Clone, Debug)]
pub struct Stamped {
    /// Takes the place of the input: the new header, its empty line, and, as they were, the octets that followed the
    /// header within the input.
    pub block: Vec<u8>,
    /// Octets of the new header in `block`, the empty line included.
    pub header_bytes: usize,
    /// No octet above 127 in the header. Where it is false, only an SMTPUTF8 path (RFC 6531) may carry it as it is.
    pub header_is_ascii: bool,
    /// What the control fields asked for.
    pub control: Control,
    /// Whom it says it is from.
    pub claims: Claims,
    /// For events.
    pub original: OriginalHeaders,
    /// Why `From` is not what [`Context::from`] asks for. Apart from other refusals, so that who may not send as anybody in
    /// there is told that first.
    pub author: Result<(), Refusal>,
}

/// Why a message is refused. [`Refusal::reply`] is the answer to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A mail loop (RFC 5321 §6.3).
    #[error("Too many hops: {hops} Received fields, {limit} are allowed. This message is in a mail loop")]
    TooManyHops {
        /// Counted up to the limit plus one.
        hops: usize,
        /// The setting.
        limit: usize,
    },
    /// A field that may stand once stands twice (RFC 5322 §3.6).
    #[error("Transaction failed: Duplicate header '{0}'.")]
    Repeated(&'static str),
    /// No `From`, or no address in it (RFC 5322 §3.6.2).
    #[error("Transaction failed: Missing '{0}' header.")]
    Missing(&'static str),
    /// Not one author whose address can be read: DMARC judges by it (RFC 7489 §6.6.1).
    #[error("Transaction failed: Header 'From' must have exactly one valid address.")]
    Author,
    /// A line above 998 octets without white space to fold at.
    #[error("Header '{field}' has a line of more than 998 octets that cannot be folded")]
    LineTooLong {
        /// The name of the field, cut.
        field: String,
    },
    /// A CR or LF that is not part of a CRLF, or a NUL.
    #[error("Header has a bare CR, a bare LF or a NUL")]
    ControlCharacter,
    /// Octets above 127 that may not stand there, or cannot be encoded.
    #[error("Header '{field}' has 8-bit characters: encode them (RFC 2047), or use SMTPUTF8")]
    EightBit {
        /// The name of the field, cut.
        field: String,
    },
    /// More than 2,000 fields.
    #[error("Header has more than {FIELDS_MAX} fields")]
    TooManyFields,
}

impl Refusal {
    /// The reply to the final dot.
    pub fn reply(&self) -> Reply {
        let (code, subject, detail) = match self {
            Refusal::TooManyHops { .. } => (554, 4, 6),
            Refusal::Repeated(_) | Refusal::TooManyFields | Refusal::Missing(_) | Refusal::Author => (554, 6, 0),
            Refusal::EightBit { .. } => (550, 6, 7),
            Refusal::LineTooLong { .. } | Refusal::ControlCharacter => (550, 6, 11),
        };
        let code = ReplyCode::new(code).expect("550 and 554 are reply codes");
        Reply::new(code, EnhancedStatus::new(5, subject, detail), vec![self.to_string().into()])
    }
}

/// Stamps a message. `block` holds its header with CRLF line ends, up to and including the empty line, or the whole
/// message where there is none; more may follow and is passed through. Linear in the header.
pub fn stamp(block: &[u8], context: &Context<'_>) -> Result<Stamped, Refusal> {
    let id = context.id.to_string();
    let date = context.accepted_at.to_rfc5322();
    let mut pass = Pass {
        out: Vec::with_capacity(block.len() + ADDED_BYTES),
        seen: 0,
        fields: 0,
        hops: 0,
        hops_max: context.hops_max,
        eight_bit: context.eight_bit,
        date: context.date,
        message_id: context.message_id,
        control: Control::default(),
        claims: Claims::default(),
        collector: Collector::default(),
    };
    received::write(&mut pass.out, context, &id, &date);
    let mut fields = Fields::new(block);
    for field in fields.by_ref() {
        pass.take(&field)?;
    }
    let body = body_of(&fields)?;
    let author = pass.author(context);

    let has_date = pass.has(Single::Date);
    if !has_date {
        pass.append("Date", &date);
    }
    let message_id = (!pass.has(Single::MessageId)).then(|| format!("<{id}@{}>", context.hostname));
    if let Some(message_id) = &message_id {
        pass.append("Message-ID", message_id);
    }
    let Pass { mut out, control, claims, collector, .. } = pass;
    out.extend_from_slice(b"\r\n");
    let header_bytes = out.len();
    let header_is_ascii = out.is_ascii();
    out.extend_from_slice(body);
    let original = collector.finish((!has_date).then_some(date.as_str()), message_id.as_deref());
    Ok(Stamped { block: out, header_bytes, header_is_ascii, control, claims, original, author })
}

/// What follows the header, without the empty line.
fn body_of<'a>(fields: &Fields<'a>) -> Result<&'a [u8], Refusal> {
    match fields.end() {
        End::EmptyLine => fields.rest().strip_prefix(b"\r\n").ok_or(Refusal::ControlCharacter),
        End::Body | End::Input => Ok(fields.rest()),
    }
}

/// The state of one pass over the fields.
struct Pass {
    out: Vec<u8>,
    /// [`Single::bit`] of the fields met.
    seen: u16,
    fields: usize,
    hops: usize,
    hops_max: usize,
    eight_bit: EightBitHeaders,
    date: Submitted,
    message_id: Submitted,
    control: Control,
    claims: Claims,
    collector: Collector,
}

impl Pass {
    /// Judges `From`.
    fn author(&mut self, context: &Context<'_>) -> Result<(), Refusal> {
        let adds = context.from == FromRule::Add && !self.has(Single::From);
        match (&self.claims.from[..], &context.envelope.reverse_path) {
            _ if context.from == FromRule::Any => Ok(()),
            ([Ok(_)], _) => Ok(()),
            ([], ReversePath::Mailbox(sender)) if adds && sender.as_str().is_ascii() => {
                let field = format!("From: <{sender}>\r\n");
                Fields::new(field.as_bytes()).try_for_each(|field| self.take(&field))
            }
            ([], _) if !self.has(Single::From) => Err(Refusal::Missing(Single::From.name())),
            _ => Err(Refusal::Author),
        }
    }

    fn has(&self, single: Single) -> bool {
        self.seen & single.bit() != 0
    }

    fn append(&mut self, name: &str, value: &str) {
        for part in [name, ": ", value, "\r\n"] {
            self.out.extend_from_slice(part.as_bytes());
        }
    }

    /// Judges one field, then writes it or drops it.
    fn take(&mut self, field: &Field<'_>) -> Result<(), Refusal> {
        self.fields += 1;
        if self.fields > FIELDS_MAX {
            return Err(Refusal::TooManyFields);
        }
        let known = field.known();
        self.claims.add(field, known);
        if known == Known::Stripped {
            return Ok(());
        }
        self.collector.add(field, known);
        match known {
            Known::Control => {
                self.control.add(field);
                return Ok(());
            }
            Known::Received => self.count_hop()?,
            // Blank ones say nothing: they are replaced.
            Known::Single(Single::Date | Single::MessageId) if field.value().is_empty() => return Ok(()),
            Known::Single(Single::Date) if self.date == Submitted::Replace => return Ok(()),
            Known::Single(Single::MessageId) if self.message_id == Submitted::Replace => return Ok(()),
            Known::Single(single) if self.has(single) => return Err(Refusal::Repeated(single.name())),
            Known::Single(single) => self.seen |= single.bit(),
            Known::Stripped | Known::Other => {}
        }
        if self.eight_bit == EightBitHeaders::Pass || field.raw().is_ascii() {
            return write_field(&mut self.out, field);
        }
        let refusal = || Refusal::EightBit { field: shown_name(field) };
        let encode = self.eight_bit == EightBitHeaders::Encode && field.name().is_ascii();
        let value = if encode { encode::encode(field) } else { None }.ok_or_else(refusal)?;
        // What is no line of its own is judged as ever.
        for line in Lines::of(field.raw()) {
            line.map_err(|_| Refusal::ControlCharacter)?;
        }
        let lines = [field.name(), b": ", &value].concat();
        for line in Lines::of(&lines) {
            let line = line.map_err(|_| Refusal::ControlCharacter)?;
            fold(&mut self.out, line).ok_or_else(|| Refusal::LineTooLong { field: shown_name(field) })?;
        }
        Ok(())
    }

    fn count_hop(&mut self) -> Result<(), Refusal> {
        self.hops += 1;
        if self.hops > self.hops_max {
            return Err(Refusal::TooManyHops { hops: self.hops, limit: self.hops_max });
        }
        Ok(())
    }
}

/// Appends a field as it is, or repaired where it is not clean.
fn write_field(out: &mut Vec<u8>, field: &Field<'_>) -> Result<(), Refusal> {
    let mut clean = !field.has_space_before_colon();
    for line in Lines::of(field.raw()) {
        let line = line.map_err(|_| Refusal::ControlCharacter)?;
        clean &= line.len() <= LINE_BYTES_MAX && !trim_start(line).is_empty();
    }
    if !clean {
        return write_repaired(out, field);
    }
    out.extend_from_slice(field.raw());
    if !field.raw().ends_with(b"\n") {
        out.extend_from_slice(b"\r\n");
    }
    Ok(())
}

fn write_repaired(out: &mut Vec<u8>, field: &Field<'_>) -> Result<(), Refusal> {
    // The first line is written anew, so that nothing stands between name and colon.
    let value = [field.name(), b":", field.after_colon()].concat();
    for line in Lines::of(&value) {
        let line = line.map_err(|_| Refusal::ControlCharacter)?;
        if !trim_start(line).is_empty() {
            fold(out, line).ok_or_else(|| Refusal::LineTooLong { field: shown_name(field) })?;
        }
    }
    Ok(())
}

fn shown_name(field: &Field<'_>) -> String {
    let name = field.name();
    String::from_utf8_lossy(name.get(..SHOWN_NAME_BYTES_MAX).unwrap_or(name)).into_owned()
}

#[cfg(test)]
#[path = "stamp_tests.rs"]
mod tests;

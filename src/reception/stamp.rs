//! The port to what completes a header block: `message` and `events` stand behind it, put together by `daemon`.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use super::settings::Settings;
use crate::admission::{Authority, Directory, Grant};
use crate::events::EventLine;
use crate::message::dkim::Signer;
use crate::types::{Envelope, MessageId, Reply, Timestamp};

/// TLS of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    /// Such as `TLSv1.3`.
    pub version: &'static str,
    /// Such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: Box<str>,
}

/// What is known of a message when its header block is complete.
#[derive(Clone, Copy, Debug)]
pub struct StampContext<'a> {
    /// Its id.
    pub id: MessageId,
    /// Its time of acceptance: that of the id.
    pub accepted_at: Timestamp,
    /// Who sent it; IPv4-mapped IPv6 already unmapped.
    pub client: IpAddr,
    /// What the client called itself: only letters, digits, `.-_:[]?`; never empty.
    pub helo: &'a str,
    /// TLS, if any.
    pub tls: Option<&'a TlsInfo>,
    /// `with` of the Received field (RFC 3848, RFC 6531 §4.3).
    pub protocol: &'static str,
    /// The envelope.
    pub envelope: &'a Envelope,
    /// Who submitted it, as admitted.
    pub grant: &'a Grant,
    /// Who is who.
    pub directory: &'a Directory,
    /// Our name, hops, whether to show the client.
    pub settings: &'a Settings,
}

/// A header block that is ready to be sent.
#[derive(Clone, Debug)]
pub struct StampedHeader {
    /// The header block with its empty line. CRLF line ends.
    pub bytes: Bytes,
    /// The header block itself needs SMTPUTF8 (RFC 6531); the client's having asked for it is not enough.
    pub needs_smtputf8: bool,
    /// No octet above 127 in it.
    pub header_is_ascii: bool,
    /// The `mail` object of every event of this message.
    pub mail_json: Bytes,
    /// The `Send` event.
    pub send_event: EventLine,
    /// As what it is sent.
    pub authority: Authority,
    /// Who signs it, in the order of the signatures.
    pub signers: Vec<Arc<Signer>>,
    /// Fields that each recipient has for itself, with their line ends; empty: none.
    pub own_fields: Vec<Bytes>,
}

/// Completes header blocks: Received, Date, Message-ID in; Bcc, Return-Path out; loops, doubled fields and senders that are not
/// the caller's refused.
pub trait Stamp: Send + Sync + 'static {
    /// Whether anything is signed at all: then bodies are hashed as they arrive.
    fn may_sign(&self) -> bool;

    /// Whether [`Stamp::stamp`] would refuse; for messages that are large, before all of them is there.
    fn judge(&self, raw: &[u8], context: &StampContext<'_>) -> Result<(), Reply>;

    /// `raw` are the header fields as they came; with CRLF line ends, no NUL, within the limits. The reply is given to the client where the message is refused. Called on
    /// the session's task: must not block.
    fn stamp(&self, raw: &[u8], context: &StampContext<'_>) -> Result<StampedHeader, Reply>;
}

//! The port to what completes a header block: `message` and `events` stand behind it, put together by `daemon`.

use std::net::IpAddr;

use bytes::Bytes;

use super::settings::Settings;
use crate::admission::{Authority, Directory, Grant};
use crate::events::EventLine;
use crate::message::{Claims, Control};
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
    /// The envelope. Of a message above 1 MiB, `body` is what the client declared; else what the octets are.
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
    /// In place of all the octets that were given: the header block with its empty line, and body octets behind it where
    /// the given ones had some (lines that are no header fields). CRLF line ends.
    pub bytes: Bytes,
    /// Octets of the header block within `bytes`, with its empty line.
    pub header_bytes: u32,
    /// The header block itself needs SMTPUTF8 (RFC 6531); the client's having asked for it is not enough.
    pub needs_smtputf8: bool,
    /// The `mail` object of every event of this message.
    pub mail_json: Bytes,
    /// The `Send` event.
    pub send_event: EventLine,
    /// As what it is sent.
    pub authority: Authority,
    /// Whom it says it is from.
    pub claims: Claims,
    /// What its control fields ask for.
    pub control: Control,
}

/// Completes header blocks: Received, Date, Message-ID in; Bcc, Return-Path out; loops, doubled fields and senders that are not
/// the caller's refused.
pub trait Stamp: Send + Sync + 'static {
    /// `raw` are the octets up to and including the first empty line, or the whole message where it has none; with CRLF
    /// line ends, no NUL, within the limits. The reply is given to the client where the message is refused. Called on
    /// the session's task: must not block.
    fn stamp(&self, raw: &[u8], context: &StampContext<'_>) -> Result<StampedHeader, Reply>;
}

//! What this server itself writes to the sender of a message, as a message of the queue: one recipient, the null reverse-path, so that
//! nothing ever comes back; nobody pays for it; no tenant's, so that it is not remembered, and no report is ever resolved against it.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;

use super::intake::{Charges, Ended, NewBody, NewMessage, Origin};
use crate::events::schema::{self, CommonHeaders, Extras, Mail, MailObject};
use crate::types::{BodyKind, EmailAddress, Envelope, MessageId, Notify, PoolName, Recipient, ReversePath};

/// `callerIdentity` of what we write.
const CALLER: &str = "posthaste";

/// A message of ours. Its octets are from MAILER-DAEMON at `hostname`, of the time of `id`.
#[derive(Debug)]
pub struct Notice<'a> {
    /// Its id.
    pub id: MessageId,
    /// The sender of the message that it is about.
    pub to: &'a EmailAddress,
    /// Header, empty line and body; CRLF line ends, ending in CRLF, at most [`SPOOL_PART_BYTES`](super::intake::SPOOL_PART_BYTES).
    pub octets: Vec<u8>,
    /// Octets of the header, the empty line included.
    pub header_bytes: usize,
    /// Whether octets above 127 occur in the body.
    pub body: BodyKind,
    /// Only an SMTPUTF8 path can carry it.
    pub smtputf8: bool,
    /// Our name.
    pub hostname: &'a str,
    /// That of the message that it is about.
    pub pool: &'a PoolName,
    /// How long it may be retried.
    pub lifetime: Duration,
}

impl Notice<'_> {
    /// For the batch of what it tells of.
    pub fn into_message(self) -> NewMessage {
        let id = self.id;
        let envelope = Envelope {
            reverse_path: ReversePath::Null,
            recipients: vec![Recipient { address: self.to.clone(), notify: Some(Notify::NEVER), orcpt: None }],
            body: self.body,
            smtputf8: self.smtputf8,
            ret: None,
            envid: None,
        };
        let from = [format!("MAILER-DAEMON@{}", self.hostname)];
        let to = [self.to.to_string()];
        let date = id.accepted_at().to_rfc5322();
        let mail_json = schema::render_mail(&MailObject {
            message_id: id,
            source: &envelope.reverse_path,
            source_ip: None,
            caller_identity: CALLER,
            destination: &envelope.recipients,
            headers: &[],
            headers_truncated: false,
            common: CommonHeaders { from: &from, to: &to, date: Some(&date), ..CommonHeaders::default() },
            tags: &BTreeMap::new(),
            from_domain: Some(self.hostname),
            configuration_set: None,
            source_tls: None,
        });
        let send_event = schema::send(Mail { id, json: &mail_json }, &Extras::default());
        NewMessage {
            id,
            envelope,
            body: NewBody::Inline(Bytes::from(self.octets)),
            header_bytes: u32::try_from(self.header_bytes).unwrap_or(u32::MAX),
            recipient_headers: Vec::new(),
            mail_json,
            send_event,
            origin: Origin { caller: CALLER.into(), pool: self.pool.clone(), ..Origin::default() },
            lifetime: self.lifetime,
            charges: Charges::default(),
            ended: Ended::default(),
        }
    }
}

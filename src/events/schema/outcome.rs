//! One line an event: `mail` as it was rendered, then what happened, then our own additions.

use std::net::IpAddr;

use super::Mail;
use crate::events::json::Object;
use crate::events::{EventKind, EventLine};
pub use crate::types::BounceKind;
use crate::types::{DelayType, EnhancedStatus, MessageId, Reply, Timestamp};

/// What a `mail` object ends with: the end of the last tag's values, of the tags and of the object.
const MAIL_END: &[u8] = b"]}}";

/// Our additions, in `posthaste`. What is `None` is left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The site: what limits were keyed by.
    pub site: Option<&'a str>,
    /// The recipients' domain.
    pub domain: Option<&'a str>,
    /// Local address of the connection; also the tag `ses:outgoing-ip` of a Delivery.
    pub source: Option<IpAddr>,
    /// Pool of the source.
    pub pool: Option<&'a str>,
    /// Number of the attempt, from 1.
    pub attempt: Option<u32>,
    /// Name of the rule that classified the reply.
    pub rule: Option<&'a str>,
    /// Class that the rule gave.
    pub class: Option<&'a str>,
    /// Enhanced status of the reply, or the one that we gave it.
    pub enhanced_code: Option<EnhancedStatus>,
    /// An earlier attempt may have delivered (an unclean stop or no reply after the final dot).
    pub ambiguous: bool,
    /// Whom it is about, where SES's part of the event has no place for it.
    pub recipient: Option<&'a str>,
    /// TLS version of the connection, such as `TLSv1.3`; also the tag `ses:outgoing-tls-version` of a Delivery.
    pub tls: Option<&'a str>,
}

/// `delivery`.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryInfo<'a> {
    /// When the final reply came. A clock that went back is taken for the time of acceptance.
    pub at: Timestamp,
    /// Whom this reply was for.
    pub recipients: &'a [&'a str],
    /// The raw final reply on one line.
    pub smtp_response: &'a str,
    /// The MX host's address.
    pub remote_mta_ip: IpAddr,
    /// EHLO name of the sending address.
    pub reporting_mta: &'a str,
}

/// `bounce`.
#[derive(Clone, Copy, Debug)]
pub struct BounceInfo<'a> {
    /// When it was decided.
    pub at: Timestamp,
    /// Type and subtype.
    pub kind: BounceKind,
    /// Whom it is about.
    pub recipients: &'a [BouncedRecipient<'a>],
    /// Unique; [`feedback_id`] makes one.
    pub feedback_id: &'a str,
    /// The MX host that refused, where one did.
    pub remote_mta_ip: Option<IpAddr>,
    /// Host name of the MTA whose report this is; `dns; ` is put before it.
    pub reporting_mta: Option<&'a str>,
}

/// One of `bouncedRecipients`.
#[derive(Clone, Copy, Debug)]
pub struct BouncedRecipient<'a> {
    /// As submitted.
    pub email_address: &'a str,
    /// `failed`, where known (RFC 3464 §2.3.3).
    pub action: Option<&'a str>,
    /// Where known (RFC 3464 §2.3.4).
    pub status: Option<EnhancedStatus>,
    /// Where known (RFC 3464 §2.3.6): `smtp; 550 5.1.1 No such user`; [`diagnostic_code`] makes one of a reply.
    pub diagnostic_code: Option<&'a str>,
}

/// `complaint`.
#[derive(Clone, Copy, Debug)]
pub struct ComplaintInfo<'a> {
    /// When it was decided.
    pub at: Timestamp,
    /// Whom it is about.
    pub recipients: &'a [&'a str],
    /// Unique; [`feedback_id`] makes one.
    pub feedback_id: &'a str,
    /// `None`: nobody complains of this message; the address is on a suppression list for a complaint.
    pub report: Option<ComplaintReport<'a>>,
}

/// What the report of a complaint says (RFC 5965).
#[derive(Clone, Copy, Debug, Default)]
pub struct ComplaintReport<'a> {
    /// The program that made it.
    pub user_agent: Option<&'a str>,
    /// As SES spells the types: `abuse`, `auth-failure`, `fraud`, `not-spam`, `other`, `virus`.
    pub feedback_type: Option<&'a str>,
    /// When the receiver got the message.
    pub arrived_at: Option<Timestamp>,
}

/// `deliveryDelay`.
#[derive(Clone, Copy, Debug)]
pub struct DelayInfo<'a> {
    /// When it was noticed.
    pub at: Timestamp,
    /// Why.
    pub delay_type: DelayType,
    /// Whom it is about.
    pub recipients: &'a [DelayedRecipient<'a>],
    /// When we give up.
    pub expires_at: Timestamp,
    /// The MTA that reported the delay: address or host name, where one did.
    pub reporting_mta: Option<&'a str>,
}

/// One of `delayedRecipients`.
#[derive(Clone, Copy, Debug)]
pub struct DelayedRecipient<'a> {
    /// As submitted.
    pub email_address: &'a str,
    /// Where known.
    pub status: Option<EnhancedStatus>,
    /// Where known; as in [`BouncedRecipient`].
    pub diagnostic_code: Option<&'a str>,
}

/// `diagnosticCode` of a reply in the session (RFC 3464 §2.3.6).
pub fn diagnostic_code(reply: &Reply) -> String {
    format!("smtp; {reply}")
}

/// `feedbackId` of the bounce of one recipient: the message id and the recipient's position in the envelope.
pub fn feedback_id(message: MessageId, recipient_index: u32) -> String {
    format!("{message}-{recipient_index}")
}

/// The message was accepted.
pub fn send(mail: Mail<'_>, extras: &Extras<'_>) -> EventLine {
    let mut out = start(EventKind::Send, mail, None, 0);
    out.extend_from_slice(b",\"send\":{}");
    finish(EventKind::Send, out, extras)
}

/// The recipients' server took the message.
pub fn delivery(mail: Mail<'_>, info: &DeliveryInfo<'_>, extras: &Extras<'_>) -> EventLine {
    let accepted_at = mail.id.accepted_at();
    let delivered_at = info.at.max(accepted_at);
    let mut out = start(EventKind::Delivery, mail, Some(extras), info.smtp_response.len());
    let mut object = Object::resume(&mut out);
    object.object("delivery", |object| {
        object.plain("timestamp", delivered_at);
        object.number("processingTimeMillis", delivered_at.millis() - accepted_at.millis());
        object.strings("recipients", info.recipients.iter().copied());
        object.string("smtpResponse", info.smtp_response);
        object.plain("remoteMtaIp", info.remote_mta_ip);
        object.string("reportingMTA", info.reporting_mta);
    });
    finish(EventKind::Delivery, out, extras)
}

/// The message will not be delivered to these recipients.
pub fn bounce(mail: Mail<'_>, info: &BounceInfo<'_>, extras: &Extras<'_>) -> EventLine {
    let text_bytes = info.recipients.iter().map(|recipient| recipient.diagnostic_code.map_or(64, str::len)).sum();
    let mut out = start(EventKind::Bounce, mail, None, text_bytes);
    let mut object = Object::resume(&mut out);
    let (bounce_type, bounce_sub_type) = info.kind.names();
    object.object("bounce", |object| {
        object.string("bounceType", bounce_type);
        object.string("bounceSubType", bounce_sub_type);
        object.objects("bouncedRecipients", info.recipients, |object, recipient| {
            object.string("emailAddress", recipient.email_address);
            object.optional("action", recipient.action);
            status(object, "status", recipient.status);
            object.optional("diagnosticCode", recipient.diagnostic_code);
        });
        object.plain("timestamp", info.at);
        object.string("feedbackId", info.feedback_id);
        if let Some(ip) = info.remote_mta_ip {
            object.plain("remoteMtaIp", ip);
        }
        if let Some(host) = info.reporting_mta {
            object.string("reportingMTA", &format!("dns; {host}"));
        }
    });
    finish(EventKind::Bounce, out, extras)
}

/// These recipients complain; or the message was not sent to them, since they complained before: `OnAccountSuppressionList`.
pub fn complaint(mail: Mail<'_>, info: &ComplaintInfo<'_>, extras: &Extras<'_>) -> EventLine {
    let user_agent_bytes = info.report.and_then(|report| report.user_agent).map_or(0, str::len);
    let mut out = start(EventKind::Complaint, mail, None, 192 + user_agent_bytes);
    let mut object = Object::resume(&mut out);
    object.object("complaint", |object| {
        object.objects("complainedRecipients", info.recipients, |object, address| {
            object.string("emailAddress", address);
        });
        object.plain("timestamp", info.at);
        object.string("feedbackId", info.feedback_id);
        let Some(report) = info.report else {
            object.string("complaintSubType", "OnAccountSuppressionList");
            return;
        };
        object.null("complaintSubType");
        object.optional("userAgent", report.user_agent);
        object.optional("complaintFeedbackType", report.feedback_type);
        if let Some(at) = report.arrived_at {
            object.plain("arrivalDate", at);
        }
    });
    finish(EventKind::Complaint, out, extras)
}

/// The message still waits for these recipients.
pub fn delivery_delay(mail: Mail<'_>, info: &DelayInfo<'_>, extras: &Extras<'_>) -> EventLine {
    let text_bytes = info.recipients.iter().map(|recipient| recipient.diagnostic_code.map_or(64, str::len)).sum();
    let mut out = start(EventKind::DeliveryDelay, mail, None, text_bytes);
    let mut object = Object::resume(&mut out);
    object.object("deliveryDelay", |object| {
        object.plain("timestamp", info.at);
        object.string("delayType", info.delay_type.name());
        object.plain("expirationTime", info.expires_at);
        object.optional("reportingMTA", info.reporting_mta);
        object.objects("delayedRecipients", info.recipients, |object, recipient| {
            object.string("emailAddress", recipient.email_address);
            status(object, "status", recipient.status);
            object.optional("diagnosticCode", recipient.diagnostic_code);
        });
    });
    finish(EventKind::DeliveryDelay, out, extras)
}

/// The type and the `mail` object; where `outgoing` is given, with the tags that name the way out.
pub(super) fn start(kind: EventKind, mail: Mail<'_>, outgoing: Option<&Extras<'_>>, text_bytes: usize) -> Vec<u8> {
    let mut out = Vec::with_capacity(mail.json.len() + text_bytes + 1_024);
    out.extend_from_slice(b"{\"eventType\":\"");
    out.extend_from_slice(kind.name().as_bytes());
    out.extend_from_slice(b"\",\"mail\":");
    let head = mail.json.strip_suffix(MAIL_END);
    match (head, outgoing) {
        (Some(head), Some(extras)) => {
            out.extend_from_slice(head);
            out.push(b']');
            outgoing_tags(&mut out, extras);
            out.extend_from_slice(b"}}");
        }
        _ => out.extend_from_slice(mail.json),
    }
    out
}

fn outgoing_tags(out: &mut Vec<u8>, extras: &Extras<'_>) {
    let mut object = Object::resume(out);
    if let Some(ip) = extras.source {
        object.plain_single("ses:outgoing-ip", ip);
    }
    if let Some(tls) = extras.tls {
        object.strings("ses:outgoing-tls-version", [tls]);
    }
}

/// Our part, and the end of the line.
pub(super) fn finish(kind: EventKind, mut out: Vec<u8>, extras: &Extras<'_>) -> EventLine {
    out.extend_from_slice(b",\"posthaste\":{\"eventId\":");
    let id_at = u32::try_from(out.len()).expect("headers and recipients are limited far below 4 GiB");
    let mut object = Object::resume(&mut out);
    object.optional("site", extras.site);
    object.optional("domain", extras.domain);
    if let Some(ip) = extras.source {
        object.plain("source", ip);
    }
    object.optional("recipient", extras.recipient);
    object.optional("pool", extras.pool);
    if let Some(attempt) = extras.attempt {
        object.number("attempt", attempt.into());
    }
    object.optional("rule", extras.rule);
    object.optional("class", extras.class);
    status(&mut object, "enhancedCode", extras.enhanced_code);
    if extras.ambiguous || extras.attempt.is_some() {
        object.boolean("ambiguous", extras.ambiguous);
    }
    object.optional("tls", extras.tls);
    out.extend_from_slice(b"}}");
    EventLine { kind, json: out.into(), id_at }
}

fn status(object: &mut Object<'_>, name: &'static str, value: Option<EnhancedStatus>) {
    if let Some(value) = value {
        object.plain(name, value);
    }
}

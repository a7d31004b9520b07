//! Renders events to the letter of SES's event records, one JSON object each.
//!
//! The `mail` object is the same in every event of a message, and the longest part: [`render_mail`] writes it once, at
//! acceptance, and it is kept with the message. [`send`], [`delivery`], [`bounce`], [`complaint`] and
//! [`delivery_delay`] copy it into a line and add their own part and ours (`posthaste`). A Delivery also names the way out in the tags; for that, `tags` is
//! the last member of the object and never empty, so that two tags can be put in before its end.
//!
//! Promises: the lines validate against docs/event.schema.json; text of any kind comes out as it went in; the only
//! occurrence of `"posthaste":{"eventId":` in a line is the one where the id belongs. Does not: cut or clean text.

mod compact;
mod lane;
mod outcome;
mod report;
mod reputation;
#[cfg(test)]
pub(crate) mod samples;
mod subscription;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::Bytes;

use super::json::Object;
use crate::types::{MessageId, Recipient, ReversePath};

pub use crate::types::DelayType;
pub use compact::{COMPACT_BYTES_MAX, compact_mail, whole_mail};
pub use lane::{LaneChange, LaneInfo, lane};
pub use outcome::{
    BounceInfo, BounceKind, BouncedRecipient, ComplaintInfo, ComplaintReport, DelayInfo, DelayedRecipient,
    DeliveryInfo, Extras, bounce, complaint, delivery, delivery_delay, diagnostic_code, feedback_id, send,
};
pub use report::{BroughtBy, DmarcInfo, DmarcPolicyInfo, ReportInfo, TlsInfo, TlsRowInfo, dmarc_row, tls_row};
pub use reputation::{RateInfo, ReputationInfo, reputation};
pub use subscription::{SubscriptionInfo, subscription};

/// What the `mail` object is made of.
#[derive(Clone, Copy, Debug)]
pub struct MailObject<'a> {
    /// The id that the 250 reply names. Its time is `timestamp`.
    pub message_id: MessageId,
    /// Envelope sender as submitted; the null path gives an empty string.
    pub source: &'a ReversePath,
    /// Where the client was; `None` for mail that we made ourselves (notifications).
    pub source_ip: Option<IpAddr>,
    /// Who submitted it: the credential's or the client network's name.
    pub caller_identity: &'a str,
    /// All recipients.
    pub destination: &'a [Recipient],
    /// The original header fields, in order, cut at about 10 KB by who gives them.
    pub headers: &'a [(String, String)],
    /// Whether they were cut.
    pub headers_truncated: bool,
    /// What the well-known fields hold.
    pub common: CommonHeaders<'a>,
    /// Tags of the message, without the auto-tags. Names hold no colon, so that they never meet an auto-tag.
    pub tags: &'a BTreeMap<String, Vec<String>>,
    /// `ses:from-domain`.
    pub from_domain: Option<&'a str>,
    /// `ses:configuration-set`.
    pub configuration_set: Option<&'a str>,
    /// `ses:source-tls-version`, such as `TLSv1.3`; `None` where the client spoke in clear.
    pub source_tls: Option<&'a str>,
}

/// `mail.commonHeaders`; `returnPath` comes from the envelope. Empty lists and absent fields are left out.
#[derive(Clone, Copy, Debug, Default)]
pub struct CommonHeaders<'a> {
    /// Addresses of `From`, with display names.
    pub from: &'a [String],
    /// Of `To`.
    pub to: &'a [String],
    /// Of `Cc`.
    pub cc: &'a [String],
    /// Of `Reply-To`.
    pub reply_to: &'a [String],
    /// `Date` as it stands.
    pub date: Option<&'a str>,
    /// `Message-ID` as it stands.
    pub message_id: Option<&'a str>,
    /// `Subject`, decoded.
    pub subject: Option<&'a str>,
}

/// A message as the events name it: its id, and what [`render_mail`] made of it.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// The id; its time is `mail.timestamp`.
    pub id: MessageId,
    /// The `mail` object.
    pub json: &'a [u8],
}

/// Renders the `mail` object, to be kept with the message.
pub fn render_mail(mail: &MailObject<'_>) -> Bytes {
    let header_bytes: usize = mail.headers.iter().map(|(name, value)| name.len() + value.len() + 32).sum();
    let mut out = Vec::with_capacity(1_024 + header_bytes + 64 * mail.destination.len());
    Object::write(&mut out, |object| {
        object.plain("timestamp", mail.message_id.accepted_at());
        object.plain("messageId", mail.message_id);
        object.string("source", mail.source.as_str());
        if let Some(ip) = mail.source_ip {
            object.plain("sourceIp", ip);
        }
        object.string("callerIdentity", mail.caller_identity);
        object.strings("destination", mail.destination.iter().map(|recipient| recipient.address.as_str()));
        object.boolean("headersTruncated", mail.headers_truncated);
        object.objects("headers", mail.headers, |object, (name, value)| {
            object.string("name", name);
            object.string("value", value);
        });
        object.object("commonHeaders", |object| common_headers(object, mail));
        object.object("tags", |object| tags(object, mail));
    });
    out.into()
}

fn common_headers(object: &mut Object<'_>, mail: &MailObject<'_>) {
    let common = &mail.common;
    for (name, values) in [("from", common.from), ("to", common.to), ("cc", common.cc), ("replyTo", common.reply_to)] {
        if !values.is_empty() {
            object.strings(name, values.iter().map(String::as_str));
        }
    }
    object.string("returnPath", mail.source.as_str());
    object.optional("date", common.date);
    object.optional("messageId", common.message_id);
    object.optional("subject", common.subject);
}

/// Never empty: the last two are always there.
fn tags(object: &mut Object<'_>, mail: &MailObject<'_>) {
    for (name, values) in mail.tags {
        object.foreign_strings(name, values.iter().map(String::as_str));
    }
    if let Some(set) = mail.configuration_set {
        object.strings("ses:configuration-set", [set]);
    }
    if let Some(ip) = mail.source_ip {
        object.plain_single("ses:source-ip", ip);
    }
    if let Some(domain) = mail.from_domain {
        object.strings("ses:from-domain", [domain]);
    }
    if let Some(tls) = mail.source_tls {
        object.strings("ses:source-tls-version", [tls]);
    }
    object.strings("ses:caller-identity", [mail.caller_identity]);
    object.strings("ses:operation", ["SMTP"]);
}

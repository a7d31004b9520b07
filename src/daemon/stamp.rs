//! Completes header blocks for reception: `message` makes the block, `admission` says as what it is sent and who signs it,
//! `events` makes the `mail` object and the `Send` event.

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use super::lint::Lints;
use super::signing::Signatures;
use crate::admission::directory::Name;
use crate::admission::{Authority, Submission, authorize};
use crate::events::audit::AuditLog;
use crate::events::schema::{self, CommonHeaders, Extras, Mail, MailObject};
use crate::feedback::addresses::UNSUBSCRIBE_PREFIX;
use crate::message::Claims;
use crate::message::dkim::Signer;
use crate::message::header;
use crate::message::one_click::{self, OwnFields};
use crate::message::stamp::{self, Client, Context, EightBitHeaders, Refusal, Stamped};
use crate::policy::token::{Addressee, Purpose};
use crate::queue::Granularity;
use crate::reception::{Stamp, StampContext, StampedHeader};
use crate::types::{Clock, Domain, EmailAddress, MessageId, Reply};

/// Makes tokens: of a purpose, for a message and an addressee.
pub type Mint = dyn Fn(Purpose, MessageId, Addressee) -> String + Send + Sync;

/// See the module.
#[derive(Clone)]
pub struct Stamper {
    /// Who signs.
    pub signing: Arc<ArcSwap<Signatures>>,
    /// Tokens of one-click URIs, and of complaint feedback loops.
    pub mint: Arc<Mint>,
    /// Told of mail that receivers will not like.
    pub lints: Arc<Lints>,
}

impl Stamper {
    /// Signs nothing, and tells nobody.
    pub fn plain(mint: Arc<Mint>, clock: Arc<dyn Clock>) -> Self {
        let lints = Arc::new(Lints::new(Arc::new(AuditLog::off(clock))));
        Self { signing: Arc::default(), mint, lints }
    }
}

impl Stamp for Stamper {
    fn may_sign(&self) -> bool {
        !self.signing.load().keyring.is_empty()
    }

    fn judge(&self, raw: &[u8], context: &StampContext<'_>) -> Result<(), Reply> {
        admitted(raw, context).map(drop)
    }

    fn stamp(&self, raw: &[u8], context: &StampContext<'_>) -> Result<StampedHeader, Reply> {
        let (stamped, authority) = admitted(raw, context)?;
        let mail_json = mail_json(&stamped, context, &authority);
        let send_event = schema::send(Mail { id: context.id, json: &mail_json }, &Extras::default());
        let signing = self.signing.load();
        let mut header = stamped.block;
        let own_fields = self.one_click(&mut header, context, &authority);
        if let Some(sender_id) = &signing.sender_id {
            add_feedback_id(&mut header, sender_id, &authority);
        }
        let own_fields = match &signing.cfbl_address {
            Some(address) => {
                self.add_cfbl(&mut header, own_fields, address, context.envelope.recipients.len() == 1, context.id)
            }
            None => own_fields,
        };
        Ok(StampedHeader {
            // Raw 8-bit fields of an old client that never heard of SMTPUTF8 go as they came.
            needs_smtputf8: context.envelope.smtputf8 && !stamped.header_is_ascii,
            header_is_ascii: stamped.header_is_ascii,
            bytes: Bytes::from(header),
            mail_json,
            send_event,
            signers: self.signers(&signing, &stamped.claims, context, &authority),
            authority,
            own_fields,
        })
    }
}

impl Stamper {
    /// Adds what unsubscribes by one click, and by mail, where the configuration set asks for it and the message has no pair. Of several recipients each has
    /// its own, so these come back.
    fn one_click(&self, header: &mut Vec<u8>, context: &StampContext<'_>, authority: &Authority) -> Vec<Bytes> {
        let Some(set) = authority.set.as_deref().filter(|set| set.is_bulk || set.unsubscribe_url.is_some()) else {
            return Vec::new();
        };
        let own = OwnFields::of(header);
        if own.is_pair {
            return Vec::new();
        }
        let url = set.unsubscribe_url.as_deref();
        if url.is_none() {
            self.lints.one_click_missing(context.id, authority, context.accepted_at);
        }
        // An address of the message's own is its application's to look after.
        let by_mail = if own.mailto.is_empty() { unsubscribe_domain(context, authority) } else { None };
        // Without a link of ours, what the message says of itself is better.
        if url.is_none() && (own.any || by_mail.is_none()) {
            return Vec::new();
        }
        if own.any {
            *header = one_click::without(header);
        }
        let fields = |index| {
            let token = (self.mint)(Purpose::Unsubscribe, context.id, Addressee::recipient(index));
            let https = url.map(|url| format!("{url}{token}"));
            let ours = by_mail
                .as_ref()
                .map(|domain| format!("mailto:{UNSUBSCRIBE_PREFIX}{token}@{domain}?subject=unsubscribe"));
            let mailto: Vec<_> = ours.into_iter().chain(own.mailto.iter().cloned()).collect();
            one_click::fields(https.as_deref(), &mailto)
        };
        match context.envelope.recipients.len() {
            1 => {
                append(header, &fields(0));
                Vec::new()
            }
            count => (0..count).map(|index| Bytes::from(fields(index))).collect(),
        }
    }

    /// Where complaints are to be sent, and what they are to quote (RFC 9477 §3): so that one finds its message though the receiver
    /// redacts all addresses. What a message brings stays.
    ///
    /// The token is for one recipient: whoever reads the message could complain for others by one that all of them get. So a message to
    /// several has it only where each has a header of its own (`own_fields`), which come back.
    fn add_cfbl(
        &self,
        header: &mut Vec<u8>,
        own_fields: Vec<Bytes>,
        address: &EmailAddress,
        is_to_one: bool,
        id: MessageId,
    ) -> Vec<Bytes> {
        if header::has(header, "CFBL-Address") {
            return own_fields;
        }
        let token = |index| (self.mint)(Purpose::Complaint, id, Addressee::recipient(index));
        let field = |index| format!("CFBL-Feedback-ID: {}\r\n", token(index));
        append(header, &format!("CFBL-Address: {address}; report=arf\r\n"));
        if is_to_one {
            append(header, &field(0));
        }
        own_fields
            .into_iter()
            .enumerate()
            .map(|(index, own)| [&own[..], field(index).as_bytes()].concat().into())
            .collect()
    }

    fn signers(
        &self,
        signing: &Signatures,
        claims: &Claims,
        context: &StampContext<'_>,
        authority: &Authority,
    ) -> Vec<Arc<Signer>> {
        let Some(Ok(author)) = claims.from.first() else { return signing.keyring.operator_signers() };
        if signing.keyring.is_empty() {
            return Vec::new();
        }
        // Mail of a delegate is signed as the owner of the identity.
        let tenant = authority.identity.as_ref().map_or(&authority.tenant.name, |identity| &identity.tenant);
        let signers = signing.keyring.signers(author.domain(), tenant.as_str(), context.directory);
        let is_aligned =
            signers.iter().any(|signer| author.domain().with_parents().any(|name| name == signer.domain.as_str()));
        if !is_aligned {
            self.lints.unsigned(context.id, author.domain(), authority, context.accepted_at);
        }
        signers
    }
}

/// Where requests to unsubscribe from this message are mailed: to the domain of its return path, whose mail comes home. None where
/// recipients share transactions and nothing else gives each a header of its own.
fn unsubscribe_domain(context: &StampContext<'_>, authority: &Authority) -> Option<Domain> {
    let directory = context.directory;
    let set = authority.set.as_deref();
    let path = directory.return_path(authority.identity.as_deref(), set).filter(|_| directory.unsubscribes_by_mail)?;
    let has_own_headers =
        path.granularity == Granularity::PerRecipient || set.is_some_and(|set| set.unsubscribe_url.is_some());
    has_own_headers.then_some(path.domain)
}

/// The same, as what it is sent; refused where it may not be.
fn admitted(raw: &[u8], context: &StampContext<'_>) -> Result<(Stamped, Authority), Reply> {
    let stamped = complete(raw, context)?;
    let submission = Submission { envelope: context.envelope, claims: &stamped.claims, control: &stamped.control };
    let authority = authorize(context.directory, context.grant, submission).map_err(|denial| {
        tracing::debug!(client = %context.client, caller = %context.grant.caller, %denial, "message denied");
        denial.reply()
    })?;
    stamped.author.as_ref().map_err(Refusal::reply)?;
    Ok((stamped, authority))
}

/// The header block with all that is ours, and what is to be known of it.
fn complete(raw: &[u8], context: &StampContext<'_>) -> Result<Stamped, Reply> {
    let settings = context.settings;
    let tls = context.tls.map(|tls| format!("version={} cipher={}", tls.version, tls.cipher));
    let client = Client { address: context.client, helo: context.helo };
    stamp::stamp(
        raw,
        &Context {
            id: context.id,
            accepted_at: context.accepted_at,
            hostname: &settings.hostname,
            client: settings.received_shows_client.then_some(client),
            protocol: context.protocol,
            tls: tls.as_deref(),
            envelope: context.envelope,
            hops_max: settings.hops_max,
            // A client that asked for SMTPUTF8 may write UTF-8 into its header.
            eight_bit: if context.envelope.smtputf8 { EightBitHeaders::Pass } else { settings.eight_bit_headers },
            date: settings.date,
            message_id: settings.message_id,
            from: settings.from,
        },
    )
    .map_err(|refusal| refusal.reply())
}

/// `Feedback-ID` as Gmail wants it: up to three names, then who sends. What a message brings stays.
fn add_feedback_id(header: &mut Vec<u8>, sender_id: &str, authority: &Authority) {
    if header::has(header, "Feedback-ID") {
        return;
    }
    // Without configured sets a client's text is taken for a name; here only what is one.
    let set = authority.set_name.as_deref().filter(|name| Name::parse(name).is_some()).unwrap_or_default();
    append(header, &format!("Feedback-ID: {set}:{}::{sender_id}\r\n", authority.tenant.name));
}

/// Puts fields behind those of a header block, before its empty line.
fn append(header: &mut Vec<u8>, fields: &str) {
    header.truncate(header.len().saturating_sub(EMPTY_LINE.len()));
    header.extend_from_slice(fields.as_bytes());
    header.extend_from_slice(EMPTY_LINE);
}

const EMPTY_LINE: &[u8] = b"\r\n";

fn mail_json(stamped: &Stamped, context: &StampContext<'_>, authority: &Authority) -> Bytes {
    let original = &stamped.original;
    let mut tags: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in &stamped.control.tags {
        tags.entry(name.clone()).or_default().push(value.clone());
    }
    // Those of the configuration set, where the message does not say otherwise.
    for (name, value) in authority.set.iter().flat_map(|set| &set.tags) {
        tags.entry(name.clone()).or_insert_with(|| vec![value.clone()]);
    }
    let from_domain = original.from.first().and_then(|from| domain_of(from));
    schema::render_mail(&MailObject {
        message_id: context.id,
        source: &context.envelope.reverse_path,
        source_ip: Some(context.client),
        caller_identity: &context.grant.caller,
        destination: &context.envelope.recipients,
        headers: &original.headers,
        headers_truncated: original.truncated,
        common: CommonHeaders {
            from: &original.from,
            to: &original.to,
            cc: &original.cc,
            reply_to: &original.reply_to,
            date: original.date.as_deref(),
            message_id: original.message_id.as_deref(),
            subject: original.subject.as_deref(),
        },
        tags: &tags,
        from_domain,
        configuration_set: authority.set_name.as_deref(),
        source_tls: context.tls.map(|tls| tls.version),
    })
}

/// The domain of `Name <local@domain>` or `local@domain`.
fn domain_of(mailbox: &str) -> Option<&str> {
    let (_, domain) = mailbox.trim_end().trim_end_matches('>').rsplit_once('@')?;
    Some(domain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_from_domain_is_found_with_and_without_a_name() {
        assert_eq!(domain_of("\"A @ B\" <a@shop.test>"), Some("shop.test"));
        assert_eq!(domain_of("a@shop.test"), Some("shop.test"));
        assert_eq!(domain_of("nobody"), None);
    }
}

//! Completes header blocks for reception: `message` makes the block, `events` the `mail` object and the `Send` event.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::admission::{Authority, Submission, authorize};
use crate::events::schema::{self, CommonHeaders, Extras, Mail, MailObject};
use crate::message::stamp::{self, Client, Context, EightBitHeaders, Stamped};
use crate::reception::{Stamp, StampContext, StampedHeader};
use crate::types::Reply;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stamper;

impl Stamp for Stamper {
    fn stamp(&self, raw: &[u8], context: &StampContext<'_>) -> Result<StampedHeader, Reply> {
        let settings = context.settings;
        let tls = context.tls.map(|tls| format!("version={} cipher={}", tls.version, tls.cipher));
        let client = Client { address: context.client, helo: context.helo };
        let stamped = stamp::stamp(
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
            },
        )
        .map_err(|refusal| refusal.reply())?;
        let submission = Submission { envelope: context.envelope, claims: &stamped.claims, control: &stamped.control };
        let authority = authorize(context.directory, context.grant, submission).map_err(|denial| {
            tracing::debug!(client = %context.client, caller = %context.grant.caller, %denial, "message denied");
            denial.reply()
        })?;
        let mail_json = mail_json(&stamped, context, &authority);
        let send_event = schema::send(Mail { id: context.id, json: &mail_json }, &Extras::default());
        Ok(StampedHeader {
            header_bytes: u32::try_from(stamped.header_bytes).unwrap_or(u32::MAX),
            // Raw 8-bit fields of an old client that never heard of SMTPUTF8 go as they came.
            needs_smtputf8: context.envelope.smtputf8 && !stamped.header_is_ascii,
            bytes: Bytes::from(stamped.block),
            mail_json,
            send_event,
            authority,
            claims: stamped.claims,
            control: stamped.control,
        })
    }
}

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

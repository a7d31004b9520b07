//! What a message carries besides its body, for one transaction: the reverse-path that the host sees, and the header block of its
//! recipient.

use std::borrow::Cow;

use bytes::Bytes;

use super::shared::Shared;
use crate::events::metric;
use crate::policy::token::{self, Addressee, Purpose, TokenKeys};
use crate::queue::{Granularity, LoadError, StoredMessage};
use crate::scheduler::Payload;
use crate::types::{Domain, EmailAddress, ReversePath};

/// How many recipients of the message may share a transaction.
pub(super) fn recipients_max(message: &StoredMessage, otherwise: usize) -> usize {
    if message.sends_each_alone() { 1 } else { otherwise }
}

/// The reverse-path for these recipients: a token at the return path's domain, where the message has one, else at `simulated`, the
/// domain of the simulator that it goes to: what that reports finds its message in any case. The null path stays what it is
/// (RFC 5321 §4.5.5). The same in every attempt.
pub(super) fn reverse_path<'a>(
    keys: &TokenKeys,
    message: &'a StoredMessage,
    recipients: &[usize],
    simulated: Option<&Domain>,
) -> Cow<'a, ReversePath> {
    let submitted = &message.envelope.reverse_path;
    let own = message.origin.return_path.as_ref().map(|path| (&path.domain, path.granularity));
    let path = own.or(simulated.map(|domain| (domain, Granularity::PerRecipient)));
    let (domain, granularity) = match path {
        Some(path) if *submitted != ReversePath::Null => path,
        _ => return Cow::Borrowed(submitted),
    };
    let addressee = match (granularity, recipients) {
        (Granularity::PerRecipient, [recipient]) => Addressee::recipient(*recipient),
        _ => Addressee::Message,
    };
    let token = token::mint(keys, Purpose::ReturnPath, message.id, addressee);
    let address = EmailAddress::parse(&format!("{token}@{domain}"), false);
    Cow::Owned(ReversePath::Mailbox(address.expect("a token is a local part, and what was a domain is one")))
}

/// The header block of the one recipient of a transaction, where the message has such blocks. An error says what cannot be read.
pub(super) async fn header(shared: &Shared, payload: &Payload, recipients: &[usize]) -> Result<Option<Bytes>, String> {
    let [recipient] = *recipients else { return Ok(None) };
    if !payload.message.recipient_headers {
        return Ok(None);
    }
    if let Some(block) = payload.recipient_headers.of(recipient) {
        return Ok(Some(block));
    }
    let id = payload.message.id;
    match shared.queue.reading(move |queue| queue.recipient_header(id, recipient)).await {
        Ok(Ok(block)) => Ok(Some(block)),
        Ok(Err(error)) => {
            if matches!(error, LoadError::Damaged(_)) {
                metrics::counter!(metric::DAMAGED_RECORDS, "record" => "body").increment(1);
            }
            tracing::error!(message_id = %id, recipient, %error, "the header block of a recipient cannot be read");
            Err(format!("its header block: {error}"))
        }
        Err(error) => Err(format!("its header block: {error}")),
    }
}

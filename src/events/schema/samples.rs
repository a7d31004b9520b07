//! Events for tests: the sample of SES's documentation, and short ones with any text in them.

use std::collections::BTreeMap;

use super::*;
use crate::events::EventLine;
use crate::types::{EmailAddress, EnhancedStatus, Timestamp};

/// The id of the documented sample; accepted at 2023-05-05T21:00:23.244Z.
pub(crate) const ID: &str = "01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000";

pub(crate) fn id() -> MessageId {
    ID.parse().unwrap()
}

pub(crate) fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

pub(crate) fn recipient(text: &str) -> Recipient {
    Recipient { address: address(text), notify: None, orcpt: None }
}

/// A message from one address to one other, with `subject`.
pub(crate) fn mail_json(subject: &str) -> Bytes {
    render_mail(&MailObject {
        message_id: id(),
        source: &ReversePath::Mailbox(address("sender@example.com")),
        source_ip: Some([127, 0, 0, 1].into()),
        caller_identity: "local",
        destination: &[recipient("recipient@example.org")],
        headers: &[("Subject".to_owned(), subject.to_owned())],
        headers_truncated: false,
        common: CommonHeaders { subject: Some(subject), ..CommonHeaders::default() },
        tags: &BTreeMap::new(),
        from_domain: Some("example.com"),
        configuration_set: None,
        source_tls: None,
    })
}

/// A Send of about 600 octets.
pub(crate) fn send_line(subject: &str) -> EventLine {
    send(Mail { id: id(), json: &mail_json(subject) }, &Extras::default())
}

/// A Bounce of one recipient.
pub(crate) fn bounce_line(subject: &str) -> EventLine {
    let recipients = [BouncedRecipient {
        email_address: "recipient@example.org",
        action: Some("failed"),
        status: EnhancedStatus::new(5, 1, 1),
        diagnostic_code: Some("smtp; 550 5.1.1 No such user"),
    }];
    let info = BounceInfo {
        at: Timestamp::from_millis(1_683_320_424_300),
        kind: BounceKind::PermanentNoEmail,
        recipients: &recipients,
        feedback_id: &feedback_id(id(), 0),
        remote_mta_ip: Some([127, 0, 0, 2].into()),
        reporting_mta: Some("mx.example.org"),
    };
    bounce(Mail { id: id(), json: &mail_json(subject) }, &info, &Extras { attempt: Some(1), ..Extras::default() })
}

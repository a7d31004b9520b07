//! Messages for tests of whatever hands them in.

use std::time::Duration;

use bytes::Bytes;

use super::intake::{Charges, Ended, NewBody, NewMessage, Origin};
use crate::events::{EventKind, EventLine};
use crate::types::{BodyKind, EmailAddress, Envelope, MessageId, Recipient, ReversePath};

/// An event that says nothing.
pub(crate) fn line(kind: EventKind) -> EventLine {
    EventLine { kind, json: Bytes::from_static(b"{\"id\":}"), id_at: 6 }
}

/// A message to a user in each of so many domains.
pub(crate) fn new_message(id: MessageId, domains: u8, body: NewBody) -> NewMessage {
    let recipients = (0..domains).map(|n| Recipient {
        address: EmailAddress::parse(&format!("user@d{n}.test"), false).unwrap(),
        notify: None,
        orcpt: None,
    });
    let envelope = Envelope {
        reverse_path: ReversePath::Mailbox(EmailAddress::parse("from@app.test", false).unwrap()),
        recipients: recipients.collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    };
    NewMessage {
        id,
        envelope,
        body,
        header_bytes: 0,
        recipient_headers: Vec::new(),
        mail_json: Bytes::from_static(b"{}"),
        send_event: line(EventKind::Send),
        origin: Origin { caller: "network".into(), tenant: "shop".into(), ..Origin::default() },
        lifetime: Duration::from_secs(86_400),
        charges: Charges::default(),
        ended: Ended::default(),
    }
}

//! A transaction: the envelope as MAIL and RCPT build it, then the message.

use std::collections::HashSet;

use super::super::command::MailCommand;
use super::content::{Content, ContentLimits};
use crate::types::{EmailAddress, Envelope, Recipient, ReversePath};

/// RCPT commands that add no recipient (duplicates, above the limit) and are not counted as errors. A client with a
/// longer list than ours splits it, as RFC 5321 §4.5.3.1.10 asks; more than this many is no longer that. Above: each
/// counts as an error.
const SURPLUS_RECIPIENTS_MAX: u32 = 1_000;
/// Up to here duplicates are found by comparing, above by hashing.
const LINEAR_SEARCH_MAX: usize = 32;
/// Room for a message of undeclared size.
const CONTENT_BYTES_EXPECTED: u64 = 8 * 1024;
/// Most that a declared size may reserve ahead.
const CONTENT_BYTES_RESERVED_MAX: u64 = 1 << 20;

/// From MAIL to DATA or BDAT.
#[derive(Debug)]
pub(super) struct Transaction {
    envelope: Envelope,
    declared_bytes: Option<u64>,
    /// Filled once there are more than [`LINEAR_SEARCH_MAX`] recipients.
    seen: HashSet<EmailAddress>,
    surplus: u32,
}

/// What became of a RCPT.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// Added, or there already.
    Yes,
    /// Above the limit: 452, not an error of the client.
    Full,
    /// Above the limit, and long since: counts as an error.
    Flood,
}

impl Transaction {
    pub(super) fn new(mail: MailCommand) -> Self {
        let envelope = Envelope {
            reverse_path: mail.reverse_path,
            recipients: Vec::new(),
            body: mail.body,
            smtputf8: mail.smtputf8,
            ret: mail.ret,
            envid: mail.envid,
        };
        Self { envelope, declared_bytes: mail.declared_bytes, seen: HashSet::new(), surplus: 0 }
    }

    pub(super) fn smtputf8(&self) -> bool {
        self.envelope.smtputf8
    }

    pub(super) fn reverse_path(&self) -> &ReversePath {
        &self.envelope.reverse_path
    }

    pub(super) fn has_recipients(&self) -> bool {
        !self.envelope.recipients.is_empty()
    }

    /// Adds a recipient, once.
    pub(super) fn add(&mut self, recipient: Recipient, recipients_max: usize) -> Added {
        let known = self.knows(&recipient.address);
        if !known && self.envelope.recipients.len() < recipients_max {
            if !self.seen.is_empty() {
                self.seen.insert(recipient.address.clone());
            }
            self.envelope.recipients.push(recipient);
            return Added::Yes;
        }
        self.surplus = self.surplus.saturating_add(1);
        match known {
            _ if self.surplus > SURPLUS_RECIPIENTS_MAX => Added::Flood,
            true => Added::Yes,
            false => Added::Full,
        }
    }

    fn knows(&mut self, address: &EmailAddress) -> bool {
        let recipients = &self.envelope.recipients;
        if recipients.len() <= LINEAR_SEARCH_MAX {
            return recipients.iter().any(|recipient| recipient.address == *address);
        }
        if self.seen.is_empty() {
            self.seen = recipients.iter().map(|recipient| recipient.address.clone()).collect();
        }
        self.seen.contains(address)
    }

    pub(super) fn into_message(self, limits: ContentLimits) -> Message {
        let expected = self.declared_bytes.unwrap_or(CONTENT_BYTES_EXPECTED);
        let expected = usize::try_from(expected.min(CONTENT_BYTES_RESERVED_MAX)).unwrap_or_default();
        Message {
            envelope: self.envelope,
            declared_bytes: self.declared_bytes,
            content: Content::new(limits, expected),
        }
    }
}

/// A message that arrives or has arrived.
#[derive(Debug)]
pub struct Message {
    /// From MAIL and RCPT; at least one recipient.
    pub envelope: Envelope,
    /// SIZE= of MAIL.
    pub declared_bytes: Option<u64>,
    /// Its octets, as far as they came.
    pub content: Content,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::BodyKind;

    fn transaction() -> Transaction {
        Transaction::new(MailCommand {
            reverse_path: ReversePath::Null,
            declared_bytes: None,
            body: BodyKind::SevenBit,
            smtputf8: false,
            ret: None,
            envid: None,
        })
    }

    fn recipient(number: usize) -> Recipient {
        let address = EmailAddress::parse(&format!("user{number}@b.test"), false).unwrap();
        Recipient { address, notify: None, orcpt: None }
    }

    #[test]
    fn a_recipient_is_kept_once_in_short_and_long_lists() {
        let mut transaction = transaction();
        for number in 0..200 {
            assert_eq!(transaction.add(recipient(number), 1_000), Added::Yes);
            assert_eq!(transaction.add(recipient(number / 2), 1_000), Added::Yes);
        }
        assert_eq!(transaction.envelope.recipients.len(), 200);
    }

    #[test]
    fn a_flood_above_the_limit_becomes_an_error() {
        let mut transaction = transaction();
        assert_eq!(transaction.add(recipient(0), 1), Added::Yes);
        for _ in 0..SURPLUS_RECIPIENTS_MAX {
            assert_eq!(transaction.add(recipient(1), 1), Added::Full);
        }
        assert_eq!(transaction.add(recipient(1), 1), Added::Flood);
        assert_eq!(transaction.envelope.recipients.len(), 1);
    }
}

//! Recipients that the driver decides on, one by one: for who takes mail for itself, and only what it waits for.

use super::super::command::Command;
use super::machine::{Machine, State, Step};
use crate::types::{EmailAddress, Recipient, ReversePath};

/// What RFC 5321 §4.5.1 asks who takes mail for itself to take.
const BARE_POSTMASTER: &[u8] = b"RCPT TO:<postmaster>";

impl Machine {
    /// From now on the driver decides on each recipient ([`Step::Recipient`]), and `RCPT TO:<Postmaster>` without a domain is one at our
    /// name (RFC 5321 §4.5.1): for who takes mail for itself.
    pub fn gate_recipients(&mut self) {
        self.gates_recipients = true;
    }

    /// RCPT as parsed, and MAIL's reverse-path, after [`Step::Recipient`].
    pub fn pending_recipient(&self) -> Option<(&Recipient, &ReversePath)> {
        match &self.state {
            State::RecipientPending(transaction, recipient) => Some((recipient, transaction.reverse_path())),
            _ => None,
        }
    }

    /// The pending recipient is one.
    pub fn admit_recipient(&mut self) {
        match std::mem::replace(&mut self.state, State::Ready) {
            State::RecipientPending(transaction, recipient) => {
                self.state = State::Transaction(transaction);
                // It writes a reply, and has no step.
                drop(self.add_recipient(*recipient));
            }
            other => self.state = other,
        }
    }

    pub(super) fn recipient(&mut self, recipient: Recipient) -> Option<Step> {
        if !self.gates_recipients {
            return self.add_recipient(recipient);
        }
        match std::mem::replace(&mut self.state, State::Ready) {
            State::Transaction(transaction) => {
                self.state = State::RecipientPending(transaction, Box::new(recipient));
                Some(Step::Recipient)
            }
            other => {
                self.state = other;
                None
            }
        }
    }

    /// RFC 5321 §4.5.1: who takes mail for itself takes it for a postmaster without a domain.
    pub(super) fn bare_postmaster(&self, line: &[u8]) -> Option<Command> {
        if !self.gates_recipients || !line.trim_ascii_end().eq_ignore_ascii_case(BARE_POSTMASTER) {
            return None;
        }
        let address = EmailAddress::parse(&format!("postmaster@{}", self.hostname), false).ok()?;
        Some(Command::Rcpt(Box::new(Recipient { address, notify: None, orcpt: None })))
    }
}

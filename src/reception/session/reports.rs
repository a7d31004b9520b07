//! A session at a listener for feedback: whoever it is may bring mail, but only for addresses that the inbox waits for. No login,
//! no relaying, and nothing is kept but what follows from the message.

use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::super::assembly;
use super::super::inbox::Inbox;
use super::super::memory::{ClientMemory, Reservation, SESSION_BYTES_MAX};
use super::super::settings::{ListenerTakes, Settings};
use super::{Next, Session, limits};
use crate::feedback::desk::Message as Report;
use crate::queue::intake::SPOOL_PART_BYTES;
use crate::smtp::server::{ContentLimits, Hygiene, Limits, LongLines, Message};

/// Octets of a message that are looked at: the rest is taken and dropped, since what a report says stands in front of the message
/// that it returns.
const LOOKED_AT_BYTES_MAX: usize = SPOOL_PART_BYTES;

/// A message that comes home, as far as it came. All of what is looked at is in memory.
#[derive(Default)]
pub(super) struct Arriving {
    memory: Reservation,
    /// Once there is more than is looked at.
    front: Option<Vec<u8>>,
}

impl Arriving {
    /// Memory for the first octets, before the client sends them.
    async fn begin(&mut self, message: &mut Message, memory: &ClientMemory, deadline: Instant) {
        let bytes = Reservation::first_bytes(message.declared_bytes);
        self.grow(message, memory, bytes, deadline).await;
    }

    /// Room for one more read.
    async fn make_room(&mut self, message: &mut Message, memory: &ClientMemory, deadline: Instant) {
        let content = &mut message.content;
        if content.is_faulty() {
            return;
        }
        if self.front.is_some() {
            drop(content.take_all());
        } else if content.kept().len() > LOOKED_AT_BYTES_MAX {
            self.front = Some(content.take_front(LOOKED_AT_BYTES_MAX));
            drop(content.take_all());
        }
        if !self.memory.covers(content.kept().len()) {
            self.grow(message, memory, SESSION_BYTES_MAX, deadline).await;
        }
    }

    async fn grow(&mut self, message: &mut Message, memory: &ClientMemory, bytes: usize, deadline: Instant) {
        if !self.memory.grow(memory, bytes, deadline).await {
            message.content.fail(assembly::no_memory());
        }
    }

    fn finish(&mut self, message: &mut Message) -> Bytes {
        let all = self.front.take().unwrap_or_else(|| message.content.take_all());
        Bytes::from(all)
    }
}

impl Session {
    /// Where this session takes mail for us, who takes it.
    pub(super) fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        (self.spec.takes == ListenerTakes::Feedback).then(|| Arc::clone(&self.shared.ports.inbox))
    }

    /// MAIL: from anybody, as long as the queue can be written.
    pub(super) fn report_mail(&mut self) {
        match self.shared.ports.intake.check(0) {
            Ok(()) => self.machine.admit(report_limits(&self.facts.settings)),
            Err(error) => self.machine.refuse(&assembly::reply_to(&error)),
        }
    }

    /// RCPT: nothing is relayed.
    pub(super) fn report_recipient(&mut self) -> Next {
        let Some((recipient, reverse_path)) = self.machine.pending_recipient() else { return Next::GoOn };
        let admitted = match self.inbox() {
            Some(inbox) => inbox.admits(&recipient.address, reverse_path),
            None => Err(assembly::local_error()),
        };
        match admitted {
            Ok(()) => self.machine.admit_recipient(),
            Err(reply) => {
                tracing::debug!(client = %self.facts.client, %reply, "recipient refused");
                self.machine.refuse(&reply);
            }
        }
        Next::GoOn
    }

    /// Before DATA, and before each read of its data.
    pub(super) async fn report_room(&mut self, begins: bool) {
        let deadline = self.deadline(self.facts.settings.data_timeout);
        if begins {
            self.arriving = Some(Arriving::default());
        }
        let (Some(arriving), Some(message)) = (&mut self.arriving, self.machine.message_mut()) else { return };
        if begins {
            arriving.begin(message, &self.memory, deadline).await;
        } else {
            arriving.make_room(message, &self.memory, deadline).await;
        }
    }

    /// A whole message: the reply comes when what follows from it is safe.
    pub(super) async fn report(&mut self, inbox: Arc<dyn Inbox>, mut message: Message) -> Next {
        let Some(mut arriving) = self.arriving.take() else {
            self.machine.refuse(&assembly::local_error());
            return Next::GoOn;
        };
        // As in `message`: of what was taken the client learns before more is.
        if self.owes_acceptance && self.flush().await == Next::Lost {
            return Next::Lost;
        }
        let octets = arriving.finish(&mut message);
        let id = self.shared.ports.intake.new_id();
        let recipients = message.envelope.recipients.into_iter().map(|recipient| recipient.address).collect();
        let reverse_path = message.envelope.reverse_path;
        let report = Report { id, client: self.facts.client, reverse_path, recipients, octets };
        match inbox.take(report).await {
            Ok(()) => {
                self.machine.accepted(&id);
                self.owes_acceptance = true;
                self.is_in_earnest();
            }
            Err(reply) => self.machine.refuse(&reply),
        }
        Next::GoOn
    }
}

/// Those of submission, but for what the message itself may be: hosts of all ages write reports, and nothing of them is sent on.
pub(super) fn report_limits(settings: &Settings) -> Limits {
    let limits = limits(settings);
    Limits {
        content: ContentLimits { long_lines: LongLines::Encode, hygiene: Hygiene::Repair, ..limits.content },
        ..limits
    }
}

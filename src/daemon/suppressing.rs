//! The step between reception and the queue that ends suppressed recipients with the acceptance itself.
//!
//! Promises: the message is accepted as any other; a recipient that a list holds back has its final state and its event in
//! the same batch, behind the `Send` event, and no attempt is made for it. Where all lists are empty (and there is no simulator), nothing is done. Where
//! the store does not answer, everybody is taken for unsuppressed: the check before the attempt comes again.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;

use crate::delivery::shared::{Counts, Reloadable};
use crate::net::BoxFuture;
use crate::queue::suppression::SuppressionCheck;
use crate::queue::{AcceptError, Ended, Intake, JobKey, NewBody, NewMessage, Queue, StoredMessage};
use crate::scheduler::settlement::{self, Attempt, AttemptKind, Fate, Tally};
use crate::types::{MessageId, Suppressed};

/// The queue, behind the check. Cheap to clone.
#[derive(Clone)]
pub struct SuppressingIntake {
    /// Takes the messages.
    pub queue: Queue,
    /// Who is held back.
    pub suppression: Arc<dyn SuppressionCheck>,
    /// How outcomes are told.
    pub reloadable: Arc<ArcSwap<Reloadable>>,
    /// Outcomes since the start.
    pub counts: Arc<Counts>,
}

impl SuppressingIntake {
    /// Puts it together.
    pub fn new(
        queue: &Queue,
        suppression: Arc<dyn SuppressionCheck>,
        reloadable: &Arc<ArcSwap<Reloadable>>,
        counts: &Arc<Counts>,
    ) -> Self {
        let (reloadable, counts) = (Arc::clone(reloadable), Arc::clone(counts));
        Self { queue: queue.clone(), suppression, reloadable, counts }
    }

    async fn take(&self, mut message: NewMessage) -> Result<(), AcceptError> {
        let (ended, tallies) = self.ended(&message).await;
        message.ended = ended;
        self.queue.accept(message).await?;
        tallies.iter().for_each(|tally| self.counts.add(tally));
        Ok(())
    }

    /// What ends with the acceptance, and the sums to count once it is written.
    async fn ended(&self, new: &NewMessage) -> (Ended, Vec<Tally>) {
        let addresses: Vec<_> = new.envelope.recipients.iter().map(|recipient| &recipient.address).collect();
        let (tenant, set) = new.origin.owner();
        let held = match self.suppression.check(tenant, set, &addresses).await {
            Ok(held) if held.is_empty() => return Default::default(),
            Ok(held) => held,
            Err(error) => {
                tracing::error!(message_id = %new.id, %error, "suppression lists cannot be read; asked again before the attempt");
                return Default::default();
            }
        };
        let original = match &new.body {
            NewBody::Inline(bytes) => bytes.clone(),
            NewBody::Spooled { .. } => self.first_part(new.id).await,
        };
        self.settle(&StoredMessage::from_new(new), &held, &original)
    }

    async fn first_part(&self, id: MessageId) -> Bytes {
        let part = self.queue.reading(move |queue| queue.body_part(id, 0)).await;
        part.ok().and_then(Result::ok).unwrap_or_default()
    }

    fn settle(&self, message: &StoredMessage, held: &[(usize, Suppressed)], original: &[u8]) -> (Ended, Vec<Tally>) {
        let reloadable = self.reloadable.load();
        let (mut ended, mut tallies) = (Ended::default(), Vec::new());
        for group in 0..u16::try_from(message.domains.len()).unwrap_or(u16::MAX) {
            let of_group = held.iter().filter(|(index, _)| message.groups.get(*index) == Some(&group));
            let fates: Vec<Fate> = of_group.map(|(index, held)| Fate::suppressed(*index, *held)).collect();
            if fates.is_empty() {
                continue;
            }
            let attempt = Attempt {
                message,
                key: JobKey { id: message.id, group },
                due_at: None,
                now: message.accepted_at,
                ambiguous: false,
                kind: AttemptKind::Decision,
                blocks: 0,
                source: None,
                original,
            };
            let decided = settlement::settle(&attempt, &fates, &reloadable.settlement, &mut || self.queue.new_id());
            tallies.push(decided.tally);
            ended.states.extend(decided.settlement.states);
            ended.events.extend(decided.settlement.events);
            ended.notifications.extend(decided.settlement.notifications);
        }
        (ended, tallies)
    }
}

impl Intake for SuppressingIntake {
    fn new_id(&self) -> MessageId {
        self.queue.new_id()
    }

    fn check(&self, bytes: u64) -> Result<(), AcceptError> {
        self.queue.check(bytes)
    }

    fn spool(&self, id: MessageId, part: u32, bytes: Bytes) -> BoxFuture<'_, Result<(), AcceptError>> {
        self.queue.spool(id, part, bytes)
    }

    fn spooled(&self, id: MessageId, part: u32) -> BoxFuture<'_, Result<Bytes, AcceptError>> {
        self.queue.spooled(id, part)
    }

    fn discard(&self, id: MessageId, parts: u32) {
        self.queue.discard(id, parts);
    }

    fn accept(&self, message: NewMessage) -> BoxFuture<'_, Result<(), AcceptError>> {
        if self.suppression.is_idle() {
            return self.queue.accept(message);
        }
        if matches!(message.body, NewBody::Inline(_)) {
            return Box::pin(self.take(message));
        }
        // Its parts are the queue's business from now on: nobody discards them where a session is cut at this point.
        let intake = self.clone();
        let task = tokio::spawn(async move { intake.take(message).await });
        Box::pin(async move { task.await.unwrap_or(Err(AcceptError::Closed)) })
    }
}

//! The desk where mail that came home is opened: read, resolved against what was sent, committed, or kept for the operator.
//!
//! | report | of whom | what follows |
//! |---|---|---|
//! | bounce | the recipient of the token; of a token for a whole message, or none, whom the report names | `Bounce` event, the tenant's list where nobody is there, perhaps a mail to the sender ([`super::forward`]) |
//! | delay, success, automatic answer | - | counted |
//! | request to unsubscribe | the recipient of the token | `Subscription` event, the configuration set's list |
//! | DMARC or TLS report | - | a line for each row in the report stream ([`super::receivers`]) |
//! | complaint | the recipient of the token, or of one within the message that it returns; else whom it names of that message | `Complaint` event, the tenant's list, perhaps a mail |
//! | anything else | - | kept |
//!
//! Promises: what follows is on the disk when [`Desk::take`] returns `Ok`, so the report may get its 250; the same report once more, or
//! another of the same, does nothing; what a report says of a message that it has no token for is not believed. An error is a 4yz: the
//! host tries again. Does not: decide what reports mean ([`super::report`]), or what follows ([`super::effects`]).

mod unsubscribe;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::sync::Semaphore;

use super::addresses::{Addresses, Recognised, Unknown};
use super::effects::{self, Effects};
use super::forward::{self, Forward};
use super::kept::{Keep, KeepError, Kept};
use super::receivers::{OwnDomains, Receivers, Taken};
use super::report::{
    self, Addressed, AutoReplyKind, Clues, Complaint, ComplaintKind, Context, DeliveryReport, Outcome, RecipientReport,
    Report,
};
use crate::events::metric;
use crate::events::schema::BroughtBy;
use crate::policy::Rules;
use crate::policy::listing::Listing;
use crate::policy::reputation::Counting;
use crate::policy::token::{Addressee, Purpose, TokenContent, TokenKeys, verify};
use crate::queue::feedback::{Feedback, FeedbackEffect, FeedbackKind};
use crate::queue::sent::SentRecipient;
use crate::queue::{AcceptError, Intake, LoadError, Queue};
use crate::types::{Clock, EmailAddress, MessageId, ReversePath, SuppressionReason};

pub use unsubscribe::{Unsubscribed, Way};

/// Recipients of one message among which a report's is looked for. Those beyond are not found by their address.
const RECIPIENTS_LOOKED_AT: usize = 1_000;

/// What can change with a reload.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Which mail is taken.
    pub addresses: Addresses,
    /// What replies mean.
    pub rules: Arc<Rules>,
    /// Which addresses go on lists.
    pub listing: Arc<Listing>,
    /// What counts for reputation.
    pub counting: Counting,
    /// Which domains metrics may name.
    pub own_domains: Arc<OwnDomains>,
    /// What is mailed to senders.
    pub forward: forward::Settings,
}

/// Who else hears of a complaint, the first time that it is told.
pub type Complained = dyn Fn(&SentRecipient) + Send + Sync;

/// A message for us.
#[derive(Clone, Debug)]
pub struct Message {
    /// As the 250 will name it.
    pub id: MessageId,
    /// Who brought it.
    pub client: IpAddr,
    /// Its reverse-path.
    pub reverse_path: ReversePath,
    /// Those that [`Desk::recognise`] knew.
    pub recipients: Vec<EmailAddress>,
    /// Header and body.
    pub octets: Bytes,
}

/// Why a message is not taken now.
#[derive(Debug, thiserror::Error)]
pub enum TakeError {
    /// The queue does not take what follows.
    #[error(transparent)]
    Queue(#[from] AcceptError),
    /// What was sent cannot be read.
    #[error(transparent)]
    Sent(#[from] LoadError),
    /// It cannot be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// A task that read it broke.
    #[error("a task for reports broke: {0}")]
    Broken(String),
}

/// See the module.
pub struct Desk {
    queue: Queue,
    keys: Arc<ArcSwap<TokenKeys>>,
    settings: Arc<ArcSwap<Settings>>,
    clock: Arc<dyn Clock>,
    kept: Arc<Kept>,
    /// Messages that are written there at the same time: others wait without a thread.
    keeping: Semaphore,
    receivers: Receivers,
    complained: Arc<Complained>,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Handled {
    /// As far as anything followed from it.
    Done,
    /// Nobody knows whom it speaks of, and somebody should look.
    Puzzling,
}

impl Desk {
    /// `keys` mint the tokens of what is sent.
    pub fn new(
        queue: Queue,
        keys: Arc<ArcSwap<TokenKeys>>,
        settings: Arc<ArcSwap<Settings>>,
        clock: Arc<dyn Clock>,
        kept: Kept,
        complained: Arc<Complained>,
    ) -> Self {
        let receivers = Receivers::new(queue.clone());
        Self { queue, keys, settings, clock, kept: Arc::new(kept), keeping: Semaphore::new(1), receivers, complained }
    }

    /// What an address is for.
    pub fn recognise(&self, address: &EmailAddress) -> Result<Recognised, Unknown> {
        self.settings.load().addresses.recognise(address, &self.keys.load(), self.clock.now())
    }

    /// Takes a message. Not cancel-safe: what was committed stays, and the same message later finds it known.
    pub async fn take(&self, message: Message) -> Result<(), TakeError> {
        // One address may be there in several spellings.
        let mut recognised: Vec<Recognised> = Vec::new();
        for address in message.recipients.iter().filter_map(|address| self.recognise(address).ok()) {
            if !recognised.contains(&address) {
                recognised.push(address);
            }
        }
        let _turn = self.receivers.turn(&recognised, message.octets.len()).await;
        let mut read: HashMap<Addressed, Arc<Report>> = HashMap::new();
        // Taken at RCPT; a reload since then may know none of them any more.
        let mut is_puzzling = recognised.is_empty();
        let has_token = recognised.iter().any(|address| address.token.is_some());
        for Recognised { addressed, token } in recognised {
            // What a message is hangs on where it came; read once for each kind of address.
            let report = match read.entry(addressed) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(Arc::new(self.read(&message, addressed).await?)),
            };
            metrics::counter!(metric::FEEDBACK_MESSAGES, "report" => name_of(report)).increment(1);
            is_puzzling |= self.handle(&message, report, addressed, token).await? == Handled::Puzzling;
        }
        if is_puzzling { self.keep(message, has_token).await } else { Ok(()) }
    }

    async fn read(&self, message: &Message, addressed: Addressed) -> Result<Report, TakeError> {
        let rules = Arc::clone(&self.settings.load().rules);
        let octets = message.octets.clone();
        let is_null_sender = message.reverse_path == ReversePath::Null;
        let read = move |_: &Queue| report::read(&octets, &Context { is_null_sender, addressed, rules: &rules });
        self.queue.reading(read).await.map_err(|error| TakeError::Broken(error.to_string()))
    }

    async fn handle(
        &self,
        message: &Message,
        report: &Arc<Report>,
        addressed: Addressed,
        token: Option<TokenContent>,
    ) -> Result<Handled, TakeError> {
        match &**report {
            Report::Delivery(delivery) => self.delivery(&message.octets, delivery, token).await,
            // To postmaster and abuse, programs write what an operator must see.
            Report::AutoReply(AutoReplyKind::Generated) if addressed == Addressed::Postmaster => Ok(Handled::Puzzling),
            Report::AutoReply(_) => Ok(Handled::Done),
            Report::Complaint(complaint) => self.complaint(&message.octets, complaint, token).await,
            Report::Unsubscribe(_) => match token {
                Some(token) => Ok(match self.unsubscribe(token, Way::Mail).await? {
                    Unsubscribed::Done => Handled::Done,
                    Unsubscribed::Unknown | Unsubscribed::Damaged => Handled::Puzzling,
                }),
                None => Ok(Handled::Puzzling),
            },
            Report::DmarcAggregate(_) | Report::TlsReport(_) => self.aggregate(message, report).await,
            Report::NotUnderstood(_) => Ok(Handled::Puzzling),
        }
    }

    async fn aggregate(&self, message: &Message, report: &Arc<Report>) -> Result<Handled, TakeError> {
        let own = Arc::clone(&self.settings.load().own_domains);
        let sender = message.reverse_path.as_str();
        let brought_by = BroughtBy { message_id: message.id, at: self.clock.now(), client: message.client, sender };
        Ok(match self.receivers.take(report, brought_by, &own).await? {
            Taken::Done => Handled::Done,
            Taken::Kept => Handled::Puzzling,
        })
    }

    async fn delivery(
        &self,
        octets: &Bytes,
        report: &DeliveryReport,
        token: Option<TokenContent>,
    ) -> Result<Handled, TakeError> {
        let bounced: Vec<_> =
            report.recipients.iter().filter(|recipient| recipient.outcome.bounce().is_some()).collect();
        if bounced.is_empty() {
            return Ok(Handled::Done);
        }
        // No other token says that a host speaks of our message: what readers of it have seen is not enough.
        let Some(token) = token.or_else(|| self.token_of(&report.original.clues, &[Purpose::ReturnPath])) else {
            return Ok(Handled::Puzzling);
        };
        let Some(sent) = self.sent(token).await? else { return Ok(Handled::Puzzling) };
        let pairs = pairs(&sent, &bounced, token.addressee);
        if pairs.is_empty() {
            tracing::info!(message = %token.id, "a bounce of what is not remembered, or of nobody it was sent to");
            // Too late is nothing to look at; a stranger's name is.
            return Ok(unresolved(&sent, FeedbackKind::Bounce));
        }
        for (sent, recipient) in pairs {
            let Outcome::Bounced(verdict) = &recipient.outcome else { continue };
            let effects = self.effects_on(sent, SuppressionReason::Bounce);
            let effect = effects::bounce(sent, report, recipient, verdict, effects, self.clock.now());
            let effect =
                self.forwarded(effect, sent, || Forward::bounce(sent, report, recipient, verdict, octets)).await?;
            self.queue.apply_feedback(effect).await?;
        }
        Ok(Handled::Done)
    }

    async fn complaint(
        &self,
        octets: &Bytes,
        report: &Complaint,
        token: Option<TokenContent>,
    ) -> Result<Handled, TakeError> {
        // Whoever reads a message may unsubscribe its recipient by the link in it, so may complain for him, too.
        let purposes = [Purpose::ReturnPath, Purpose::Complaint, Purpose::Unsubscribe];
        let Some(token) = token.or_else(|| self.token_of(&report.clues, &purposes)) else {
            return Ok(Handled::Puzzling);
        };
        let Some(sent) = self.sent(token).await? else { return Ok(Handled::Puzzling) };
        let is_named =
            |sent: &&SentRecipient| report.recipients.iter().any(|named| named.is_same_mailbox(&sent.recipient));
        let named: Vec<_> = sent.iter().filter(is_named).collect();
        let complained = match (&sent[..], &named[..]) {
            // Receivers redact whom they speak of: the token says who, and a message to one needs no name.
            ([only], _) if is_one(token) || report.recipients.is_empty() => vec![only],
            _ => named,
        };
        if complained.is_empty() {
            return Ok(unresolved(&sent, FeedbackKind::Complaint));
        }
        let is_held_against = !report.kind.is_some_and(ComplaintKind::is_harmless);
        for sent in complained {
            let effects = match is_held_against {
                true => self.effects_on(sent, SuppressionReason::Complaint),
                false => Effects::default(),
            };
            let effect = effects::complaint(sent, report, effects, self.clock.now());
            let effect = self.forwarded(effect, sent, || Forward::complaint(sent, report, octets)).await?;
            if self.queue.apply_feedback(effect).await? == FeedbackEffect::Applied && effects.counts {
                (self.complained)(sent);
            }
        }
        Ok(Handled::Done)
    }

    /// The same with a mail to the sender, where that is to have one.
    async fn forwarded(
        &self,
        mut feedback: Feedback,
        sent: &SentRecipient,
        forward: impl FnOnce() -> Forward,
    ) -> Result<Feedback, TakeError> {
        let settings = self.settings.load_full();
        let Some(to) = settings.forward.addressee(sent, feedback.kind).cloned() else { return Ok(feedback) };
        // It would come home as one more report.
        if self.recognise(&to).is_ok_and(|known| known.addressed != Addressed::Postmaster) {
            return Ok(feedback);
        }
        let forward = forward();
        let write = move |queue: &Queue| forward.write(queue.new_id(), &to, &settings.forward);
        let written = self.queue.reading(write).await.map_err(|error| TakeError::Broken(error.to_string()))?;
        feedback.notifications.push(written);
        Ok(feedback)
    }

    /// What a bounce or complaint of this recipient does beyond its event.
    fn effects_on(&self, sent: &SentRecipient, reason: SuppressionReason) -> Effects {
        let settings = self.settings.load();
        let counts = settings.counting.counts(&sent.tenant, sent.recipient.domain());
        let lists = counts && settings.listing.lists(&sent.tenant, &sent.configuration_set, reason);
        Effects { counts, lists, has_sets: settings.counting.has_sets }
    }

    /// The token of ours that a returned message holds for one of these purposes: one for a recipient before one for a whole message,
    /// and first where hosts put it, then where we do (at the end), then anywhere, since senders may write what they like elsewhere.
    fn token_of(&self, clues: &Clues, purposes: &[Purpose]) -> Option<TokenContent> {
        let (keys, settings, now) = (self.keys.load(), self.settings.load(), self.clock.now());
        let lifetime = settings.addresses.token_lifetime;
        let ours = |text: &str| purposes.iter().find_map(|purpose| verify(&keys, *purpose, text, now, lifetime).ok());
        let paths = clues.return_paths.iter().map(EmailAddress::local_part);
        let cfbl = clues.cfbl_feedback_ids.iter().rev().map(|id| id.trim());
        let found: Vec<TokenContent> =
            paths.chain(cfbl).chain(clues.tokens.iter().map(String::as_str)).filter_map(ours).collect();
        found.iter().find(|token| is_one(**token)).or(found.first()).copied()
    }

    /// Whom a token stands for; `None`: what is remembered of them is damaged.
    async fn sent(&self, token: TokenContent) -> Result<Option<Vec<SentRecipient>>, TakeError> {
        let read = move |queue: &Queue| match token.addressee {
            Addressee::Recipient(index) => queue.sent(token.id, index).map(|sent| sent.into_iter().collect()),
            Addressee::Message => queue.sent_to_all(token.id, RECIPIENTS_LOOKED_AT),
        };
        match self.queue.reading(read).await.map_err(|error| TakeError::Broken(error.to_string()))? {
            Ok(sent) => Ok(Some(sent)),
            Err(LoadError::Damaged(problem)) => {
                tracing::error!(message = %token.id, problem, "what is remembered of a message is damaged; its report is kept");
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn keep(&self, message: Message, has_token: bool) -> Result<(), TakeError> {
        let (kept, now) = (Arc::clone(&self.kept), self.clock.now());
        // The threads that wait for the disk are for the queue, too.
        let _turn = self.keeping.acquire().await.map_err(|error| TakeError::Broken(error.to_string()))?;
        let keep = move |_: &Queue| {
            let recipients: Vec<_> = message.recipients.iter().map(EmailAddress::as_str).collect();
            // No line end can be in an address.
            let facts = format!(
                "X-Posthaste-Client: {}\r\nX-Posthaste-Envelope: <{}> to {}\r\n",
                message.client,
                message.reverse_path.as_str(),
                recipients.join(", ")
            );
            kept.keep(&Keep { id: message.id, facts: &facts, octets: &message.octets, has_token }, now)
        };
        Ok(self.queue.reading(keep).await.map_err(|error| TakeError::Broken(error.to_string()))??)
    }
}

/// Whether a token names one recipient.
fn is_one(token: TokenContent) -> bool {
    matches!(token.addressee, Addressee::Recipient(_))
}

/// What a report is whose recipient was not found. Too late: nobody is remembered.
fn unresolved(sent: &[SentRecipient], kind: FeedbackKind) -> Handled {
    if !sent.is_empty() {
        return Handled::Puzzling;
    }
    metrics::counter!(metric::FEEDBACK, "kind" => kind.name(), "effect" => "unknown").increment(1);
    Handled::Done
}

/// Which of the report's recipients is which of ours.
fn pairs<'s, 'r>(
    sent: &'s [SentRecipient],
    bounced: &[&'r RecipientReport],
    addressee: Addressee,
) -> Vec<(&'s SentRecipient, &'r RecipientReport)> {
    let names = |report: &RecipientReport, sent: &SentRecipient| {
        report.addresses().any(|address| address.is_same_mailbox(&sent.recipient))
    };
    let pairs: Vec<_> = sent
        .iter()
        .filter_map(|sent| bounced.iter().find(|report| names(report, sent)).map(|report| (sent, *report)))
        .collect();
    match (&pairs[..], sent, bounced) {
        // The token says who; the report may speak of where his mail was forwarded to. That of a whole message needs a report that
        // names nobody, and one recipient.
        ([], [only], [first, ..])
            if matches!(addressee, Addressee::Recipient(_))
                || (bounced.len() == 1 && first.addresses().next().is_none()) =>
        {
            vec![(only, *first)]
        }
        _ => pairs,
    }
}

/// As metrics spell it.
fn name_of(report: &Report) -> &'static str {
    match report {
        Report::Delivery(delivery) => {
            let has = |is: fn(&Outcome) -> bool| delivery.recipients.iter().any(|recipient| is(&recipient.outcome));
            match () {
                () if has(|outcome| matches!(outcome, Outcome::Bounced(_))) => "bounce",
                () if has(|outcome| matches!(outcome, Outcome::Delayed(_))) => "delay",
                () => "success",
            }
        }
        Report::AutoReply(_) => "auto-reply",
        Report::Complaint(_) => "complaint",
        Report::Unsubscribe(_) => "unsubscribe",
        Report::DmarcAggregate(_) => "dmarc",
        Report::TlsReport(_) => "tls-rpt",
        Report::NotUnderstood(_) => "not-understood",
    }
}

//! From the fates of recipients to what is committed: states, next due time, events, notifications.
//!
//! Pure: the time, the ids and the jitter's seed are arguments. Promises: each recipient that ended has exactly one final
//! event; a deferred one has an event only when it is as old as the administrator set; the reason stands in the state.

mod remembered;
mod reputation;
mod routing;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;

use super::Settled;
use super::notification::{self, Told};
use crate::events::EventLine;
use crate::events::schema::{
    self, BounceInfo, BouncedRecipient, ComplaintInfo, DelayInfo, DelayedRecipient, DeliveryInfo, Extras, Mail,
};
use crate::message::dkim::Signer;
use crate::message::dsn;
use crate::policy::listing::Listing;
use crate::policy::mailing::Mailing;
use crate::policy::reputation::Counting;
use crate::policy::retry::{self, Decision, Waiting};
use crate::policy::{BounceClass, Disposition, Fault, RetryKind, Verdict};
use crate::queue::{EndGroup, JobKey, Next, RecipientOutcome, RecipientState, Settlement, StoredMessage};
use crate::types::{EnhancedStatus, MessageId, Notify, Reply, SourceName, Suppressed, SuppressionReason, Timestamp};

pub use routing::routing_fate;

/// NXDOMAIN is believed at a second look at least this much later.
pub const NXDOMAIN_SECOND_LOOK: Duration = Duration::from_secs(600);
/// Octets of a reply that are kept in a recipient's state.
const LAST_REPLY_BYTES_MAX: usize = 1_024;
/// The rule of an attempt whose final dot went out and that got no reply.
pub const AMBIGUOUS_RULE: &str = "no-final-reply";

/// The rule of what was not tried, since a limit of ours would have been passed: its state stays, and it is due at once.
pub const UNTRIED_RULE: &str = "waits-for-limit";

/// Attempts in a row whose source was blocked for what the host replied after which the next source is not tried at once: the
/// message itself may be what hosts object to, and it must not have one source after the other blocked.
pub const BLOCKS_IN_A_ROW_MAX: u8 = 2;

/// Attempts of a greylisted recipient that come from one source.
const SAME_SOURCE_ATTEMPTS: u32 = 4;

/// The rule of what an operator took back.
pub const CANCELLED_RULE: &str = "cancelled";

/// The class of recipients that a suppression list holds back: no reply gave them one.
const SUPPRESSED_CLASS: &str = "suppressed";

/// What an administrator can set about outcomes.
#[derive(Clone, Debug)]
pub struct SettlementSettings {
    /// Our name: reporting MTA.
    pub hostname: String,
    /// When to try again, and when to tell of a delay.
    pub retry: retry::Settings,
    /// Which bounces are mailed to their sender, where RCPT had no NOTIFY.
    pub mail_bounces: Arc<Mailing>,
    /// How long a notification may be retried.
    pub notification_lifetime: Duration,
    /// Who signs notifications. Shared, since keys change their places at any time.
    pub signers: Arc<ArcSwap<Vec<Arc<Signer>>>>,
    /// What counts for reputation.
    pub counting: Counting,
    /// Which bounces put an address on its tenant's list.
    pub listing: Arc<Listing>,
}

/// In whose words an outcome is told.
#[derive(Clone, Debug)]
pub enum Words {
    /// The peer's.
    Reply(Reply),
    /// Ours.
    Local(String),
    /// Ours, where a suppression list holds the mail back.
    Suppressed(Suppressed),
}

impl Words {
    fn text(&self) -> String {
        match self {
            Words::Reply(reply) => reply.to_string(),
            Words::Local(text) => text.clone(),
            Words::Suppressed(suppressed) => suppressed.text().to_owned(),
        }
    }

    fn diagnostic_code(&self) -> String {
        match self {
            Words::Reply(reply) => schema::diagnostic_code(reply),
            Words::Local(text) => format!("X-Posthaste; {text}"),
            Words::Suppressed(suppressed) => format!("X-Posthaste; {}", suppressed.text()),
        }
    }
}

/// What became of one recipient in an attempt.
#[derive(Clone, Debug)]
pub struct Fate {
    /// Its index in the envelope.
    pub index: usize,
    /// What that means.
    pub verdict: Verdict,
    /// RFC 3463 status: the peer's, or ours.
    pub status: EnhancedStatus,
    /// Why.
    pub words: Words,
    /// The way that it took.
    pub way: Arc<Way>,
}

impl Fate {
    /// That of a recipient that a suppression list holds back: no attempt is made.
    pub fn suppressed(index: usize, suppressed: Suppressed) -> Self {
        let mut verdict = Fault::NoAddress.verdict();
        (verdict.rule, verdict.class) = (suppressed.tier.rule().into(), BounceClass::Policy);
        let status = EnhancedStatus::new(5, 1, 1).expect("class 5 with small numbers");
        Self { index, verdict, status, words: Words::Suppressed(suppressed), way: Arc::default() }
    }

    /// That of a recipient whose turn did not come within what our limits let an assignment send.
    pub fn untried(index: usize, way: Arc<Way>) -> Self {
        let mut verdict = Fault::Internal.verdict();
        verdict.rule = UNTRIED_RULE.into();
        let words =
            Words::Local("not tried yet: a limit of messages was reached, or the source was blocked".to_owned());
        Self { index, verdict, status: Fault::Internal.status(), words, way }
    }

    fn is_untried(&self) -> bool {
        &*self.verdict.rule == UNTRIED_RULE
    }

    fn as_suppressed(&self) -> Option<Suppressed> {
        if let Words::Suppressed(suppressed) = &self.words { Some(*suppressed) } else { None }
    }
}

/// The way an attempt took. All `None` where it came to no connection.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Site.
    pub site: Option<String>,
    /// Local address.
    pub source: Option<IpAddr>,
    /// The source that it belongs to.
    pub source_name: Option<SourceName>,
    /// Remote address.
    pub remote: Option<IpAddr>,
    /// Remote host name.
    pub host: Option<String>,
    /// TLS version.
    pub tls: Option<&'static str>,
    /// The peer was given NOTIFY: success and delay are its duty now.
    pub dsn_passed: bool,
}

/// What stands behind a settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptKind {
    /// Something was tried.
    Counts,
    /// A decision without an attempt: expired, cancelled.
    Decision,
    /// Only to tell of a delay.
    Notice,
}

/// An attempt, or a decision without one.
#[derive(Clone, Debug)]
pub struct Attempt<'a> {
    /// The message.
    pub message: &'a StoredMessage,
    /// The job.
    pub key: JobKey,
    /// Its due key's time; `None` where it is held.
    pub due_at: Option<Timestamp>,
    /// When it ended.
    pub now: Timestamp,
    /// It may have been delivered before (promise 3).
    pub ambiguous: bool,
    /// Whether something was tried.
    pub kind: AttemptKind,
    /// Attempts in a row before this one whose source was blocked.
    pub blocks: u8,
    /// The source that the job kept so far.
    pub source: Option<SourceName>,
    /// The first octets of the message: the whole header block at least, for notifications.
    pub original: &'a [u8],
}

/// What to commit, and what it means.
#[derive(Debug)]
pub struct Decided {
    /// To commit.
    pub settlement: Settlement,
    /// For the scheduler, once it is committed.
    pub settled: Settled,
    /// For the counters.
    pub tally: Tally,
}

/// Recipients by outcome.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Taken by a next hop.
    pub delivered: u64,
    /// To be tried again.
    pub deferred: u64,
    /// Over, by a reply or a fault.
    pub bounced: u64,
    /// Of these, held back by a suppression list.
    pub suppressed: Vec<Suppressed>,
}

struct Draft<'a, 'b> {
    attempt: &'a Attempt<'b>,
    settings: &'a SettlementSettings,
    settlement: Settlement,
    next_at: Option<Timestamp>,
    attempts: u32,
    /// The source that the next attempt is to come from.
    source: Option<SourceName>,
    /// The source was blocked for what the host replied.
    blocked: bool,
    /// A recipient is due at once: it was not tried, or another source may take it. Where another one was deferred, both wait for its
    /// time: they are one job, and that one must not be tried sooner.
    at_once: bool,
    /// An attempt was made for the recipient before this one.
    was_tried: bool,
    told: Told,
    tally: Tally,
}

/// Decides what an attempt comes to. `fates` names each pending recipient of the job once; `new_id` gives ids for
/// notifications.
pub fn settle(
    attempt: &Attempt<'_>,
    fates: &[Fate],
    settings: &SettlementSettings,
    new_id: &mut dyn FnMut() -> MessageId,
) -> Decided {
    let next = Next::Ended(end_group(attempt.message, attempt.key.group));
    let settlement = Settlement {
        states: Vec::with_capacity(fates.len()),
        events: Vec::with_capacity(fates.len()),
        ..Settlement::new(attempt.key, attempt.due_at, next)
    };
    let mut draft = Draft {
        attempt,
        settings,
        settlement,
        next_at: None,
        attempts: 0,
        source: None,
        blocked: false,
        at_once: false,
        was_tried: false,
        told: Told::default(),
        tally: Tally::default(),
    };
    for fate in fates {
        draft.take(fate);
    }
    let mut decided = draft.finish(new_id);
    reputation::charge(&mut decided.settlement, attempt, fates, &settings.counting);
    decided
}

/// What belongs to a message whose group ended.
pub fn end_group(message: &StoredMessage, group: u16) -> EndGroup {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    EndGroup {
        id: message.id,
        group,
        groups: u16::try_from(message.domains.len()).unwrap_or(u16::MAX),
        body_parts: message.body_parts,
        recipients: count(message.envelope.recipients.len()),
        recipient_headers: message.recipient_headers,
        has_states: message.has_states(),
    }
}

impl<'b> Draft<'_, 'b> {
    fn take(&mut self, fate: &Fate) {
        let attempt = self.attempt;
        let prior = attempt.message.states.get(fate.index).cloned().flatten();
        let mut state = prior.unwrap_or_default();
        if attempt.kind == AttemptKind::Notice {
            // Nothing was tried: what the last attempt left behind stays.
            self.attempts = self.attempts.max(state.attempts);
            self.next_at = attempt.due_at;
            self.source.clone_from(&attempt.source);
            let ambiguous = attempt.ambiguous || state.ambiguous;
            self.delay_notice(fate, &mut state, ambiguous);
            return self.settlement.states.push((u32::try_from(fate.index).unwrap_or(u32::MAX), state));
        }
        if fate.is_untried() {
            self.attempts = self.attempts.max(state.attempts);
            self.at_once = true;
            self.keep_source();
            // Its new due time says nothing any more of the stop before this attempt.
            state.ambiguous |= attempt.ambiguous;
            return self.settlement.states.push((u32::try_from(fate.index).unwrap_or(u32::MAX), state));
        }
        self.was_tried = state.attempts > 0 || state.ambiguous || attempt.ambiguous;
        if attempt.kind == AttemptKind::Counts && fate.as_suppressed().is_none() {
            state.attempts = state.attempts.saturating_add(1);
        }
        // The mark stays until the end: this attempt's own too, since its event may be the last one.
        state.ambiguous |= attempt.ambiguous || &*fate.verdict.rule == AMBIGUOUS_RULE;
        let ambiguous = state.ambiguous;
        self.attempts = self.attempts.max(state.attempts);
        state.last_attempt_ms = attempt.now.millis();
        if state.first_attempt_ms == 0 {
            state.first_attempt_ms = attempt.now.millis();
        }
        let text = fate.words.text();
        state.last_reply = cut(&text, LAST_REPLY_BYTES_MAX).to_owned();
        state.last_rule = fate.verdict.rule.to_string();
        state.last_host = fate.way.host.clone().unwrap_or_default();
        match fate.verdict.disposition {
            Disposition::Delivered => self.delivered(fate, &mut state, ambiguous),
            Disposition::Bounced => self.bounced(fate, &fate.verdict.clone(), &mut state, ambiguous),
            Disposition::Deferred => self.deferred(fate, &mut state, ambiguous),
        }
        self.remember(fate, &state);
        self.settlement.states.push((u32::try_from(fate.index).unwrap_or(u32::MAX), state));
    }

    fn delivered(&mut self, fate: &Fate, state: &mut RecipientState, ambiguous: bool) {
        self.tally.delivered += 1;
        state.outcome = RecipientOutcome::Delivered;
        let attempt = self.attempt;
        let info = DeliveryInfo {
            at: attempt.now,
            recipients: &[address(attempt, fate.index)],
            smtp_response: &fate.words.text(),
            remote_mta_ip: fate.way.remote.unwrap_or(IpAddr::from([0, 0, 0, 0])),
            reporting_mta: &self.settings.hostname,
        };
        let event = schema::delivery(mail(attempt), &info, &self.extras(fate, &fate.verdict, state, ambiguous));
        self.settlement.events.push(event);
        if !fate.way.dsn_passed && self.notify(fate.index).is_some_and(|notify| notify.contains(Notify::SUCCESS)) {
            self.told.tell(dsn::Kind::Relayed, fate);
        }
    }

    fn bounced(&mut self, fate: &Fate, verdict: &Verdict, state: &mut RecipientState, ambiguous: bool) {
        self.tally.bounced += 1;
        let cancelled = &*verdict.rule == CANCELLED_RULE;
        state.outcome = if cancelled {
            RecipientOutcome::Cancelled
        } else if self.attempt.now >= self.attempt.message.expires_at {
            RecipientOutcome::Expired
        } else {
            RecipientOutcome::Bounced
        };
        let suppressed = fate.as_suppressed();
        if let Some(suppressed) = suppressed {
            self.tally.suppressed.push(suppressed);
        }
        if suppressed.is_some_and(Suppressed::is_complaint) {
            let event = self.complaint_event(fate, verdict, state, ambiguous);
            self.settlement.events.push(event);
        } else {
            let event = self.bounce_event(fate, verdict, state, ambiguous);
            self.tell_bounce(fate.index, event);
        }
        self.list(fate, verdict, state);
        let origin = &self.attempt.message.origin;
        let is_mailed = || self.settings.mail_bounces.mails(&origin.configuration_set, &origin.identity);
        let wanted = self.notify(fate.index).map_or_else(is_mailed, |notify| notify.contains(Notify::FAILURE));
        // Who cancels mail does not want its sender to hear of a failure; of complaints senders hear by events alone.
        let complained = suppressed.is_some_and(|suppressed| suppressed.reason == SuppressionReason::Complaint);
        if wanted && !cancelled && !complained {
            self.told.tell(dsn::Kind::Failed, fate);
        }
    }

    fn complaint_event(&self, fate: &Fate, verdict: &Verdict, state: &RecipientState, ambiguous: bool) -> EventLine {
        let attempt = self.attempt;
        let feedback_id = schema::feedback_id(attempt.key.id, u32::try_from(fate.index).unwrap_or(u32::MAX));
        let recipients = [address(attempt, fate.index)];
        let info = ComplaintInfo { at: attempt.now, recipients: &recipients, feedback_id: &feedback_id, report: None };
        schema::complaint(mail(attempt), &info, &self.extras(fate, verdict, state, ambiguous))
    }

    fn bounce_event(&self, fate: &Fate, verdict: &Verdict, state: &RecipientState, ambiguous: bool) -> EventLine {
        let attempt = self.attempt;
        let diagnostic_code = fate.words.diagnostic_code();
        let recipient = BouncedRecipient {
            email_address: address(attempt, fate.index),
            action: Some("failed"),
            status: Some(fate.status),
            diagnostic_code: Some(&diagnostic_code),
        };
        let feedback_id = schema::feedback_id(attempt.key.id, u32::try_from(fate.index).unwrap_or(u32::MAX));
        let info = BounceInfo {
            at: attempt.now,
            kind: fate.as_suppressed().map_or_else(|| verdict.bounce_kind(), Suppressed::bounce_kind),
            recipients: &[recipient],
            feedback_id: &feedback_id,
            remote_mta_ip: fate.way.remote,
            reporting_mta: Some(&self.settings.hostname),
        };
        schema::bounce(mail(attempt), &info, &self.extras(fate, verdict, state, ambiguous))
    }

    fn deferred(&mut self, fate: &Fate, state: &mut RecipientState, ambiguous: bool) {
        let attempt = self.attempt;
        if state.failing_since_ms == 0 {
            state.failing_since_ms = attempt.now.millis();
        }
        let lifetime = attempt.message.expires_at.since(attempt.message.accepted_at);
        let waiting = Waiting {
            verdict: &fate.verdict,
            attempts: state.attempts.max(1),
            accepted_at: attempt.message.accepted_at,
            lifetime,
            seed: attempt.key.id.seed() ^ fate.index as u64,
        };
        let at = match retry::decide(&waiting, attempt.now, &self.settings.retry) {
            // Another source may take it at once; where there is none, the scheduler lets it wait, without an attempt.
            Decision::Attempt(_) if self.takes_another_source(fate) => {
                (self.blocked, self.at_once) = (true, true);
                None
            }
            Decision::Expire(at) if at <= attempt.now => {
                return self.bounced(fate, &fate.verdict.clone().expired(), state, ambiguous);
            }
            Decision::Expire(at) | Decision::Attempt(at) => Some(at),
        };
        self.tally.deferred += 1;
        if let Some(at) = at {
            self.next_at = Some(self.next_at.map_or(at, |earlier| earlier.min(at)));
        }
        if state.attempts <= SAME_SOURCE_ATTEMPTS {
            match fate.verdict.retry {
                RetryKind::Greylist => self.source.clone_from(&fate.way.source_name),
                RetryKind::Blocked => {}
                _ => self.keep_source(),
            }
        }
        self.delay_notice(fate, state, ambiguous);
    }

    /// The source that the job kept so far is kept on: hosts count what it did there.
    fn keep_source(&mut self) {
        if self.source.is_none() {
            self.source.clone_from(&self.attempt.source);
        }
    }

    /// Whether what the host replied speaks of the source, as far as is known: not where it has done so of several.
    fn takes_another_source(&self, fate: &Fate) -> bool {
        fate.verdict.retry == RetryKind::Blocked && self.attempt.blocks < BLOCKS_IN_A_ROW_MAX
    }

    /// Tells of a delay where the message has become as old as one of the configured ages.
    fn delay_notice(&mut self, fate: &Fate, state: &mut RecipientState, ambiguous: bool) {
        let attempt = self.attempt;
        let reached = retry::notices_due(attempt.message.accepted_at, attempt.now, &self.settings.retry.delay_notices);
        let reached = u8::try_from(reached).unwrap_or(u8::MAX);
        if reached <= state.delay_notices {
            return;
        }
        state.delay_notices = reached;
        let diagnostic_code = fate.words.diagnostic_code();
        let recipient = DelayedRecipient {
            email_address: address(attempt, fate.index),
            status: Some(fate.status),
            diagnostic_code: Some(&diagnostic_code),
        };
        let info = DelayInfo {
            at: attempt.now,
            delay_type: fate.verdict.delay_type,
            recipients: &[recipient],
            expires_at: attempt.message.expires_at,
            reporting_mta: Some(&self.settings.hostname),
        };
        let event = schema::delivery_delay(mail(attempt), &info, &self.extras(fate, &fate.verdict, state, ambiguous));
        self.settlement.events.push(event);
        if self.notify(fate.index).is_some_and(|notify| notify.contains(Notify::DELAY)) {
            self.told.tell(dsn::Kind::Delayed, fate);
        }
    }

    fn finish(mut self, new_id: &mut dyn FnMut() -> MessageId) -> Decided {
        let attempt = self.attempt;
        let mut settled = Settled::Out;
        let at_once = self.at_once.then(|| attempt.now.plus(Duration::from_millis(1)));
        if let Some(at) = self.next_at.or(at_once) {
            let entry = attempt.message.due_entry(attempt.key.group, self.attempts, self.source.as_ref());
            let unchanged = attempt.kind == AttemptKind::Notice;
            for (_, state) in &mut self.settlement.states {
                state.next_attempt_ms = at.millis();
            }
            self.settlement.next = Next::Due { at, entry };
            settled = if unchanged {
                Settled::Unchanged
            } else {
                Settled::Due { at, attempts: self.attempts, source: self.source.clone(), blocked: self.blocked }
            };
        }
        self.settlement.notifications = notification::build(attempt, &self.told, self.settings, new_id);
        self.tell_failures_once();
        Decided { settlement: self.settlement, settled, tally: self.tally }
    }

    fn notify(&self, index: usize) -> Option<Notify> {
        self.attempt.message.envelope.recipients.get(index).and_then(|recipient| recipient.notify)
    }

    fn extras<'c>(
        &'c self,
        fate: &'c Fate,
        verdict: &'c Verdict,
        state: &RecipientState,
        ambiguous: bool,
    ) -> Extras<'c> {
        let attempt: &'c Attempt<'b> = self.attempt;
        let domain = attempt.message.domains.get(usize::from(attempt.key.group));
        let delivered = verdict.disposition == Disposition::Delivered;
        Extras {
            recipient: None,
            site: fate.way.site.as_deref(),
            domain: domain.map(|domain| domain.as_str()),
            source: fate.way.source,
            pool: Some(attempt.message.origin.pool.as_str()),
            // An address that was held back at acceptance had none.
            attempt: (state.attempts > 0 || fate.as_suppressed().is_none()).then_some(state.attempts),
            rule: (!delivered).then_some(&*verdict.rule),
            class: (!delivered)
                .then(|| if fate.as_suppressed().is_some() { SUPPRESSED_CLASS } else { verdict.class.name() }),
            enhanced_code: Some(fate.status),
            ambiguous,
            tls: fate.way.tls,
        }
    }
}

fn mail<'a>(attempt: &Attempt<'a>) -> Mail<'a> {
    Mail { id: attempt.key.id, json: &attempt.message.mail_json }
}

fn address<'a>(attempt: &Attempt<'a>, index: usize) -> &'a str {
    attempt.message.envelope.recipients.get(index).map_or("", |recipient| recipient.address.as_str())
}

fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

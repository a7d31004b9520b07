//! What transactions and failures mean for the recipients of an assignment, up to their settlement.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::clerk;
use super::dispatch::Input;
use super::route::RouteFailure;
use super::session::{ConnectCause, Loss, RecipientResult, SendResult, Stage};
use super::shared::Shared;
use super::worker::Unreached;
use crate::events::metric;
use crate::policy::lane::{Health, Hit, Learned};
use crate::policy::reaction::ReactionKind;
use crate::policy::{BounceClass, Disposition, Fault, Rules, Scope, Verdict};
use crate::queue::store::StoreError;
use crate::queue::{Intake, StoredBody, StoredMessage};
use crate::scheduler::settlement::{self, AMBIGUOUS_RULE, Attempt, AttemptKind, BLOCKS_IN_A_ROW_MAX, Fate, Way, Words};
use crate::scheduler::{Lease, Payload, RoutingFailure, RoutingFailureKind};
use crate::smtp::client::LossReason;
use crate::types::{DayTotals, EnhancedStatus, MessageId, Recipient, Reply, Severity, Timestamp};

/// Connections that may be lost one after the other, with nothing sent between, before the rest of an assignment is given up
/// for this attempt.
const STALE_MAX: u32 = 2;

/// How often a message is given back without an attempt, as its host ended the connection on it, before that counts as one: a
/// host may do so at the sight of this message, for ever.
const SPARED_MAX: u8 = 3;

/// A connection that ends early teaches at most a quarter of what connections had before: one odd 421 is not the host's limit.
const SPENT_SHARE: u32 = 4;

/// What the last attempts of a message's recipients say of blocks, where the scheduler does not know any more: one counts as all
/// that a message may cause.
fn known_blocks(message: &StoredMessage, judge: &Judge) -> u8 {
    let states = message.states.iter().flatten();
    let blocked = states.filter(|state| state.attempts > 1).any(|state| judge.rules.is_block(&state.last_rule));
    if blocked { BLOCKS_IN_A_ROW_MAX } else { 0 }
}

/// What replies are judged by, at one site.
#[derive(Clone)]
pub(super) struct Judge {
    pub(super) rules: Arc<Rules>,
    pub(super) provider: Option<Arc<str>>,
}

impl Judge {
    /// The verdict on a reply.
    pub(super) fn verdict(&self, reply: &Reply, stage: Stage) -> Verdict {
        self.rules.classify(reply, stage, self.provider.as_deref())
    }
}

/// The fates of all recipients of an assignment, as they become known.
pub(super) struct Results {
    /// Pending recipients of all jobs, in order.
    pending: Vec<usize>,
    fates: Vec<Fate>,
    /// Those of recipients that a suppression list holds back: kept apart, since they say nothing of the host.
    suppressed: Vec<Fate>,
    learned: Learned,
    judge: Judge,
    /// Blocks in a row, and times that it was given back, before this assignment.
    blocks: u8,
    spared: u8,
    /// Messages that a connection may have by now.
    connection_max: u32,
    give_back: bool,
    stale: u32,
    message: Arc<StoredMessage>,
}

impl Results {
    pub(super) fn new(message: &Arc<StoredMessage>, leases: &[Lease], judge: Judge, connection_max: u32) -> Self {
        let in_a_row = leases.iter().map(|lease| lease.blocks);
        let blocks = in_a_row.chain([known_blocks(message, &judge)]).max().unwrap_or(0);
        let mut pending: Vec<usize> = leases.iter().flat_map(|lease| message.pending(lease.key.group)).collect();
        // Those that had the fewest attempts first: where a limit ends an assignment early, all have their turn.
        pending
            .sort_by_key(|index| message.states.get(*index).and_then(Option::as_ref).map_or(0, |state| state.attempts));
        let suppressed = Vec::new();
        Self {
            pending,
            fates: Vec::new(),
            suppressed,
            learned: Learned::default(),
            judge,
            blocks,
            spared: leases.iter().map(|lease| lease.spared).max().unwrap_or(0),
            connection_max,
            give_back: false,
            stale: 0,
            message: Arc::clone(message),
        }
    }

    /// Looks up which recipients mail is held back from by now, and takes them out. An error: the store does not answer.
    pub(super) async fn hold_back(&mut self, shared: &Shared) -> Result<(), StoreError> {
        if shared.suppression.is_idle() {
            return Ok(());
        }
        let recipients = &self.message.envelope.recipients;
        let positions: Vec<usize> = self.pending.iter().copied().filter(|index| *index < recipients.len()).collect();
        let addresses: Vec<_> =
            positions.iter().filter_map(|index| recipients.get(*index)).map(|recipient| &recipient.address).collect();
        let (tenant, set) = self.message.origin.owner();
        for (position, suppressed) in shared.suppression.check(tenant, set, &addresses).await? {
            let Some(index) = positions.get(position).copied() else { continue };
            self.pending.retain(|pending| *pending != index);
            self.suppressed.push(Fate::suppressed(index, suppressed));
        }
        Ok(())
    }

    /// Every recipient has a fate.
    pub(super) fn is_complete(&self) -> bool {
        self.pending.is_empty()
    }

    /// Nothing is known of any recipient yet.
    pub(super) fn is_untouched(&self) -> bool {
        self.fates.is_empty()
    }

    /// The host sent us away before it tried anything: no attempt was made.
    pub(super) fn should_give_back(&self) -> bool {
        self.give_back
    }

    /// What was learned of the lane.
    pub(super) fn learned(&self) -> Learned {
        Learned { took_nothing: self.totals().0.delivered == 0, ..self.learned.clone() }
    }

    /// What replies said of the source was said to one address family: the other is tried before the source is given up.
    /// `true` where there was such a reply.
    pub(super) fn forget_blocks(&mut self) -> bool {
        let before = self.learned.reactions.len();
        self.learned.reactions.retain(|hit| hit.reaction.kind != ReactionKind::Block);
        before > self.learned.reactions.len()
    }

    /// A reply closed the lane: nothing more goes this way.
    pub(super) fn is_lane_closed(&self) -> bool {
        let closes = |kind| matches!(kind, ReactionKind::Block | ReactionKind::Suspend);
        self.learned.reactions.iter().any(|hit| hit.reaction.after.is_none() && closes(hit.reaction.kind))
    }

    /// The rest is not tried: a limit of messages is reached, or its lane is closed.
    pub(super) fn leave_untried(&mut self, way: &Arc<Way>) {
        let rest = std::mem::take(&mut self.pending);
        self.fates.extend(rest.into_iter().map(|index| Fate::untried(index, Arc::clone(way))));
    }

    /// The recipients of the next transaction.
    pub(super) fn next_recipients(&self, message: &StoredMessage, limit: usize) -> (Vec<usize>, Vec<Recipient>) {
        let indices: Vec<usize> = self.pending.iter().copied().take(limit.max(1)).collect();
        let recipients = indices.iter().filter_map(|index| message.envelope.recipients.get(*index).cloned());
        let recipients = recipients.collect();
        (indices, recipients)
    }

    /// Takes in a transaction and the way it went. `before`: the transactions that its connection had before it; `begun`: something of
    /// it was sent. `true` where a reply spoke of this one host: others may do better.
    pub(super) fn take(
        &mut self,
        indices: &[usize],
        result: SendResult,
        way: &Arc<Way>,
        before: u32,
        begun: bool,
    ) -> bool {
        let untouched = result.recipients.iter().all(|result| matches!(result, RecipientResult::NotSent { .. }));
        let sent_away = result.recipients.first().filter(|_| untouched).and_then(|result| match result {
            RecipientResult::NotSent { loss } => loss.reply().cloned().map(|reply| (reply, loss.stage)),
            _ => None,
        });
        // A 421 to MAIL is about this transaction, unlike one that was there before.
        if result.stale && (sent_away.is_none() || !begun) && self.stale < STALE_MAX {
            // The host had closed an idle connection: again on a new one.
            self.stale += 1;
            return false;
        }
        if let Some((reply, stage)) = sent_away
            && self.is_sent_away(&reply, stage, before)
        {
            return false;
        }
        self.stale = 0;
        let mut fates = Vec::with_capacity(indices.len());
        for (index, result) in indices.iter().zip(result.recipients) {
            fates.push(Fate { way: Arc::clone(way), ..self.fate(*index, result) });
        }
        // A host that takes only so many recipients at once gets the others in the next transaction: no attempt is lost.
        let progress = fates.iter().any(|fate| fate.verdict.class != BounceClass::TooManyRecipients);
        let (again, fates): (Vec<_>, Vec<_>) =
            fates.into_iter().partition(|fate| progress && fate.verdict.class == BounceClass::TooManyRecipients);
        self.pending.retain(|index| !indices.contains(index) || again.iter().any(|fate| fate.index == *index));
        let one_host = fates.iter().any(|fate| fate.verdict.scope == Scope::OneHost);
        self.fates.extend(fates);
        if untouched {
            // The rest would fare the same on this host now.
            let rest: Vec<usize> = std::mem::take(&mut self.pending);
            if let Some(last) = self.fates.last().cloned() {
                self.fates.extend(rest.into_iter().map(|index| Fate { index, ..last.clone() }));
            }
        }
        one_host
    }

    /// The host ended the connection before it took anything of this transaction (421): no attempt of the message, unless it
    /// happens again and again. `true` where nothing more is to be made of it here.
    fn is_sent_away(&mut self, reply: &Reply, stage: Stage, before: u32) -> bool {
        let verdict = self.judge.verdict(reply, stage);
        if verdict.scope != Scope::Lane {
            return false;
        }
        let is_first = before == 0;
        if !self.fates.is_empty() {
            // Amid an assignment: what was sent on this connection has its fate, the rest goes on another.
            if !is_first {
                tracing::debug!(%reply, "the host ended the connection; the message's next transaction goes on another");
                self.learned.spent_after = Some(before.max(self.connection_max / SPENT_SHARE));
            }
            return !is_first;
        }
        if is_first && self.spared >= SPARED_MAX {
            return false;
        }
        tracing::debug!(%reply, "the host ended the connection; the message goes on another");
        if is_first || verdict.reaction.is_some() {
            self.learn_of_lane(&verdict, reply, stage);
            wants_fewer(&mut self.learned, reply);
        } else {
            // It has had enough on this connection. A new one tells whether it has had enough of us.
            self.learned.spent_after = Some(before.max(self.connection_max / SPENT_SHARE));
        }
        self.give_back = true;
        true
    }

    /// A reply that speaks of our source at this site.
    fn learn_of_lane(&mut self, verdict: &Verdict, reply: &Reply, stage: Stage) {
        // Where several sources were refused for one message, it is the message.
        let by_message = !stage.is_session() && self.blocks >= BLOCKS_IN_A_ROW_MAX;
        learn_of_lane(&mut self.learned, verdict, reply, by_message);
    }

    fn fate(&mut self, index: usize, result: RecipientResult) -> Fate {
        match result {
            RecipientResult::Accepted { reply } => {
                self.went_well();
                replied(index, reply, Stage::Dot, &self.judge)
            }
            RecipientResult::Refused { reply, stage } => {
                let fate = replied(index, reply.clone(), stage, &self.judge);
                match fate.verdict.scope {
                    Scope::Lane => self.learn_of_lane(&fate.verdict, &reply, stage),
                    // One address, whatever is sent from wherever: the worker leaves it for last.
                    Scope::OneHost => {}
                    // What a reply makes of a lane does not hang on what it says of the message.
                    Scope::Recipient | Scope::Message if fate.verdict.reaction.is_some() => {
                        self.learn_of_lane(&fate.verdict, &reply, stage);
                    }
                    Scope::Recipient | Scope::Message => self.went_well(),
                }
                fate
            }
            RecipientResult::NotSent { loss } => {
                match &loss.reason {
                    LossReason::Body(_) => {}
                    LossReason::ShuttingDown(reply) => {
                        let verdict = self.judge.verdict(reply, loss.stage);
                        self.learn_of_lane(&verdict, reply, loss.stage);
                    }
                    _ => self.learned.health = Health::Unreachable(loss.to_string().into()),
                }
                lost(index, &loss, &self.judge)
            }
            RecipientResult::Ambiguous { loss } => {
                let mut fate = lost(index, &loss, &self.judge);
                fate.verdict.rule = AMBIGUOUS_RULE.into();
                fate.words =
                    Words::Local(format!("{loss}, after all of the message was sent; it may have been delivered"));
                fate
            }
            RecipientResult::Unsendable { status, text } => {
                let too_large = status.subject() == 3;
                let fault = if too_large { Fault::TooLarge } else { Fault::NeedsSmtpUtf8 };
                Fate { index, verdict: fault.verdict(), status, words: Words::Local(text.into()), way: Arc::default() }
            }
        }
    }

    fn went_well(&mut self) {
        if self.learned.health == Health::Unknown && self.learned.reactions.is_empty() {
            self.learned.health = Health::Good;
        }
    }

    /// What these recipients are to get cannot be read: they are tried again later.
    pub(super) fn unreadable(&mut self, indices: &[usize], way: &Arc<Way>, text: &str) {
        self.pending.retain(|index| !indices.contains(index));
        let (verdict, status) = (Fault::Internal.verdict(), Fault::Internal.status());
        self.fates.extend(indices.iter().map(|index| Fate {
            index: *index,
            verdict: verdict.clone(),
            status,
            words: Words::Local(text.to_owned()),
            way: Arc::clone(way),
        }));
    }

    fn fail_all(&mut self, way: &Arc<Way>, make: impl Fn(usize, &StoredMessage) -> Fate) {
        for index in std::mem::take(&mut self.pending) {
            let fate = Fate { way: Arc::clone(way), ..make(index, &self.message) };
            self.fates.push(fate);
        }
    }

    /// What the host said, for the history and for warm-ups; of what was not asked, or lost, nothing.
    pub(super) fn totals(&self) -> (DayTotals, u32) {
        let (mut totals, mut greylisted) = (DayTotals::default(), 0);
        for fate in self.fates.iter().filter(|fate| matches!(fate.words, Words::Reply(_))) {
            totals.sent += 1;
            match fate.verdict.disposition {
                Disposition::Delivered => totals.delivered += 1,
                Disposition::Deferred => {
                    totals.deferred += 1;
                    greylisted += u32::from(fate.verdict.class == BounceClass::Greylist);
                }
                Disposition::Bounced => *totals.bounced.entry(fate.verdict.class.code()).or_default() += 1,
            }
        }
        (totals, greylisted)
    }

    /// Settles every job of the assignment. Who has no fate by now was not tried.
    pub(super) async fn settle(
        mut self,
        shared: &Arc<Shared>,
        leases: Vec<Lease>,
        payload: &Payload,
        inputs: &mpsc::Sender<Input>,
    ) {
        self.leave_untried(&Arc::default());
        let now = shared.clock.now();
        let reloadable = shared.reloadable();
        let original = original(shared, payload).await;
        for lease in leases {
            let in_group = |index: usize| self.message.groups.get(index) == Some(&lease.key.group);
            let all = self.suppressed.iter().chain(&self.fates);
            let fates: Vec<Fate> = all.filter(|fate| in_group(fate.index)).cloned().collect();
            let attempt = Attempt {
                message: &self.message,
                key: lease.key,
                due_at: lease.due_at,
                now,
                ambiguous: lease.ambiguous,
                kind: AttemptKind::Counts,
                blocks: self.blocks,
                source: lease.source.clone(),
                original: &original,
            };
            let mut new_id = || shared.queue.new_id();
            let decided = settlement::settle(&attempt, &fates, &reloadable.settlement, &mut new_id);
            shared.counts.add(&decided.tally);
            shared.tallies.add(self.judge.provider.as_ref(), &fates);
            tell(lease.key.id, &fates);
            if decided.tally.delivered > 0 {
                metrics::histogram!(metric::DELIVERY_SECONDS).record(now.since(self.message.accepted_at));
            }
            clerk::commit(shared, decided.settlement, decided.settled, lease.key, inputs).await;
        }
    }
}

/// One line of log for each recipient that was not delivered: the story of a session, at debug.
fn tell(message_id: MessageId, fates: &[Fate]) {
    for fate in fates.iter().filter(|fate| fate.verdict.disposition != Disposition::Delivered) {
        let (rule, host) = (&*fate.verdict.rule, fate.way.host.as_deref().unwrap_or_default());
        let outcome = fate.verdict.disposition;
        tracing::debug!(%message_id, recipient = fate.index, ?outcome, rule, host, reply = %words(fate), "not delivered");
    }
}

async fn original(shared: &Arc<Shared>, payload: &Payload) -> bytes::Bytes {
    match &payload.body {
        StoredBody::Inline(bytes) => bytes.clone(),
        StoredBody::Parts { .. } => {
            let id = payload.message.id;
            let part = shared.queue.reading(move |queue| queue.body_part(id, 0)).await;
            part.ok().and_then(Result::ok).unwrap_or_default()
        }
    }
}

/// Takes in a reply that speaks of a source at a site. `by_message`: of this message rather.
fn learn_of_lane(learned: &mut Learned, verdict: &Verdict, reply: &Reply, by_message: bool) {
    match verdict.reaction {
        Some(reaction) if by_message && reaction.kind == ReactionKind::Block => {}
        Some(reaction) => {
            let (rule, words) = (Arc::clone(&verdict.rule), reply.to_string().into());
            let is_known = learned.reactions.iter().any(|hit| hit.rule == rule);
            if !is_known {
                learned.reactions.push(Hit { rule, reaction, words });
            }
            if learned.health == Health::Good {
                learned.health = Health::Unknown;
            }
        }
        None => learned.health = Health::Busy(reply.to_string().into()),
    }
}

/// A connection was refused, or ended before it took anything, and no reaction closes the lane: without fewer connections it would
/// be refused again at once.
fn wants_fewer(learned: &mut Learned, reply: &Reply) {
    let closes = |hit: &Hit| {
        hit.reaction.after.is_none() && matches!(hit.reaction.kind, ReactionKind::Block | ReactionKind::Suspend)
    };
    if !learned.reactions.iter().any(closes) {
        learned.health = Health::Busy(reply.to_string().into());
    }
}

/// What a refused connection says of its lane.
pub(super) fn refused(reply: &Reply, stage: Stage, judge: &Judge, words: String) -> Learned {
    let verdict = judge.verdict(reply, stage);
    let mut learned = Learned::default();
    match (verdict.reaction, reply.severity()) {
        (Some(_), _) => {
            learn_of_lane(&mut learned, &verdict, reply, false);
            wants_fewer(&mut learned, reply);
        }
        (None, Severity::Transient) => learned.health = Health::Busy(words.into()),
        (None, _) => learned.health = Health::Unreachable(words.into()),
    }
    learned
}

fn words(fate: &Fate) -> String {
    match &fate.words {
        Words::Reply(reply) => reply.to_string(),
        Words::Local(text) => text.clone(),
        Words::Suppressed(suppressed) => suppressed.text().to_owned(),
    }
}

fn replied(index: usize, reply: Reply, stage: Stage, judge: &Judge) -> Fate {
    let verdict = judge.verdict(&reply, stage);
    let status = reply.enhanced().unwrap_or_else(|| default_status(&reply, verdict.disposition));
    Fate { index, verdict, status, words: Words::Reply(reply), way: Arc::default() }
}

/// RFC 3463 x.0.0 where the peer gave no enhanced status.
fn default_status(reply: &Reply, disposition: Disposition) -> EnhancedStatus {
    let class = match (disposition, reply.severity()) {
        (Disposition::Delivered, _) => 2,
        (_, Severity::Permanent) => 5,
        _ => 4,
    };
    EnhancedStatus::new(class, 0, 0).expect("2, 4 and 5 are the classes")
}

fn lost(index: usize, loss: &Loss, judge: &Judge) -> Fate {
    if let Some(reply) = loss.reply() {
        return replied(index, reply.clone(), loss.stage, judge);
    }
    let fault = match &loss.reason {
        LossReason::Body(_) => Fault::Internal,
        LossReason::Protocol(_) => Fault::Protocol,
        _ => Fault::ConnectionLost,
    };
    Fate {
        index,
        verdict: fault.verdict(),
        status: fault.status(),
        words: Words::Local(loss.to_string()),
        way: Arc::default(),
    }
}

/// No connection: every recipient fares the same.
pub(super) fn connect_fates(unreached: &Unreached, way: &Arc<Way>, results: &mut Results, now: Timestamp) {
    match unreached {
        Unreached::Failed { host, address, failure, .. } => {
            let place = format!("{host}[{}]", address.ip());
            let judge = results.judge.clone();
            results.fail_all(way, |index, _| match &failure.cause {
                ConnectCause::Refused(reply) => {
                    let mut fate = replied(index, reply.clone(), failure.stage, &judge);
                    // What a greeting says is about us and the host: the recipient is not at fault.
                    fate.verdict.scope = Scope::Lane;
                    fate
                }
                _ => {
                    let fault = match failure.stage {
                        Stage::Tls | Stage::Auth => Fault::TlsRequired,
                        Stage::Connect => Fault::ConnectFailed,
                        _ => Fault::ConnectionLost,
                    };
                    let words = Words::Local(format!("{place}: {failure}"));
                    Fate { index, verdict: fault.verdict(), status: fault.status(), words, way: Arc::default() }
                }
            });
        }
        Unreached::NoAddress(failure) => {
            let kind = match failure {
                RouteFailure::Temporary { .. } => RoutingFailureKind::Temporary,
                RouteFailure::NoAddress { .. } => RoutingFailureKind::NoSuchDomain,
                RouteFailure::Refused { .. } => RoutingFailureKind::Permanent,
            };
            let (status, text, rule) = (failure.status(), failure.to_string(), failure.rule());
            let failure = RoutingFailure { kind, status, text, rule };
            results.fail_all(way, |index, message| settlement::routing_fate(&failure, message, index, now));
        }
        // What was not sent yet finds its way anew.
        Unreached::StaleRoute => results.leave_untried(way),
        Unreached::NoHosts => results.fail_all(way, |index, _| {
            let words = Words::Local("the route has no hosts".to_owned());
            Fate {
                index,
                verdict: Fault::DnsFailed.verdict(),
                status: Fault::DnsFailed.status(),
                words,
                way: Arc::default(),
            }
        }),
    }
}

//! Answers the admin API from the queue and the dispatcher.
//!
//! What the queue holds is read page by page in blocking tasks; where a job is right now, and the order to change it,
//! go through the dispatcher, which owns what is in flight.

use std::sync::{Arc, Weak};

use arc_swap::ArcSwap;

use super::admin::explain::{ExplainQuery, Explanation};
use super::admin::model::{
    ActionReport, ConnectionStatus, EventStatus, LaneStatus, MessageDetail, MessageSummary, Page, QueueStatus,
    QuotaReport, RecipientDetail, RecipientState, SiteStatus, Status,
};
use super::admin::query::{Action, Filter, ListQuery, Selection};
use super::admin::reputation::ReputationBackend;
use super::admin::sent::{SENT_RECIPIENTS_MAX, SentDetail, SentReport};
use super::admin::suppression::SuppressionBackend;
use super::admin::warmup::WarmupBackend;
use super::admin::{AdminError, Backend};
use super::explaining;
use super::instance::Instance;
use super::lists::ListControl;
use super::places::{self, Place, Places};
use super::reputation::ReputationHandle;
use super::warming::WarmupControl;
use crate::admission::Directory;
use crate::delivery::dispatch::{Dispatcher, Ended};
use crate::events::Health;
use crate::net::BoxFuture;
use crate::queue::{DueJob, HeldJob, JobKey, LoadError, Queue, RecipientOutcome, SentRecipient, StoredMessage};
use crate::scheduler::explanation::{LaneCount, LaneCounts};
use crate::scheduler::{Command, SiteReport, Verdict};
use crate::types::{Clock, MessageId, Timestamp};

/// Sites in a status.
const SITES_MAX: usize = 20;
/// Messages read in one go.
const PAGE: usize = 256;
/// Messages examined for one page of a list; beyond, the caller asks again.
const EXAMINED_MAX: usize = 20_000;
/// Hold entries counted for a status.
const HELD_COUNT_MAX: usize = 100_000;

/// See the module.
pub(super) struct Control {
    instance: Weak<Instance>,
    queue: Queue,
    dispatcher: Dispatcher,
    clock: Arc<dyn Clock>,
    lists: ListControl,
    warmups: WarmupControl,
    reputation: ReputationHandle,
    started_at: Timestamp,
}

impl Control {
    pub(super) fn new(
        instance: Weak<Instance>,
        queue: Queue,
        dispatcher: Dispatcher,
        clock: Arc<dyn Clock>,
        directory: Arc<ArcSwap<Directory>>,
        reputation: ReputationHandle,
    ) -> Self {
        let started_at = clock.now();
        let lists = ListControl::new(queue.clone(), Arc::clone(&clock), directory);
        let warmups = WarmupControl::new(queue.clone(), dispatcher.clone(), Arc::clone(&clock));
        Self { instance, queue, dispatcher, clock, lists, warmups, reputation, started_at }
    }

    async fn read_status(&self) -> Result<Status, AdminError> {
        let instance = self.instance.upgrade().ok_or_else(stopping)?;
        let now = self.clock.now();
        let (totals, sites) = self.dispatcher.report(SITES_MAX).await.map_err(ended)?;
        let lanes = self.dispatcher.lane_counts().await.map_err(ended)?;
        let queue = self.queue.clone();
        let (oldest, held) =
            blocking(move || Ok((queue.messages(None, 1)?, queue.held(None, HELD_COUNT_MAX)?))).await?;
        let mut held: Vec<MessageId> = held.into_iter().map(|job| job.key.id).collect();
        held.dedup();
        let health = self.queue.health();
        let events = instance.events().health();
        let reason = health.failure().or_else(|| instance.failure()).or_else(|| event_problem(&events));
        let counts = instance.counts();
        Ok(Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: now.since(self.started_at).as_secs(),
            healthy: reason.is_none(),
            health_reason: reason,
            queue: QueueStatus {
                messages: health.messages(),
                deliveries: health.jobs(),
                ready: totals.ready as u64,
                in_flight: totals.in_flight as u64,
                held: held.len() as u64,
                oldest_age_s: oldest.first().map(|id| now.since(id.accepted_at()).as_secs()),
                free_bytes: health.free_bytes(),
            },
            accepted: health.accepted(),
            delivered: counts.delivered,
            deferred: counts.deferred,
            bounced: counts.bounced,
            sites: sites.into_iter().map(|site| site_status(site, now)).collect(),
            connections: ConnectionStatus { clients: instance.sessions() as u64, outbound: totals.connections as u64 },
            events: EventStatus {
                pending: self.queue.outbox().pending(),
                last_id: self.queue.outbox().last().value(),
                last_error: event_problem(&events),
            },
            lanes: lane_status(totals.lanes, &lanes),
        })
    }

    async fn read_list(&self, query: ListQuery) -> Result<Page, AdminError> {
        let mut page = Page::default();
        let mut after = query.after;
        let mut examined = 0;
        while examined < EXAMINED_MAX {
            let messages = self.read_page(after).await?;
            let Some(last) = messages.last() else { return Ok(page) };
            (after, examined) = (Some(last.id), examined + messages.len());
            let places = self.locate(&messages).await?;
            for message in &messages {
                if page.messages.len() == query.limit {
                    return Ok(page);
                }
                if let Some(summary) = summary(message, &places, &query.filter, self.clock.now()) {
                    page.next = Some(message.id);
                    page.messages.push(summary);
                }
            }
        }
        page.next = after;
        Ok(page)
    }

    async fn read_one(&self, id: MessageId) -> Result<Option<MessageDetail>, AdminError> {
        let queue = self.queue.clone();
        let Some(message) = blocking(move || queue.load(id)).await? else { return Ok(None) };
        let places = self.locate(std::slice::from_ref(&message)).await?;
        Ok(Some(detail(&message, &places, self.clock.now())))
    }

    async fn read_sent(&self, id: MessageId) -> Result<Option<SentReport>, AdminError> {
        let queue = self.queue.clone();
        let mut recipients = blocking(move || queue.sent_to_all(id, SENT_RECIPIENTS_MAX + 1)).await?;
        let more = recipients.len() > SENT_RECIPIENTS_MAX;
        recipients.truncate(SENT_RECIPIENTS_MAX);
        Ok(recipients.first().map(|first| SentReport {
            id,
            accepted_at: id.accepted_at(),
            sender: first.reverse_path.as_str().to_owned(),
            caller: first.caller.to_string(),
            tenant: first.tenant.to_string(),
            identity: first.identity.to_string(),
            configuration_set: first.configuration_set.to_string(),
            recipients: recipients.iter().map(sent_detail).collect(),
            more,
        }))
    }

    async fn change(&self, selection: Selection, action: Action) -> Result<ActionReport, AdminError> {
        let mut report = ActionReport::default();
        let filter = match selection {
            Selection::One(id) => {
                let queue = self.queue.clone();
                let message = blocking(move || queue.load(id)).await?;
                let message =
                    message.ok_or_else(|| AdminError::NotFound(format!("message {id} is not in the queue")))?;
                self.change_messages(&[message], &action, &mut report).await?;
                return Ok(report);
            }
            Selection::Matching(filter) => filter,
        };
        let mut after = None;
        loop {
            let messages = self.read_page(after).await?;
            let Some(last) = messages.last() else { return Ok(report) };
            after = Some(last.id);
            let places = self.locate(&messages).await?;
            let now = self.clock.now();
            let selected: Vec<StoredMessage> =
                messages.into_iter().filter(|message| summary(message, &places, &filter, now).is_some()).collect();
            self.change_messages(&selected, &action, &mut report).await?;
        }
    }

    async fn change_messages(
        &self,
        messages: &[StoredMessage],
        action: &Action,
        report: &mut ActionReport,
    ) -> Result<(), AdminError> {
        report.examined += messages.len() as u64;
        let places = self.locate(messages).await?;
        for message in messages {
            let mut due = Vec::new();
            let mut held = Vec::new();
            for group in places::open_groups(message) {
                let key = JobKey { id: message.id, group };
                match places.get(key) {
                    Some(Place::Held(job)) => held.push(job.clone()),
                    _ => due.push(due_job(message, key)),
                }
            }
            if self.change_jobs(due, held, action).await? {
                report.changed += 1;
            }
        }
        Ok(())
    }

    async fn change_jobs(&self, due: Vec<DueJob>, held: Vec<HeldJob>, action: &Action) -> Result<bool, AdminError> {
        let (command, verdict) = match action {
            Action::Retry => (Some(Command::Retry), None),
            Action::Hold { reason } => (Some(Command::Hold(reason.clone())), None),
            Action::Release => (None, Some(Verdict::Release)),
            Action::Cancel => (Some(Command::Cancel), Some(Verdict::Cancelled)),
        };
        let mut changed = false;
        if let (Some(command), false) = (command, due.is_empty()) {
            changed |= self.dispatcher.command(due, command).await.map_err(ended)? > 0;
        }
        if let (Some(verdict), false) = (verdict, held.is_empty()) {
            changed |= self.dispatcher.settle_held(held, verdict).await.map_err(ended)? > 0;
        }
        Ok(changed)
    }

    /// The next messages of the queue; one that cannot be read is logged and left out.
    async fn read_page(&self, after: Option<MessageId>) -> Result<Vec<StoredMessage>, AdminError> {
        let queue = self.queue.clone();
        blocking(move || {
            let mut after = after;
            loop {
                let ids = queue.messages(after, PAGE)?;
                let Some(last) = ids.last().copied() else { return Ok(Vec::new()) };
                let mut messages = Vec::with_capacity(ids.len());
                for id in ids {
                    match queue.load(id) {
                        Ok(message) => messages.extend(message),
                        Err(LoadError::Damaged(problem)) => tracing::error!(%problem, "left out of the list"),
                        Err(error) => return Err(error),
                    }
                }
                if !messages.is_empty() {
                    return Ok(messages);
                }
                after = Some(last);
            }
        })
        .await
    }

    async fn locate(&self, messages: &[StoredMessage]) -> Result<Places, AdminError> {
        let jobs: Vec<_> = messages.iter().flat_map(places::open_jobs).collect();
        let keys: Vec<JobKey> = jobs.iter().map(|job: &DueJob| job.key).collect();
        let whereabouts = self.dispatcher.locate(jobs).await.map_err(ended)?;
        let queue = self.queue.clone();
        blocking(move || Places::new(&queue, keys, whereabouts)).await
    }
}

fn event_problem(health: &Health) -> Option<String> {
    match health {
        Health::Good => None,
        Health::Failing { error, since } => Some(format!("event files cannot be written since {since}: {error}")),
        Health::Ended { error } => {
            let reason = error.as_deref().unwrap_or("it was stopped");
            Some(format!("the event writer has ended: {reason}"))
        }
    }
}

fn due_job(message: &StoredMessage, key: JobKey) -> DueJob {
    let states = message.pending(key.group).filter_map(|index| message.states.get(index)?.as_ref());
    let attempts = states.map(|state| state.attempts).max().unwrap_or(0);
    DueJob { due_at: message.due_at(key.group), key, entry: message.due_entry(key.group, attempts, None) }
}

fn site_status(report: SiteReport, now: Timestamp) -> SiteStatus {
    let next_probe = report.suspended_until.filter(|until| *until > now);
    let mode = match (next_probe, &report.reason) {
        (Some(_), _) => "down",
        (None, Some(_)) => "backoff",
        (None, None) => "open",
    };
    SiteStatus {
        site: report.site.to_string(),
        ready: report.ready as u64,
        more_on_disk: report.more_on_disk,
        connections: report.connections as u64,
        mode: mode.to_owned(),
        reason: report.reason,
        next_probe,
    }
}

fn lane_status(known: usize, counts: &LaneCounts) -> LaneStatus {
    let sum = |count: fn(&LaneCount) -> usize| counts.lanes.iter().map(count).sum::<usize>() as u64;
    LaneStatus {
        known: known as u64,
        blocked: sum(|lanes| lanes.blocked),
        suspended: sum(|lanes| lanes.suspended),
        slowed: sum(|lanes| lanes.slowed),
        pools_blocked: counts.pools_blocked.iter().map(|(_, sites)| *sites).sum::<usize>() as u64,
    }
}

/// The line of a message in a list; `None` where the filter does not match.
fn summary(message: &StoredMessage, places: &Places, filter: &Filter, now: Timestamp) -> Option<MessageSummary> {
    let open: Vec<u16> = places::open_groups(message).collect();
    if let Some(domain) = &filter.domain
        && !open.iter().any(|group| message.domains.get(usize::from(*group)) == Some(domain))
    {
        return None;
    }
    if filter.sender.as_ref().is_some_and(|sender| !sender.matches(&message.envelope.reverse_path)) {
        return None;
    }
    let state = places.message_state(message, now);
    if filter.state.is_some_and(|wanted| wanted != state) {
        return None;
    }
    let pending: Vec<usize> = open.iter().flat_map(|group| message.pending(*group)).collect();
    let address = |index: &usize| message.envelope.recipients.get(*index).map(|to| to.address.to_string());
    let attempts = pending.iter().filter_map(|index| message.states.get(*index)?.as_ref()).map(|state| state.attempts);
    let first = open.first().map(|group| places.describe(message, *group, now));
    let next = open.iter().filter_map(|group| places.describe(message, *group, now).next_attempt_at).min();
    Some(MessageSummary {
        id: message.id,
        accepted_at: message.accepted_at,
        sender: message.envelope.reverse_path.as_str().to_owned(),
        size_bytes: message.body_bytes,
        state,
        recipients: pending.iter().take(3).filter_map(address).collect(),
        recipients_pending: pending.len() as u64,
        attempts: attempts.max().unwrap_or(0),
        next_attempt_at: next,
        waits_for: first.and_then(|first| first.waits_for),
    })
}

fn detail(message: &StoredMessage, places: &Places, now: Timestamp) -> MessageDetail {
    let recipients = message.envelope.recipients.iter().enumerate();
    MessageDetail {
        id: message.id,
        accepted_at: message.accepted_at,
        expires_at: message.expires_at,
        sender: message.envelope.reverse_path.as_str().to_owned(),
        size_bytes: message.body_bytes,
        state: places.message_state(message, now),
        held_reason: places.held_reason(message),
        recipients: recipients
            .map(|(index, recipient)| recipient_detail(message, index, recipient.address.to_string(), places, now))
            .collect(),
    }
}

fn sent_detail(sent: &SentRecipient) -> SentDetail {
    SentDetail {
        index: sent.index,
        address: sent.recipient.to_string(),
        outcome: match sent.outcome {
            RecipientOutcome::Pending => "pending",
            RecipientOutcome::Delivered => "delivered",
            RecipientOutcome::Bounced => "bounced",
            RecipientOutcome::Expired => "expired",
            RecipientOutcome::Cancelled => "cancelled",
        }
        .to_owned(),
        ended_at: sent.ended_at,
        pool: sent.pool.to_string(),
        source: sent.source.as_ref().map(ToString::to_string),
        site: sent.site.as_deref().map(str::to_owned),
        bounced_at: sent.bounced_at,
        complained_at: sent.complained_at,
        unsubscribed_at: sent.unsubscribed_at,
        remarked_at: sent.remarked_at,
    }
}

fn recipient_detail(
    message: &StoredMessage,
    index: usize,
    address: String,
    places: &Places,
    now: Timestamp,
) -> RecipientDetail {
    let state = message.states.get(index).and_then(Option::as_ref);
    let group = message.groups.get(index).copied().unwrap_or_default();
    let text = |pick: fn(&crate::queue::RecipientState) -> &String| {
        state.map(|state| pick(state).clone()).filter(|text| !text.is_empty())
    };
    let ended = match state.map(|state| state.outcome) {
        None | Some(RecipientOutcome::Pending) => None,
        Some(RecipientOutcome::Delivered) => Some(RecipientState::Delivered),
        Some(RecipientOutcome::Bounced) => Some(RecipientState::Bounced),
        Some(RecipientOutcome::Expired) => Some(RecipientState::Expired),
        Some(RecipientOutcome::Cancelled) => Some(RecipientState::Cancelled),
    };
    let description = places.describe(message, group, now);
    RecipientDetail {
        address,
        state: ended.unwrap_or(description.state),
        attempts: state.map_or(0, |state| state.attempts),
        last_attempt_at: state.map(|state| Timestamp::from_millis(state.last_attempt_ms)),
        last_reply: text(|state| &state.last_reply),
        rule: text(|state| &state.last_rule),
        host: text(|state| &state.last_host),
        next_attempt_at: description.next_attempt_at.filter(|_| ended.is_none()),
        waits_for: description.waits_for.filter(|_| ended.is_none()),
        waits_until: description.until.filter(|_| ended.is_none()),
        waits_rule: description.rule.filter(|_| ended.is_none()),
        waits_reply: description.reply.filter(|_| ended.is_none()),
        site: description.site.filter(|_| ended.is_none()),
        pool: Some(message.origin.pool.to_string()).filter(|_| ended.is_none()),
    }
}

async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, LoadError> + Send + 'static,
) -> Result<T, AdminError> {
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(LoadError::Store(error))) => Err(AdminError::Unavailable(error.to_string())),
        Ok(Err(LoadError::Damaged(problem))) => Err(AdminError::Internal(problem)),
        Err(error) => Err(AdminError::Internal(error.to_string())),
    }
}

fn ended(error: Ended) -> AdminError {
    AdminError::Unavailable(error.to_string())
}

fn stopping() -> AdminError {
    AdminError::Unavailable("the daemon is stopping".to_owned())
}

impl Backend for Control {
    fn status(&self) -> BoxFuture<'_, Result<Status, AdminError>> {
        Box::pin(self.read_status())
    }

    fn quota(&self) -> BoxFuture<'_, Result<QuotaReport, AdminError>> {
        Box::pin(async {
            let instance = self.instance.upgrade().ok_or_else(stopping)?;
            Ok(instance.quota_report())
        })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, AdminError>> {
        Box::pin(self.read_list(query))
    }

    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageDetail>, AdminError>> {
        Box::pin(self.read_one(id))
    }

    fn sent(&self, id: MessageId) -> BoxFuture<'_, Result<Option<SentReport>, AdminError>> {
        Box::pin(self.read_sent(id))
    }

    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<Explanation, AdminError>> {
        Box::pin(async {
            let instance = self.instance.upgrade().ok_or_else(stopping)?;
            explaining::explain(query, &self.dispatcher, &instance.reloadable()).await
        })
    }

    fn suppression(&self) -> &dyn SuppressionBackend {
        &self.lists
    }

    fn warmup(&self) -> &dyn WarmupBackend {
        &self.warmups
    }

    fn reputation(&self) -> &dyn ReputationBackend {
        &self.reputation
    }

    fn act(&self, selection: Selection, action: Action) -> BoxFuture<'_, Result<ActionReport, AdminError>> {
        Box::pin(self.change(selection, action))
    }
}

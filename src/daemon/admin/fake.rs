//! A backend for tests: some messages in memory, served on a real Unix socket by a thread of its own.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::explain::{
    ExplainQuery, Explanation, HostDetail, LimitDetail, QueueDetail, RateDetail, RouteDetail, SiteDetail, SourceDetail,
};
use super::model::{
    ActionReport, MessageDetail, MessageState, MessageSummary, Page, QuotaReport, QuotaUsage, RecipientDetail,
    RecipientState, SiteStatus, Status,
};
use super::query::{Action, Filter, ListQuery, Selection};
use super::reputation::{self, ReputationBackend, ReputationPage, ReputationRow};
use super::sent::{SentDetail, SentReport};
use super::suppression::SuppressionBackend;
use super::warmup::{
    HistoryPage, HistoryRow, Order, OrderReport, SourceRow, Target, WarmupBackend, WarmupPage, WarmupRow,
};
use super::{AdminError, AdminServer, Backend};
use crate::daemon::config::AdminSettings;
use crate::net::BoxFuture;
use crate::types::{EmailAddress, MessageId, ReputationScope, ReversePath, Timestamp};

pub(crate) struct Fake {
    pub(crate) status: Status,
    pub(crate) quota: QuotaReport,
    pub(crate) messages: Vec<MessageDetail>,
    pub(crate) acts: Mutex<Vec<(Selection, Action)>>,
    /// An answer that never comes, for questions.
    pub(crate) broken: Option<AdminError>,
}

impl Fake {
    /// `count` deferred messages, ids rising; senders a0@s.test, a1@s.test, ….
    pub(crate) fn with_messages(count: u64) -> Self {
        let messages = (0..count).map(message).collect();
        let site =
            SiteStatus { site: "mx.r.test".to_owned(), ready: 3, mode: "down".to_owned(), ..SiteStatus::default() };
        let status = Status { version: "0.1.0".to_owned(), healthy: true, sites: vec![site], ..Status::default() };
        let usage = |scope: &str, name: &str, per_day, per_second| {
            let (scope, name) = (scope.to_owned(), name.to_owned());
            QuotaUsage { scope, name, used: 42, per_day, per_second }
        };
        let scopes = vec![usage("server", "", None, None), usage("tenant", "shop", Some(60), Some(5))];
        let quota = QuotaReport { scopes };
        Self { status, quota, messages, acts: Mutex::default(), broken: None }
    }

    fn selected(&self, filter: &Filter) -> impl Iterator<Item = &MessageDetail> {
        let filter = filter.clone();
        self.messages.iter().filter(move |message| matches(&filter, message))
    }

    fn check<T>(&self, answer: T) -> Result<T, AdminError> {
        self.broken.clone().map_or(Ok(answer), Err)
    }
}

pub(crate) fn id(number: u64) -> MessageId {
    MessageId::new(Timestamp::from_millis(1_700_000_000_000 + number), u128::from(number))
}

fn message(number: u64) -> MessageDetail {
    let accepted_at = id(number).accepted_at();
    let recipient = RecipientDetail {
        address: format!("b{number}@r.test"),
        state: RecipientState::Deferred,
        attempts: 2,
        last_attempt_at: Some(accepted_at),
        last_reply: Some("451 4.7.1 greylisted \u{1b}[31m".to_owned()),
        rule: Some("greylist".to_owned()),
        host: Some("mx.r.test".to_owned()),
        next_attempt_at: Some(accepted_at),
        waits_for: Some("retry step 3".to_owned()),
        waits_until: Some(accepted_at),
        waits_rule: Some("greylist".to_owned()),
        waits_reply: Some("451 4.7.1 greylisted".to_owned()),
        site: Some("mx.r.test".to_owned()),
        pool: Some("default".to_owned()),
    };
    MessageDetail {
        id: id(number),
        accepted_at,
        expires_at: accepted_at,
        sender: format!("a{number}@s.test"),
        size_bytes: 1_536,
        state: MessageState::Deferred,
        held_reason: None,
        recipients: vec![recipient],
    }
}

fn sent_report(message: &MessageDetail) -> SentReport {
    let detail = SentDetail {
        index: 0,
        address: message.recipients[0].address.clone(),
        outcome: "delivered".to_owned(),
        ended_at: Some(message.accepted_at),
        pool: "default".to_owned(),
        source: Some("192.0.2.7".to_owned()),
        site: Some("mx.r.test \u{1b}[31m".to_owned()),
        bounced_at: None,
        complained_at: Some(message.accepted_at),
        unsubscribed_at: None,
        remarked_at: None,
    };
    SentReport {
        id: message.id,
        accepted_at: message.accepted_at,
        sender: message.sender.clone(),
        caller: "app".to_owned(),
        tenant: "shop".to_owned(),
        identity: String::new(),
        configuration_set: "receipts".to_owned(),
        recipients: vec![detail],
        more: false,
    }
}

fn matches(filter: &Filter, message: &MessageDetail) -> bool {
    let sender = EmailAddress::parse(&message.sender, true).map_or(ReversePath::Null, ReversePath::Mailbox);
    let has_domain = |domain: &str| message.recipients.iter().any(|recipient| recipient.address.ends_with(domain));
    filter.domain.as_ref().is_none_or(|domain| has_domain(domain.as_str()))
        && filter.sender.as_ref().is_none_or(|wanted| wanted.matches(&sender))
        && filter.state.is_none_or(|state| message.state == state)
}

fn summary(message: &MessageDetail) -> MessageSummary {
    MessageSummary {
        id: message.id,
        accepted_at: message.accepted_at,
        sender: message.sender.clone(),
        size_bytes: message.size_bytes,
        state: message.state,
        recipients: message.recipients.iter().map(|recipient| recipient.address.clone()).collect(),
        recipients_pending: 5,
        attempts: 2,
        next_attempt_at: message.recipients[0].next_attempt_at,
        waits_for: message.recipients[0].waits_for.clone(),
    }
}

/// A site with a source that is free, and one that is blocked.
fn explanation(pool: &str) -> Explanation {
    let host = |preference, host: &str| HostDetail { preference, host: host.to_owned() };
    let hosts = vec![host(5, "mx1.r.test"), host(10, "mx2.r.test")];
    let limit = |name: &str, value, from: &str| LimitDetail { name: name.to_owned(), value, from: from.to_owned() };
    let rate = RateDetail { limit: 10, per: "minute".to_owned(), used: 3, by_reply: false };
    let free = SourceDetail {
        source: "a1".to_owned(),
        next: true,
        state: "free".to_owned(),
        text: "source a1 may open a connection".to_owned(),
        in_memory: true,
        connections: 1,
        window: 5,
        messages_per_connection: 20,
        rates: vec![rate],
        ..SourceDetail::default()
    };
    let blocked = SourceDetail {
        source: "a2".to_owned(),
        state: "blocked".to_owned(),
        text: "source a2 is blocked there until 2023-11-14T22:13:20.000Z by rule yahoo-block (553 \u{1b}[31m)"
            .to_owned(),
        mode: Some("blocked".to_owned()),
        ..SourceDetail::default()
    };
    let queue = QueueDetail { pool: pool.to_owned(), high: 1, bulk: 40, ..QueueDetail::default() };
    let site = SiteDetail {
        site: "yahoo".to_owned(),
        provider: Some("yahoo".to_owned()),
        provider_from: Some("built in".to_owned()),
        limits: vec![limit("connections", 5, "provider"), limit("messages_per_connection", 100, "config")],
        queues: vec![queue],
        pool: pool.to_owned(),
        sources: vec![free, blocked],
        ..SiteDetail::default()
    };
    let route = RouteDetail { kind: "mx".to_owned(), hosts, port: 25, ..RouteDetail::default() };
    Explanation { route: Some(route), lookup: "known".to_owned(), site: Some(site), ..Explanation::default() }
}

impl ReputationBackend for Fake {
    fn reputation(
        &self,
        filter: reputation::Filter,
        limit: usize,
    ) -> BoxFuture<'_, Result<ReputationPage, AdminError>> {
        let is_asked = |row: &ReputationRow| filter.kind.is_none_or(|kind| kind.name() == row.scope);
        let mut scopes: Vec<ReputationRow> = reputation_rows().into_iter().filter(is_asked).collect();
        let more = scopes.len().saturating_sub(limit) as u64;
        scopes.truncate(limit);
        Box::pin(async move { self.check(ReputationPage { scopes, more, recipients_min: 500 }) })
    }

    fn order(
        &self,
        scope: ReputationScope,
        order: reputation::Order,
    ) -> BoxFuture<'_, Result<ReputationRow, AdminError>> {
        let state = match order {
            reputation::Order::Pause(_) => "paused",
            reputation::Order::Resume(_) => "healthy",
        };
        let (kind, name) = (scope.kind.name().to_owned(), scope.name.to_string());
        let row = ReputationRow { scope: kind, name, state: state.to_owned(), ..ReputationRow::default() };
        let unknown = AdminError::NotFound(format!("{scope} is not paused"));
        Box::pin(async move { if &*scope.name == "news" { self.check(row) } else { Err(unknown) } })
    }
}

fn reputation_rows() -> Vec<ReputationRow> {
    let paused = ReputationRow {
        scope: "configuration_set".to_owned(),
        name: "news".to_owned(),
        state: "paused".to_owned(),
        paused_by: Some("rates".to_owned()),
        reason: Some("12 % of 600 recipients bounced, the limit is 10 %".to_owned()),
        since: Some(Timestamp::from_millis(1_795_302_000_000)),
        bounce_rate: 0.12,
        bounces: 72,
        recipients: 600,
        bounce_warning: 0.05,
        bounce_pause: 0.1,
        delivered: 528,
        complaint_warning: 0.001,
        complaint_pause: 0.005,
        automatic_pause: true,
        ..ReputationRow::default()
    };
    let server = ReputationRow {
        scope: "server".to_owned(),
        state: "healthy".to_owned(),
        recipients: 40,
        delivered: 40,
        complaint_warning: 0.001,
        complaint_pause: 0.005,
        ..ReputationRow::default()
    };
    vec![paused, server]
}

impl WarmupBackend for Fake {
    fn warmups(&self, target: Target, limit: usize) -> BoxFuture<'_, Result<WarmupPage, AdminError>> {
        Box::pin(async move {
            let is_asked = |row: &&WarmupRow| {
                target.source.as_ref().is_none_or(|source| row.source.as_deref() == Some(source.as_str()))
            };
            let mut page = warmup_page();
            let rows: Vec<WarmupRow> = page.warmups.iter().filter(is_asked).cloned().collect();
            page.more = rows.len().saturating_sub(limit) as u64;
            page.warmups = rows.into_iter().take(limit).collect();
            self.check(page)
        })
    }

    fn order(&self, target: Target, _order: Order) -> BoxFuture<'_, Result<OrderReport, AdminError>> {
        let is_known = target.source.is_some_and(|source| source.as_str() == "a1");
        Box::pin(async move { self.check(OrderReport { changed: u64::from(is_known) }) })
    }

    fn history(&self, _target: Target, days: u32, _limit: usize) -> BoxFuture<'_, Result<HistoryPage, AdminError>> {
        let row = HistoryRow {
            day: "2026-01-31".to_owned(),
            source: "a1".to_owned(),
            site: "provider:gmail".to_owned(),
            provider: Some("gmail".to_owned()),
            sent: 1_000,
            delivered: 950,
            deferred: 30,
            bounced: 20,
            cap: Some(1_000),
            plan_day: Some(3),
            ..HistoryRow::default()
        };
        Box::pin(async move { self.check(HistoryPage { rows: vec![row], more: days > 30 }) })
    }
}

fn warmup_page() -> WarmupPage {
    let row = |source: &str, mode: &str, reason: Option<&str>| WarmupRow {
        source: Some(source.to_owned()),
        site: "provider:gmail".to_owned(),
        provider: Some("gmail".to_owned()),
        plan: "doubling".to_owned(),
        day: 3,
        days: 24,
        percent: 12,
        mode: mode.to_owned(),
        reason: reason.map(str::to_owned),
        cap: Some(10_000),
        used: 4_200,
        delivered: 4_000,
        ..WarmupRow::default()
    };
    let life = SourceRow { source: "a1".to_owned(), life: "warming".to_owned(), ..SourceRow::default() };
    let warmups = vec![row("a1", "running", None), row("a2", "slowed", Some("bounces 6 % \u{1b}[31m"))];
    WarmupPage { warmups, more: 0, sources: vec![life] }
}

impl Backend for Fake {
    fn status(&self) -> BoxFuture<'_, Result<Status, AdminError>> {
        Box::pin(async { self.check(self.status.clone()) })
    }

    fn quota(&self) -> BoxFuture<'_, Result<QuotaReport, AdminError>> {
        Box::pin(async { self.check(self.quota.clone()) })
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Page, AdminError>> {
        Box::pin(async move {
            let after = |message: &&MessageDetail| query.after.is_none_or(|after| message.id > after);
            let mut messages: Vec<_> = self.selected(&query.filter).filter(after).map(summary).collect();
            let more = messages.len() > query.limit;
            messages.truncate(query.limit);
            let next = messages.last().map(|message| message.id).filter(|_| more);
            self.check(Page { messages, next })
        })
    }

    fn show(&self, id: MessageId) -> BoxFuture<'_, Result<Option<MessageDetail>, AdminError>> {
        Box::pin(async move { self.check(self.messages.iter().find(|message| message.id == id).cloned()) })
    }

    fn sent(&self, id: MessageId) -> BoxFuture<'_, Result<Option<SentReport>, AdminError>> {
        let found = self.messages.iter().find(|message| message.id == id).map(sent_report);
        Box::pin(async move { self.check(found) })
    }

    fn explain(&self, query: ExplainQuery) -> BoxFuture<'_, Result<Explanation, AdminError>> {
        Box::pin(async move {
            let domain = query.domain.map(|domain| domain.to_string());
            self.check(Explanation { target: query.target, domain, ..explanation(query.pool.as_str()) })
        })
    }

    fn warmup(&self) -> &dyn WarmupBackend {
        self
    }

    fn reputation(&self) -> &dyn ReputationBackend {
        self
    }

    fn suppression(&self) -> &dyn SuppressionBackend {
        unreachable!("tests of suppression lists ask a real daemon")
    }

    fn act(&self, selection: Selection, action: Action) -> BoxFuture<'_, Result<ActionReport, AdminError>> {
        Box::pin(async move {
            let examined = match &selection {
                Selection::One(id) => self.messages.iter().filter(|message| message.id == *id).count(),
                Selection::Matching(filter) => self.selected(filter).count(),
            };
            self.acts.lock().unwrap().push((selection, action));
            let examined = u64::try_from(examined).unwrap();
            self.check(ActionReport { changed: examined, examined })
        })
    }
}

/// A served fake; stops when dropped.
pub(crate) struct Served {
    pub(crate) backend: Arc<Fake>,
    pub(crate) socket: PathBuf,
    pub(crate) directory: TempDir,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

pub(crate) fn serve(fake: Fake) -> Served {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("sub/admin.sock");
    let (backend, stop) = (Arc::new(fake), CancellationToken::new());
    let (bound, is_bound) = mpsc::sync_channel(1);
    let settings = AdminSettings { socket: socket.clone(), ..AdminSettings::default() };
    let (server_backend, server_stop) = (Arc::clone(&backend), stop.clone());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let server = AdminServer::bind(&settings).unwrap();
            bound.send(()).unwrap();
            server.serve(server_backend, server_stop).await;
        });
    });
    is_bound.recv().unwrap();
    Served { backend, socket, directory, stop, thread: Some(thread) }
}

impl Served {
    /// Stops the server and waits until it is gone.
    pub(crate) fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stop();
    }
}

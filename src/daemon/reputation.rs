//! Reputation in the running daemon: one task that owns the judge, takes what the committer counted, writes how scopes stand
//! with the event of each change, and tells admission who is paused.
//!
//! Promises: a pause is on disk before anybody is refused for it, and in force before the first client after a restart; a
//! change has exactly one event. Does not: count (`scheduler::settlement`, `queue`), or decide (`policy::reputation`).

mod gauges;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use self::gauges::Gauges;
use super::admin::AdminError;
use super::admin::reputation::{Filter, Order, ReputationBackend, ReputationPage, ReputationRow};
use crate::admission::Directory;
use crate::events::audit::{AuditEntry, AuditLog};
use crate::events::schema::{self, RateInfo, ReputationInfo};
use crate::events::{EventLine, metric};
use crate::net::BoxFuture;
use crate::policy::reputation::{
    Judge, Level, Pause, PausedBy, Row, Share, Standing, State, Steps, Verdict, hours::WINDOW_HOURS_MAX,
};
use crate::queue::store::StoreError;
use crate::queue::{MarkedHour, Queue, ReputationState, StatePause};
use crate::types::{Clock, Hour, ReputationScope, ScopeKind, Timestamp};

/// Between two looks at what was counted.
const JUDGE_EVERY: Duration = Duration::from_secs(2);
/// Looks between two refreshes of the gauges, whose rates are made anew.
const LOOKS_PER_REFRESH: u32 = 5;
/// Questions and orders of the admin API that wait. Full: the next ones wait for their turn to wait.
const REQUESTS_MAX: usize = 32;
/// What an operator says who gives no reason.
const NO_REASON: &str = "by an operator";

/// Asks the task. Cheap to clone.
#[derive(Clone)]
pub(super) struct ReputationHandle(mpsc::Sender<Request>);

enum Request {
    Show(Filter, usize, oneshot::Sender<ReputationPage>),
    Order(ReputationScope, Order, oneshot::Sender<Result<ReputationRow, AdminError>>),
}

/// The task's state.
pub(super) struct Reputation {
    judge: Judge,
    queue: Queue,
    directory: Arc<ArcSwap<Directory>>,
    audit: Arc<AuditLog>,
    clock: Arc<dyn Clock>,
    gauges: Gauges,
    looks: u32,
}

/// What the store has of it, and the pauses in force. Blocks.
pub(super) fn open(
    queue: &Queue,
    directory: &Arc<ArcSwap<Directory>>,
    audit: &Arc<AuditLog>,
    clock: &Arc<dyn Clock>,
) -> Result<Reputation, String> {
    let mut judge = Judge::default();
    let unreadable = |error: StoreError| format!("cannot read what reputation counted: {error}");
    for state in queue.reputations().map_err(unreadable)? {
        judge.restore(state.scope.clone(), standing(state));
    }
    read_marks(queue, clock.now(), |marked| mark(&mut judge, &marked)).map_err(unreadable)?;
    directory.load().pauses.replace(judge.paused());
    Ok(Reputation {
        judge,
        queue: queue.clone(),
        directory: Arc::clone(directory),
        audit: Arc::clone(audit),
        clock: Arc::clone(clock),
        gauges: Gauges::default(),
        looks: 0,
    })
}

fn read_marks(queue: &Queue, now: Timestamp, show: impl FnMut(MarkedHour)) -> Result<(), StoreError> {
    let back = Hour::of(now).number().saturating_sub(WINDOW_HOURS_MAX.into());
    queue.marked(Hour::from_number(back), show)
}

fn mark(judge: &mut Judge, marked: &MarkedHour) {
    if !judge.mark(&marked.scope, marked.hour, marked.mark, marked.sum) {
        metrics::counter!(metric::REPUTATION_UNJUDGED).increment(1);
    }
}

impl Reputation {
    /// Judges from now on, until it is stopped.
    pub(super) fn start(self, stop: CancellationToken) -> ReputationHandle {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        tokio::spawn(self.run(requests, stop));
        ReputationHandle(sender)
    }

    async fn run(mut self, mut requests: mpsc::Receiver<Request>, stop: CancellationToken) {
        let mut next = tokio::time::interval(JUDGE_EVERY);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                request = requests.recv() => match request {
                    Some(request) => self.serve(request).await,
                    None => return,
                },
                _ = next.tick() => self.look().await,
            }
        }
    }

    /// One look at what was counted since the last one.
    async fn look(&mut self) {
        let taken = self.queue.take_marks();
        taken.sums.iter().for_each(|marked| mark(&mut self.judge, marked));
        if taken.is_overflown {
            self.read_all().await;
        }
        let settings = Arc::clone(&self.directory.load().reputation);
        let verdicts = self.judge.judge(&settings, self.clock.now());
        self.carry_out(verdicts).await;
        self.looks = self.looks.wrapping_add(1);
        if self.looks % LOOKS_PER_REFRESH == 1 {
            self.gauges.show(&self.judge, &settings, self.clock.now());
        }
    }

    async fn read_all(&mut self) {
        let now = self.clock.now();
        let read = self.queue.reading(move |queue| {
            let mut all = Vec::new();
            read_marks(queue, now, |marked| all.push(marked)).map(|()| all)
        });
        match read.await {
            Ok(Ok(all)) => all.iter().for_each(|marked| mark(&mut self.judge, marked)),
            Ok(Err(error)) => {
                tracing::error!(%error, "what reputation counted cannot be read; judged by what is known")
            }
            Err(error) => tracing::error!(%error, "reading what reputation counted failed"),
        }
    }

    async fn carry_out(&mut self, verdicts: Vec<Verdict>) {
        if verdicts.is_empty() {
            return;
        }
        let now = self.clock.now();
        let states: Vec<ReputationState> = verdicts.iter().map(state).collect();
        let events = verdicts.iter().map(|verdict| event(verdict, now)).collect();
        if !self.queue.save_reputations(&states, events).await {
            // The daemon stops; the next start comes to the same verdict.
            return;
        }
        self.directory.load().pauses.replace(self.judge.paused());
        verdicts.iter().for_each(|verdict| self.tell(verdict));
    }

    fn tell(&self, verdict: &Verdict) {
        let Verdict { scope, change, .. } = verdict;
        let (from, to, reason) = (change.from.name(), change.to.name(), &*change.reason);
        match change.to {
            State::Healthy => tracing::info!(%scope, from, to, reason, "reputation"),
            State::Warned | State::Critical | State::Paused => tracing::warn!(%scope, from, to, reason, "reputation"),
        }
        metrics::counter!(metric::REPUTATION_CHANGES, "scope" => scope.kind.name(), "to" => to).increment(1);
        let is_switched = change.to == State::Paused || change.from == State::Paused;
        if is_switched {
            let entry = AuditEntry::new("sending").text("scope", scope.kind.name()).text("name", &*scope.name);
            let entry = entry.flag("enabled", change.to != State::Paused).text("by", by(verdict).name());
            self.audit.note(entry.text("reason", reason));
        }
    }

    async fn serve(&mut self, request: Request) {
        // A reply that nobody waits for any more is dropped.
        match request {
            Request::Show(filter, limit, reply) => {
                let _ = reply.send(self.page(&filter, limit));
            }
            Request::Order(scope, order, reply) => {
                let _ = reply.send(self.order(&scope, order).await);
            }
        }
    }

    fn page(&self, filter: &Filter, limit: usize) -> ReputationPage {
        let settings = Arc::clone(&self.directory.load().reputation);
        let is_asked = |scope: &ReputationScope, standing: &Standing| {
            filter.kind.is_none_or(|kind| kind == scope.kind)
                && filter.name.as_deref().is_none_or(|name| *name == *scope.name)
                && filter.state.is_none_or(|state| state == standing.state())
        };
        // Those that somebody must look at first; rates are made of no more than are shown.
        let (mut rows, mut more) = (Vec::new(), 0);
        for state in State::ALL.into_iter().rev() {
            let of_state =
                |scope: &ReputationScope, standing: &Standing| standing.state() == state && is_asked(scope, standing);
            let all = self.judge.standings().filter(|(scope, standing)| of_state(scope, standing)).count();
            let room = limit - rows.len();
            rows.extend(self.judge.rows(&settings, self.clock.now(), of_state).take(room));
            more += all.saturating_sub(room) as u64;
        }
        ReputationPage { scopes: rows.into_iter().map(shown).collect(), more, recipients_min: settings.recipients_min }
    }

    async fn order(&mut self, scope: &ReputationScope, order: Order) -> Result<ReputationRow, AdminError> {
        let directory = self.directory.load_full();
        let is_known = match scope.kind {
            ScopeKind::Tenant => directory.tenant(&scope.name).is_some(),
            _ => directory.set(&scope.name).is_some(),
        };
        let (settings, now) = (&directory.reputation, self.clock.now());
        let or_default = |reason: String| if reason.is_empty() { NO_REASON.to_owned() } else { reason };
        let verdict = match order {
            Order::Pause(_) if !is_known => return Err(AdminError::NotFound(format!("the config has no {scope}"))),
            Order::Pause(reason) => self.judge.pause(scope, &or_default(reason), settings, now),
            Order::Resume(reason) => self.judge.resume(scope, &or_default(reason), settings, now),
        };
        let Some(verdict) = verdict else {
            let is_paused = self.judge.paused().any(|paused| paused == scope);
            let problem = if is_paused { "is paused already" } else { "is not paused" };
            return Err(AdminError::NotFound(format!("{scope} {problem}; `posthaste reputation` shows how all stand")));
        };
        let row = Row {
            scope: scope.clone(),
            standing: verdict.standing.clone(),
            rates: verdict.rates,
            limits: verdict.limits,
        };
        self.carry_out(vec![verdict]).await;
        Ok(shown(row))
    }
}

fn by(verdict: &Verdict) -> PausedBy {
    match (&verdict.standing.pause, verdict.change.from) {
        (Some(pause), _) => pause.by,
        (None, State::Paused) => PausedBy::Operator,
        (None, _) => PausedBy::Rates,
    }
}

fn event(verdict: &Verdict, at: Timestamp) -> EventLine {
    let rate = |share: Share, steps: Steps| RateInfo {
        rate: share.millionths(),
        count: share.count,
        of: share.of,
        warning: steps.warning,
        pause: steps.pause,
    };
    schema::reputation(&ReputationInfo {
        at,
        scope: &verdict.scope,
        from: verdict.change.from.name(),
        to: verdict.change.to.name(),
        reason: &verdict.change.reason,
        by: by(verdict).name(),
        bounces: rate(verdict.rates.bounces, verdict.limits.bounces),
        complaints: rate(verdict.rates.complaints, verdict.limits.complaints),
    })
}

fn state(verdict: &Verdict) -> ReputationState {
    let Standing { level, since, forgiven_through, pause } = verdict.standing.clone();
    let pause = pause.map(|pause| StatePause { by: pause.by.code(), since: pause.since, reason: pause.reason.into() });
    ReputationState { scope: verdict.scope.clone(), level: level.code(), since, forgiven_through, pause }
}

fn standing(state: ReputationState) -> Standing {
    let ReputationState { scope: _, level, since, forgiven_through, pause } = state;
    let pause =
        pause.map(|pause| Pause { by: PausedBy::from_code(pause.by), since: pause.since, reason: pause.reason.into() });
    Standing { level: Level::from_code(level), since, forgiven_through, pause }
}

fn shown(row: Row) -> ReputationRow {
    let Row { scope, standing, rates, limits } = row;
    let share = |millionths: u32| f64::from(millionths) / 1e6;
    let since = standing.pause.as_ref().map_or(standing.since, |pause| pause.since);
    ReputationRow {
        scope: scope.kind.name().to_owned(),
        name: scope.name.to_string(),
        state: standing.state().name().to_owned(),
        since: (since != Timestamp::EPOCH).then_some(since),
        paused_by: standing.pause.as_ref().map(|pause| pause.by.name().to_owned()),
        reason: standing.pause.as_ref().map(|pause| pause.reason.to_string()),
        judged_from: standing.forgiven_through.map(|hour| hour.plus(1).start()),
        bounce_rate: share(rates.bounces.millionths()),
        bounces: rates.bounces.count,
        recipients: rates.bounces.of,
        bounce_warning: share(limits.bounces.warning),
        bounce_pause: share(limits.bounces.pause),
        complaint_rate: share(rates.complaints.millionths()),
        complaints: rates.complaints.count,
        delivered: rates.complaints.of,
        complaint_warning: share(limits.complaints.warning),
        complaint_pause: share(limits.complaints.pause),
        automatic_pause: limits.automatic_pause && scope.kind.is_pausable(),
    }
}

impl ReputationHandle {
    /// Whether the task has ended.
    pub(super) fn is_gone(&self) -> bool {
        self.0.is_closed()
    }

    async fn ask<T>(&self, request: impl FnOnce(oneshot::Sender<T>) -> Request) -> Result<T, AdminError> {
        let gone = || AdminError::Unavailable("the daemon is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        self.0.send(request(reply)).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())
    }
}

impl ReputationBackend for ReputationHandle {
    fn reputation(&self, filter: Filter, limit: usize) -> BoxFuture<'_, Result<ReputationPage, AdminError>> {
        Box::pin(self.ask(move |reply| Request::Show(filter, limit, reply)))
    }

    fn order(&self, scope: ReputationScope, order: Order) -> BoxFuture<'_, Result<ReputationRow, AdminError>> {
        Box::pin(async move { self.ask(move |reply| Request::Order(scope, order, reply)).await? })
    }
}

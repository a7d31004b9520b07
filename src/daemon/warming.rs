//! Warm-ups and the history for the admin API: the dispatcher knows what may be sent today, the queue what was sent before.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admin::AdminError;
use super::admin::warmup::{
    HistoryPage, HistoryRow, Order, OrderReport, ROWS_MAX, SourceRow, Target, WarmupBackend, WarmupPage, WarmupRow,
};
use crate::delivery::dispatch::{Dispatcher, Ended};
use crate::net::BoxFuture;
use crate::policy::BounceClass;
use crate::policy::lane::WarmupOrder;
use crate::policy::warmup::WarmupReport;
use crate::queue::{self, HistoryQuery, Queue};
use crate::scheduler::warmup::{SourceStanding, WarmupEntry, WarmupFilter};
use crate::types::{Clock, Timestamp};

/// See the module.
pub(super) struct WarmupControl {
    queue: Queue,
    dispatcher: Dispatcher,
    clock: Arc<dyn Clock>,
}

impl WarmupControl {
    pub(super) fn new(queue: Queue, dispatcher: Dispatcher, clock: Arc<dyn Clock>) -> Self {
        Self { queue, dispatcher, clock }
    }

    async fn read(&self, target: Target, limit: usize) -> Result<WarmupPage, AdminError> {
        let source = target.source.clone();
        let (mut entries, sources) = self.dispatcher.warmups(filter(target)).await.map_err(ended)?;
        let more = entries.len().saturating_sub(limit) as u64;
        entries.truncate(limit);
        let is_asked = |standing: &SourceStanding| source.as_ref().is_none_or(|source| *source == standing.source);
        Ok(WarmupPage {
            warmups: entries.into_iter().map(row).collect(),
            more,
            sources: sources.into_iter().filter(is_asked).map(source_row).collect(),
        })
    }

    async fn read_history(&self, target: Target, days: u32, limit: usize) -> Result<HistoryPage, AdminError> {
        if target.set.is_some() {
            return Err(AdminError::BadRequest("the history is of sources: name none, or a source".to_owned()));
        }
        let today = self.clock.now().utc_day();
        let queue = self.queue.clone();
        let read = move || {
            let is_asked = |row: &queue::HistoryRow| {
                let site = target.site.as_deref();
                site.is_none_or(|site| *row.site == *site || row.provider.as_deref() == Some(site))
            };
            let mut rows = Vec::new();
            // The newest days first: where there are too many rows, the oldest ones are left out.
            for day in (today.saturating_sub(days.saturating_sub(1))..=today).rev() {
                let mut query =
                    HistoryQuery { source: target.source.clone(), ..HistoryQuery::of_days(day..=day, ROWS_MAX) };
                loop {
                    let page = queue.history(&query)?;
                    rows.extend(page.rows.into_iter().filter(is_asked));
                    query.from = page.next;
                    if query.from.is_none() {
                        break;
                    }
                }
                if rows.len() > limit {
                    break;
                }
            }
            Ok(rows)
        };
        let read: Result<Vec<_>, queue::store::StoreError> =
            tokio::task::spawn_blocking(read).await.map_err(|error| AdminError::Internal(error.to_string()))?;
        let mut rows = read.map_err(|error| AdminError::Unavailable(error.to_string()))?;
        rows.sort_by(|a, b| (a.day, &a.source, &a.site).cmp(&(b.day, &b.source, &b.site)));
        let surplus = rows.len().saturating_sub(limit);
        rows.drain(..surplus);
        let more = surplus > 0;
        Ok(HistoryPage { rows: rows.into_iter().map(history_row).collect(), more })
    }
}

fn filter(target: Target) -> WarmupFilter {
    let Target { source, set, site } = target;
    WarmupFilter { source, set, site }
}

fn row(entry: WarmupEntry) -> WarmupRow {
    let WarmupEntry { source, set, site, provider, report, next_at } = entry;
    let WarmupReport { plan, position, len, percent, cap, used, delivered_today, mode, until, reason, .. } = report;
    WarmupRow {
        source: source.map(|source| source.to_string()),
        set: set.map(String::from),
        site: site.to_string(),
        provider: provider.map(|provider| provider.to_string()),
        plan: plan.to_string(),
        day: position.min(len),
        days: len,
        percent,
        mode: mode.name().to_owned(),
        until,
        reason: reason.map(String::from),
        cap,
        used,
        delivered: delivered_today,
        next_at,
        last_sent_at: report.last_sent_at,
    }
}

fn source_row(standing: SourceStanding) -> SourceRow {
    let SourceStanding { source, life, pool, since } = standing;
    let managed_by = pool.into_iter().map(|pool| pool.to_string()).collect();
    SourceRow { source: source.to_string(), life: life.name().to_owned(), managed_by, since }
}

fn history_row(row: queue::HistoryRow) -> HistoryRow {
    let queue::HistoryRow { day, source, site, provider, totals } = row;
    let start = Timestamp::of_utc_day(day).to_string();
    let by_class: BTreeMap<String, u32> =
        totals.bounced.iter().map(|(class, count)| (class_name(*class), *count)).collect();
    HistoryRow {
        day: start.split('T').next().unwrap_or_default().to_owned(),
        source: source.to_string(),
        site: site.to_string(),
        provider: provider.map(|provider| provider.to_string()),
        sent: totals.sent,
        delivered: totals.delivered,
        deferred: totals.deferred,
        bounced: totals.bounces(),
        bounced_by_class: by_class,
        complained: totals.complained,
        blocked: totals.blocked,
        cap: totals.cap,
        plan_day: totals.position,
    }
}

/// A class that a newer release wrote has no name here.
fn class_name(code: u8) -> String {
    BounceClass::from_code(code).map_or_else(|| format!("class-{code}"), |class| class.name().to_owned())
}

fn ended(error: Ended) -> AdminError {
    AdminError::Unavailable(error.to_string())
}

impl WarmupBackend for WarmupControl {
    fn warmups(&self, target: Target, limit: usize) -> BoxFuture<'_, Result<WarmupPage, AdminError>> {
        Box::pin(self.read(target, limit))
    }

    fn order(&self, target: Target, order: Order) -> BoxFuture<'_, Result<OrderReport, AdminError>> {
        let order = match order {
            Order::Pause => WarmupOrder::Pause,
            Order::Resume => WarmupOrder::Resume,
            Order::SetDay(day) => WarmupOrder::SetPosition(day),
            Order::Complaints(count) => WarmupOrder::Complaints(count),
        };
        Box::pin(async move {
            let changed = self.dispatcher.order_warmup(filter(target), order).await.map_err(ended)?;
            Ok(OrderReport { changed: changed as u64 })
        })
    }

    fn history(&self, target: Target, days: u32, limit: usize) -> BoxFuture<'_, Result<HistoryPage, AdminError>> {
        Box::pin(self.read_history(target, days, limit))
    }
}

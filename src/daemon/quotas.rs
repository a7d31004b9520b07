//! Quotas in the running daemon: loaded at the start, told of in the log, the metrics and the admin API.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::admin::model::QuotaUsage;
use crate::admission::directory::{Directory, Quota};
use crate::admission::quota::{self, QuotaNotice, Quotas, Scope};
use crate::events::metric;
use crate::queue::Queue;
use crate::types::Clock;

/// Quotas with what the queue's store says was used.
pub(super) fn open(queue: &Queue, clock: &Arc<dyn Clock>) -> Result<Arc<Quotas>, String> {
    let quotas = Quotas::new(Arc::clone(clock), Box::new(tell));
    quotas.load(queue).map_err(|error| format!("cannot read what was charged to quotas: {error}"))?;
    Ok(Arc::new(quotas))
}

fn tell(notice: &QuotaNotice) {
    let QuotaNotice { scope, used, limit, percent } = notice;
    tracing::warn!(%scope, used, limit, percent, "a daily quota is nearly or wholly used");
}

/// Every scope with a limit, and every one that used anything in the last 24 hours.
pub(super) fn usage(quotas: &Quotas, directory: &Directory) -> Vec<QuotaUsage> {
    let limits = quota::limits(directory).into_iter().map(|limit| (limit.scope, limit.quota));
    let limits: BTreeMap<Scope, Quota> = limits.collect();
    let mut rows: BTreeMap<Scope, u64> = quotas.all().into_iter().collect();
    for (scope, quota) in &limits {
        if *scope == Scope::Server || *quota != Quota::default() {
            rows.entry(scope.clone()).or_insert(0);
        }
    }
    let usage = |(scope, used): (Scope, u64)| {
        let quota = limits.get(&scope).copied().unwrap_or_default();
        QuotaUsage {
            scope: scope.kind().to_owned(),
            name: scope.name().to_owned(),
            used,
            per_day: quota.per_day,
            per_second: quota.per_second,
        }
    };
    // The server first: it is locked last.
    rows.into_iter().rev().map(usage).collect()
}

/// Sets the gauges: no name of a scope is in a label, so that their number is bounded.
pub(super) fn measure(quotas: &Quotas, directory: &Directory) {
    let mut shares: BTreeMap<&'static str, f64> = BTreeMap::new();
    for limit in quota::limits(directory) {
        let used = quotas.used(&limit.scope);
        if limit.scope == Scope::Server {
            metrics::gauge!(metric::QUOTA_RECIPIENTS).set(used as f64);
        }
        let share = shares.entry(limit.scope.kind()).or_default();
        // Of a limit of 0 all is used.
        let of = |per_day: u64| if per_day == 0 { 1.0 } else { used as f64 / per_day as f64 };
        *share = share.max(limit.quota.per_day.map_or(0.0, of));
    }
    for (kind, share) in shares {
        metrics::gauge!(metric::QUOTA_SHARE, "scope" => kind).set(share);
    }
}

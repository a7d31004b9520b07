//! Takes reports of receivers (DMARC, TLS): their rows go to the report stream, their sums to the metrics.
//!
//! Promises: when [`Receivers::take`] returns `Ok(Taken::Done)`, each row is in the outbox, synced, exactly once, whatever came before
//! ([`crate::queue::reports`]); sums count what was written by this process. Labels of metrics are domains of the config, and a bounded number of
//! them: anybody can write a report about anything. Does not: know who wrote a report.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::addresses::Recognised;
use super::report::{Addressed, Report};
use super::rows::{Aggregate, Row, TooLarge, Total};
use crate::events::metric;
use crate::events::schema::BroughtBy;
use crate::queue::reports::{REPORT_ROWS_MAX, ReportEffect, ReportName};
use crate::queue::{AcceptError, Queue};
use crate::types::Domain;

/// Octets of reports that are read at once, as they may unpack to: each takes some ten times as much memory while it is parsed. Full:
/// others wait their turn, in order.
const UNPACKED_AT_ONCE_MAX: u32 = 16 << 20;
/// What a packed octet may unpack to, and what a small report may, at most (`report::unpack`).
const RATIO: usize = 200;
const SMALL_BYTES: u32 = 256 << 10;
/// Domains that metrics name. Full: a further one is `other`.
const DOMAINS_SHOWN_MAX: usize = 500;
/// Labels of a domain that are looked at, from its end: each parent is looked up, and strangers choose the name.
const LABELS_MAX: usize = 10;
/// Domains that are not ours, or too many.
const OTHER: &str = "other";

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of it is told.
    Done,
    /// The operator should look.
    Kept,
}

/// The domains that metrics may name: the config's, and those above them, of which policies are published.
#[derive(Clone, Debug, Default)]
pub struct OwnDomains(HashSet<Box<str>>);

impl OwnDomains {
    /// Of these domains.
    pub fn new<'a>(domains: impl IntoIterator<Item = &'a Domain>) -> Self {
        let with_parents = |domain: &'a Domain| {
            let is_one = move |text: &&str| text.contains('.') || *text == domain.as_str();
            domain.with_parents().filter(is_one)
        };
        Self(domains.into_iter().flat_map(with_parents).map(Box::from).collect())
    }

    /// The domain itself, or the nearest above it that is ours.
    fn nearest(&self, domain: &str) -> Option<&str> {
        let domain = domain.trim_end_matches('.').to_ascii_lowercase();
        let looked_at = domain.rmatch_indices('.').nth(LABELS_MAX - 1).map_or(0, |(at, _)| at + 1);
        let mut names =
            std::iter::successors(domain.get(looked_at..), |name| name.split_once('.').map(|(_, parent)| parent));
        names.find_map(|name| self.0.get(name)).map(|name| &**name)
    }
}

/// See the module.
pub struct Receivers {
    queue: Queue,
    /// Permits are octets.
    turns: Semaphore,
    shown: Mutex<HashSet<Box<str>>>,
}

impl Receivers {
    /// Rows go to this queue's outbox.
    pub fn new(queue: Queue) -> Self {
        let turns = Semaphore::new(usize::try_from(UNPACKED_AT_ONCE_MAX).unwrap_or(usize::MAX));
        Self { queue, turns, shown: Mutex::default() }
    }

    /// Waits until a message of so many octets may be read. Nothing where it came to no address for such reports.
    pub async fn turn(&self, recognised: &[Recognised], message_bytes: usize) -> Option<SemaphorePermit<'_>> {
        let is_ours = |one: &Recognised| matches!(one.addressed, Addressed::Dmarc | Addressed::TlsRpt);
        if !recognised.iter().any(is_ours) {
            return None;
        }
        let unpacked = u32::try_from(message_bytes.saturating_mul(RATIO)).unwrap_or(u32::MAX);
        // The semaphore is never closed.
        self.turns.acquire_many(unpacked.clamp(SMALL_BYTES, UNPACKED_AT_ONCE_MAX)).await.ok()
    }

    /// Takes a report that `brought_by` brought. Not cancel-safe: what was written stays, and the same report later is written to its end.
    pub async fn take(
        &self,
        report: &Arc<Report>,
        brought_by: BroughtBy<'_>,
        own: &OwnDomains,
    ) -> Result<Taken, AcceptError> {
        let Some(aggregate) = Aggregate::of(report) else { return Ok(Taken::Kept) };
        let count = |effect: &'static str| {
            metrics::counter!(metric::REPORTS, "report" => aggregate.name(), "effect" => effect).increment(1);
        };
        let (begins_at, ends_at) = aggregate.range();
        let Some(name) = ReportName::new(&aggregate.names(), begins_at, ends_at, brought_by.at) else {
            tracing::info!(report = aggregate.name(), %ends_at, "a report about a time long ago or to come is kept");
            count("misdated");
            return Ok(Taken::Kept);
        };
        let lines = match self.lines(report, brought_by).await? {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(report = aggregate.name(), %error, "a report is kept");
                count("too-large");
                return Ok(Taken::Kept);
            }
        };
        if lines.is_empty() {
            count("empty");
            return Ok(Taken::Done);
        }
        let mut effect = ReportEffect::AlreadyKnown;
        let (mut lines, mut rows) = (lines.into_iter(), aggregate.rows());
        for part in 0.. {
            let batch: Vec<_> = lines.by_ref().take(REPORT_ROWS_MAX).collect();
            if batch.is_empty() {
                break;
            }
            let part_rows: Vec<Row<'_>> = rows.by_ref().take(batch.len()).collect();
            if self.queue.take_report(&name, part, batch).await? == ReportEffect::Taken {
                effect = ReportEffect::Taken;
                self.add(part_rows.into_iter().flat_map(Row::totals), own);
            }
        }
        count(if effect == ReportEffect::Taken { "taken" } else { "duplicate" });
        Ok(Taken::Done)
    }

    /// On a thread that may be busy for some time.
    async fn lines(
        &self,
        report: &Arc<Report>,
        brought_by: BroughtBy<'_>,
    ) -> Result<Result<Vec<crate::events::EventLine>, TooLarge>, AcceptError> {
        let (report, sender) = (Arc::clone(report), brought_by.sender.to_owned());
        let (message_id, at, client) = (brought_by.message_id, brought_by.at, brought_by.client);
        let render = move |_: &Queue| {
            let brought_by = BroughtBy { message_id, at, client, sender: &sender };
            Aggregate::of(&report).map_or(Ok(Vec::new()), |aggregate| aggregate.lines(brought_by))
        };
        self.queue.reading(render).await.map_err(|error| AcceptError::NotDurable(error.to_string()))
    }

    fn add<'a>(&self, totals: impl Iterator<Item = Total<'a>>, own: &OwnDomains) {
        for total in totals {
            match total {
                Total::Messages(domain, passes, disposition, messages) => {
                    let (domain, result) = (self.label(domain, own), if passes { "pass" } else { "fail" });
                    metrics::counter!(metric::DMARC_MESSAGES, "domain" => domain, "result" => result, "disposition" => disposition)
                        .increment(messages);
                }
                Total::Sessions(domain, failure, sessions) => {
                    let (domain, result) = (self.label(domain, own), failure.unwrap_or("success").to_owned());
                    metrics::counter!(metric::TLS_SESSIONS, "domain" => domain, "result" => result).increment(sessions);
                }
            }
        }
    }

    /// How metrics name a domain: by one of ours, and by no more than [`DOMAINS_SHOWN_MAX`] of them.
    fn label(&self, domain: &str, own: &OwnDomains) -> String {
        let Some(domain) = own.nearest(domain) else { return OTHER.to_owned() };
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        if !shown.contains(domain) {
            if shown.len() >= DOMAINS_SHOWN_MAX {
                return OTHER.to_owned();
            }
            shown.insert(domain.into());
        }
        domain.to_owned()
    }
}

#[cfg(test)]
mod tests;

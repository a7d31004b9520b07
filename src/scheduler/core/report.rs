//! What the scheduler can tell of itself: totals, sites, where a job is and what it waits for.

use super::{JobState, Scheduler};
use crate::queue::{DueJob, DueKey};
use crate::scheduler::class::Class;
use crate::scheduler::sites::Site;
use crate::scheduler::{SiteName, SiteReport, Totals, Whereabouts};
use crate::types::{Domain, Timestamp};

impl Scheduler {
    /// Totals for status and metrics.
    pub fn totals(&self) -> Totals {
        let behind: std::collections::BTreeSet<&SiteName> = self.behind.iter().map(|(site, _)| site).collect();
        Totals {
            jobs: self.jobs.len(),
            in_flight: self.in_flight,
            ready: self.sites.values().map(Site::ready_jobs).sum(),
            connections: self.connections.len(),
            sites: self.sites.len(),
            sites_behind: behind.len(),
            lanes: self.lanes,
        }
    }

    /// The sites with the most ready jobs, at most `limit`.
    pub fn report(&self, limit: usize, now: Timestamp) -> Vec<SiteReport> {
        let window = |site: &Site| {
            let own = site.lanes.iter().map(|entry| u64::from(entry.lane.window(now))).sum::<u64>();
            let window = if site.lanes.is_empty() { u64::from(site.limits.connections) } else { own };
            usize::try_from(window).unwrap_or(usize::MAX)
        };
        let mut reports: Vec<_> = self
            .sites
            .iter()
            .map(|(name, site)| SiteReport {
                site: name.clone(),
                ready: site.ready_jobs(),
                more_on_disk: site.queues.iter().any(|queue| queue.fair.is_behind()),
                connections: site.connections,
                window: window(site),
                suspended_until: site.all_suspended_until(now),
                reason: site.reason(now),
            })
            .collect();
        reports.sort_by(|a, b| b.ready.cmp(&a.ready).then_with(|| a.site.cmp(&b.site)));
        reports.truncate(limit);
        reports
    }

    /// Where a job is; `None` where it waits on disk for its time.
    pub fn whereabouts(&self, due: &DueJob, now: Timestamp) -> Option<Whereabouts> {
        let (key, due_at) = (due.key, due.due_at);
        let domain = &Domain::parse(&due.entry.domain).ok()?;
        let class = &Class::of(&due.entry);
        let at_site = |name: &SiteName, site: &Site| {
            let queue = site.queue(&class.pool, &self.fleet);
            match queue.and_then(|queue| site.suspended_until(queue, now)) {
                None => Whereabouts::Ready(name.clone()),
                Some(until) => {
                    let reason = site.reason(now).unwrap_or_else(|| "it was unreachable".to_owned());
                    Whereabouts::Suspended { site: name.clone(), until, reason }
                }
            }
        };
        let site = || {
            let name = &self.domains.get(domain)?.destination.as_ref()?.site;
            Some((name, self.sites.get(name)?))
        };
        let Some(job) = self.jobs.get(&key) else {
            let (name, site) = site()?;
            let flow = site.queue(&class.pool, &self.fleet)?.fair.flow(class)?;
            let is_behind = flow.backlog.covers(DueKey::of(due_at, key)) && due_at <= now;
            return is_behind.then(|| Whereabouts::Behind(Box::new(at_site(name, site))));
        };
        Some(match job.state {
            JobState::Leased => Whereabouts::InFlight,
            JobState::Resolving => Whereabouts::Resolving,
            JobState::Waiting => Whereabouts::Waiting(job.due_at),
            JobState::Ready => {
                let (name, site) = site()?;
                at_site(name, site)
            }
        })
    }
}

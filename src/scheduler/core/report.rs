//! What the scheduler can tell of itself: totals, sites, where a job is and what it waits for.

use std::collections::HashMap;

use super::{JobState, Scheduler};
use crate::queue::{DueJob, DueKey, JobKey};
use crate::scheduler::class::Class;
use crate::scheduler::explanation::Cause;
use crate::scheduler::fleet::{Families, SourceId};
use crate::scheduler::sites::Site;
use crate::scheduler::{SiteName, SiteReport, Totals, Whereabouts};
use crate::types::{Domain, PoolName, Timestamp};

/// Why jobs wait, by what makes a difference.
type Causes = HashMap<(SiteName, PoolName, Box<str>, Option<SourceId>, Families, bool), Cause>;

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
        self.locate(std::slice::from_ref(due), now).pop().flatten()
    }

    /// The same of some jobs, in their order.
    pub fn locate(&self, jobs: &[DueJob], now: Timestamp) -> Vec<Option<Whereabouts>> {
        // Jobs of one pool at one site wait for the same.
        let mut causes = HashMap::new();
        jobs.iter().map(|due| self.locate_one(due, now, &mut causes)).collect()
    }

    fn locate_one(&self, due: &DueJob, now: Timestamp, causes: &mut Causes) -> Option<Whereabouts> {
        let (key, due_at) = (due.key, due.due_at);
        let domain = &Domain::parse(&due.entry.domain).ok()?;
        let class = &Class::of(&due.entry);
        let Some(job) = self.jobs.get(&key) else {
            let flow = self.site_of(domain).and_then(|(_, site)| site.queue(class, &self.fleet)?.fair.flow(class))?;
            if due_at > now || !flow.backlog.covers(DueKey::of(due_at, key)) {
                return None;
            }
            return self.at_site(domain, class, key, None, now, causes).map(|site| Whereabouts::Behind(Box::new(site)));
        };
        match job.state {
            JobState::Leased => Some(Whereabouts::InFlight),
            JobState::Resolving => Some(Whereabouts::Resolving),
            JobState::Waiting => Some(Whereabouts::Waiting(job.due_at)),
            JobState::Ready => {
                let keeps = job.source.as_ref().and_then(|source| self.fleet.id(source));
                self.at_site(domain, &job.class, key, keeps, now, causes)
            }
        }
    }

    fn site_of(&self, domain: &Domain) -> Option<(&SiteName, &Site)> {
        let name = &self.domains.get(domain)?.destination.as_ref()?.site;
        Some((name, self.sites.get(name)?))
    }

    /// What a job waits for that is ready.
    fn at_site(
        &self,
        domain: &Domain,
        class: &Class,
        key: JobKey,
        keeps: Option<SourceId>,
        now: Timestamp,
        causes: &mut Causes,
    ) -> Option<Whereabouts> {
        let (name, site) = self.site_of(domain)?;
        if let Some(until) = site.down_until(now) {
            let reason = site.reason(now).unwrap_or_else(|| "it was unreachable".to_owned());
            return Some(Whereabouts::Suspended { site: name.clone(), until, reason });
        }
        let queue = site.queue(class, &self.fleet)?;
        let keeps = keeps.filter(|source| queue.slots.iter().any(|slot| slot.source == *source));
        let state = self.domains.get(domain)?;
        let to = (state.destination.as_ref()?.hosts.clone(), state.lacks);
        // An idle connection that leads elsewhere is closed for it, so what else the hosts are makes no difference.
        let cause = (name.clone(), queue.pool.clone(), queue.set.clone(), keeps, state.lacks, class.prefers_warming);
        let cause = causes.entry(cause);
        let cause = cause
            .or_insert_with(|| {
                self.cause(&mut self.view(name, site, queue, to, now).preferring_warming(class.prefers_warming), keeps)
            })
            .clone();
        let before = Self::before(queue, class, key, keeps);
        Some(Whereabouts::Ready { site: name.clone(), cause: Box::new(cause), before })
    }
}

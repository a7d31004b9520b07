//! What happens to jobs that only wait: they expire, and their senders hear of the delay. Also forgets names.

use std::collections::HashSet;
use std::time::Duration;

use super::paging::SETTLING_MAX;
use super::{Job, JobState, Scheduler};
use crate::policy::retry;
use crate::queue::{DueKey, JobKey};
use crate::scheduler::sites::Site;
use crate::scheduler::{Action, LaneName, Verdict};
use crate::types::{Domain, Timestamp};

/// How often jobs in memory that wait in the lines of their sites are looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(30);
/// How often the backlogs on disk are looked through, at most.
const PATROL_EVERY: Duration = Duration::from_secs(300);
/// So much later for each page that this took the last time: looking through ten million jobs is a second's work a million.
const PATROL_REST: Duration = Duration::from_secs(1);
/// Domains and sites without jobs that are remembered; above, those without jobs are forgotten at the next sweep.
const IDLE_NAMES_MAX: usize = 50_000;

impl Scheduler {
    /// Looks at what waits, when it is time to.
    pub(super) fn sweep(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        self.next_sweep = now.plus(SWEEP_EVERY);
        self.room = true;
        if self.settling < SETTLING_MAX {
            self.sweep_lines(now, actions);
        }
        self.begin_patrol(now);
        self.forget_names(now);
        self.roll_warmups(now);
        self.sweep_lanes(now);
        self.sweep_history(now, actions);
        self.sweep_lives(now, actions);
    }

    /// Jobs in the lines of all sites that expired, and of suspended ones those whose senders should hear of the delay.
    fn sweep_lines(&mut self, now: Timestamp, actions: &mut Vec<Action>) {
        let mut overdue = Vec::new();
        // In order: what follows from it must not depend on a hash.
        'sites: for name in self.site_names() {
            let Some(site) = self.sites.get(&name) else { continue };
            for queue in site.queues.iter().filter(|queue| !queue.is_idle()) {
                let is_suspended = site.suspended_until(queue, now).is_some();
                let flows = queue.fair.flows();
                let pinned = queue.pinned.values().flatten();
                for key in flows.iter().flat_map(|(_, flow)| &flow.ready).chain(pinned) {
                    let Some(job) = self.jobs.get_mut(key).filter(|job| job.state == JobState::Ready) else { continue };
                    let notices = notices_due(*key, now, &self.settings.delay_notices);
                    if now >= job.expires_at {
                        overdue.push((*key, Verdict::Expired(site.reason(now))));
                    } else if is_suspended && notices > job.notices {
                        job.notices = notices;
                        overdue.push((*key, Verdict::Notice(reason_of(site, now))));
                    }
                    if overdue.len() >= SETTLING_MAX {
                        break 'sites;
                    }
                }
            }
        }
        for (key, verdict) in overdue {
            self.settle(key, verdict, actions);
        }
    }

    /// From the first backlog to the horizon, page by page.
    fn begin_patrol(&mut self, now: Timestamp) {
        let rest = PATROL_EVERY + PATROL_REST * self.patrol_pages;
        if self.patrol.is_some() || now < self.patrol_began.plus(rest) {
            return;
        }
        self.patrol_pages = 0;
        self.patrolled = self.patrol_began;
        self.patrol_began = now;
        let flows = self.behind.iter().filter_map(|(site, class)| self.flow(site, class)?.backlog.from());
        self.patrol = flows.min();
    }

    /// A job that the patrol met. Where there is room it goes into memory, as always; where there is not, it may have
    /// expired, or its sender may have to hear of the delay.
    pub(super) fn patrolled(&mut self, key: JobKey, mut job: Job, now: Timestamp, actions: &mut Vec<Action>) {
        let place = DueKey::of(job.due_at, key);
        let Some(reason) = self.suspension_of(&job, place, now) else {
            return self.insert(key, job, false, now, actions);
        };
        let notices = notices_due(key, now, &self.settings.delay_notices);
        let told = notices_due(key, self.patrolled, &self.settings.delay_notices);
        let verdict = if now >= job.expires_at {
            Verdict::Expired(Some(reason))
        } else if notices > told && self.jobs.len() < self.settings.jobs_max {
            job.notices = notices;
            Verdict::Notice(reason)
        } else {
            return self.insert(key, job, false, now, actions);
        };
        self.jobs.insert(key, job);
        self.settle(key, verdict, actions);
    }

    /// Why the site of a job is suspended, where it is and the job would wait in its backlog at this place.
    fn suspension_of(&self, job: &Job, place: DueKey, now: Timestamp) -> Option<String> {
        let site = self.sites.get(&self.domains.get(&job.domain)?.destination.as_ref()?.site)?;
        let queue = site.queue(&job.class, &self.fleet)?;
        let flow = queue.fair.flow(&job.class)?;
        let waits = flow.ready_jobs >= self.share() || flow.backlog.covers(place);
        (waits && site.suspended_until(queue, now).is_some()).then(|| reason_of(site, now))
    }

    fn forget_names(&mut self, now: Timestamp) {
        if self.domains.len() > IDLE_NAMES_MAX {
            let used: HashSet<&Domain> = self.jobs.values().map(|job| &job.domain).collect();
            self.domains.retain(|domain, state| !state.parked.is_empty() || used.contains(domain));
        }
        if self.sites.len() > IDLE_NAMES_MAX {
            for name in self.site_names() {
                let Some(site) = self.sites.get(&name).filter(|site| site.is_forgettable(now)) else { continue };
                self.lanes -= site.lanes.len() + site.sets.len();
                let lanes = site.lanes.iter().map(|entry| LaneName::Lane(name.clone(), self.fleet.name(entry.source)));
                self.forgotten.extend(lanes);
                let sets = site.sets.iter().map(|entry| LaneName::Set(name.clone(), entry.set.clone()));
                self.forgotten.extend(sets);
                self.sites.remove(&name);
            }
        }
        self.classes.forget();
    }
}

fn reason_of(site: &Site, now: Timestamp) -> String {
    site.reason(now).unwrap_or_else(|| "it was unreachable".to_owned())
}

/// How many delay notices the message of a job should have had at `now`.
fn notices_due(key: JobKey, now: Timestamp, delay_notices: &[Duration]) -> u8 {
    u8::try_from(retry::notices_due(key.id.accepted_at(), now, delay_notices)).unwrap_or(u8::MAX)
}

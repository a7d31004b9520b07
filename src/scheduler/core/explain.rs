//! Why mail waits, worked out from the scheduler's state: for a job, for a site, for a source. Looks only; `pick` decides by
//! the same questions in the same order, and the tests hold both together.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::pick::OVERFLOW_AFTER;
use super::{JobState, Scheduler};
use crate::policy::lane::{self, Lane, Wait};
use crate::policy::limits::RateLimit;
use crate::queue::JobKey;
use crate::scheduler::class::Class;
use crate::scheduler::explanation::{
    Before, Cause, LaneCount, LaneCounts, Lookup, ProviderReport, Question, QueueReport, RateOf, SiteExplanation,
    SourceReport, Standing,
};
use crate::scheduler::fleet::{Families, PoolMember, SourceId};
use crate::scheduler::sites::{Site, SiteQueue};
use crate::scheduler::{LaneName, SiteName};
use crate::types::{PoolName, Priority, Timestamp};

/// Jobs of a line that are counted before one: there may be a million. More: "more than".
const BEFORE_JOBS_MAX: usize = 1_000;
/// Tenants of a queue that are told of.
const TENANTS_MAX: usize = 5;

/// A pool at a site, as it is looked at.
pub(super) struct View<'s> {
    pub(super) name: &'s SiteName,
    pub(super) site: &'s Site,
    pub(super) queue: &'s SiteQueue,
    /// Families of which the hosts have no address.
    pub(super) lacks: Families,
    pub(super) now: Timestamp,
}

impl Scheduler {
    /// Everything that decides how mail goes to a site; `None` where a site is named that is not known.
    pub fn explain(&self, question: &Question, now: Timestamp) -> Option<SiteExplanation> {
        let state = question.domain.as_ref().and_then(|domain| self.domains.get(domain));
        let known = state.and_then(|state| state.destination.as_ref());
        let destination = known.or(question.destination.as_ref());
        let name = question.site.as_ref().or(destination.map(|destination| &destination.site))?;
        let provider = destination.and_then(|destination| destination.provider.clone());
        let lookup = match (state, known) {
            (Some(state), _) if !state.parked.is_empty() => Lookup::UnderWay(state.parked.len()),
            (_, Some(destination)) => Lookup::Known(destination.expires_at),
            _ => Lookup::Unknown,
        };
        let (fresh_site, fresh_queue);
        let site = match self.sites.get(name) {
            Some(site) => site,
            None if question.site.is_some() => return None,
            None => {
                let limits = self.settings.providers.limits(provider.as_deref(), self.settings.limits);
                fresh_site = Site::new(name, provider, limits);
                &fresh_site
            }
        };
        let pool = self.fleet.effective(&question.pool);
        let queue = match site.queue(&pool, &self.fleet) {
            Some(queue) => queue,
            None => {
                fresh_queue = SiteQueue::new(name, pool.clone(), &self.fleet);
                &fresh_queue
            }
        };
        let lacks = state.map(|state| state.lacks).unwrap_or_default();
        let view = View { name, site, queue, lacks, now };
        Some(SiteExplanation {
            site: name.clone(),
            lookup,
            provider: site.provider.as_ref().map(|name| self.provider_report(name)),
            limits: site.limits,
            down_until: site.down_until(now),
            reason: site.reason(now),
            proven: site.is_proven(),
            connections: site.connections,
            connections_max: site.connections_max(now),
            queues: site.queues.iter().map(|queue| self.queue_report(site, queue, now)).collect(),
            pool,
            sources: self.source_reports(&view),
        })
    }

    fn provider_report(&self, name: &std::sync::Arc<str>) -> ProviderReport {
        let rule = self.settings.providers.get(name);
        ProviderReport {
            name: name.clone(),
            origin: rule.map(|rule| rule.origin.to_string()).unwrap_or_default(),
            limits: rule.map(|rule| rule.limits).unwrap_or_default(),
        }
    }

    fn queue_report(&self, site: &Site, queue: &SiteQueue, now: Timestamp) -> QueueReport {
        let mut tenants = BTreeMap::<&str, usize>::new();
        for (class, flow) in queue.fair.flows() {
            *tenants.entry(&class.tenant).or_default() += flow.ready_jobs;
        }
        let mut tenants: Vec<(Box<str>, usize)> =
            tenants.into_iter().filter(|(_, jobs)| *jobs > 0).map(|(tenant, jobs)| (tenant.into(), jobs)).collect();
        tenants.sort_by_key(|(_, jobs)| std::cmp::Reverse(*jobs));
        tenants.truncate(TENANTS_MAX);
        let waits = |key: &&JobKey| self.jobs.get(*key).is_some_and(|job| job.state == JobState::Ready);
        let kept =
            queue.pinned.iter().map(|(source, line)| (self.fleet.name(*source), line.iter().filter(waits).count()));
        QueueReport {
            pool: queue.pool.clone(),
            ready: ready_by_priority(std::iter::once(queue)),
            tenants,
            more_on_disk: queue.fair.is_behind(),
            kept: kept.filter(|(_, jobs)| *jobs > 0).collect(),
            blocked: is_blocked(site, queue, now),
        }
    }

    fn source_reports(&self, view: &View<'_>) -> Vec<SourceReport> {
        let next = self.next_source(view);
        let members = self.fleet.pool(&view.queue.pool);
        members.iter().map(|member| self.source_report(view, member, next == Some(member.source))).collect()
    }

    fn source_report(&self, view: &View<'_>, member: &PoolMember, next: bool) -> SourceReport {
        let (source, now) = (member.source, view.now);
        let (lane, entry) = (self.lane_at(view, source), view.site.lane(source));
        let meter = self.fleet.source(source).and_then(|source| source.meter.as_ref());
        SourceReport {
            source: self.fleet.name(source),
            tier: member.tier,
            weight: member.weight,
            next,
            standing: self.standing(view, source),
            in_memory: entry.is_some(),
            connections: entry.map_or(0, |entry| entry.connections),
            idle: entry.map_or(0, |entry| entry.idle.len()),
            window: lane.window(now),
            messages_per_connection: lane.messages_per_connection(),
            trouble: lane.trouble(now),
            rates: lane.usage(now),
            source_rates: meter.map(|meter| meter.lane.usage(now)).unwrap_or_default(),
        }
    }

    /// The source that would take the next job, of those that can: as `pick` chooses it.
    fn next_source(&self, view: &View<'_>) -> Option<SourceId> {
        if view.site.down_until(view.now).is_some() {
            return None;
        }
        let may_connect = self.may_connect(view.site.is_proven());
        let free = self.in_turn(view).into_iter().filter(|(_, standing)| match standing {
            Standing::Free { idle } => *idle || may_connect,
            _ => false,
        });
        let slots = free.filter_map(|(source, _)| view.queue.slots.iter().find(|slot| slot.source == source));
        slots.min_by_key(|slot| slot.pass.max(view.queue.turn)).map(|slot| slot.source)
    }

    /// The sources that are asked now, and how they stand: overflow pools only where all before are closed for long.
    fn in_turn(&self, view: &View<'_>) -> Vec<(SourceId, Standing)> {
        let lacks = |source| self.fleet.source(source).is_some_and(|source| view.lacks.has(source.family));
        let anyway = view.queue.slots.iter().all(|slot| lacks(slot.source));
        let mut asked = Vec::new();
        let (mut tier, mut closed) = (0, true);
        for slot in view.queue.slots.iter().filter(|slot| anyway || !lacks(slot.source)) {
            if slot.tier > tier {
                if !closed {
                    break;
                }
                tier = slot.tier;
            }
            let standing = self.standing(view, slot.source);
            let long = standing.until().is_none_or(|until| until >= view.now.plus(OVERFLOW_AFTER));
            closed &= long && !standing.is_free() && !standing.is_busy();
            asked.push((slot.source, standing));
        }
        asked
    }

    /// How a source stands at a site: what [`Scheduler::means`] finds, with its reason, and nothing changed.
    fn standing(&self, view: &View<'_>, source: SourceId) -> Standing {
        let (site, now) = (view.site, view.now);
        let Some(entry) = self.fleet.source(source) else { return Standing::NoAddress };
        if view.lacks.has(entry.family) {
            return Standing::NoAddress;
        }
        let pool = self.fleet.pool_meter(&view.queue.pool).map(|meter| (RateOf::Pool(view.queue.pool.clone()), meter));
        let meters = entry.meter.as_ref().map(|meter| (RateOf::Source, meter)).into_iter().chain(pool);
        for (of, meter) in meters {
            if let Some(wait) = meter.lane.wait(now) {
                return waits(wait, |_| of, None);
            }
        }
        let lane = self.lane_at(view, source);
        if lane.window(now) == 0 {
            let trouble = lane.trouble(now);
            let until = trouble.as_ref().and_then(|trouble| trouble.until).or_else(|| lane.next_change(now));
            return Standing::Closed { until, trouble };
        }
        if let Some(wait) = lane.wait(now) {
            return waits(wait, |limit| self.rate_of(site, &lane, limit, now), Some((&lane, now)));
        }
        let (open, allowed) = (site.lane(source).map_or(0, |entry| entry.connections), lane.window(now));
        if site.lane(source).is_some_and(|entry| !entry.idle.is_empty()) {
            return Standing::Free { idle: true };
        }
        match site.connections_max(now) {
            _ if open >= allowed => Standing::Busy { open, allowed },
            Some(allowed) if !site.may_open(now) => Standing::SiteBusy { open: site.connections, allowed },
            _ => Standing::Free { idle: false },
        }
    }

    /// The lane of a source at a site, or the one that would be made there.
    fn lane_at<'s>(&'s self, view: &View<'s>, source: SourceId) -> Cow<'s, Lane> {
        if let Some(entry) = view.site.lane(source) {
            return Cow::Borrowed(&entry.lane);
        }
        let limits = view.site.limits;
        let saved = self.saved.get(&LaneName::Lane(view.name.clone(), self.fleet.name(source)));
        Cow::Owned(match saved {
            Some(state) => Lane::restore(state, limits, self.unclean, view.now),
            None => Lane::new(limits, view.now),
        })
    }

    /// Whose limit it is that a lane keeps to.
    fn rate_of(&self, site: &Site, lane: &Lane, limit: RateLimit, now: Timestamp) -> RateOf {
        if site.limits.rates.by(limit.per) != Some(limit.count) {
            let trouble = lane.trouble(now);
            let (rule, words) = trouble.map_or((None, "".into()), |trouble| (trouble.rule, trouble.words));
            return RateOf::Reply(rule, words);
        }
        let rule = site.provider.as_deref().and_then(|name| self.settings.providers.get(name));
        match rule.filter(|rule| rule.limits.rates.by(limit.per).is_some()) {
            Some(rule) => RateOf::Provider(rule.name.clone()),
            None => RateOf::Config,
        }
    }

    /// Why a ready job waits at a site. `keeps`: it stands in the line of those that keep this source.
    pub(super) fn cause(&self, view: &View<'_>, keeps: Option<SourceId>) -> Cause {
        if self.draining {
            return Cause::Stopping;
        }
        let unproven = !view.site.is_proven();
        let asked = match keeps {
            Some(source) => vec![(source, self.standing(view, source))],
            None => self.in_turn(view),
        };
        if asked.iter().any(|(_, standing)| standing.is_free()) {
            let needs_new = asked.iter().all(|(_, standing)| *standing != Standing::Free { idle: true });
            if needs_new && !self.may_connect(!unproven) {
                let all = self.connections.len() >= self.settings.connections_max;
                let max = if all { self.settings.connections_max } else { self.line.unproven_connections };
                return Cause::Connections { max, unproven: !all };
            }
            return Cause::Turn;
        }
        let busy: Vec<&Standing> =
            asked.iter().map(|(_, standing)| standing).filter(|standing| standing.is_busy()).collect();
        if keeps.is_none() && !busy.is_empty() {
            return busy_cause(view, &busy);
        }
        let sources = asked.len();
        let first = asked.into_iter().min_by_key(|(_, standing)| standing.until().unwrap_or(Timestamp::MAX));
        let Some((source, standing)) = first else { return Cause::Turn };
        let source = self.fleet.name(source);
        if keeps.is_some() || sources == 1 {
            return Cause::Source { source, keeps: keeps.is_some(), standing };
        }
        Cause::AllClosed { pool: view.queue.pool.clone(), sources, first: source, standing }
    }

    /// What stands before a job in its line.
    pub(super) fn before(queue: &SiteQueue, class: &Class, key: JobKey, keeps: Option<SourceId>) -> Before {
        let higher = queue.fair.ready_by_class().filter(|(other, _)| other.priority < class.priority);
        let higher = higher.map(|(_, jobs)| jobs).sum();
        let place = match keeps.and_then(|source| queue.pinned.get(&source)) {
            Some(line) => line.iter().take(BEFORE_JOBS_MAX).position(|other| *other == key),
            None => queue.fair.peek(class, BEFORE_JOBS_MAX).position(|(_, other)| other == key),
        };
        let higher = if keeps.is_some() { 0 } else { higher };
        Before { jobs: place.unwrap_or(BEFORE_JOBS_MAX), more: place.is_none(), higher }
    }

    /// Lanes, blocked pools and ready jobs, by names of the config.
    pub fn lane_counts(&self, now: Timestamp) -> LaneCounts {
        let mut lanes = BTreeMap::new();
        let mut pools = BTreeMap::<PoolName, usize>::new();
        for site in self.sites.values() {
            for entry in &site.lanes {
                let (source, provider) = (self.fleet.name(entry.source), site.provider.clone());
                let none = LaneCount {
                    source: source.clone(),
                    provider: provider.clone(),
                    all: 0,
                    blocked: 0,
                    suspended: 0,
                    unreachable: 0,
                    slowed: 0,
                };
                let count = lanes.entry((source, provider)).or_insert(none);
                count.all += 1;
                match entry.lane.mode(now) {
                    Some("blocked") => count.blocked += 1,
                    Some("suspended") => count.suspended += 1,
                    Some("unreachable") => count.unreachable += 1,
                    Some("slowed" | "fewer-connections") => count.slowed += 1,
                    _ => {}
                }
            }
            for queue in site.queues.iter().filter(|queue| is_blocked(site, queue, now)) {
                *pools.entry(queue.pool.clone()).or_default() += 1;
            }
        }
        LaneCounts {
            lanes: lanes.into_values().collect(),
            pools_blocked: pools.into_iter().collect(),
            ready: ready_by_priority(self.sites.values().flat_map(|site| &site.queues)),
        }
    }
}

/// A lane or meter that admits nothing. `of`: whose limit it is; the lane, for its trouble.
fn waits(wait: Wait, of: impl FnOnce(RateLimit) -> RateOf, lane: Option<(&Lane, Timestamp)>) -> Standing {
    let until = Some(wait.until).filter(|until| *until != Timestamp::MAX);
    match wait.cause {
        lane::Cause::Rate(limit) => Standing::Rate { limit, of: of(limit), until },
        lane::Cause::Saving => Standing::Saving,
        lane::Cause::Probing => Standing::Probing,
        lane::Cause::Unreachable | lane::Cause::Suspended | lane::Cause::Blocked => {
            Standing::Closed { until, trouble: lane.and_then(|(lane, now)| lane.trouble(now)) }
        }
    }
}

/// All that could send are at work.
fn busy_cause(view: &View<'_>, busy: &[&Standing]) -> Cause {
    let of_site = busy.iter().find_map(|standing| match standing {
        Standing::SiteBusy { open, allowed } => Some((*open, usize::try_from(*allowed).unwrap_or(usize::MAX))),
        _ => None,
    });
    let (open, allowed) = of_site.unwrap_or_else(|| {
        let numbers = busy.iter().map(|standing| match standing {
            Standing::Busy { open, allowed } => (*open, *allowed),
            _ => (0, 0),
        });
        let sum = numbers.fold((0_u64, 0_u64), |sum, one| (sum.0 + u64::from(one.0), sum.1 + u64::from(one.1)));
        let number = |sum: u64| usize::try_from(sum).unwrap_or(usize::MAX);
        (number(sum.0).min(view.site.connections), number(sum.1))
    });
    Cause::Busy { open, allowed }
}

/// Whether all sources of a queue are blocked there.
fn is_blocked(site: &Site, queue: &SiteQueue, now: Timestamp) -> bool {
    let blocked = |source| site.lane(source).is_some_and(|entry| entry.lane.mode(now) == Some("blocked"));
    !queue.slots.is_empty() && queue.slots.iter().all(|slot| blocked(slot.source))
}

fn ready_by_priority<'q>(queues: impl Iterator<Item = &'q SiteQueue>) -> [(Priority, usize); 3] {
    let mut ready = Priority::ALL.map(|priority| (priority, 0));
    for queue in queues {
        for (class, jobs) in queue.fair.ready_by_class() {
            if let Some((_, sum)) = ready.iter_mut().find(|(priority, _)| *priority == class.priority) {
                *sum += jobs;
            }
        }
    }
    ready
}

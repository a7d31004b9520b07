//! Why mail waits, worked out from the scheduler's state: for a job, for a site, for a source. Asks what `pick` asks ([`Look`]), of
//! copies of the lanes, so that nothing changes.

use std::collections::{BTreeMap, BTreeSet};

use super::look::{Choice, Holds, Look, Means};
use super::{JobState, Scheduler};
use crate::policy::lane::{Cause as LaneCause, Lane, Mode};
use crate::policy::limits::RateLimit;
use crate::policy::warmup::Mode as WarmupMode;
use crate::queue::JobKey;
use crate::scheduler::class::Class;
use crate::scheduler::explanation::{
    Before, Cause, LaneCount, LaneCounts, Lookup, ProviderReport, Question, QueueReport, RateOf, SiteExplanation,
    SourceReport, Standing,
};
use crate::scheduler::fleet::{Families, Fleet, PoolMember, SourceId};
use crate::scheduler::sites::{LaneEntry, SetEntry, Site, SiteQueue};
use crate::scheduler::{LaneName, SiteName};
use crate::types::{PoolName, Priority, Timestamp};

/// Jobs of a line that are counted before one: there may be a million. More: "more than".
const BEFORE_JOBS_MAX: usize = 1_000;
/// Tenants of a queue that are told of.
const TENANTS_MAX: usize = 5;

/// A pool at a site, looked at for a job: lanes and meters are copies.
pub(super) struct View<'s> {
    pub(super) name: &'s SiteName,
    pub(super) site: &'s Site,
    pub(super) queue: &'s SiteQueue,
    /// Where the job goes, and the families of which these have no address.
    hosts: SiteName,
    lacks: Families,
    /// Of all sources of the pool: those that are not in memory as they would be made.
    lanes: Vec<LaneEntry>,
    set: Option<SetEntry>,
    fleet: Fleet,
    may_connect: bool,
    prefers_warming: bool,
    now: Timestamp,
}

impl View<'_> {
    /// The job goes by a source that warms up, where one has room.
    pub(super) fn preferring_warming(mut self, prefers: bool) -> Self {
        self.prefers_warming = prefers;
        self
    }

    /// Asks what `pick` would.
    fn ask<T>(&mut self, question: impl FnOnce(&mut Look<'_>) -> T) -> T {
        question(&mut Look {
            site: self.name,
            pool: &self.queue.pool,
            hosts: &self.hosts,
            lacks: self.lacks,
            may_open: self.site.may_open(self.now),
            may_connect: self.may_connect,
            lanes: &mut self.lanes,
            with_idle: &self.site.with_idle,
            set: self.set.as_mut(),
            prefers_warming: self.prefers_warming,
            fleet: &mut self.fleet,
            dirty: &mut BTreeSet::new(),
            now: self.now,
        })
    }

    fn choose(&mut self) -> Choice {
        let (slots, mut turn) = (&self.queue.slots, self.queue.turn);
        self.ask(|look| look.choose(slots, &mut turn))
    }

    /// How a source can take the job; `None`: the hosts have no address that it reaches.
    fn means(&mut self, source: SourceId) -> Option<Means> {
        self.ask(|look| look.reaches(source).then(|| look.means(source)))
    }

    /// The sources that are asked now, and how they can take the job: overflow pools only where all before are closed for long.
    fn in_turn(&mut self) -> Vec<(SourceId, Means)> {
        let mut asked = Vec::new();
        let (mut tier, mut closed) = (0, true);
        for slot in &self.queue.slots {
            if slot.tier > tier {
                if !closed {
                    break;
                }
                tier = slot.tier;
            }
            let Some(means) = self.means(slot.source) else { continue };
            closed &= means.is_closed_for_long(self.now);
            asked.push((slot.source, means));
        }
        asked
    }

    fn lane(&self, source: SourceId) -> Option<&LaneEntry> {
        self.lanes.iter().find(|entry| entry.source == source)
    }
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
                let own_pool = destination.and_then(|destination| destination.own_pool.clone());
                fresh_site = Site::new(name, provider, limits).with_pool(own_pool);
                &fresh_site
            }
        };
        let (pool, _) = site.place(&question.pool, "", &self.fleet);
        let queue = match site.queue_named(&pool, "", &self.fleet) {
            Some(queue) => queue,
            None => {
                fresh_queue = SiteQueue::new(name, (pool.clone(), ""), &self.fleet);
                &fresh_queue
            }
        };
        let lacks = state.map(|state| state.lacks).unwrap_or_default();
        let hosts = destination.map_or_else(|| name.clone(), |destination| destination.hosts.clone());
        let mut view = self.view(name, site, queue, (hosts, lacks), now);
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
            queues: site.queues.iter().map(|queue| self.queue_report(site, queue)).collect(),
            pool,
            sources: self.source_reports(&mut view),
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

    fn queue_report(&self, site: &Site, queue: &SiteQueue) -> QueueReport {
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
            set: Some(queue.set.clone()).filter(|set| !set.is_empty()),
            ready: ready_by_priority(std::iter::once(queue)),
            tenants,
            more_on_disk: queue.fair.is_behind(),
            kept: kept.filter(|(_, jobs)| *jobs > 0).collect(),
            blocked: site.is_blocked(queue),
        }
    }

    pub(super) fn view<'s>(
        &self,
        name: &'s SiteName,
        site: &'s Site,
        queue: &'s SiteQueue,
        (hosts, lacks): (SiteName, Families),
        now: Timestamp,
    ) -> View<'s> {
        let mut lanes: Vec<LaneEntry> =
            queue.slots.iter().map(|slot| self.lane_at(name, site, slot.source, now)).collect();
        lanes.sort_unstable_by_key(|entry| entry.source);
        let may_connect = self.may_connect(site.is_proven());
        let set = site.sets.iter().find(|entry| entry.set == queue.set).cloned();
        let fleet = self.fleet.clone();
        View { name, site, queue, hosts, lacks, lanes, set, fleet, may_connect, prefers_warming: false, now }
    }

    /// The lane of a source at a site, or the one that would be made there.
    fn lane_at(&self, name: &SiteName, site: &Site, source: SourceId, now: Timestamp) -> LaneEntry {
        site.lane(source).cloned().unwrap_or_else(|| {
            let lane_name = LaneName::Lane(name.clone(), self.fleet.name(source));
            let lane = self.lane_of_old(&lane_name, site.limits, site.provider.as_deref(), now);
            LaneEntry::new(source, lane, now)
        })
    }

    fn source_reports(&self, view: &mut View<'_>) -> Vec<SourceReport> {
        let next = match view.choose() {
            Choice::Take(source, _) if view.site.down_until(view.now).is_none() => Some(source),
            _ => None,
        };
        let members = self.fleet.pool(&view.queue.pool);
        members.iter().filter_map(|member| self.source_report(view, member, next == Some(member.source))).collect()
    }

    /// `None`: it is no source of the queue's, which happens only while a reload is under way.
    fn source_report(&self, view: &mut View<'_>, member: &PoolMember, next: bool) -> Option<SourceReport> {
        let (source, now) = (member.source, view.now);
        let means = view.means(source);
        let entry = view.lane(source)?;
        let meter = self.fleet.source(source).and_then(|source| source.meter.as_ref());
        Some(SourceReport {
            source: self.fleet.name(source),
            tier: member.tier,
            weight: member.weight,
            next,
            standing: means.map_or(Standing::NoAddress, |means| self.standing(view, source, means)),
            in_memory: view.site.lane(source).is_some(),
            connections: entry.connections,
            idle: entry.idle.len(),
            window: entry.lane.window(now),
            messages_per_connection: entry.lane.messages_per_connection(),
            trouble: entry.lane.trouble(now),
            warmup: entry.lane.warmup(now),
            rates: entry.lane.usage(now),
            source_rates: meter.map(|meter| meter.lane.usage(now)).unwrap_or_default(),
        })
    }

    /// What a source can do, in the words of explanations.
    fn standing(&self, view: &View<'_>, source: SourceId, means: Means) -> Standing {
        let lane = view.lane(source);
        let (until, holds) = match means {
            Means::Idle(_) | Means::Swap(_) => return Standing::Free { idle: true },
            Means::New => return Standing::Free { idle: false },
            Means::Full(holds) => (None, holds),
            Means::Closed(until, holds) => (Some(until).filter(|until| *until != Timestamp::MAX), holds),
        };
        let warmup = |lane: Option<&Lane>, set: Option<Box<str>>| {
            let report = lane.and_then(|lane| lane.warmup(view.now));
            Standing::WarmUp { until, set, report: report.map(Box::new) }
        };
        let waits = |cause: LaneCause, of: &dyn Fn(RateLimit) -> RateOf| match cause {
            LaneCause::WarmUp => warmup(lane.map(|entry| &*entry.lane), None),
            LaneCause::Rate(limit) => Standing::Rate { limit, of: of(limit), until },
            LaneCause::Saving => Standing::Saving,
            LaneCause::Probing => Standing::Probing,
            LaneCause::Unreachable | LaneCause::Suspended | LaneCause::Blocked => {
                Standing::Closed { until, trouble: lane.and_then(|entry| entry.lane.trouble(view.now)) }
            }
        };
        match holds {
            Holds::Connections => {
                let numbers = |entry: &LaneEntry| (entry.connections, entry.lane.window(view.now));
                let (open, allowed) = lane.map_or((0, 0), numbers);
                Standing::Busy { open, allowed }
            }
            Holds::SiteConnections => {
                let allowed = view.site.connections_max(view.now).unwrap_or(u32::MAX);
                Standing::SiteBusy { open: view.site.connections, allowed }
            }
            Holds::Source(cause) => waits(cause, &|_| RateOf::Source),
            Holds::Pool(cause) => waits(cause, &|_| RateOf::Pool(view.queue.pool.clone())),
            Holds::Lane(cause) => waits(cause, &|limit| match lane {
                Some(entry) => self.rate_of(view.site, &entry.lane, limit, view.now),
                None => RateOf::Config,
            }),
            Holds::Set(LaneCause::WarmUp) => {
                let entry = view.set.as_ref();
                warmup(entry.map(|entry| &*entry.lane), entry.map(|entry| entry.set.clone()))
            }
            Holds::Set(cause) => waits(cause, &|_| RateOf::Config),
            Holds::NoRoom => Standing::Closed { until, trouble: None },
        }
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
    pub(super) fn cause(&self, view: &mut View<'_>, keeps: Option<SourceId>) -> Cause {
        if self.draining {
            return Cause::Stopping;
        }
        let choice = match keeps {
            None => view.choose(),
            Some(source) => match view.means(source) {
                Some(Means::New) if !view.may_connect => Choice::NoConnection,
                Some(Means::Full(_) | Means::Closed(..)) => Choice::Wait(view.now),
                // It goes by another one, where the hosts have no address of its family.
                Some(Means::Idle(_) | Means::New | Means::Swap(_)) | None => Choice::Take(source, None),
            },
        };
        match choice {
            Choice::Take(..) | Choice::Swap(_) => Cause::Turn,
            Choice::NoConnection => {
                let all = self.connections.len() >= self.settings.connections_max;
                let max = if all { self.settings.connections_max } else { self.line.unproven_connections };
                Cause::Connections { max, unproven: !all }
            }
            Choice::Wait(_) => self.waiting(view, keeps),
        }
    }

    /// No source takes a job now.
    fn waiting(&self, view: &mut View<'_>, keeps: Option<SourceId>) -> Cause {
        let asked = match keeps {
            Some(source) => view.means(source).map(|means| (source, means)).into_iter().collect(),
            None => view.in_turn(),
        };
        let asked: Vec<(SourceId, Standing)> =
            asked.into_iter().map(|(source, means)| (source, self.standing(view, source, means))).collect();
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
            None => queue
                .fair
                .flow(class)
                .and_then(|flow| flow.ready.iter().take(BEFORE_JOBS_MAX).position(|other| *other == key)),
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
                    warming: [0; 4],
                    warmup_cap: 0,
                    warmup_used: 0,
                };
                let count = lanes.entry((source, provider)).or_insert(none);
                count.all += 1;
                if let Some((mode, Some(cap), used)) = entry.lane.warmup_summary() {
                    let [running, slowed, frozen, paused] = &mut count.warming;
                    *match mode {
                        WarmupMode::Running | WarmupMode::Over => running,
                        WarmupMode::Slowed => slowed,
                        WarmupMode::Frozen => frozen,
                        WarmupMode::Paused => paused,
                    } += 1;
                    count.warmup_cap += u64::from(cap);
                    count.warmup_used += u64::from(used);
                }
                match entry.lane.mode(now) {
                    Some(Mode::Blocked) => count.blocked += 1,
                    Some(Mode::Suspended) => count.suspended += 1,
                    Some(Mode::Unreachable) => count.unreachable += 1,
                    Some(Mode::Slowed | Mode::Fewer) => count.slowed += 1,
                    Some(Mode::Ramping) | None => {}
                }
            }
            for queue in site.queues.iter().filter(|queue| site.is_blocked(queue)) {
                *pools.entry(queue.pool.clone()).or_default() += 1;
            }
        }
        LaneCounts {
            lanes: lanes.into_values().collect(),
            pools_blocked: pools.into_iter().collect(),
            ready: ready_by_priority(self.sites.values().flat_map(|site| &site.queues)),
            sources: self.sources(),
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

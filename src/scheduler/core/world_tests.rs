//! The scheduler against a whole small world on a random course: a disk that answers pages late, sites that die and come
//! back, tables that are far too small, operators. Whatever happens, no job is given out twice, memory stays bounded, and
//! in the end every job has been delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::policy::lane::Health;
use crate::policy::limits::LaneLimits;
use crate::queue::{DueEntry, DuePage};
use crate::scheduler::Command;
use crate::types::MessageId;

fn due_again(at: Timestamp, attempts: u32) -> Settled {
    Settled::Due { at, attempts, source: None, blocked: false }
}

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
const SITES: u32 = 6;
const LIFETIME: Duration = Duration::from_secs(4 * 86_400);

struct World {
    rng: SmallRng,
    scheduler: Scheduler,
    now: Timestamp,
    actions: Vec<Action>,
    /// The due index as it is.
    disk: BTreeMap<DueKey, DueJob>,
    /// A page as it was when it was read, on its way.
    page: Option<DuePage>,
    /// Jobs given out.
    out: BTreeSet<JobKey>,
    /// What connections do.
    busy: BTreeMap<u64, (u32, Vec<Lease>)>,
    clerks: Vec<(Lease, Verdict)>,
    lookups: Vec<Domain>,
    dead: [bool; SITES as usize],
    delivered: BTreeSet<JobKey>,
    expired: usize,
    next_id: u128,
    jobs_max: usize,
}

impl World {
    fn new(seed: u64, jobs_max: usize) -> Self {
        let settings = Settings {
            jobs_max,
            body_cache_bytes: 1_000,
            connections_max: 4,
            limits: LaneLimits { connections: 2, ..LaneLimits::default() },
            recipients_per_transaction_max: 50,
            delay_notices: vec![Duration::from_secs(3_600)],
            ..Settings::default()
        };
        Self {
            rng: SmallRng::seed_from_u64(seed),
            scheduler: Scheduler::new(settings, None, Vec::new(), false, NOW),
            now: NOW,
            actions: Vec::new(),
            disk: BTreeMap::new(),
            page: None,
            out: BTreeSet::new(),
            busy: BTreeMap::new(),
            clerks: Vec::new(),
            lookups: Vec::new(),
            dead: [false; SITES as usize],
            delivered: BTreeSet::new(),
            expired: 0,
            next_id: 0,
            jobs_max,
        }
    }

    /// As a restart finds it: on disk, unknown to the scheduler, some of it due later.
    fn stored(&mut self, count: usize) {
        for _ in 0..count {
            let after = if self.rng.random_ratio(1, 3) { self.rng.random_range(1..7_200) } else { 0 };
            self.put(self.now.plus(Duration::from_secs(after)));
        }
    }

    fn put(&mut self, due_at: Timestamp) -> DueJob {
        self.next_id += 1;
        let key = JobKey { id: MessageId::new(self.now, self.next_id), group: 0 };
        // Half of the mail is for the first site.
        let site = if self.rng.random_ratio(1, 2) { 0 } else { self.rng.random_range(0..SITES) };
        let entry = DueEntry {
            domain: format!("s{site}d{}.test", self.rng.random_range(0..3)),
            expires_at_ms: self.now.plus(LIFETIME).millis(),
            ..DueEntry::default()
        };
        let job = DueJob { due_at, key, entry };
        self.disk.insert(DueKey::of(due_at, key), job.clone());
        job
    }

    /// The way of `released`: a job that is due now, and that memory has not seen.
    fn accept(&mut self) {
        let job = self.put(self.now);
        self.scheduler.released(&job, self.now, &mut self.actions);
    }

    fn perform(&mut self) {
        for action in std::mem::take(&mut self.actions) {
            match action {
                Action::Resolve(domain) => self.lookups.push(domain),
                Action::Open { connection, domain, jobs, .. } => {
                    self.give_out(&jobs);
                    let site = domain.as_str()[1..2].parse().unwrap();
                    self.busy.insert(connection.0, (site, jobs));
                }
                Action::Assign { connection, jobs, .. } => {
                    self.give_out(&jobs);
                    self.busy.get_mut(&connection.0).unwrap().1 = jobs;
                }
                Action::Close(connection) => {
                    self.busy.remove(&connection.0);
                    let none = Report::default();
                    self.scheduler.connection_closed(connection, none, Vec::new(), self.now, &mut self.actions);
                }
                Action::Settle { lease, verdict } => {
                    self.give_out(std::slice::from_ref(&lease));
                    self.clerks.push((lease, verdict));
                }
                Action::SaveLanes(_) | Action::SaveHistory(_) | Action::SaveLives(_) => {}
                Action::PageIn { from, until, limit } => {
                    assert!(self.page.is_none(), "one page at a time");
                    let limit = limit.min(37);
                    let jobs: Vec<DueJob> =
                        self.disk.range(from..until).take(limit).map(|(_, job)| job.clone()).collect();
                    let next = (jobs.len() == limit).then(|| {
                        let last = jobs.last().unwrap();
                        DueKey::of(last.due_at, JobKey { id: last.key.id, group: last.key.group + 1 })
                    });
                    self.page = Some(DuePage { jobs, next, damaged: Vec::new() });
                }
            }
        }
        assert!(self.scheduler.totals().jobs <= self.jobs_max);
    }

    fn give_out(&mut self, jobs: &[Lease]) {
        for job in jobs {
            assert!(self.out.insert(job.key), "given out twice: {:?}", job.key);
            assert!(!self.delivered.contains(&job.key), "delivered before: {:?}", job.key);
        }
    }

    fn settled(&mut self, lease: &Lease, settled: Settled) {
        let old = DueKey::of(lease.due_at.unwrap(), lease.key);
        let job = self.disk.remove(&old).expect("what is given out is on disk");
        match settled {
            Settled::Out => {}
            Settled::Unchanged => drop(self.disk.insert(old, job)),
            Settled::Due { at, attempts, .. } => {
                let entry = DueEntry { attempts, ..job.entry };
                self.disk.insert(DueKey::of(at, lease.key), DueJob { due_at: at, key: lease.key, entry });
            }
        }
        assert!(self.out.remove(&lease.key));
        self.scheduler.settled(lease.key, settled, self.now, &mut self.actions);
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..15 => {
                for _ in 0..self.rng.random_range(1..20) {
                    self.accept();
                }
            }
            15..35 => self.look_up(),
            35..60 => self.connection_ends(),
            60..70 => self.clerk_ends(),
            70..85 => {
                if let Some(page) = self.page.take() {
                    self.scheduler.paged(page, self.now, &mut self.actions);
                }
            }
            85..97 => {
                self.now = self.now.plus(Duration::from_millis(self.rng.random_range(1..40_000)));
                self.scheduler.tick(self.now, &mut self.actions);
            }
            97 => {
                let site = self.rng.random_range(0..self.dead.len());
                self.dead[site] = !self.dead[site];
            }
            98 => self.scheduler.flush(self.now, &mut self.actions),
            _ => self.retry_one(),
        }
        self.perform();
    }

    fn look_up(&mut self) {
        let Some(domain) = self.lookups.pop() else { return };
        let site = SiteName::new(&domain.as_str()[..2]);
        let until = self.now.plus(Duration::from_secs(300));
        self.scheduler.resolved(&domain, Destination::of_hosts(site, until), self.now, &mut self.actions);
    }

    fn connection_ends(&mut self) {
        let Some((&connection, _)) = self.busy.iter().find(|(_, (_, jobs))| !jobs.is_empty()) else { return };
        let (site, jobs) = self.busy.remove(&connection).unwrap();
        let id = ConnectionId(connection);
        if self.dead[site as usize] {
            for job in &jobs {
                let wait = Duration::from_secs(self.rng.random_range(60..7_200));
                let settled = due_again(self.now.plus(wait), job.attempts + 1);
                self.settled(job, settled);
            }
            let feedback = Report::of(Health::Unreachable("refused".into()));
            return self.scheduler.connection_closed(id, feedback, Vec::new(), self.now, &mut self.actions);
        }
        if self.rng.random_ratio(1, 20) {
            // It broke before the first command.
            for job in &jobs {
                assert!(self.out.remove(&job.key));
            }
            return self.scheduler.connection_closed(id, Report::default(), jobs, self.now, &mut self.actions);
        }
        for job in &jobs {
            assert!(self.delivered.insert(job.key));
            self.settled(job, Settled::Out);
        }
        self.busy.insert(connection, (site, Vec::new()));
        self.scheduler.connection_idle(id, Report::of(Health::Good), self.now, &mut self.actions);
    }

    fn clerk_ends(&mut self) {
        let Some((lease, verdict)) = self.clerks.pop() else { return };
        match verdict {
            Verdict::Notice(_) => self.settled(&lease, Settled::Unchanged),
            Verdict::Expired(_) => {
                self.expired += 1;
                self.settled(&lease, Settled::Out);
            }
            other => panic!("nobody asked for {other:?}"),
        }
    }

    fn retry_one(&mut self) {
        let count = self.disk.len();
        if count == 0 {
            return;
        }
        let job = self.disk.values().nth(self.rng.random_range(0..count)).unwrap().clone();
        self.scheduler.command(&job, &Command::Retry, self.now, &mut self.actions);
    }

    /// All hosts live, time goes on, everything is answered: until nothing is left.
    fn run_out(&mut self) {
        self.dead = [false; SITES as usize];
        for _ in 0..1_000_000 {
            self.look_up();
            self.connection_ends();
            self.clerk_ends();
            if let Some(page) = self.page.take() {
                self.scheduler.paged(page, self.now, &mut self.actions);
            }
            self.perform();
            let idle = self.actions.is_empty() && self.lookups.is_empty() && self.clerks.is_empty();
            let at_work = self.page.is_some() || self.busy.values().any(|(_, jobs)| !jobs.is_empty());
            if idle && self.disk.is_empty() {
                return;
            }
            if idle && !at_work {
                self.now = self.now.plus(Duration::from_secs(5));
                self.scheduler.tick(self.now, &mut self.actions);
                self.perform();
            }
        }
        panic!("{} jobs stay on disk, {} in memory", self.disk.len(), self.scheduler.totals().jobs);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_job_is_delivered_once_however_small_the_table(seed: u64, jobs_max in 130_usize..700, stored in 0_usize..1_500) {
        let mut world = World::new(seed, jobs_max);
        world.stored(stored);
        world.scheduler.tick(world.now, &mut world.actions);
        world.perform();
        for _ in 0..3_000 {
            world.step();
        }
        world.run_out();
        prop_assert_eq!(world.delivered.len() + world.expired, usize::try_from(world.next_id).unwrap());
        prop_assert_eq!(world.scheduler.totals().in_flight, 0);
        prop_assert_eq!(world.scheduler.totals().jobs, 0);
    }
}

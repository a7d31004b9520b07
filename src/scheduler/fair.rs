//! Whose job is next: deficit round robin among the tenants of a priority, priorities in their order.
//!
//! A tenant has its turn, and owes as many turns as what it was given cost beyond one; a tenant that owes is passed over,
//! once for each turn. So each gets the same number of deliveries, whoever has a million of them waiting. Higher priorities go
//! first; lest they starve the lower ones, each waiting lower one has every [`HIGHER_IN_A_ROW`]th turn.

use std::collections::VecDeque;
use std::sync::Arc;

use super::Map;
use super::backlog::Backlog;
use super::class::Class;
use crate::queue::JobKey;
use crate::types::Priority;

/// Turns of higher priorities after which a waiting lower one has its turn.
const HIGHER_IN_A_ROW: u32 = 32;

/// The jobs of one class at one site.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Jobs that could go now, oldest first. May hold keys of jobs that were settled meanwhile.
    pub(super) ready: VecDeque<JobKey>,
    /// Jobs that could go now, as far as they are in memory; those that wait for one source among them.
    pub(super) ready_jobs: usize,
    /// The others.
    pub(super) backlog: Backlog,
    /// Turns that it is passed over.
    debt: u32,
    in_ring: bool,
}

impl Flow {
    fn is_empty(&self) -> bool {
        self.ready_jobs == 0 && self.ready.is_empty() && self.backlog.from().is_none()
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct FairQueue {
    /// Asked for by pointer: each class is there once, and its names are in no cache.
    flows: Map<Arc<Class>, Flow>,
    /// Flows with ready jobs, by priority; whose turn it is stands in front.
    rings: [VecDeque<Arc<Class>>; 3],
    /// Turns that others had while it waited.
    passed_over: [u32; 3],
}

const fn band(priority: Priority) -> usize {
    match priority {
        Priority::High => 0,
        Priority::Normal => 1,
        Priority::Bulk => 2,
    }
}

impl FairQueue {
    /// The flow of a class, if it has one.
    pub(super) fn flow(&self, class: &Class) -> Option<&Flow> {
        self.flows.get(class)
    }

    /// The flow of a class.
    pub(super) fn flow_mut(&mut self, class: &Arc<Class>) -> &mut Flow {
        if !self.flows.contains_key(class) {
            self.flows.insert(Arc::clone(class), Flow::default());
        }
        self.flows.get_mut(class).expect("it was put there if it was not")
    }

    /// All flows, in order: what follows from it must not depend on a hash.
    pub(super) fn flows(&self) -> Vec<(&Arc<Class>, &Flow)> {
        let mut flows: Vec<_> = self.flows.iter().collect();
        flows.sort_unstable_by(|a, b| a.0.cmp(b.0));
        flows
    }

    /// Ready jobs in memory of each class, in no order.
    pub(super) fn ready_by_class(&self) -> impl Iterator<Item = (&Class, usize)> {
        self.flows.iter().map(|(class, flow)| (&**class, flow.ready_jobs))
    }

    /// Ready jobs in memory.
    pub(super) fn ready_jobs(&self) -> usize {
        self.flows.values().map(|flow| flow.ready_jobs).sum()
    }

    /// Whether any class has left jobs on disk.
    pub(super) fn is_behind(&self) -> bool {
        self.flows.values().any(|flow| flow.backlog.from().is_some())
    }

    /// Whether nothing is ready, as far as is known without a look at the jobs.
    pub(super) fn is_idle(&self) -> bool {
        self.rings.iter().all(VecDeque::is_empty)
    }

    /// Whether nothing is left that is worth remembering.
    pub(super) fn is_forgettable(&self) -> bool {
        self.flows.values().all(Flow::is_empty)
    }

    /// Behind all others of its class.
    pub(super) fn push(&mut self, class: &Arc<Class>, key: JobKey) {
        let flow = self.flow_mut(class);
        flow.ready.push_back(key);
        if !std::mem::replace(&mut flow.in_ring, true) {
            let ring = self.rings.get_mut(band(class.priority)).expect("a ring for each priority");
            ring.push_back(Arc::clone(class));
        }
    }

    /// The class whose turn it is, with its first job; keys that are not `valid` any more are dropped on the way.
    pub(super) fn front(&mut self, mut valid: impl FnMut(JobKey) -> bool) -> Option<(Arc<Class>, JobKey)> {
        for at in self.order() {
            let ring = self.rings.get_mut(at).expect("a ring for each priority");
            while let Some(class) = ring.front() {
                let flow = self.flows.get_mut(class).expect("what stands in a ring has a flow");
                while flow.ready.pop_front_if(|key| !valid(*key)).is_some() {}
                let Some(key) = flow.ready.front().copied() else {
                    (flow.in_ring, flow.debt) = (false, 0);
                    let is_empty = flow.is_empty();
                    if let Some(class) = ring.pop_front().filter(|_| is_empty) {
                        self.flows.remove(&class);
                    }
                    continue;
                };
                if ring.len() == 1 {
                    // Nobody waits for whom it would have to.
                    flow.debt = 0;
                }
                if flow.debt == 0 {
                    return Some((Arc::clone(class), key));
                }
                flow.debt -= 1;
                ring.rotate_left(1);
            }
        }
        None
    }

    /// Priorities in the order in which they are looked at: one that was passed over for long first.
    fn order(&self) -> [usize; 3] {
        let waits = |at: &usize| self.rings.get(*at).is_some_and(|ring| !ring.is_empty());
        let overdue =
            |at: &usize| waits(at) && self.passed_over.get(*at).is_some_and(|turns| *turns >= HIGHER_IN_A_ROW);
        match [1_usize, 2].iter().find(|at| overdue(at)) {
            Some(1) => [1, 0, 2],
            Some(_) => [2, 0, 1],
            None => [0, 1, 2],
        }
    }

    /// Up to `limit` jobs of a class, in order, without taking them.
    pub(super) fn peek(&self, class: &Arc<Class>, limit: usize) -> impl Iterator<Item = (usize, JobKey)> {
        self.flows.get(class).into_iter().flat_map(move |flow| flow.ready.iter().copied().enumerate().take(limit))
    }

    /// The job that [`FairQueue::peek`] showed at this place becomes the first of its class.
    pub(super) fn bring_forward(&mut self, class: &Arc<Class>, at: usize) {
        if let Some(flow) = self.flows.get_mut(class)
            && let Some(key) = flow.ready.remove(at)
        {
            flow.ready.push_front(key);
        }
    }

    /// The first job of a class becomes its last.
    pub(super) fn send_back(&mut self, class: &Arc<Class>) {
        if let Some(flow) = self.flows.get_mut(class) {
            flow.ready.rotate_left(usize::from(!flow.ready.is_empty()));
        }
    }

    /// Takes the job out that [`FairQueue::peek`] showed at this place.
    pub(super) fn take(&mut self, class: &Arc<Class>, at: usize) {
        if let Some(flow) = self.flows.get_mut(class) {
            flow.ready.remove(at);
        }
    }

    /// A class was given `cost` deliveries: the next has its turn.
    pub(super) fn served(&mut self, class: &Arc<Class>, cost: usize) {
        let own = band(class.priority);
        if let Some(flow) = self.flows.get_mut(class) {
            flow.debt = flow.debt.saturating_add(u32::try_from(cost.saturating_sub(1)).unwrap_or(u32::MAX));
        }
        let ring = self.rings.get_mut(own).expect("a ring for each priority");
        if ring.front().is_some_and(|front| front == class) {
            ring.rotate_left(1);
        }
        for (at, turns) in self.passed_over.iter_mut().enumerate() {
            let waits = self.rings.get(at).is_some_and(|ring| !ring.is_empty());
            *turns = if at == own || !waits || at < own { 0 } else { *turns + 1 };
        }
    }

    /// Takes all keys out of all lines, in order; counts and backlogs stay.
    pub(super) fn drain(&mut self) -> Vec<JobKey> {
        for ring in &mut self.rings {
            ring.clear();
        }
        let mut flows: Vec<_> = self.flows.iter_mut().collect();
        flows.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut keys = Vec::new();
        for (_, flow) in flows {
            (flow.in_ring, flow.debt, flow.ready_jobs) = (false, 0, 0);
            keys.extend(flow.ready.drain(..));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{MessageId, Timestamp};

    fn class(tenant: &str, priority: Priority) -> Arc<Class> {
        Arc::new(Class { tenant: tenant.into(), priority, ..Class::default() })
    }

    struct Queue {
        fair: FairQueue,
        next_id: u128,
    }

    impl Queue {
        fn of(lines: &[(&Arc<Class>, usize)]) -> Self {
            let mut queue = Self { fair: FairQueue::default(), next_id: 0 };
            for (class, jobs) in lines {
                for _ in 0..*jobs {
                    queue.next_id += 1;
                    let id = MessageId::new(Timestamp::from_millis(1), queue.next_id);
                    queue.fair.push(class, JobKey { id, group: 0 });
                }
            }
            queue
        }

        /// Serves one turn; the first letter of its tenant.
        fn turn(&mut self, cost: usize) -> Option<char> {
            let (class, _) = self.fair.front(|_| true)?;
            self.fair.take(&class, 0);
            self.fair.served(&class, cost);
            class.tenant.chars().next()
        }

        fn turns(&mut self, count: usize) -> String {
            (0..count).filter_map(|_| self.turn(1)).collect()
        }
    }

    #[test]
    fn tenants_take_turns_whoever_has_the_longer_line() {
        let (a, b, c) = (class("a", Priority::Normal), class("b", Priority::Normal), class("c", Priority::Normal));
        let mut queue = Queue::of(&[(&a, 1_000), (&b, 2), (&c, 3)]);
        assert_eq!(queue.turns(10), "abcabcacaa");
    }

    #[test]
    fn who_was_given_more_at_once_waits_as_many_turns() {
        let (a, b) = (class("a", Priority::Normal), class("b", Priority::Normal));
        let mut queue = Queue::of(&[(&a, 10), (&b, 10)]);
        assert_eq!(queue.turn(4), Some('a'));
        assert_eq!(queue.turns(6), "bbbbab");
    }

    #[test]
    fn a_higher_priority_goes_first_and_does_not_starve_the_lower() {
        let (high, bulk) = (class("h", Priority::High), class("b", Priority::Bulk));
        let mut queue = Queue::of(&[(&bulk, 100), (&high, 100)]);
        let turns = queue.turns(70);
        assert_eq!(turns.matches('b').count(), 2, "{turns}");
        assert!(turns.starts_with(&"h".repeat(32)), "{turns}");
        let mut queue = Queue::of(&[(&bulk, 3), (&high, 3)]);
        assert_eq!(queue.turns(10), "hhhbbb");
    }

    #[test]
    fn keys_that_are_void_are_passed_and_empty_flows_forgotten() {
        let (a, b) = (class("a", Priority::Normal), class("b", Priority::Normal));
        let mut queue = Queue::of(&[(&a, 3), (&b, 1)]);
        let (first, _) = queue.fair.front(|key| key.id.seed() == u64::MAX || key.group == 0).unwrap();
        assert_eq!(first, a);
        assert!(queue.fair.front(|_| false).is_none());
        assert!(queue.fair.is_idle() && queue.fair.is_forgettable());
        assert!(queue.fair.flow(&a).is_none());
    }
}

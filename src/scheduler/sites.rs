//! One site: its ready jobs, its connections, and how much of it may be used now.
//!
//! A site that cannot be reached is suspended: its jobs wait without an attempt, one probe goes out at growing intervals,
//! and when it succeeds the number of connections doubles with each success until the limit. A host that says it is busy
//! loses one connection at once and regains it slowly.

use std::collections::VecDeque;
use std::time::Duration;

use super::backlog::Backlog;
use super::{ConnectionId, HostFeedback};
use crate::queue::JobKey;
use crate::types::Timestamp;

/// Intervals between probes of a site that cannot be reached; the last one repeats.
const PROBE_INTERVALS: [Duration; 7] = [
    Duration::from_secs(15),
    Duration::from_secs(30),
    Duration::from_secs(60),
    Duration::from_secs(120),
    Duration::from_secs(300),
    Duration::from_secs(600),
    Duration::from_secs(1_200),
];
/// Transactions that must go well before a busy host gets one more connection.
const SUCCESSES_PER_STEP: u32 = 20;

/// See the module.
#[derive(Debug)]
pub struct Site {
    /// Jobs that could go now, oldest first. May hold keys of jobs that were settled meanwhile.
    pub(super) ready: VecDeque<JobKey>,
    /// Jobs that could go now, as far as they are in memory.
    pub(super) ready_jobs: usize,
    /// The others.
    pub(super) backlog: Backlog,
    /// Open connections.
    pub(super) connections: usize,
    /// Of those, the unused ones, most recently used last.
    pub(super) idle: Vec<ConnectionId>,
    /// It stands in the line for a connection.
    pub(super) in_line: bool,
    window: usize,
    /// The last try of which anything is known came through.
    proven: bool,
    ramping: bool,
    successes: u32,
    failures: u32,
    suspended_until: Option<Timestamp>,
    reason: Option<String>,
}

impl Site {
    /// A site of which nothing is known.
    pub(super) fn new(connections_max: usize) -> Self {
        Self {
            ready: VecDeque::new(),
            ready_jobs: 0,
            backlog: Backlog::default(),
            connections: 0,
            idle: Vec::new(),
            in_line: false,
            window: connections_max.max(1),
            proven: false,
            ramping: false,
            successes: 0,
            failures: 0,
            suspended_until: None,
            reason: None,
        }
    }

    /// Connections it may have now.
    pub fn window(&self) -> usize {
        self.window
    }

    /// Until when nothing is sent there, if that is so at `now`.
    pub fn suspended_until(&self, now: Timestamp) -> Option<Timestamp> {
        self.suspended_until.filter(|until| *until > now)
    }

    /// Its last host-level trouble, until it is well again.
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether it is known to work: mail went there, and since then it could be reached.
    pub(super) fn is_proven(&self) -> bool {
        self.proven
    }

    /// Whether one more connection may be opened.
    pub(super) fn may_open(&self, now: Timestamp) -> bool {
        self.connections < self.window && self.suspended_until(now).is_none()
    }

    /// Nothing is left that is worth remembering.
    pub(super) fn is_forgettable(&self, now: Timestamp) -> bool {
        let unused = self.ready.is_empty() && self.backlog.from().is_none() && self.connections == 0 && !self.in_line;
        unused && self.suspended_until(now).is_none()
    }

    /// The administrator changed how many connections a site may have.
    pub(super) fn resize(&mut self, old_max: usize, new_max: usize) {
        let was_full = self.window >= old_max;
        self.window = if was_full { new_max } else { self.window.min(new_max) }.max(1);
    }

    /// The wall clock went back.
    pub(super) fn clock_went_back(&mut self, by: Duration) {
        self.suspended_until = self.suspended_until.map(|until| until.minus(by));
    }

    /// An operator wants it tried at once.
    pub(super) fn unsuspend(&mut self) {
        self.suspended_until = None;
    }

    /// Takes in what a connection learned. Returns the end of a suspension that just began.
    pub(super) fn learn(
        &mut self,
        feedback: HostFeedback,
        connections_max: usize,
        now: Timestamp,
    ) -> Option<Timestamp> {
        self.window = self.window.min(connections_max.max(1));
        match feedback {
            HostFeedback::None => None,
            HostFeedback::Good => {
                self.succeeded(connections_max);
                None
            }
            HostFeedback::Unreachable(reason) => {
                self.reason = Some(reason);
                self.proven = false;
                self.ramping = true;
                self.back_off(now)
            }
            HostFeedback::Busy(reason) => {
                self.reason = Some(reason);
                self.successes = 0;
                self.ramping = false;
                let had = self.connections.min(self.window);
                if had <= 1 {
                    // It wants not even one.
                    return self.back_off(now);
                }
                self.window = had - 1;
                None
            }
        }
    }

    /// One probe after an interval that grows with each failure. Connections that fail together are one failure.
    fn back_off(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.suspended_until(now).is_some() {
            return None;
        }
        let last = PROBE_INTERVALS.len() - 1;
        let step = usize::try_from(self.failures).unwrap_or(last).min(last);
        let interval = PROBE_INTERVALS.get(step).copied().unwrap_or_default();
        self.failures = self.failures.saturating_add(1);
        self.window = 1;
        self.suspended_until = Some(now.plus(interval));
        self.suspended_until
    }

    fn succeeded(&mut self, connections_max: usize) {
        self.proven = true;
        self.failures = 0;
        self.suspended_until = None;
        if self.window >= connections_max {
            self.reason = None;
            self.ramping = false;
            return;
        }
        self.successes += 1;
        if self.ramping {
            self.window = (self.window * 2).min(connections_max);
        } else if self.successes >= SUCCESSES_PER_STEP {
            self.window += 1;
            self.successes = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn unreachable() -> HostFeedback {
        HostFeedback::Unreachable("connection refused".to_owned())
    }

    #[test]
    fn a_dead_site_is_probed_at_growing_intervals_and_ramps_up_when_it_comes_back() {
        let mut site = Site::new(10);
        let mut now = NOW;
        for interval in PROBE_INTERVALS {
            assert!(site.may_open(now));
            let until = site.learn(unreachable(), 10, now).unwrap();
            assert_eq!(until.since(now), interval);
            assert!(!site.may_open(now));
            now = until;
        }
        let windows: Vec<usize> = (0..5)
            .map(|_| {
                site.learn(HostFeedback::Good, 10, now);
                site.window()
            })
            .collect();
        assert_eq!(windows, [2, 4, 8, 10, 10]);
        assert_eq!(site.reason(), None);
        assert_eq!(site.learn(unreachable(), 10, now).unwrap().since(now), PROBE_INTERVALS[0]);
    }

    #[test]
    fn connections_that_fail_together_count_once() {
        let mut site = Site::new(10);
        assert!(site.learn(unreachable(), 10, NOW).is_some());
        assert!(site.learn(unreachable(), 10, NOW).is_none());
        assert_eq!(site.suspended_until(NOW).unwrap().since(NOW), PROBE_INTERVALS[0]);
    }

    #[test]
    fn a_busy_host_loses_a_connection_at_once_and_regains_it_slowly() {
        let mut site = Site::new(10);
        site.connections = 10;
        site.learn(HostFeedback::Busy("421 too many".to_owned()), 10, NOW);
        assert_eq!(site.window(), 9);
        site.connections = 9;
        for _ in 0..SUCCESSES_PER_STEP - 1 {
            site.learn(HostFeedback::Good, 10, NOW);
        }
        assert_eq!(site.window(), 9);
        site.learn(HostFeedback::Good, 10, NOW);
        assert_eq!(site.window(), 10);
    }
}

//! What an assignment may send, taken from all that limits it before it begins.

use super::Scheduler;
use crate::scheduler::fleet::{Families, SourceId};
use crate::scheduler::{Lease, Payload, SiteName, Terms};
use crate::types::{PoolName, Timestamp};

/// Transactions that a message may take of which nothing is in memory: what it does not take is given back.
const UNKNOWN_TRANSACTIONS: u32 = 8;

impl Scheduler {
    /// Takes what these jobs may send from all that limits it: the terms, and how much was taken.
    pub(super) fn charge(
        &mut self,
        name: &SiteName,
        (pool, set): (&PoolName, &str),
        source: SourceId,
        jobs: &[Lease],
        lacks: Families,
        now: Timestamp,
    ) -> (Terms, u32) {
        let per_transaction = self.settings.recipients_per_transaction_max;
        let wanted = transactions_of(jobs, per_transaction);
        // Where one source has failed to reach it already, the next failure is told: it is an attempt.
        // At a provider's site, a host that cannot be reached may be one customer's alone.
        let may_be_source =
            self.sites.get(name).is_some_and(|site| site.failed_by.is_none() && site.provider.is_none());
        let alternative = may_be_source && self.has_alternative(name, pool, source, lacks, now);
        let other_family = self.has_other_family(pool, source, lacks);
        let mut free = u32::MAX;
        for (_, meter) in self.fleet.meters(source, pool) {
            free = free.min(meter.lane.admits(u32::MAX, now).unwrap_or(1));
        }
        if let Some(lane) = self.sites.get_mut(name).and_then(|site| site.set_mut(set)) {
            free = free.min(lane.admits(u32::MAX, now).unwrap_or(1));
        }
        let (mut allowed, mut messages_per_connection_max) = (wanted.min(free), u32::MAX);
        if let Some(entry) = self.sites.get_mut(name).and_then(|site| site.lane_mut(source)) {
            free = free.min(entry.lane.admits(u32::MAX, now).unwrap_or(1));
            allowed = wanted.min(free).max(1);
            entry.lane.take(allowed, now);
            messages_per_connection_max = entry.lane.messages_per_connection();
        }
        for (key, meter) in self.fleet.meters(source, pool) {
            meter.lane.take(allowed, now);
            if meter.lane.wants_save(now) {
                self.dirty.insert(key.lane_name());
            }
        }
        if let Some(lane) = self.sites.get_mut(name).and_then(|site| site.set_mut(set)) {
            lane.take(allowed, now);
        }
        self.note_dirty(name, source, now);
        self.note_set(name, set, now);
        // Without a limit, a transaction that did not come about may be had again.
        let transactions_max = if free == u32::MAX { u32::MAX } else { allowed };
        let terms = Terms { transactions_max, messages_per_connection_max, alternative, other_family };
        (terms, allowed)
    }

    /// Whether another source of the pool could try what this one fails at for reasons of its own.
    pub(super) fn has_alternative(
        &self,
        name: &SiteName,
        pool: &PoolName,
        source: SourceId,
        lacks: Families,
        now: Timestamp,
    ) -> bool {
        let Some(site) = self.sites.get(name) else { return false };
        let others = self.fleet.pool(pool).iter().filter(|member| member.source != source && member.tier == 0);
        let reaches = |id| self.fleet.source(id).is_some_and(|source| !lacks.has(source.family));
        others.into_iter().any(|member| {
            reaches(member.source) && site.lane(member.source).is_none_or(|entry| entry.lane.window(now) > 0)
        })
    }

    /// Whether the pool has a source that may reach hosts without an address of this one's family.
    fn has_other_family(&self, pool: &PoolName, source: SourceId, mut lacks: Families) -> bool {
        let Some(own) = self.fleet.source(source) else { return false };
        lacks.add(own.family);
        let mut others = self.fleet.pool(pool).iter().filter(|member| member.tier == 0);
        others.any(|member| self.fleet.source(member.source).is_some_and(|other| !lacks.has(other.family)))
    }
}

/// How many transactions jobs of one message may take.
fn transactions_of(jobs: &[Lease], recipients_per_transaction: usize) -> u32 {
    let known = jobs.iter().find_map(|lease| lease.payload.as_ref());
    let Some(Payload { message, .. }) = known else { return UNKNOWN_TRANSACTIONS };
    let recipients: usize = jobs.iter().map(|lease| message.pending(lease.key.group).count()).sum();
    let each_alone = message.sends_each_alone();
    let transactions = if each_alone { recipients } else { recipients.div_ceil(recipients_per_transaction.max(1)) };
    u32::try_from(transactions.max(1)).unwrap_or(u32::MAX)
}

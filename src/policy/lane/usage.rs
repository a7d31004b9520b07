//! How much of its rates a lane has used.

use super::Lane;
use super::rates::Limits;
use crate::policy::limits::RateLimit;
use crate::types::Timestamp;

/// A limit on messages in a time, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// The limit that holds now.
    pub limit: RateLimit,
    /// Messages that count against it, those in flight included; no more than the limit.
    pub used: u32,
    /// A reply made the limit lower than the site's own, or it is the ramp after that.
    pub by_reply: bool,
}

impl Lane {
    /// Each limit in a time with what is used of it, short times first.
    pub fn usage(&self, now: Timestamp) -> Vec<Usage> {
        let now = now.max(self.latest);
        let limits = Limits::new(&self.limits.rates, self.slow(now));
        let used = self.sent.usage(limits, now);
        let usage = |(limit, used): (RateLimit, u32)| {
            let by_reply = self.limits.rates.by(limit.per) != Some(limit.count);
            Usage { limit, used, by_reply }
        };
        used.into_iter().map(usage).collect()
    }
}

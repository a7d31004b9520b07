//! A lane looked at and left as it is: whether it would take a message now, and how much of its rates is used.

use super::rates::Limits;
use super::trouble::Mode;
use super::{Lane, Wait};
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
    /// What [`Lane::admits`] would say to one message; `None`: it would take it.
    pub fn wait(&self, now: Timestamp) -> Option<Wait> {
        self.clone().admits(1, now).err()
    }

    /// Each limit in a time with what is used of it, short times first.
    pub fn usage(&self, now: Timestamp) -> Vec<Usage> {
        let now = now.max(self.latest);
        let limits = Limits { rates: &self.limits.rates, slow: self.slow(now) };
        let used = self.sent.usage(limits, now);
        let usage = |(limit, used): (RateLimit, u32)| {
            let by_reply = self.limits.rates.by(limit.per) != Some(limit.count);
            Usage { limit, used, by_reply }
        };
        used.into_iter().map(usage).collect()
    }

    /// The name of the strongest trouble that holds, as [`Lane::trouble`] tells it; `None`: none does.
    pub fn mode(&self, now: Timestamp) -> Option<&'static str> {
        let now = now.max(self.latest);
        Mode::ALL.into_iter().rev().find(|mode| self.is_in(*mode, now)).map(Mode::name)
    }
}

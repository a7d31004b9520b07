//! Time as a value. [`SystemClock`] is the only reader of the operating system's clock in this crate (clippy.toml bans
//! the others), so that retries of four days are tested by moving a [`ManualClock`].

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A point in time: milliseconds since the Unix epoch, UTC. Persisted as it stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The Unix epoch: sorts before every real time.
    pub const EPOCH: Timestamp = Timestamp(0);
    /// The last time a queue key can hold: sorts after every real time.
    pub const MAX: Timestamp = Timestamp(u64::MAX);

    /// A time from milliseconds since the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Which UTC day it is in: days since the epoch; the last number for all that are beyond.
    pub fn utc_day(self) -> u32 {
        u32::try_from(self.seconds() / 86_400).unwrap_or(u32::MAX)
    }

    /// The beginning of a UTC day.
    pub const fn of_utc_day(day: u32) -> Self {
        Self::from_millis(day as u64 * 86_400_000)
    }

    /// Whole seconds since the Unix epoch.
    pub const fn seconds(self) -> u64 {
        self.0 / 1_000
    }

    /// This time plus `span`; stays at [`Timestamp::MAX`] instead of overflowing.
    #[must_use]
    pub fn plus(self, span: Duration) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(span_ms))
    }

    /// This time minus `span`; stays at the epoch instead of underflowing.
    #[must_use]
    pub fn minus(self, span: Duration) -> Self {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(span_ms))
    }

    /// Time passed since `earlier`; zero where the clock went back.
    pub fn since(self, earlier: Timestamp) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// ISO 8601 UTC with milliseconds and `Z`, as SES events write it: `2023-05-05T21:00:23.244Z`.
    pub fn to_iso8601(self) -> String {
        format!("{:.3}", self.to_jiff())
    }

    /// Reads ISO 8601 with an offset or `Z` and any fraction of a second; what is finer than a millisecond is dropped.
    /// `None` also for times before 1970.
    pub fn parse_iso8601(text: &str) -> Option<Self> {
        let time: jiff::Timestamp = text.parse().ok()?;
        u64::try_from(time.as_millisecond()).ok().map(Self)
    }

    /// RFC 5322 §3.3 date-time in UTC: `Fri, 5 May 2023 21:00:23 +0000`.
    pub fn to_rfc5322(self) -> String {
        jiff::fmt::strtime::format("%a, %-d %b %Y %H:%M:%S +0000", self.to_jiff())
            .expect("the format string is constant and a jiff timestamp fills all its fields")
    }

    fn to_jiff(self) -> jiff::Timestamp {
        let millis = i64::try_from(self.0).unwrap_or(i64::MAX);
        jiff::Timestamp::from_millisecond(millis).unwrap_or(jiff::Timestamp::MAX)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_iso8601())
    }
}

/// Where `now` comes from. Passed as `Arc<dyn Clock>` to what lives at the rim; pure code takes a [`Timestamp`].
pub trait Clock: Send + Sync + 'static {
    /// The current time.
    fn now(&self) -> Timestamp;
}

/// The operating system's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods, reason = "the one place that reads the system clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
    }
}

/// A clock that moves only when told to. For tests and simulation.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that shows `now`.
    pub fn at(now: Timestamp) -> Self {
        Self(AtomicU64::new(now.millis()))
    }

    /// Moves the clock forward.
    pub fn advance(&self, span: Duration) {
        let span_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
        self.0.fetch_add(span_ms, Ordering::SeqCst);
    }

    /// Sets the clock, forward or back.
    pub fn set(&self, now: Timestamp) {
        self.0.store(now.millis(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_as_ses_and_rfc_5322_write_them() {
        let time = Timestamp::from_millis(1_683_320_423_244);
        assert_eq!(time.to_iso8601(), "2023-05-05T21:00:23.244Z");
        assert_eq!(time.to_rfc5322(), "Fri, 5 May 2023 21:00:23 +0000");
        assert_eq!(Timestamp::from_millis(1_683_320_423_000).to_iso8601(), "2023-05-05T21:00:23.000Z");
    }

    #[test]
    fn arithmetic_saturates_and_a_clock_that_went_back_gives_zero() {
        assert_eq!(Timestamp::MAX.plus(Duration::from_secs(1)), Timestamp::MAX);
        assert_eq!(Timestamp::EPOCH.minus(Duration::from_secs(1)), Timestamp::EPOCH);
        assert_eq!(Timestamp::from_millis(5).since(Timestamp::from_millis(9)), Duration::ZERO);
        assert!(!Timestamp::MAX.to_rfc5322().is_empty());
    }
}

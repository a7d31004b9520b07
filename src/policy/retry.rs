//! When to try again, when to tell the sender, when to give up.
//!
//! Attempts follow a list of steps; the last step repeats. Each is spread by a jitter that is a hash of the message's
//! seed and the attempt's number, so that what became due together does not stay together, and the same message gets
//! the same times in every run. Waiting for our own limits is not an attempt and does not come here. Promises: pure;
//! a next attempt lies after `now`; with the default settings each pause is longer than the one before, until the cap.

use std::time::Duration;

use super::verdict::{RetryKind, Verdict};
use crate::types::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
/// Attempts that follow a peer's wish even where it is shorter than the step: a greylist ends within these. Later ones
/// take the longer of both, so that a host that always says "in 5 seconds" is not asked every 5 seconds for days.
const HINTED_ATTEMPTS_MAX: u32 = 4;
/// Where a settings list is empty, which `daemon` refuses.
const STEP_FALLBACK: Duration = HOUR;

/// What an administrator can set about retries. Defaults are those of config.toml.example.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The pause before the second attempt, the third and so on; the last one repeats. Not empty, rising.
    pub steps: Vec<Duration>,
    /// Each pause is made longer or shorter by up to this many percent of itself. At most 50.
    pub jitter_percent: u8,
    /// Shortest pause after a rate limit.
    pub rate_limited_min: Duration,
    /// Shortest pause from the same source after a block.
    pub blocked_min: Duration,
    /// Added to the time that a peer asks to wait.
    pub hint_margin: Duration,
    /// Longest time that is waited because a peer asked for it, margin included.
    pub hint_max: Duration,
    /// Lifetime of a recipient whose mailbox is full, where it is shorter than the message's.
    pub mailbox_full_lifetime: Duration,
    /// Ages at which a `DeliveryDelay` event, and a delay notification where asked for, is due. Rising; may be empty.
    pub delay_notices: Vec<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            steps: vec![MINUTE, 5 * MINUTE, 10 * MINUTE, 20 * MINUTE, 40 * MINUTE, HOUR, 2 * HOUR, 4 * HOUR],
            jitter_percent: 15,
            rate_limited_min: 5 * MINUTE,
            blocked_min: 30 * MINUTE,
            hint_margin: Duration::from_secs(10),
            hint_max: 4 * HOUR,
            mailbox_full_lifetime: 48 * HOUR,
            delay_notices: vec![HOUR, 4 * HOUR, 24 * HOUR],
        }
    }
}

/// A recipient that was deferred.
#[derive(Clone, Copy, Debug)]
pub struct Waiting<'a> {
    /// Why.
    pub verdict: &'a Verdict,
    /// Attempts made, this one included: 1 after the first.
    pub attempts: u32,
    /// When the message was accepted.
    pub accepted_at: Timestamp,
    /// How long the message may be retried, from acceptance.
    pub lifetime: Duration,
    /// The message's seed (`MessageId::seed`).
    pub seed: u64,
}

/// What comes next for a deferred recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Try again then.
    Attempt(Timestamp),
    /// No attempt would fall into the lifetime: bounce then ([`Verdict::expired`]), which may be at once.
    Expire(Timestamp),
}

impl Decision {
    /// When something is to be done.
    pub const fn at(self) -> Timestamp {
        match self {
            Decision::Attempt(at) | Decision::Expire(at) => at,
        }
    }
}

/// Decides on a deferred recipient.
pub fn decide(waiting: &Waiting<'_>, now: Timestamp, settings: &Settings) -> Decision {
    let verdict = waiting.verdict;
    let expires_at = expires_at(verdict.retry, waiting.accepted_at, waiting.lifetime, settings);
    let scheduled = next_attempt(verdict.retry, waiting.attempts, now, waiting.seed, settings);
    let at = match verdict.retry_after {
        Some(wish) => hinted(wish, scheduled, waiting, now, settings),
        None => scheduled,
    };
    if at < expires_at { Decision::Attempt(at) } else { Decision::Expire(expires_at.max(now)) }
}

/// When the lifetime of a recipient that is deferred for `kind` ends.
pub fn expires_at(kind: RetryKind, accepted_at: Timestamp, lifetime: Duration, settings: &Settings) -> Timestamp {
    match kind {
        RetryKind::MailboxFull => accepted_at.plus(lifetime.min(settings.mailbox_full_lifetime)),
        _ => accepted_at.plus(lifetime),
    }
}

/// When to try again by the schedule alone. `attempt_number` counts the attempts made, from 1. After `now`.
pub fn next_attempt(kind: RetryKind, attempt_number: u32, now: Timestamp, seed: u64, settings: &Settings) -> Timestamp {
    let step = step(kind, attempt_number, settings);
    // Never 0: the same instant again would be a loop.
    now.plus(jittered(step, attempt_number, seed, settings.jitter_percent).max(Duration::from_millis(1)))
}

/// How many of the delay notices a message of this age should have had: the caller keeps the number it sent, and sends
/// one (not several) where this is larger.
pub fn notices_due(accepted_at: Timestamp, now: Timestamp, delay_notices: &[Duration]) -> usize {
    let age = now.since(accepted_at);
    delay_notices.iter().filter(|notice| **notice <= age).count()
}

/// The pause after this attempt, without jitter.
fn step(kind: RetryKind, attempt_number: u32, settings: &Settings) -> Duration {
    let index = usize::try_from(attempt_number.saturating_sub(1)).unwrap_or(usize::MAX);
    let step = settings.steps.get(index).or(settings.steps.last()).copied().unwrap_or(STEP_FALLBACK);
    match kind {
        RetryKind::Normal | RetryKind::Greylist | RetryKind::MailboxFull => step,
        RetryKind::RateLimited => step.max(settings.rate_limited_min),
        RetryKind::Blocked => step.max(settings.blocked_min),
    }
}

/// A peer's wish: its time and the margin, spread upwards only, since coming early starts a greylist anew.
fn hinted(
    wish: Duration,
    scheduled: Timestamp,
    waiting: &Waiting<'_>,
    now: Timestamp,
    settings: &Settings,
) -> Timestamp {
    let spread = wish.mul_f64(f64::from(settings.jitter_percent) / 100.0 * unit(waiting.seed, waiting.attempts));
    let wait = wish.saturating_add(settings.hint_margin).saturating_add(spread).min(settings.hint_max);
    let at = now.plus(wait.max(Duration::from_millis(1)));
    if waiting.attempts <= HINTED_ATTEMPTS_MAX { at } else { at.max(scheduled) }
}

fn jittered(step: Duration, attempt_number: u32, seed: u64, percent: u8) -> Duration {
    let share = f64::from(percent.min(50)) / 100.0;
    step.mul_f64(1.0 - share + 2.0 * share * unit(seed, attempt_number))
}

/// A number from 0 to below 1 that depends on both in no visible way (the finaliser of splitmix64).
fn unit(seed: u64, attempt_number: u32) -> f64 {
    let mut hash = seed ^ u64::from(attempt_number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    let high = u32::try_from(hash >> 32).unwrap_or_default();
    f64::from(high) / (f64::from(u32::MAX) + 1.0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::policy::Fault;

    const DAY: Duration = Duration::from_secs(86_400);
    const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);
    const KINDS: [RetryKind; 5] =
        [RetryKind::Normal, RetryKind::Greylist, RetryKind::RateLimited, RetryKind::Blocked, RetryKind::MailboxFull];

    fn verdict(kind: RetryKind, retry_after: Option<u64>) -> Verdict {
        Verdict { retry: kind, retry_after: retry_after.map(Duration::from_secs), ..Fault::ConnectFailed.verdict() }
    }

    fn waiting(verdict: &Verdict, attempts: u32, lifetime: Duration) -> Waiting<'_> {
        Waiting { verdict, attempts, accepted_at: NOW, lifetime, seed: 42 }
    }

    fn exact() -> Settings {
        Settings { jitter_percent: 0, ..Settings::default() }
    }

    #[test]
    fn the_default_steps_are_those_of_the_example_config() {
        let minutes = |kind, attempt| next_attempt(kind, attempt, NOW, 1, &exact()).since(NOW).as_secs() / 60;
        let steps: Vec<_> = (1..=10).map(|attempt| minutes(RetryKind::Normal, attempt)).collect();
        assert_eq!(steps, [1, 5, 10, 20, 40, 60, 120, 240, 240, 240]);
        assert_eq!(minutes(RetryKind::RateLimited, 1), 5);
        assert_eq!(minutes(RetryKind::RateLimited, 4), 20);
        assert_eq!(minutes(RetryKind::Blocked, 1), 30);
        assert_eq!(minutes(RetryKind::Greylist, 2), 5);
    }

    #[test]
    fn an_attempt_after_the_end_becomes_expiry_at_the_end() {
        let verdict = verdict(RetryKind::Normal, None);
        let at = |attempts, now: Timestamp| decide(&waiting(&verdict, attempts, HOUR), now, &exact());
        assert_eq!(at(1, NOW), Decision::Attempt(NOW.plus(MINUTE)));
        assert_eq!(at(5, NOW.plus(20 * MINUTE)), Decision::Expire(NOW.plus(HOUR)));
        assert_eq!(at(5, NOW.plus(19 * MINUTE)), Decision::Attempt(NOW.plus(59 * MINUTE)));
        let late = NOW.plus(2 * HOUR);
        assert_eq!(at(9, late), Decision::Expire(late), "an end in the past is now");
    }

    #[test]
    fn a_full_mailbox_has_a_shorter_life() {
        let full = verdict(RetryKind::MailboxFull, None);
        let now = NOW.plus(46 * HOUR);
        let end = Decision::Expire(NOW.plus(48 * HOUR));
        assert_eq!(decide(&waiting(&full, 20, 5 * DAY), now, &exact()), end);
        assert_eq!(decide(&waiting(&full, 20, HOUR), now, &exact()), Decision::Expire(now));
        let normal = verdict(RetryKind::Normal, None);
        assert_eq!(decide(&waiting(&normal, 20, 5 * DAY), now, &exact()), Decision::Attempt(now.plus(4 * HOUR)));
    }

    #[test]
    fn a_wish_of_the_peer_sets_the_next_attempt() {
        let seconds = |attempts, wish| {
            let verdict = verdict(RetryKind::Greylist, Some(wish));
            decide(&waiting(&verdict, attempts, 5 * DAY), NOW, &exact()).at().since(NOW).as_secs()
        };
        assert_eq!(seconds(1, 300), 310);
        assert_eq!(seconds(1, 0), 10);
        assert_eq!(seconds(4, 5), 15);
        assert_eq!(seconds(5, 5), 40 * 60, "from the fifth on the longer of both");
        assert_eq!(seconds(5, 3_600), 3_610);
        assert_eq!(seconds(1, 86_400), 4 * 3_600, "bounded");
    }

    #[test]
    fn delay_notices_come_at_their_ages() {
        let due = |age| notices_due(NOW, NOW.plus(age), &Settings::default().delay_notices);
        assert_eq!([due(59 * MINUTE), due(HOUR), due(4 * HOUR), due(DAY), due(9 * DAY)], [0, 1, 2, 3, 3]);
        assert_eq!(notices_due(NOW, NOW.minus(HOUR), &Settings::default().delay_notices), 0, "a clock that went back");
    }

    #[test]
    fn messages_that_failed_together_do_not_come_back_together() {
        let at = |seed| next_attempt(RetryKind::Normal, 3, NOW, seed, &Settings::default()).since(NOW).as_secs();
        let mut minutes = [0_u32; 3];
        for seed in 0..3_000 {
            let offset = at(seed) - 510;
            minutes[usize::try_from(offset / 60).unwrap().min(2)] += 1;
        }
        assert!(minutes.iter().all(|count| (900..1_100).contains(count)), "{minutes:?}");
    }

    #[test]
    fn four_days_of_retries_are_a_few_dozen_attempts() {
        let verdict = verdict(RetryKind::Normal, None);
        let (mut now, mut attempts) = (NOW, 1);
        while let Decision::Attempt(at) = decide(&waiting(&verdict, attempts, 4 * DAY), now, &Settings::default()) {
            (now, attempts) = (at, attempts + 1);
        }
        assert!((28..36).contains(&attempts), "{attempts}");
    }

    proptest! {
        #[test]
        fn jitter_stays_within_its_bounds(seed: u64, attempt in 1_u32..100, percent in 0_u8..=50, kind in 0_usize..5) {
            let settings = Settings { jitter_percent: percent, ..Settings::default() };
            let base = next_attempt(KINDS[kind], attempt, NOW, seed, &exact()).since(NOW);
            let wait = next_attempt(KINDS[kind], attempt, NOW, seed, &settings).since(NOW);
            let share = f64::from(percent) / 100.0;
            let slack = Duration::from_millis(2);
            prop_assert!(wait + slack >= base.mul_f64(1.0 - share), "{wait:?}");
            prop_assert!(wait <= base.mul_f64(1.0 + share) + slack, "{wait:?}");
        }

        #[test]
        fn pauses_grow_until_the_cap(seed: u64, attempt in 1_u32..8, kind in 0_usize..5) {
            let wait = |attempt| next_attempt(KINDS[kind], attempt, NOW, seed, &Settings::default()).since(NOW);
            let flat = |attempt| next_attempt(KINDS[kind], attempt, NOW, seed, &exact()).since(NOW);
            if flat(attempt) < flat(attempt + 1) {
                prop_assert!(wait(attempt) < wait(attempt + 1));
            }
            prop_assert!(flat(attempt) <= flat(attempt + 1));
        }

        #[test]
        fn the_same_seed_gives_the_same_time(seed: u64, attempt: u32, kind in 0_usize..5, wish in 0_u64..100_000) {
            let verdict = verdict(KINDS[kind], Some(wish).filter(|wish| wish % 2 == 0));
            let one = decide(&Waiting { seed, ..waiting(&verdict, attempt, 5 * DAY) }, NOW, &Settings::default());
            let two = decide(&Waiting { seed, ..waiting(&verdict, attempt, 5 * DAY) }, NOW, &Settings::default());
            prop_assert_eq!(one, two);
            prop_assert!(one.at() > NOW);
            prop_assert!(one.at() <= NOW.plus(5 * DAY));
        }

        #[test]
        fn odd_settings_do_no_harm(steps in prop::collection::vec(0_u64..1_000_000, 0..4), percent: u8, attempt: u32) {
            let steps = steps.into_iter().map(Duration::from_secs).collect();
            let settings = Settings { steps, jitter_percent: percent, ..Settings::default() };
            prop_assert!(next_attempt(RetryKind::Normal, attempt, NOW, 7, &settings) > NOW);
        }
    }
}

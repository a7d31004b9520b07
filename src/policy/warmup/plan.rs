//! Plans: how many messages a lane may send on which day or stage of its warm-up.
//!
//! A plan that exists is sound: [`Plan::new`] looks. However it is written, it is kept as a row of stairs: caps that rise, each
//! with its first day.

use std::sync::Arc;

use super::brake::Thresholds;
use super::change::grouped;

/// Steps of a table, days of a linear plan. More: an error.
pub const PLAN_STEPS_MAX: usize = 400;
/// The last day that a table may list. Later: an error.
const PLAN_DAYS_MAX: u32 = 3_660;
/// Messages a day. More: an error.
const CAP_MAX: u32 = 1_000_000_000;
/// Octets of a plan's name. Longer: an error.
const NAME_BYTES_MAX: usize = 64;

/// How caps follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Steps {
    /// Days, from 1, and messages on each. Between two listed days the earlier cap holds; the last one holds as long as the one
    /// before it did.
    Table(Vec<(u32, u32)>),
    /// On each of `days` days an equal part more, up to `messages` on the last one.
    Linear {
        /// How many days.
        days: u32,
        /// Messages on the last day.
        messages: u32,
    },
}

/// When a lane takes the next step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// Each UTC midnight.
    Daily,
    /// At a UTC midnight when so much of the day's cap was delivered.
    Delivered {
        /// From 1 to 100.
        percent: u8,
    },
}

/// See the module. Plans are shared by lanes: up to 3.5 KB each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    name: Arc<str>,
    steps: Steps,
    advance: Advance,
    thresholds: Thresholds,
    /// Caps that rise.
    stairs: Box<[Stair]>,
    len: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stair {
    /// The first day on which it holds.
    first: u32,
    cap: u32,
}

/// Why something is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The name.
    #[error("{0:?} is no name of a plan: 1 to {NAME_BYTES_MAX} of A-Za-z0-9._- are allowed")]
    Name(String),
    /// No steps, or too many.
    #[error("{0} steps: a plan has 1 to {PLAN_STEPS_MAX}")]
    Steps(usize),
    /// Something of a listed day, with the day.
    #[error("day {0}: the first day is 1")]
    FirstDay(u32),
    /// A day that does not come after the one above it.
    #[error("day {day} stands after day {before}: days must rise")]
    Order {
        /// Which.
        day: u32,
        /// The one above it.
        before: u32,
    },
    /// A day that is too far away.
    #[error("day {0}: the last day is at most {PLAN_DAYS_MAX}")]
    LastDay(u32),
    /// A cap of nothing, or too much.
    #[error("day {day}: {messages} messages: 1 to {CAP_MAX} are allowed")]
    Cap {
        /// On which day.
        day: u32,
        /// The cap.
        messages: u32,
    },
    /// A cap that is lower than an earlier one.
    #[error("day {day}: {messages} messages are fewer than the {before} before: caps must not fall")]
    Falls {
        /// On which day.
        day: u32,
        /// The cap.
        messages: u32,
        /// The one before it.
        before: u32,
    },
    /// A linear plan of too few or too many days.
    #[error("{0} days: a linear plan has 1 to {PLAN_STEPS_MAX}")]
    LinearDays(u32),
    /// The part of a cap that is to be delivered.
    #[error("{0} percent delivered: 1 to 100 are allowed")]
    Percent(u8),
    /// The thresholds; in words.
    #[error("thresholds: {0}")]
    Thresholds(&'static str),
}

impl Plan {
    /// Checks it.
    pub fn new(name: &str, steps: Steps, advance: Advance) -> Result<Self, PlanError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(allowed) {
            return Err(PlanError::Name(name.to_owned()));
        }
        if let Advance::Delivered { percent } = advance
            && !(1..=100).contains(&percent)
        {
            return Err(PlanError::Percent(percent));
        }
        let (listed, len) = match &steps {
            Steps::Table(table) => (table.clone(), table_len(table)?),
            Steps::Linear { days, messages } => (linear(*days, *messages)?, *days),
        };
        let mut stairs: Vec<Stair> = Vec::new();
        for (first, cap) in listed {
            if stairs.last().is_none_or(|stair| stair.cap < cap) {
                stairs.push(Stair { first, cap });
            }
        }
        let (name, stairs) = (name.into(), stairs.into_boxed_slice());
        Ok(Self { name, steps, advance, thresholds: Thresholds::default(), stairs, len })
    }

    /// The same with other thresholds.
    pub fn with_thresholds(mut self, thresholds: Thresholds) -> Result<Self, PlanError> {
        thresholds.check().map_err(PlanError::Thresholds)?;
        self.thresholds = thresholds;
        Ok(self)
    }

    /// Those that come with us: `doubling` every other day, `ses-45-days`, and `stages`.
    pub fn built_in() -> Vec<Self> {
        let stages = STAGES.iter().zip(1..).map(|(cap, day)| (day, *cap)).collect();
        let doubling = (0..12).map(|step| (2 * step + 1, 5_000 << step)).collect();
        let linear = Steps::Linear { days: 45, messages: 50_000 };
        let plans = [
            ("doubling", Steps::Table(doubling), Advance::Daily),
            ("ses-45-days", linear, Advance::Daily),
            ("stages", Steps::Table(stages), Advance::Delivered { percent: 80 }),
        ];
        let plan = |(name, steps, advance)| Self::new(name, steps, advance).expect("built-in plans are sound");
        plans.into_iter().map(plan).collect()
    }

    /// Its name.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// As it was written.
    pub fn steps(&self) -> &Steps {
        &self.steps
    }

    /// When a lane takes the next step.
    pub fn advance(&self) -> Advance {
        self.advance
    }

    /// What slows and freezes its lanes.
    pub fn thresholds(&self) -> &Thresholds {
        &self.thresholds
    }

    /// Positions that have a cap. At least 1.
    #[allow(clippy::len_without_is_empty, reason = "a plan has a step")]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Messages a day at this position; `None`: the plan is over.
    pub fn cap(&self, position: u32) -> Option<u32> {
        let stair = self.stairs.get(self.stair(position)?)?;
        Some(stair.cap)
    }

    /// How much of the plan is behind a lane at this position, in percent; 100 from the last position on.
    pub fn percent(&self, position: u32) -> u8 {
        let percent = u64::from(position.min(self.len)) * 100 / u64::from(self.len);
        u8::try_from(percent).unwrap_or(100)
    }

    /// The first position of the cap below the one of this position; 1 where there is none.
    pub fn back(&self, position: u32) -> u32 {
        let here = self.stair(position).unwrap_or(self.stairs.len());
        let below = here.checked_sub(1).and_then(|below| self.stairs.get(below));
        below.map_or(1, |stair| stair.first)
    }

    /// The last position with no higher cap than that; 1 where there is none.
    pub(super) fn last_within(&self, cap: u32) -> u32 {
        let higher = self.stairs.partition_point(|stair| stair.cap <= cap);
        self.stairs.get(higher).map_or(self.len, |stair| stair.first.saturating_sub(1)).max(1)
    }

    /// The position behind the last one.
    pub(super) fn end(&self) -> u32 {
        self.len.saturating_add(1)
    }

    /// On which stair a position is; `None`: behind all.
    fn stair(&self, position: u32) -> Option<usize> {
        let position = position.max(1);
        let above = self.stairs.partition_point(|stair| stair.first <= position);
        (position <= self.len).then(|| above.saturating_sub(1))
    }
}

impl std::fmt::Display for Steps {
    /// `day 1 5,000, day 3 10,000`, or `45 days up to 50,000`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Steps::Table(table) => {
                for (index, (day, cap)) in table.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}day {day} {}", grouped(*cap))?;
                }
                Ok(())
            }
            Steps::Linear { days, messages } => write!(f, "{days} days up to {}", grouped(*messages)),
        }
    }
}

/// The stages of a large sender, each for at least a day.
const STAGES: [u32; 29] = [
    200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 40_000, 50_000, 75_000, 100_000, 150_000, 200_000, 250_000, 325_000,
    400_000, 500_000, 600_000, 750_000, 1_000_000, 1_250_000, 1_750_000, 2_000_000, 3_000_000, 4_250_000, 5_000_000,
    6_000_000, 7_500_000, 10_000_000,
];

/// How many days a table covers: the last cap holds as long as the one before.
fn table_len(table: &[(u32, u32)]) -> Result<u32, PlanError> {
    if !(1..=PLAN_STEPS_MAX).contains(&table.len()) {
        return Err(PlanError::Steps(table.len()));
    }
    let (mut day_before, mut cap_before, mut distance) = (0, 1, 1);
    for (day, cap) in table.iter().copied() {
        if day_before == 0 && day != 1 {
            return Err(PlanError::FirstDay(day));
        }
        if day <= day_before {
            return Err(PlanError::Order { day, before: day_before });
        }
        if day > PLAN_DAYS_MAX {
            return Err(PlanError::LastDay(day));
        }
        check_cap(day, cap)?;
        if cap < cap_before {
            return Err(PlanError::Falls { day, messages: cap, before: cap_before });
        }
        distance = day - day_before;
        (day_before, cap_before) = (day, cap);
    }
    Ok(day_before + distance - 1)
}

fn linear(days: u32, messages: u32) -> Result<Vec<(u32, u32)>, PlanError> {
    if days == 0 || usize::try_from(days).is_ok_and(|days| days > PLAN_STEPS_MAX) {
        return Err(PlanError::LinearDays(days));
    }
    check_cap(days, messages)?;
    let part = |day: u32| u32::try_from(u64::from(messages) * u64::from(day) / u64::from(days)).unwrap_or(messages);
    Ok((1..=days).map(|day| (day, part(day).max(1))).collect())
}

fn check_cap(day: u32, messages: u32) -> Result<(), PlanError> {
    if (1..=CAP_MAX).contains(&messages) { Ok(()) } else { Err(PlanError::Cap { day, messages }) }
}

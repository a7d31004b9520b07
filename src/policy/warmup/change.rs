//! What changed of a warm-up, so that an event may tell of it.

use crate::types::Timestamp;

/// One change. Positions are those of the plan, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WarmupChange {
    /// A midnight brought it on.
    Advanced {
        /// Where it was.
        from: u32,
        /// Where it is.
        to: u32,
        /// Messages a day that it may send now.
        cap: u32,
    },
    /// Half the cap, and no advance, for now.
    Slowed {
        /// Why.
        reason: Box<str>,
    },
    /// Nothing is sent for a time.
    Frozen {
        /// Its end.
        until: Timestamp,
        /// Why.
        reason: Box<str>,
    },
    /// It is no longer slowed.
    Recovered,
    /// A block took it back.
    SteppedBack {
        /// Where it was.
        from: u32,
        /// Where it is.
        to: u32,
        /// Why.
        reason: Box<str>,
    },
    /// It was idle for so long that it lost what it had earned.
    Decayed {
        /// Where it was.
        from: u32,
        /// Where it is.
        to: u32,
    },
    /// The plan is at its end: no cap any more.
    Over,
    /// An operator holds its position.
    Paused,
    /// An operator ended a pause, a freeze or slowness.
    Resumed,
    /// An operator, or another plan, set its position.
    Set {
        /// Where it was.
        from: u32,
        /// Where it is.
        to: u32,
    },
}

impl WarmupChange {
    /// As events, metrics and scripts name it.
    pub const fn name(&self) -> &'static str {
        match self {
            WarmupChange::Advanced { .. } => "advanced",
            WarmupChange::Slowed { .. } => "slowed",
            WarmupChange::Frozen { .. } => "frozen",
            WarmupChange::Recovered => "recovered",
            WarmupChange::SteppedBack { .. } => "stepped_back",
            WarmupChange::Decayed { .. } => "decayed",
            WarmupChange::Over => "over",
            WarmupChange::Paused => "paused",
            WarmupChange::Resumed => "resumed",
            WarmupChange::Set { .. } => "set",
        }
    }

    /// What happened, and why, in one line.
    pub fn text(&self) -> String {
        match self {
            WarmupChange::Advanced { from, to, cap } => {
                format!("from day {from} to {to}: up to {} messages today", grouped(*cap))
            }
            WarmupChange::Slowed { reason } => format!("half the cap for now: {reason}"),
            WarmupChange::Frozen { until, reason } => format!("nothing is sent until {until}: {reason}"),
            WarmupChange::Recovered => {
                "deferrals, bounces and complaints are low enough: the whole cap again".to_owned()
            }
            WarmupChange::SteppedBack { from, to, reason } => format!("back from day {from} to {to}: {reason}"),
            WarmupChange::Decayed { from, to } => {
                format!("back from day {from} to {to}: nothing was sent for more than 14 days")
            }
            WarmupChange::Over => "the plan is at its end: no cap any more".to_owned(),
            WarmupChange::Paused => "paused by an operator: the cap stays".to_owned(),
            WarmupChange::Resumed => "resumed by an operator".to_owned(),
            WarmupChange::Set { from, to } => format!("set from day {from} to {to}"),
        }
    }
}

/// A number with commas between thousands.
pub(super) fn grouped(number: impl Into<u64>) -> String {
    let digits = number.into().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A part as `12.4 %`, `0.11 %` or, exactly, `10 %`. Below one percent rounded up, so that what is above a threshold looks so.
pub(super) fn percent(part: u64, whole: u64) -> String {
    let (part, whole) = (u128::from(part), u128::from(whole.max(1)));
    let hundredths = (part * 10_000).div_ceil(whole);
    if (part * 100).is_multiple_of(whole) {
        return format!("{} %", part * 100 / whole);
    }
    if hundredths >= 100 {
        let tenths = (part * 1_000 + whole / 2) / whole;
        return format!("{}.{} %", tenths / 10, tenths % 10);
    }
    if hundredths.is_multiple_of(10) { format!("0.{} %", hundredths / 10) } else { format!("0.{hundredths:02} %") }
}

//! Which rates of bounces and complaints are too high: `[reputation]`, and the same keys of tenants and configuration sets.

use super::findings::Problem;
use super::section::{Section, Value};
use crate::policy::reputation::limits::MILLION;
use crate::policy::reputation::{Limits, Settings, Steps};
use crate::types::Domain;

/// Digits behind the point of a percentage.
const DECIMALS_MAX: usize = 3;

/// `[reputation]`: the settings of all, and domains that do not count.
pub(super) fn section(mut section: Section<'_>) -> (Settings, Vec<Domain>) {
    let default = Settings::default();
    let settings = Settings {
        limits: own_limits(&mut section, &default.limits).unwrap_or(default.limits),
        volume: section.count("volume", default.volume, 100..=1_000_000_000),
        recipients_min: section.count("recipients_min", default.recipients_min, 10..=1_000_000),
        ..default
    };
    if settings.recipients_min > settings.volume {
        let key = if section.has("recipients_min") { "recipients_min" } else { "volume" };
        let remedy = "write a recipients_min that is at most volume";
        section.error(key, Problem::new("recipients_min is above volume", remedy));
    }
    let exempt = section.list("exempt_domains", Vec::new(), "[\"simulator.example.com\"]", Value::domain);
    section.close();
    (settings, exempt)
}

/// The thresholds that a section has of its own, the others as `others` say; `None` where it has none.
pub(super) fn own_limits(section: &mut Section<'_>, others: &Limits) -> Option<Limits> {
    const KEYS: [&str; 4] = ["bounce_warning", "bounce_pause", "complaint_warning", "complaint_pause"];
    let is_there = KEYS.iter().any(|key| section.has(key)) || section.has("automatic_pause");
    let limits = Limits {
        bounces: Steps {
            warning: section.read("bounce_warning", others.bounces.warning, percent),
            pause: section.read("bounce_pause", others.bounces.pause, percent),
        },
        complaints: Steps {
            warning: section.read("complaint_warning", others.complaints.warning, percent),
            pause: section.read("complaint_pause", others.complaints.pause, percent),
        },
        automatic_pause: section.flag("automatic_pause", others.automatic_pause),
    };
    let mut is_right = true;
    for (steps, warning, pause) in [
        (limits.bounces, "bounce_warning", "bounce_pause"),
        (limits.complaints, "complaint_warning", "complaint_pause"),
    ] {
        if steps.warning > steps.pause {
            let key = if section.has(warning) { warning } else { pause };
            let remedy = "write a percentage at which somebody is warned before sending is paused";
            section.error(key, Problem::new(format!("{warning} is above {pause}"), remedy));
            is_right = false;
        }
    }
    (is_there && is_right).then_some(limits)
}

/// `5%`, `0.1%`, in millionths.
fn percent(value: &Value<'_>) -> Result<u32, Problem> {
    let text = value.text()?;
    let remedy = "write one such as \"5%\" or \"0.1%\", above 0 and up to 100%, to a thousandth";
    parse_percent(text).ok_or_else(|| Problem::new(format!("{text:?} is no percentage"), remedy))
}

fn parse_percent(text: &str) -> Option<u32> {
    let number = text.strip_suffix('%')?.trim_end_matches(' ');
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
    let fits = (1..=3).contains(&whole.len()) && decimals.len() <= DECIMALS_MAX && !number.ends_with('.');
    if !fits || !is_number(whole) || !is_number(decimals) {
        return None;
    }
    let millionths = whole.parse::<u32>().ok()? * 10_000 + format!("{decimals:0<4}").parse::<u32>().ok()?;
    (1..=MILLION).contains(&millionths).then_some(millionths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_need_their_sign_and_have_three_decimals_at_most() {
        let check = |text: &str, expected: Option<u32>| assert_eq!(parse_percent(text), expected, "{text}");
        check("5%", Some(50_000));
        check("0.1%", Some(1_000));
        check("0.1 %", Some(1_000));
        check("0.05%", Some(500));
        check("12.345%", Some(123_450));
        check("100%", Some(1_000_000));
        for text in [
            "", "%", "5", "0%", "0.0005%", "100.001%", "101%", "-1%", "+5%", ".5%", "5.%", "1e1%", "5%%", "9999%",
            "1.2.3%",
        ] {
            check(text, None);
        }
    }
}

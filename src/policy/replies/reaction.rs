//! The reaction of a rule: `react = { do = "slow", rate = "10/minute", for = "30m", after = "2/hour" }`.

use std::time::Duration;

use crate::policy::limits::{RateLimit, Span};
use crate::policy::reaction::{Reaction, ReactionKind};
use crate::tables::findings::Problem;
use crate::tables::section::{Section, Value};
use crate::tables::units::parse_duration;

/// A reaction ends at last; what needs longer is a matter for the administrator.
const LASTS_MAX: Duration = Duration::from_secs(30 * 86_400);
/// Hits are counted over at most so long.
const WITHIN_MAX: Duration = Duration::from_secs(7 * 86_400);
/// Hits that are counted, messages in a rate.
const COUNT_MAX: u32 = 1_000_000;

/// What `do` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Do {
    Nothing,
    FewerConnections,
    Connections,
    Slow,
    Suspend,
    Block,
}

const WORDS: [(&str, Do); 6] = [
    ("nothing", Do::Nothing),
    ("fewer-connections", Do::FewerConnections),
    ("connections", Do::Connections),
    ("slow", Do::Slow),
    ("suspend", Do::Suspend),
    ("block", Do::Block),
];

/// The table `react`; `None` where there is none or it is wrong, `Some(None)` where it says "nothing".
pub(super) fn read(rule: &mut Section<'_>) -> Option<Option<Reaction>> {
    let is_there = rule.has("react");
    let mut section = rule.child("react");
    if !is_there {
        return None;
    }
    let what = section.required("do", "\"suspend\"", |value| value.word(&WORDS));
    let connections = section.optional("connections", |value| value.count(&(1..=1_000)));
    let rate = section.optional("rate", rate);
    let lasts = section.optional("for", |value| value.duration(&(Duration::from_secs(1)..=LASTS_MAX)));
    let after = section.optional("after", frequency);
    let reaction = what.and_then(|what| {
        needs(&section, "connections", what == Do::Connections, "1");
        needs(&section, "rate", what == Do::Slow, "\"10/minute\"");
        needs(&section, "for", !matches!(what, Do::Nothing | Do::FewerConnections), "\"30m\"");
        if what == Do::Nothing && section.has("after") {
            section.error("after", Problem::new("has no effect with do = \"nothing\"", "remove it"));
        }
        let kind = match what {
            Do::Nothing => return Some(None),
            Do::FewerConnections => ReactionKind::FewerConnections,
            Do::Connections => ReactionKind::Connections(connections?),
            Do::Slow => ReactionKind::Slow(rate?),
            Do::Suspend => ReactionKind::Suspend,
            Do::Block => ReactionKind::Block,
        };
        Some(Some(Reaction { kind, lasts: lasts.unwrap_or_default(), after }))
    });
    section.close();
    reaction
}

/// A key that is needed and missing, or there without effect, is an error.
fn needs(section: &Section<'_>, key: &str, is_needed: bool, example: &str) {
    match (is_needed, section.has(key)) {
        (true, false) => section.error(key, Problem::new("is missing", format!("write {key} = {example}"))),
        (false, true) => section.error(key, Problem::new("has no effect with what \"do\" says", "remove it")),
        _ => {}
    }
}

/// `10/minute`.
fn rate(value: &Value<'_>) -> Result<RateLimit, Problem> {
    let text = value.text()?;
    let found = text.split_once('/').and_then(|(count, span)| Some((number(count)?, span_of(span)?)));
    let (count, per) = found.ok_or_else(|| {
        Problem::new(format!("{text:?} is not a rate"), "write one such as \"10/minute\": second, minute, hour or day")
    })?;
    Ok(RateLimit { count, per })
}

/// `2/hour` or `5/30m`.
fn frequency(value: &Value<'_>) -> Result<(u32, Duration), Problem> {
    let text = value.text()?;
    let found = text.split_once('/').and_then(|(count, within)| {
        let within = span_of(within).map(Span::duration).or_else(|| parse_duration(within))?;
        Some((number(count)?, within))
    });
    let found = found.filter(|(_, within)| (Duration::from_secs(1)..=WITHIN_MAX).contains(within));
    found.ok_or_else(|| {
        let remedy = "write one such as \"2/hour\" or \"5/30m\", within 7 days at most";
        Problem::new(format!("{text:?} does not say how often within which time"), remedy)
    })
}

fn span_of(word: &str) -> Option<Span> {
    Span::ALL.into_iter().find(|span| span.name() == word)
}

fn number(text: &str) -> Option<u32> {
    let is_plain = (1..=7).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = if is_plain { text.parse().ok() } else { None };
    number.filter(|number| (1..=COUNT_MAX).contains(number))
}

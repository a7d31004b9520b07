//! Who warms up, by which plan, and when that is slowed: `[warmup]`, `[[warmup_plan]]`, and the key `warmup` of sources and
//! configuration sets.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use super::findings::{Findings, Problem};
use super::section::{Section, Value};
use crate::policy::Providers;
use crate::policy::warmup::{Advance, Plan, Steps, Thresholds, Warmups};

/// Plans of an administrator. More: an error.
const PLANS_MAX: usize = 1_000;
/// Messages that a plan allows on one day. More: an error.
const MESSAGES_MAX: u32 = 1_000_000_000;
/// Octets of a plan's name. Longer: an error.
const NAME_BYTES_MAX: usize = 64;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);

/// All plans that can be named.
pub(super) struct Plans(BTreeMap<Arc<str>, Arc<Plan>>);

impl Plans {
    /// The built-in ones and those of the config, all with these thresholds; one of the same name takes the built-in one's place.
    pub(super) fn read(root: &mut Section<'_>, thresholds: Thresholds) -> Self {
        let with = |plan: Plan| {
            let name = Arc::clone(plan.name());
            let plan =
                plan.with_thresholds(thresholds).unwrap_or_else(|error| unreachable!("checked when read: {error}"));
            (name, Arc::new(plan))
        };
        let mut plans: BTreeMap<Arc<str>, Arc<Plan>> = Plan::built_in().into_iter().map(with).collect();
        let sections = root.children("warmup_plan").unwrap_or_default();
        if sections.len() > PLANS_MAX {
            root.error("warmup_plan", Problem::new(format!("more than {PLANS_MAX} plans"), "remove some"));
        }
        let mut own: Vec<Arc<str>> = Vec::new();
        for mut section in sections {
            let plan = plan(&mut section);
            if let Some(plan) = plan {
                let (name, plan) = with(plan);
                if own.contains(&name) {
                    let problem = format!("{:?} is the name of an earlier warmup_plan", &*name);
                    section.error("name", Problem::new(problem, "give each plan its own name"));
                }
                own.push(Arc::clone(&name));
                plans.insert(name, plan);
            }
            section.close();
        }
        Self(plans)
    }

    /// All, by name.
    pub(super) fn all(self) -> Vec<Arc<Plan>> {
        self.0.into_values().collect()
    }

    /// The plan that a value names.
    pub(super) fn named(&self, value: &Value<'_>) -> Result<Arc<Plan>, Problem> {
        let text = value.text()?;
        self.0.get(text).cloned().ok_or_else(|| {
            let names: Vec<&str> = self.0.keys().map(|name| &**name).collect();
            let remedy = format!("write one of {}, or add [[warmup_plan]] with name = {text:?}", names.join(", "));
            Problem::new(format!("there is no warm-up plan named {text:?}"), remedy)
        })
    }
}

fn plan(section: &mut Section<'_>) -> Option<Plan> {
    let name = section.required("name", "\"gentle\"", plan_name);
    let table = section.entries("days", "{ 1 = 200, 3 = 500 }", |day, value| {
        let remedy = "write the number of a day before the =, such as 1";
        let day: Option<u32> = day.parse().ok();
        let day = day.ok_or_else(|| Problem::new("is no day", remedy))?;
        Ok((day, value.count(&(1..=MESSAGES_MAX))?))
    });
    let days = section.optional("linear_days", |value| value.count(&(1..=400_u32)));
    let messages = section.optional("linear_messages", |value| value.count(&(1..=MESSAGES_MAX)));
    let percent = section.optional("delivered_percent", |value| value.count(&(1..=100_u8)));
    let steps = match (section.has("days"), days, messages) {
        (true, None, None) => {
            let mut table = table;
            table.sort_unstable();
            Steps::Table(table)
        }
        (false, Some(days), Some(messages)) => Steps::Linear { days, messages },
        _ => {
            let remedy = "write days = { 1 = 200, 3 = 500 }, or both linear_days = 45 and linear_messages = 50000";
            section.error("days", Problem::new("the plan has no steps, or two kinds of them", remedy));
            return None;
        }
    };
    let advance = percent.map_or(Advance::Daily, |percent| Advance::Delivered { percent });
    match Plan::new(&name?, steps, advance) {
        Ok(plan) => Some(plan),
        Err(error) => {
            section.error(
                "days",
                Problem::new(error.to_string(), "write days that rise from 1, with caps that do not fall"),
            );
            None
        }
    }
}

fn plan_name(value: &Value<'_>) -> Result<String, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_name = (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
    let problem = || Problem::new(format!("{text:?} cannot be a name"), "write 1 to 64 letters, digits, dots, - or _");
    if is_name { Ok(text.to_owned()) } else { Err(problem()) }
}

/// `[warmup]`: when warm-ups are slowed and frozen.
pub(super) fn thresholds(section: &mut Section<'_>) -> Thresholds {
    let default = Thresholds::default();
    let (mut slow, mut freeze) = (default.slow, default.freeze);
    for (key, rates) in [("slow_per_mille", &mut slow), ("freeze_per_mille", &mut freeze)] {
        let example = "{ deferred = 100, bounced = 50, complained = 1 }";
        for (name, count) in section.entries(key, example, per_mille) {
            match name {
                Kind::Deferred => rates.deferred = count,
                Kind::Bounced => rates.bounced = count,
                Kind::Complained => rates.complained = count,
            }
        }
    }
    if slow.deferred > freeze.deferred || slow.bounced > freeze.bounced || slow.complained > freeze.complained {
        let (key, problem) = if section.has("slow_per_mille") {
            ("slow_per_mille", "is above freeze_per_mille")
        } else {
            ("freeze_per_mille", "is below slow_per_mille, or the defaults of that")
        };
        section.error(key, Problem::new(problem, "write numbers with which it is slowed before it is frozen"));
        (slow, freeze) = (default.slow, default.freeze);
    }
    Thresholds {
        slow,
        freeze,
        messages_min: section.count("messages_min", default.messages_min, 10..=1_000_000),
        freeze_complaints_min: section.count("freeze_complaints_min", default.freeze_complaints_min, 1..=1_000_000),
        dwell: section.duration("recover_after", default.dwell, MINUTE..=24 * HOUR),
        frozen_for: section.duration("frozen_for", default.frozen_for, MINUTE..=48 * HOUR),
    }
}

enum Kind {
    Deferred,
    Bounced,
    Complained,
}

fn per_mille(name: &str, value: &Value<'_>) -> Result<(Kind, u32), Problem> {
    let kind = match name {
        "deferred" => Kind::Deferred,
        "bounced" => Kind::Bounced,
        "complained" => Kind::Complained,
        _ => return Err(Problem::new(format!("{name:?} is not known"), "write deferred, bounced or complained")),
    };
    Ok((kind, value.count(&(1..=1_000))?))
}

/// `[warmup]`: plans that hold at the sites of a provider.
pub(super) fn providers(section: &mut Section<'_>, plans: &Plans) -> BTreeMap<Box<str>, Arc<Plan>> {
    let read = section.entries("providers", "{ google = \"stages\" }", |name, value| {
        Ok((Box::<str>::from(name), plans.named(value)?))
    });
    read.into_iter().collect()
}

/// Names of providers that no rule has.
pub(super) fn check_providers(warmups: &Warmups, providers: &Providers, at: &Range<usize>, findings: &mut Findings) {
    for name in warmups.providers.keys().filter(|name| providers.get(name).is_none()) {
        let names = providers.names();
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let remedy =
            format!("write one of {}, or add a [[provider]] to the file of [rules] providers", names.join(", "));
        findings.error(at, "warmup.providers", Problem::new(format!("there is no provider named {name:?}"), remedy));
    }
}

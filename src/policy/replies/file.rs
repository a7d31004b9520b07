//! Reads a file of reply rules, `[[rule]]` by `[[rule]]`.
//!
//! Strict: a key that nobody knows, a value out of place, a name that is there twice, a phrase that no text can hold, and a rule
//! that another one in front of it leaves nothing are errors.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::sync::Arc;

use super::reaction;
use super::spec::{Codes, Enhanced, Stages};
use super::written::Written;
use crate::policy::phrase::{normalise, parts};
use crate::policy::verdict::{BounceClass, BounceSubType, BounceType, DelayType, Disposition, RetryKind, Scope};
use crate::tables::findings::{Findings, Problem};
use crate::tables::nearest::nearest;
use crate::tables::section::{Section, Value};
use crate::tables::{self, ConfigErrors};
use crate::types::Stage;

/// Rules in one file. More: an error.
const RULES_MAX: usize = 10_000;
/// Octets of a rule's name. Longer: an error.
const NAME_BYTES_MAX: usize = 64;
/// Octets of a phrase, longer than any line of a host has a use for. Longer: an error.
const PHRASE_BYTES_MAX: usize = 256;
/// Octets of a phrase, gaps not counted: a shorter one stands in any text.
const PHRASE_BYTES_MIN: usize = 3;

/// All rules of a text, each laid over the one of `base` with its name. `providers`: those that there are; `None`: not checked.
pub(super) fn read(
    text: &str,
    name: &str,
    base: &[Written],
    providers: Option<&[Arc<str>]>,
) -> Result<Vec<Written>, ConfigErrors> {
    let findings = RefCell::new(Findings::new(name, text));
    let reader = Reader { base, providers, findings: &findings };
    let rules = tables::read(text, &findings, "docs/RULES.md", |root| reader.root(root)).unwrap_or_default();
    findings.into_inner().finish()?;
    Ok(rules)
}

struct Reader<'a> {
    base: &'a [Written],
    providers: Option<&'a [Arc<str>]>,
    findings: &'a RefCell<Findings>,
}

impl Reader<'_> {
    fn root(&self, mut root: Section<'_>) -> Vec<Written> {
        let sections = root.children("rule").unwrap_or_default();
        if sections.len() > RULES_MAX {
            let problem = format!("there are {} rules, at most {RULES_MAX} are taken", sections.len());
            root.error("rule", Problem::new(problem, "join rules with the same outcome into one"));
            return Vec::new();
        }
        let mut rules: Vec<Written> = Vec::new();
        let mut names = BTreeSet::new();
        for mut section in sections {
            let rule = self.rule(&mut section);
            if let Some(rule) = &rule
                && !names.insert(Arc::clone(&rule.name))
            {
                let problem = format!("a rule named {:?} stands above", &*rule.name);
                section.error("name", Problem::new(problem, "give each rule a name of its own"));
            }
            section.close();
            rules.extend(rule);
        }
        root.close();
        self.check_order(&rules);
        rules
    }

    /// `None` where it has no name; the error is told then.
    fn rule(&self, section: &mut Section<'_>) -> Option<Written> {
        let name = section.required("name", "\"our-partner-busy\"", rule_name);
        let bounce_types = BounceType::ALL.map(|word| (word.name(), word));
        let bounce_sub_types = BounceSubType::ALL.map(|word| (word.name(), word));
        let rule = Written {
            name: name.clone().unwrap_or_default(),
            enabled: section.flag("enabled", true),
            stages: section
                .items("stages", "[\"rcpt\"]", stages)
                .map(|all| all.into_iter().fold(Stages::NONE, Stages::with)),
            codes: section.items("codes", "[550, \"45z\", \"4yz\"]", codes).map(Vec::into_boxed_slice),
            enhanced: section.items("enhanced", "[\"5.7.1\", \"x.7.500-599\"]", enhanced).map(Vec::into_boxed_slice),
            phrases: section.items("text", "[\"too many connections\"]", phrase).map(Vec::into_boxed_slice),
            providers: section
                .items("providers", "[\"google\"]", |value| self.provider(value))
                .map(Vec::into_boxed_slice),
            class: section.optional("class", |value| value.word(&class_words())),
            action: section.optional("action", |value| {
                value.word(&[("bounce", Disposition::Bounced), ("defer", Disposition::Deferred)])
            }),
            scope: section.optional("scope", |value| value.word(&Scope::ALL.map(|word| (word.name(), word)))),
            retry: section.optional("retry", |value| value.word(&RetryKind::ALL.map(|word| (word.name(), word)))),
            bounce_type: section.optional("bounce_type", |value| value.word(&bounce_types)),
            bounce_sub_type: section.optional("bounce_sub_type", |value| value.word(&bounce_sub_types)),
            delay: section.optional("delay_type", |value| value.word(&DelayType::ALL.map(|word| (word.name(), word)))),
            reaction: reaction::read(section),
            span: section.span(),
            place: self.findings.borrow().file_and_line(&section.span()).into(),
        };
        name?;
        let rule = match self.base.iter().find(|base| base.name == rule.name) {
            Some(base) => rule.over(base),
            None => rule,
        };
        self.check(section, &rule);
        Some(rule)
    }

    fn provider(&self, value: &Value<'_>) -> Result<Arc<str>, Problem> {
        let text = value.text()?;
        let Some(providers) = self.providers else { return Ok(text.into()) };
        if let Some(found) = providers.iter().find(|name| &***name == text) {
            return Ok(Arc::clone(found));
        }
        let names: Vec<&str> = providers.iter().map(|name| &**name).collect();
        let all = || format!("write the name of a [[provider]]: {}", names.join(", "));
        let remedy = nearest(text, &names).map_or_else(all, |near| format!("write \"{near}\""));
        Err(Problem::new(format!("there is no provider {text:?}"), remedy))
    }

    /// What only the rule as a whole can show.
    fn check(&self, section: &Section<'_>, rule: &Written) {
        // A key that is there and wrong is told already.
        if rule.class.is_none() && !section.has("class") {
            section.error("class", Problem::new("is missing", "write class = \"policy\", or another of docs/RULES.md"));
        }
        let tries = ["codes", "enhanced", "text"].iter().any(|key| section.has(key));
        if !rule.has_condition() && !tries {
            let remedy = "write at least one of codes, enhanced and text";
            section.error("", Problem::new("would take every reply", remedy));
        }
        let (bounce_type, sub_type) = rule.spec(super::Origin::BuiltIn).outcome.bounce;
        if !sub_type.is_of(bounce_type) {
            let of_type = |word: &BounceSubType| word.is_of(bounce_type).then(|| word.name());
            let words: Vec<&str> = BounceSubType::ALL.iter().filter_map(of_type).collect();
            let problem = format!("SES has no {}/{}", bounce_type.name(), sub_type.name());
            let remedy = format!("with bounce_type = \"{}\" write one of {}", bounce_type.name(), words.join(", "));
            let key = if section.has("bounce_sub_type") { "bounce_sub_type" } else { "bounce_type" };
            section.error(key, Problem::new(problem, remedy));
        }
    }

    /// A rule that never hits is a mistake of who wrote it: the rules are asked in their order.
    fn check_order(&self, rules: &[Written]) {
        for (at, later) in rules.iter().enumerate() {
            let changes = |rule: &Written| self.base.iter().any(|base| base.name == rule.name);
            // A built-in rule that is changed stays in its place, behind all own ones.
            let earlier = rules.iter().enumerate().filter(|(index, rule)| match (changes(rule), changes(later)) {
                (false, true) => true,
                (true, false) => false,
                (false, false) => *index < at,
                (true, true) => false,
            });
            if let Some((_, first)) = earlier.into_iter().find(|(_, earlier)| earlier.shadows(later)) {
                let problem = format!("never hits: {} ({}) takes all that it would", first.name, first.place);
                let remedy = "put the narrower rule in front, or remove one of them";
                self.findings.borrow_mut().error(&later.span, "rule", Problem::new(problem, remedy));
            }
        }
    }
}

fn rule_name(value: &Value<'_>) -> Result<Arc<str>, Problem> {
    let text = value.text()?;
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed) {
        return Ok(text.into());
    }
    let remedy = format!("write 1 to {NAME_BYTES_MAX} lower-case letters, digits, \"-\", \"_\" or \".\"");
    Err(Problem::new(format!("{text:?} is not a name"), remedy))
}

fn class_words() -> Vec<(&'static str, BounceClass)> {
    let all = BounceClass::ALL.into_iter().filter(|class| *class != BounceClass::None);
    all.map(|class| (class.name(), class)).collect()
}

fn stages(value: &Value<'_>) -> Result<Stages, Problem> {
    let stages = Stage::ALL.map(|stage| (stage.name(), Stages::only(stage)));
    value.word(&[Stages::GROUPS.as_slice(), stages.as_slice()].concat())
}

fn codes(value: &Value<'_>) -> Result<Codes, Problem> {
    let remedy = "write a code such as 550, or \"45z\" or \"4yz\" for all that begin so";
    let text = match (value.value.as_integer(), value.value.as_str()) {
        (Some(integer), _) => integer.to_string(),
        (None, Some(text)) => text.to_owned(),
        (None, None) => return Err(value.expected("a reply code", remedy)),
    };
    Codes::parse(&text).ok_or_else(|| Problem::new(format!("{text} is not a code of a refusal (300 to 599)"), remedy))
}

fn enhanced(value: &Value<'_>) -> Result<Enhanced, Problem> {
    let text = value.text()?;
    let remedy = "write one such as \"5.7.1\", \"x.7.1\" (whatever its class), \"5.7.606-649\" or \"x.7\"";
    Enhanced::parse(text).ok_or_else(|| Problem::new(format!("{text:?} is not an enhanced code"), remedy))
}

fn phrase(value: &Value<'_>) -> Result<Box<str>, Problem> {
    let text = value.text()?;
    let wrong = |problem: &str, remedy: &str| Err(Problem::new(format!("{text:?} {problem}"), remedy));
    let text_bytes: usize = parts(text).map(str::len).sum();
    if text_bytes < PHRASE_BYTES_MIN || text.len() > PHRASE_BYTES_MAX {
        return wrong("is too short or too long for a phrase", "write 3 to 256 octets, not counting \"*\"");
    }
    let joined = text.split_whitespace().collect::<Vec<_>>().join(" ").to_ascii_lowercase();
    if parts(&joined).any(|part| normalise(&[part.into()]).trim_end() != part) {
        let remedy =
            "leave out addresses, what stands in <>, and quoted words with digits: they are not looked at in replies";
        return wrong("never matches", remedy);
    }
    if text.trim().starts_with('*') || text.trim().ends_with('*') {
        return wrong("has a \"*\" at an end", "remove it: other text may always stand around a phrase");
    }
    Ok(joined.into())
}

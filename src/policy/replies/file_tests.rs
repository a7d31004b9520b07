//! What a file of reply rules may say, and what is wrong with it.

use std::collections::BTreeSet;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::policy::limits::{RateLimit, Span};
use crate::policy::verdict::{BounceClass, BounceSubType, BounceType, Disposition, RetryKind, Scope};
use crate::policy::{Providers, Reaction, ReactionKind};

fn read(text: &str) -> Result<Rules, String> {
    with_own(text, "r.toml", Some(&Providers::built_in().names())).map_err(|errors| errors.to_string())
}

#[track_caller]
fn spec(text: &str, name: &str) -> Spec {
    let rules = read(text).unwrap_or_else(|errors| panic!("{errors}"));
    rules.specs().find(|spec| &*spec.name == name).unwrap_or_else(|| panic!("no rule {name}")).clone()
}

/// The error of a rule with these lines below its name.
#[track_caller]
fn refused(lines: &str, expected: &str) {
    let errors = read(&format!("[[rule]]\nname = \"own\"\n{lines}\n")).expect_err(lines);
    assert_eq!(errors, format!("r.toml:{expected}"), "{lines}");
}

#[test]
fn the_built_in_rules_read_without_an_error_and_none_hides_another() {
    if let Err(errors) = file::read(BUILT_IN_FILE, "replies.toml", &[], None) {
        panic!("{errors}");
    }
    let known = Providers::built_in().names();
    let named: BTreeSet<Arc<str>> = built_in().iter().flat_map(|spec| spec.providers.to_vec()).collect();
    assert!(named.iter().all(|name| known.contains(name)), "{named:?}");
    assert_eq!(built_in().iter().filter(|spec| spec.origin != Origin::BuiltIn).count(), 0);
}

#[test]
fn phrases_of_the_built_in_rules_are_lower_case() {
    for spec in built_in() {
        for phrase in &spec.phrases {
            assert_eq!(**phrase, phrase.to_lowercase(), "{}", spec.name);
        }
    }
}

#[test]
fn mail_that_is_due_at_once_never_comes_back_to_the_lane_that_blocks_it() {
    for spec in built_in() {
        assert!(spec.outcome.is_sound(), "{}", spec.name);
    }
    for class in BounceClass::ALL {
        assert!(Outcome::of(class).is_sound(), "{class:?}");
    }
}

#[test]
fn every_class_leads_to_words_of_ses() {
    for class in BounceClass::ALL {
        let (bounce_type, sub_type) = Outcome::of(class).bounce;
        assert!(sub_type.is_of(bounce_type), "{class:?}: {bounce_type:?}/{sub_type:?}");
    }
    for spec in built_in() {
        let (bounce_type, sub_type) = spec.outcome.bounce;
        assert!(sub_type.is_of(bounce_type), "{}: {bounce_type:?}/{sub_type:?}", spec.name);
    }
}

#[test]
fn the_table_of_classes_in_the_manual_is_the_one_of_the_code() {
    let page = include_str!("../../../docs/RULES.md");
    for class in BounceClass::ALL.into_iter().filter(|class| *class != BounceClass::None) {
        let outcome = Outcome::of(class);
        let action = match outcome.disposition {
            Some(Disposition::Bounced) => "bounce",
            Some(_) => "defer",
            None => "by code",
        };
        let row = format!(
            "| `{}` | {action} | {} | {} | {}/{} | {} |",
            class.name(),
            outcome.scope.map_or("by stage", Scope::name),
            outcome.retry.name(),
            outcome.bounce.0.name(),
            outcome.bounce.1.name(),
            outcome.delay.name(),
        );
        assert!(page.contains(&row), "docs/RULES.md lacks:\n{row}");
    }
}

#[test]
fn a_rule_says_all_that_it_can() {
    let text = "[[rule]]\nname = \"own\"\nstages = [\"mail\", \"rcpt\"]\ncodes = [550, \"45z\", \"4yz\"]\n\
        enhanced = [\"x.7.26\", \"5.7.606-649\", \"4.2\"]\ntext = [\"Come  to\", \"the * Office\"]\nproviders = [\"google\"]\n\
        class = \"policy\"\naction = \"defer\"\nscope = \"host\"\nretry = \"rate-limited\"\nbounce_type = \"Permanent\"\n\
        bounce_sub_type = \"General\"\ndelay_type = \"SpamDetected\"\n\
        react = { do = \"slow\", rate = \"10/minute\", for = \"30m\", after = \"2/hour\" }\n";
    let spec = spec(text, "own");
    assert_eq!(spec.origin, Origin::Own("r.toml:1".into()));
    assert_eq!(spec.stages.to_string(), "mail, rcpt");
    assert_eq!(spec.codes.iter().map(ToString::to_string).collect::<Vec<_>>(), ["550", "45z", "4yz"]);
    assert_eq!(spec.enhanced.iter().map(ToString::to_string).collect::<Vec<_>>(), ["x.7.26", "5.7.606-649", "4.2"]);
    assert_eq!(spec.phrases.to_vec(), ["come to".into(), "the * office".into()]);
    assert_eq!(spec.providers.to_vec(), ["google".into()]);
    let outcome = spec.outcome;
    assert_eq!((outcome.disposition, outcome.scope), (Some(Disposition::Deferred), Some(Scope::OneHost)));
    assert_eq!((outcome.class, outcome.retry), (BounceClass::Policy, RetryKind::RateLimited));
    assert_eq!(outcome.bounce, (BounceType::Permanent, BounceSubType::General));
    let reaction = Reaction {
        kind: ReactionKind::Slow(RateLimit { count: 10, per: Span::Minute }),
        lasts: Duration::from_secs(1_800),
        after: Some((2, Duration::from_secs(3_600))),
    };
    assert_eq!(outcome.reaction, Some(reaction));
    assert_eq!(reaction.to_string(), "10/minute for 30m, after 2 within 1h");
}

#[test]
fn reactions_are_of_six_kinds() {
    let reaction = |words: &str| {
        let text = format!("[[rule]]\nname = \"own\"\ncodes = [550]\nclass = \"other\"\nreact = {{ {words} }}\n");
        spec(&text, "own").outcome.reaction.map(|reaction| reaction.to_string())
    };
    let check = |words: &str, expected: &str| assert_eq!(reaction(words).as_deref(), Some(expected), "{words}");
    check("do = \"fewer-connections\"", "one connection fewer");
    check("do = \"connections\", connections = 1, for = \"1h\"", "connections: 1 for 1h");
    check("do = \"suspend\", for = \"15m\", after = \"5/30m\"", "suspended for 15m, after 5 within 30m");
    check("do = \"block\", for = \"2h\"", "blocked for 2h");
    assert_eq!(reaction("do = \"nothing\""), None);
}

#[test]
fn the_name_of_a_built_in_rule_changes_only_what_is_written_and_in_its_place() {
    let text = "[[rule]]\nname = \"own\"\ncodes = [599]\nclass = \"other\"\n\n\
        [[rule]]\nname = \"yahoo-rate\"\nreact = { do = \"suspend\", for = \"5m\" }\n";
    let rules = read(text).unwrap();
    let names: Vec<&str> = rules.names().collect();
    let built_in_rules = Rules::built_in();
    let expected: Vec<&str> = std::iter::once("own").chain(built_in_rules.names()).collect();
    assert_eq!(names, expected);
    let (changed, was) = (spec(text, "yahoo-rate"), spec("", "yahoo-rate"));
    assert_eq!(changed.origin, Origin::Changed("r.toml:6".into()));
    assert_eq!(changed.phrases, was.phrases);
    assert_ne!(changed.outcome.reaction, was.outcome.reaction);
    let same = Outcome { reaction: was.outcome.reaction, ..changed.outcome };
    assert_eq!(same, was.outcome);
}

#[test]
fn a_changed_class_brings_what_goes_with_it() {
    let spec = spec(
        "[[rule]]\nname = \"yahoo-rate\"\nclass = \"ip-block\"\nreact = { do = \"block\", for = \"1h\" }\n",
        "yahoo-rate",
    );
    assert_eq!((spec.outcome.class, spec.outcome.retry), (BounceClass::IpBlock, RetryKind::Blocked));
}

#[test]
fn a_built_in_rule_can_be_switched_off() {
    let rules = read("[[rule]]\nname = \"ip-block\"\nenabled = false\n").unwrap();
    assert!(rules.names().all(|name| name != "ip-block"));
    assert_eq!(rules.names().count() + 1, Rules::built_in().names().count());
    refused(
        "enabled = false\ncodes = [550]\nclass = \"other\"",
        "3:11: rule.enabled: only a built-in rule can be switched off; remove this one",
    );
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_to_write() {
    let condition = "codes = [550]";
    let with = |line: &str| format!("{condition}\nclass = \"other\"\n{line}");
    refused(condition, "1:1: rule.class: is missing; write class = \"policy\", or another of docs/RULES.md");
    refused("class = \"other\"", "1:1: rule: would take every reply; write at least one of codes, enhanced and text");
    refused(
        &with("colour = 1"),
        "5:1: rule.colour: unknown key; remove it; known here are: action, bounce_sub_type, bounce_type, class, codes, delay_type, enabled, enhanced, name, providers, react, retry, scope, stages, text",
    );
    refused(&with("stage = [\"rcpt\"]"), "5:1: rule.stage: unknown key; write stages");
    refused(
        "codes = [250]\nclass = \"other\"",
        "3:10: rule.codes: 250 is not a code of a refusal (300 to 599); write a code such as 550, or \"45z\" or \"4yz\" for all that begin so",
    );
    refused("codes = []\nclass = \"other\"", "3:9: rule.codes: is empty; write [550, \"45z\", \"4yz\"], or remove it");
    refused(
        "enhanced = [\"7.1\"]\nclass = \"other\"",
        "3:13: rule.enhanced: \"7.1\" is not an enhanced code; write one such as \"5.7.1\", \"x.7.1\" (whatever its class), \"5.7.606-649\" or \"x.7\"",
    );
    refused(&with("providers = [\"gogle\"]"), "5:14: rule.providers: there is no provider \"gogle\"; write \"google\"");
    refused(
        &with("retry = \"blocked\""),
        "5:9: rule.retry: retry = \"blocked\" would send the mail again to the same place at once; write react = { do = \"block\", for = \"1h\" } or \"suspend\" without after, or another retry",
    );
    refused(
        &with("bounce_type = \"Permanent\"\nbounce_sub_type = \"MailboxFull\""),
        "6:19: rule.bounce_sub_type: SES has no Permanent/MailboxFull; with bounce_type = \"Permanent\" write one of General",
    );
    refused(
        &with("react = { do = \"slow\", for = \"30m\" }"),
        "5:9: rule.react.rate: is missing; write rate = \"10/minute\"",
    );
    refused(&with("react = { do = \"suspend\" }"), "5:9: rule.react.for: is missing; write for = \"30m\"");
    refused(
        &with("react = { do = \"block\", for = \"1h\", rate = \"1/hour\" }"),
        "5:44: rule.react.rate: has no effect with what \"do\" says; remove it",
    );
    refused(
        &with("react = { do = \"slow\", for = \"1h\", rate = \"0/hour\" }"),
        "5:43: rule.react.rate: \"0/hour\" is not a rate; write one such as \"10/minute\": second, minute, hour or day",
    );
    refused(
        "text = [\"ab\"]\nclass = \"other\"",
        "3:9: rule.text: \"ab\" is too short or too long for a phrase; write 3 to 256 octets, not counting \"*\"",
    );
    refused(
        "text = [\"user a@b.test\"]\nclass = \"other\"",
        "3:9: rule.text: \"user a@b.test\" never matches; leave out addresses, what stands in <>, and quoted words with digits: they are not looked at in replies",
    );
    refused(
        "text = [\"* full\"]\nclass = \"other\"",
        "3:9: rule.text: \"* full\" has a \"*\" at an end; remove it: other text may always stand around a phrase",
    );
    assert!(read("[[rule]\n").unwrap_err().starts_with("r.toml:1:"));
    assert!(
        read("[[rule]]\nname = \"A b\"\ncodes = [550]\nclass = \"other\"\n")
            .unwrap_err()
            .contains("\"A b\" is not a name")
    );
}

#[test]
fn a_rule_that_never_hits_is_an_error_that_names_the_one_in_its_way() {
    let rules = |first: &str, second: &str| {
        let text = format!(
            "[[rule]]\nname = \"a\"\nclass = \"other\"\n{first}\n[[rule]]\nname = \"b\"\nclass = \"spam\"\n{second}\n"
        );
        read(&text).err()
    };
    let hidden = |first: &str, second: &str| {
        let errors = rules(first, second).unwrap_or_else(|| panic!("{second} is not hidden by {first}"));
        assert!(
            errors.contains(": rule: never hits: a (r.toml:1) takes all that it would; put the narrower"),
            "{errors}"
        );
    };
    let fine = |first: &str, second: &str| assert_eq!(rules(first, second), None, "{first} / {second}");
    hidden("codes = [\"5yz\"]", "codes = [550]");
    hidden("codes = [\"5yz\"]", "codes = [\"55z\"]\ntext = [\"full\"]");
    hidden("text = [\"mailbox\"]", "text = [\"the mailbox is full\", \"mailbox * gone\"]");
    hidden("enhanced = [\"x.7\"]", "enhanced = [\"5.7.26\"]\nproviders = [\"google\"]");
    hidden("stages = [\"any\"]\ncodes = [550]", "stages = [\"rcpt\"]\ncodes = [550]");
    fine("codes = [550]", "codes = [\"5yz\"]");
    fine("codes = [550]\ntext = [\"full\"]", "codes = [550]");
    fine("text = [\"mailbox\"]", "text = [\"mailboxes\"]");
    fine("codes = [550]\nproviders = [\"google\"]", "codes = [550]");
    fine("codes = [550]\nstages = [\"rcpt\"]", "codes = [550]");
    fine("enhanced = [\"5.7\"]", "enhanced = [\"x.7\"]");
}

#[test]
fn a_name_that_is_there_twice_is_an_error() {
    let errors = read(
        "[[rule]]\nname = \"a\"\ncodes = [550]\nclass = \"other\"\n[[rule]]\nname = \"a\"\ncodes = [551]\nclass = \"other\"\n",
    );
    assert_eq!(
        errors.unwrap_err(),
        "r.toml:6:8: rule.name: a rule named \"a\" stands above; give each rule a name of its own"
    );
}

/// Pieces of rule files, so that random texts get past the first check.
fn piece() -> impl Strategy<Value = String> {
    let words = [
        "[[rule]]",
        "[rule.react]",
        "name = \"a\"",
        "name = \"ip-block\"",
        "codes = [550, \"4yz\"]",
        "codes = [9]",
        "enhanced = [\"x.7.1-9\"]",
        "text = [\"a * b c\", \"*\"]",
        "class = \"spam\"",
        "do = \"slow\"",
        "rate = \"1/day\"",
        "react = { do = \"block\", for = \"1h\" }",
        "after = \"2/hour\"",
        "for = \"30m\"",
        "enabled = false",
        "stages = [\"any\", \"rcpt\"]",
        "retry = \"blocked\"",
        "bounce_type = \"Undetermined\"",
        "providers = [\"x\"]",
    ];
    prop_oneof![prop::sample::select(words.to_vec()).prop_map(str::to_owned), "[ -~\\n]{0,12}", "\\PC{0,8}"]
}

proptest! {
    #[test]
    fn any_text_is_good_or_refused_with_a_place_a_reason_and_a_remedy(pieces in prop::collection::vec(piece(), 0..24)) {
        let text = pieces.join("\n");
        if let Err(found) = with_own(&text, "r.toml", None) {
            prop_assert!(!found.errors.is_empty());
            for error in &found.errors {
                prop_assert!(error.place.is_some() && !error.problem.is_empty() && !error.remedy.is_empty(), "{error}");
            }
        }
    }

    #[test]
    fn codes_and_enhanced_codes_are_read_as_they_are_shown(text in "[345x][0-9y.]{1,3}[0-9z.-]{0,8}") {
        if let Some(codes) = Codes::parse(&text) {
            prop_assert_eq!(Codes::parse(&codes.to_string()), Some(codes));
        }
        if let Some(enhanced) = Enhanced::parse(&text) {
            prop_assert_eq!(Enhanced::parse(&enhanced.to_string()), Some(enhanced));
        }
    }
}

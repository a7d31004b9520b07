//! Warm-ups and managed pools: what comes of a config, and what is refused, with the exact words and places.

use std::time::Duration;

use super::rejection_test::{HEAD, refused, taken};
use super::*;
use crate::policy::fleet_life::ManagedPool;
use crate::policy::warmup::{Advance, Limits};
use crate::types::SourceName;

const PLANS: &str = "[[warmup_plan]]\nname = \"gentle\"\ndays = { 1 = 100, 3 = 200 }\ndelivered_percent = 90\n\
    [[warmup_plan]]\nname = \"line\"\nlinear_days = 10\nlinear_messages = 1000\n";

#[test]
fn plans_are_named_by_sources_sets_and_providers() {
    let config = taken(&format!(
        "{PLANS}[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\nwarmup = \"gentle\"\nwarmup_first_day = 3\n\
         [[source]]\nname = \"b\"\naddress = \"192.0.2.2\"\nwarmup = \"doubling\"\n\
         [[source]]\nname = \"c\"\naddress = \"192.0.2.3\"\n\
         [[configuration_set]]\nname = \"news\"\nwarmup = \"line\"\n\
         [warmup]\nproviders = {{ google = \"stages\" }}\nslow_per_mille = {{ bounced = 20 }}\nfrozen_for = \"1h\"\n"
    ));
    let warmup = &config.delivery.warmup;
    let name = |name: &str| SourceName::parse(name).unwrap();
    let plan_of = |source, provider| warmup.of_source(&name(source), provider).map(|plan| plan.name().to_string());
    assert_eq!(plan_of("a", None), Some("gentle".to_owned()));
    assert_eq!(plan_of("b", Some("yahoo")), Some("doubling".to_owned()));
    assert_eq!(plan_of("b", Some("google")), Some("stages".to_owned()));
    assert_eq!(plan_of("c", Some("google")), None, "it does not warm up");
    assert_eq!(warmup.first_days.iter().collect::<Vec<_>>(), [(&name("a"), &3)]);
    let gentle = warmup.of_source(&name("a"), None).unwrap();
    assert_eq!((gentle.cap(2), gentle.cap(4), gentle.cap(5)), (Some(100), Some(200), None));
    assert_eq!(gentle.advance(), Advance::Delivered { percent: 90 });
    let thresholds = gentle.thresholds();
    assert_eq!(thresholds.slow, Limits { deferred: 100, bounced: 20, complained: 1 });
    assert_eq!(thresholds.frozen_for, Duration::from_secs(3_600));
    assert_eq!(warmup.of_set("news", None).unwrap().cap(10), Some(1_000));
    assert_eq!(warmup.of_set("other", None), None);
    let names: Vec<&str> = config.plans.iter().map(|plan| &**plan.name()).collect();
    assert_eq!(names, ["doubling", "gentle", "line", "ses-45-days", "stages"]);
}

#[test]
fn what_is_no_plan_is_refused_and_names_what_there_is() {
    refused(
        "[[source]]\nname = \"a\"\nwarmup = \"fast\"\n",
        &["c.toml:5:10: source.warmup: there is no warm-up plan named \"fast\"; write one of doubling, ses-45-days, \
           stages, or add [[warmup_plan]] with name = \"fast\""],
    );
    refused(
        "[[source]]\nname = \"a\"\nwarmup_first_day = 4\n",
        &[
            "c.toml:5:20: source.warmup_first_day: has no effect without warmup; write warmup = \"doubling\", or remove it",
        ],
    );
    refused(
        "[[warmup_plan]]\nname = \"a\"\ndays = { 2 = 5 }\n",
        &["c.toml:5:8: warmup_plan.days: day 2: the first day is 1; \
           write days that rise from 1, with caps that do not fall"],
    );
    refused(
        "[[warmup_plan]]\nname = \"a\"\ndays = { 1 = 5 }\nlinear_days = 3\n",
        &["c.toml:5:8: warmup_plan.days: the plan has no steps, or two kinds of them; \
           write days = { 1 = 200, 3 = 500 }, or both linear_days = 45 and linear_messages = 50000"],
    );
    refused(
        "[warmup]\nslow_per_mille = { bounced = 200 }\n",
        &["c.toml:4:18: warmup.slow_per_mille: is above freeze_per_mille; \
           write numbers with which it is slowed before it is frozen"],
    );
    refused(
        "[warmup]\nfreeze_per_mille = { opened = 2 }\n",
        &["c.toml:4:22: warmup.freeze_per_mille: \"opened\" is not known; write deferred, bounced or complained"],
    );
}

#[test]
fn a_provider_that_no_rule_has_is_refused_when_the_files_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("c.toml");
    std::fs::write(&path, format!("{HEAD}[warmup]\nproviders = {{ gmail = \"stages\" }}\n")).unwrap();
    let errors = Config::load_plans(&path).unwrap_err();
    let text = errors.errors.iter().map(Finding::to_string).collect::<Vec<_>>().join("\n");
    assert!(
        text.contains("c.toml:3:1: warmup.providers: there is no provider named \"gmail\"; write one of "),
        "{text}"
    );
    assert!(text.contains("google"), "{text}");
}

#[test]
fn a_pool_manages_sources_of_its_own() {
    let sources =
        "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[source]]\nname = \"b\"\naddress = \"192.0.2.2\"\n";
    let pool = |name: &str, keys: &str| format!("[[pool]]\nname = \"{name}\"\nsources = [\"a\", \"b\"]\n{keys}");
    let config =
        taken(&format!("{sources}{}", pool("default", "managed = true\nactive_min = 2\nrest_after_days = 7\n")));
    let managed = config.delivery.pools.pool("default").unwrap().managed;
    assert_eq!(managed, Some(ManagedPool { active_min: 2, rest_after_days: 7, ..ManagedPool::default() }));
    refused(
        &format!("{sources}{}{}", pool("default", ""), pool("own", "managed = true\n")),
        &["c.toml:14:11: pool.sources: \"a\" is in another pool, too, and this one is managed; \
           leave it in one of them: the managed pool alone decides when it is used"],
    );
    refused(
        &format!("{sources}{}", pool("default", "active_min = 1\n")),
        &["c.toml:12:14: pool.active_min: has no effect on a pool that is not managed; \
           write managed = true, or remove it"],
    );
    refused(
        &format!("{sources}{}", pool("default", "managed = true\nactive_min = 3\nrest_at_percent = 90\n")),
        &[
            "c.toml:13:14: pool.active_min: is above the number of sources; write a lower one",
            "c.toml:14:19: pool.rest_at_percent: is not below activate_at_percent: \
             a source would rest and be activated in turns; write a lower one",
        ],
    );
}

//! Reputation: what comes of a config, and what is refused, with the exact words and places.

use super::rejection_test::{refused, taken};
use super::*;
use crate::policy::reputation::{Limits, Settings, Steps};
use crate::types::{ReputationScope, ScopeKind};

#[test]
fn a_tenant_and_a_set_may_have_limits_of_their_own_and_the_others_as_all() {
    let config = taken(
        "[reputation]\nbounce_pause = \"8%\"\ncomplaint_warning = \"0.05%\"\nvolume = 2000\nrecipients_min = 200\n\
         exempt_domains = [\"Sink.Test\"]\n\
         [[tenant]]\nname = \"shop\"\nautomatic_pause = false\n\
         [[configuration_set]]\nname = \"news\"\nbounce_warning = \"2.5%\"\ncomplaint_pause = \"0.3%\"\n\
         [[configuration_set]]\nname = \"receipts\"\n",
    );
    let reputation = &config.admission.reputation;
    let all = Limits {
        bounces: Steps { warning: 50_000, pause: 80_000 },
        complaints: Steps { warning: 500, pause: 5_000 },
        automatic_pause: true,
    };
    let of = |kind, name: &str| *reputation.of(&ReputationScope::new(kind, name));
    assert_eq!(of(ScopeKind::Server, ""), all);
    assert_eq!(of(ScopeKind::ConfigurationSet, "receipts"), all);
    assert_eq!(of(ScopeKind::Tenant, "shop"), Limits { automatic_pause: false, ..all });
    let of_news = Limits {
        bounces: Steps { warning: 25_000, pause: 80_000 },
        complaints: Steps { warning: 500, pause: 3_000 },
        automatic_pause: true,
    };
    assert_eq!(of(ScopeKind::ConfigurationSet, "news"), of_news);
    assert_eq!(of(ScopeKind::Tenant, "news"), all, "it is the name of a set");
    assert_eq!((reputation.volume, reputation.recipients_min), (2_000, 200));
    let counting = config.counting();
    assert!(counting.has_sets && !counting.counts("shop", &Domain::parse("sink.test").unwrap()));
    assert!(counting.counts("shop", &Domain::parse("a.sink.test").unwrap()));
    assert_eq!(*taken("").admission.reputation, Settings::default());
    assert!(!taken("").counting().has_sets);
}

#[test]
fn what_is_no_percentage_or_turned_round_is_refused() {
    refused(
        "[reputation]\nbounce_pause = 10\ncomplaint_pause = \"0.5\"\n",
        &[
            "c.toml:4:16: reputation.bounce_pause: expected a text in quotes, found the number 10; put it in \"quotes\"",
            "c.toml:5:19: reputation.complaint_pause: \"0.5\" is no percentage; write one such as \"5%\" or \"0.1%\", above 0 and up to 100%, to a thousandth",
        ],
    );
    refused(
        "[reputation]\nbounce_warning = \"11%\"\nrecipients_min = 20000\n",
        &[
            "c.toml:4:18: reputation.bounce_warning: bounce_warning is above bounce_pause; write a percentage at which somebody is warned before sending is paused",
            "c.toml:5:18: reputation.recipients_min: recipients_min is above volume; write a recipients_min that is at most volume",
        ],
    );
    refused(
        "[[configuration_set]]\nname = \"news\"\ncomplaint_pause = \"0.05%\"\n",
        &[
            "c.toml:5:19: configuration_set.complaint_pause: complaint_warning is above complaint_pause; write a percentage at which somebody is warned before sending is paused",
        ],
    );
    refused(
        "[reputation]\nbounce_rate = \"5%\"\n",
        &["c.toml:4:1: reputation.bounce_rate: unknown key; write bounce_pause"],
    );
}

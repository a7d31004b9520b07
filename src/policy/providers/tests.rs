//! Which provider a site is of, and what is wrong with a file of provider rules.

use proptest::prelude::*;

use super::*;
use crate::policy::replies::Origin;

fn domain(text: &str) -> Domain {
    Domain::parse(text).unwrap()
}

fn read(text: &str) -> Result<Providers, String> {
    Providers::with_own(text, "p.toml").map_err(|errors| errors.to_string())
}

#[track_caller]
fn good(text: &str) -> Providers {
    read(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn found<'a>(providers: &'a Providers, recipients: &str, hosts: &[&str]) -> Option<&'a str> {
    let hosts: Vec<Domain> = hosts.iter().map(|host| domain(host)).collect();
    providers.find(&domain(recipients), &hosts).map(|provider| &*provider.name)
}

#[test]
fn sites_of_the_large_providers_are_known_by_their_hosts() {
    let built_in = Providers::built_in();
    let check = |hosts: &[&str], expected: Option<&str>| {
        assert_eq!(found(&built_in, "customer.test", hosts), expected, "{hosts:?}");
    };
    check(&["gmail-smtp-in.l.google.com"], Some("google"));
    check(&["aspmx.l.google.com", "alt1.aspmx.l.google.com", "aspmx2.googlemail.com"], Some("google"));
    check(&["smtp.google.com"], Some("google"));
    check(&["mta5.am0.yahoodns.net", "mta6.am0.yahoodns.net"], Some("yahoo"));
    check(&["mx1.mail.yahoo.co.jp"], Some("yahoo-japan"));
    check(&["outlook-com.olc.protection.outlook.com"], Some("outlook"));
    check(&["customer-test.mail.protection.outlook.com"], Some("microsoft365"));
    check(&["customer-test.o-v1.mx.microsoft"], Some("microsoft365"));
    check(&["mx01.mail.icloud.com", "mx02.mail.icloud.com"], Some("apple"));
    check(&["mx1a1.comcast.net"], Some("comcast"));
    check(&["mx00.emig.gmx.net"], Some("gmx"));
    check(&["mx-ha02.web.de"], Some("gmx"));
    check(&["smtp-in.orange.fr"], Some("orange"));
    check(&["eu-smtp-inbound-1.mimecast.com"], Some("mimecast"));
    check(&["d1.a.ess.barracudanetworks.com"], Some("barracuda"));
    check(&["mx.kpnmail.nl"], Some("kpn"));
    check(&["mx1.netvigator.com"], Some("netvigator"));
    check(&["google.com.example.test"], None);
    check(&["notgoogle.com"], None);
    check(&["google.com"], None);
    check(&[], None);
}

#[test]
fn a_site_is_a_providers_only_where_all_its_best_hosts_are() {
    let built_in = Providers::built_in();
    assert_eq!(found(&built_in, "a.test", &["aspmx.l.google.com", "mx.a.test"]), None);
    assert_eq!(found(&built_in, "a.test", &["mx.a.test", "aspmx.l.google.com"]), None);
    assert_eq!(found(&built_in, "a.test", &["aspmx.l.google.com", "mta5.am0.yahoodns.net"]), None);
}

#[test]
fn the_first_rule_that_takes_all_hosts_wins() {
    let providers = good(
        "[[provider]]\nname = \"one\"\nmx = [\"mx1.a.test\"]\n[[provider]]\nname = \"all\"\nmx = [\".a.test\"]\n\
         [[provider]]\nname = \"named\"\nmx = [\".b.test\"]\ndomains = [\"shop.test\"]\n",
    );
    assert_eq!(found(&providers, "x.test", &["mx1.a.test"]), Some("one"));
    assert_eq!(found(&providers, "x.test", &["mx1.a.test", "mx2.a.test"]), Some("all"));
    assert_eq!(found(&providers, "shop.test", &["mx1.c.test"]), Some("named"), "by its domain");
    assert_eq!(found(&providers, "shop.test", &["mx1.a.test"]), Some("one"), "in the order of the rules");
    assert_eq!(found(&providers, "x.shop.test", &["mx1.c.test"]), None);
}

#[test]
fn limits_are_those_of_the_rule_and_the_defaults_for_the_rest() {
    let default =
        LaneLimits { connections: 7, rates: Rates { hour: Some(9), ..Rates::default() }, ..LaneLimits::default() };
    let providers =
        good("[[provider]]\nname = \"a\"\nmx = [\"a.test\"]\nconnections_total = 30\nmessages_per_minute = 4\n");
    let limits = providers.limits(Some("a"), default);
    assert_eq!((limits.connections, limits.connections_total), (7, Some(30)));
    assert_eq!(limits.messages_per_connection, default.messages_per_connection);
    assert_eq!(limits.rates, Rates { minute: Some(4), hour: Some(9), ..Rates::default() });
    assert_eq!(providers.limits(None, default), default);
    assert_eq!(providers.limits(Some("nobody"), default), default);
    let google = providers.limits(Some("google"), default);
    assert_eq!((google.connections, google.messages_per_connection), (5, 50));
}

#[test]
fn the_name_of_a_built_in_rule_changes_what_is_written_and_others_stand_in_front() {
    let providers = good(
        "[[provider]]\nname = \"google\"\nconnections = 2\n[[provider]]\nname = \"own\"\nmx = [\"gmail-smtp-in.l.google.com\"]\n",
    );
    assert_eq!(&*providers.all()[0].name, "own");
    let google = providers.get("google").unwrap();
    assert_eq!((google.limits.connections, google.limits.messages_per_connection), (Some(2), Some(50)));
    assert_eq!(google.origin, Origin::Changed("p.toml:1".into()));
    assert_eq!(found(&providers, "gmail.com", &["gmail-smtp-in.l.google.com"]), Some("own"));
    assert_eq!(found(&providers, "a.test", &["aspmx.l.google.com"]), Some("google"));
    let off = good("[[provider]]\nname = \"google\"\nenabled = false\n");
    assert_eq!(found(&off, "a.test", &["aspmx.l.google.com"]), None);
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_what_to_write() {
    let check = |lines: &str, expected: &str| {
        let errors = read(&format!("[[provider]]\n{lines}\n")).expect_err(lines);
        assert_eq!(errors, format!("p.toml:{expected}"), "{lines}");
    };
    let mx = "name = \"a\"\nmx = [\".a.test\"]";
    check("name = \"a\"", "1:1: provider.mx: takes no site; write mx = [\".mail.example.com\"], or domains, or both");
    check(&format!("{mx}\nconnection = 1"), "4:1: provider.connection: unknown key; write connections");
    check(
        &format!("{mx}\nconnections = 0"),
        "4:15: provider.connections: 0 is out of range; write a whole number from 1 to 100000",
    );
    check(
        &format!("{mx}\nconnections = 5\nconnections_total = 4"),
        "5:21: provider.connections_total: 4 for all sources is less than 5 for one; write at least as many as connections",
    );
    check(
        &format!("{mx}\nenabled = false"),
        "4:11: provider.enabled: only a built-in provider can be switched off; remove this one",
    );
    check(
        "name = \"a\"\nmx = [\"*.a.test\"]",
        "3:7: provider.mx: \"*.a.test\" is not a host name; write a host such as \"mx.example.com\", or \".example.com\" for all below a domain",
    );
    check(
        &format!("{mx}\n[[provider]]\n{mx}"),
        "5:8: provider.name: a provider named \"a\" stands above; give each provider a name of its own",
    );
    check(
        &format!("{mx}\n[[provider]]\nname = \"b\"\nmx = [\"mx.a.test\", \".b.a.test\"]"),
        "4:1: provider: takes no site: a (p.toml:1) takes all that it would; put the narrower rule in front, or remove one of them",
    );
    for name in ["a.b", "a:b", "a,b", "A", ""] {
        let errors = read(&format!("[[provider]]\nname = \"{name}\"\nmx = [\"a.test\"]\n")).unwrap_err();
        assert!(errors.starts_with(&format!("p.toml:2:8: provider.name: {name:?} is not a name; ")), "{errors}");
    }
}

/// Hosts of a rule, whether each stands for all below it, and a domain.
type Drawn = (Vec<(bool, String)>, Option<String>);

/// What [`Providers::find`] promises, without its maps.
fn find_slowly<'a>(providers: &'a Providers, recipients: &Domain, hosts: &[Domain]) -> Option<&'a Provider> {
    let takes = |pattern: &HostPattern, host: &Domain| match pattern {
        HostPattern::Exact(name) => name == host,
        HostPattern::Below(parent) => host.as_str().ends_with(&format!(".{parent}")),
    };
    providers.all().iter().find(|rule| {
        let by_hosts = !hosts.is_empty() && hosts.iter().all(|host| rule.mx.iter().any(|pattern| takes(pattern, host)));
        by_hosts || rule.domains.contains(recipients)
    })
}

fn label() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "c"]), 1..4).prop_map(|labels| labels.join("."))
}

proptest! {
    #[test]
    fn the_maps_find_what_a_walk_over_the_rules_finds(
        rules in prop::collection::vec((prop::collection::vec((any::<bool>(), label()), 0..4), prop::option::of(label())), 0..12),
        hosts in prop::collection::vec(label(), 0..4),
        recipients in label(),
    ) {
        let pattern = |(below, name): &(bool, String)| {
            if *below { HostPattern::Below(domain(name)) } else { HostPattern::Exact(domain(name)) }
        };
        let rule = |(at, (mx, domains)): (usize, &Drawn)| Provider {
            name: format!("p{at}").into(),
            mx: mx.iter().map(pattern).collect(),
            domains: domains.iter().map(|name| domain(name)).collect(),
            limits: Overrides::default(),
            origin: Origin::BuiltIn,
        };
        let providers = Providers::new(rules.iter().enumerate().map(rule).collect());
        let hosts: Vec<Domain> = hosts.iter().map(|host| domain(host)).collect();
        let recipients = domain(&recipients);
        prop_assert_eq!(providers.find(&recipients, &hosts), find_slowly(&providers, &recipients, &hosts));
    }

    #[test]
    fn any_text_is_good_or_refused_with_a_reason(text in "([ -~\\n]|\\[\\[provider\\]\\]\\n|name = \"a\"\\n|mx = \\[\"\\.a\"\\]\\n){0,20}") {
        if let Err(found) = Providers::with_own(&text, "p.toml") {
            prop_assert!(found.errors.iter().all(|error| !error.problem.is_empty() && !error.remedy.is_empty()));
            prop_assert!(!found.errors.is_empty());
        }
    }
}

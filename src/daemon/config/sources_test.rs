//! Sources and pools: what is refused, with the exact words and places, and what comes of a config.

use super::rejection_test::{refused, taken, warned};
use super::*;
use crate::admission::directory::Way;
use crate::delivery::settings::{Egress, Source};
use crate::policy::limits::Rates;
use crate::types::{PoolName, Priority, SourceName};

/// `[[source]]` of these names, each at an address of its own.
fn sources(names: &[&str]) -> String {
    let all = names.iter().enumerate();
    all.map(|(n, name)| format!("[[source]]\nname = \"{name}\"\naddress = \"192.0.2.{}\"\n", n + 1)).collect()
}

fn names(config: &Config) -> Vec<&str> {
    config.delivery.sources.iter().map(|source| source.name.as_str()).collect()
}

/// `pool: member xweight, …` of each pool.
fn pools(config: &Config) -> Vec<String> {
    let shown = config.delivery.pools.pools().map(|pool| {
        let members = pool.members.iter().map(|member| format!("{} x{}", member.source, member.weight));
        format!("{}: {}", pool.name, members.collect::<Vec<_>>().join(", "))
    });
    shown.collect()
}

#[test]
fn without_sources_the_system_chooses() {
    let config = taken("");
    assert_eq!(config.delivery.sources, [Source::default()]);
    assert_eq!(pools(&config), ["default: system x1"]);
}

#[test]
fn the_short_form_makes_a_source_of_each_address() {
    let config = taken("[delivery]\nsources = [\"192.0.2.1\", \"192.0.2.2\", \"2001:db8::1\"]\n");
    assert_eq!(names(&config), ["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(pools(&config), ["default: 192.0.2.1 x1, 192.0.2.2 x1, 2001:db8::1 x1"]);
    refused(
        "[delivery]\nsources = [\"192.0.2.1\", \"192.0.2.1\", \"::\"]\n",
        &[
            "c.toml:4:11: delivery.sources: 192.0.2.1 stands there twice; leave it there once",
            "c.toml:4:38: delivery.sources: :: cannot be a source; write the IP address that mail is sent from",
        ],
    );
    refused(
        "[delivery]\nsources = [\"192.0.2.9\"]\n[[source]]\nname = \"a\"\n",
        &["c.toml:4:11: delivery.sources: stands beside [[source]]; \
           write a [[source]] for each of its addresses instead"],
    );
}

#[test]
fn sources_have_names_ways_and_limits() {
    let config = taken(
        "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\nehlo_name = \"A.example.com\"\nmessages_per_second = 5\n\
         messages_per_day = 1000\n\
         [[source]]\nname = \"b\"\nsocks5 = \"10.0.0.1:1080\"\nsocks5_user = \"u\"\nsocks5_password_file = \"/p\"\n\
         [[source]]\nname = \"c\"\naddress = \"2001:db8::1\"\nhaproxy = \"[::1]:2525\"\n",
    );
    let [a, b, c] = &config.delivery.sources[..] else { panic!("{:?}", config.delivery.sources) };
    assert_eq!(a.ehlo_name.as_ref().unwrap().as_str(), "a.example.com");
    assert_eq!(a.egress, Egress::Direct);
    let login = crate::delivery::settings::Login { user: "u".to_owned(), password_file: "/p".into() };
    assert_eq!(b.egress, Egress::Socks5 { proxy: "10.0.0.1:1080".parse().unwrap(), login: Some(login) });
    assert_eq!((b.address, &b.ehlo_name), (None, &None));
    assert_eq!(c.egress, Egress::HaProxy { proxy: "[::1]:2525".parse().unwrap() });
    let rates = config.delivery.pools.source("a").unwrap().rates;
    assert_eq!(rates, Rates { second: Some(5), day: Some(1000), ..Rates::default() });
    assert!(config.delivery.pools.source("b").unwrap().rates.is_unlimited());
    assert_eq!(pools(&config), ["default: a x1, b x1, c x1"]);
}

#[test]
fn a_source_that_could_not_send_is_refused() {
    refused(
        "[[source]]\naddress = \"224.0.0.1\"\nehlo_name = \"mail\"\nmessages_per_hour = 0\n\
         [[source]]\nname = \"a b\"\nsocks5 = \"proxy:1080\"\nsocks5_user = \"u\"\n\
         [[source]]\nname = \"c\"\nhaproxy = \"10.0.0.1\"\nsocks5_password_file = \"/p\"\n\
         [[source]]\nname = \"d\"\nhaproxy = \"10.0.0.1:1\"\nsocks5 = \"10.0.0.1:1\"\naddress = \"192.0.2.1\"\n",
        &[
            "c.toml:3:1: source.name: is missing; write name = \"mta-1\", to be seen in pools and events",
            "c.toml:4:11: source.address: 224.0.0.1 cannot be a source; write the IP address that mail is sent from",
            "c.toml:5:13: source.ehlo_name: \"mail\" is not a fully qualified host name; \
             write a full name such as \"mail.example.com\"",
            "c.toml:6:21: source.messages_per_hour: 0 is out of range; write a whole number from 1 to 1000000000",
            "c.toml:7:1: source.socks5_password_file: is missing, and socks5_user needs it; \
             write both, or none; the file's first line is the password",
            "c.toml:8:8: source.name: \"a b\" cannot be a name; write 1 to 64 letters, digits, dots, colons, - or _",
            "c.toml:9:10: source.socks5: \"proxy:1080\" is not an address with a port; \
             write address and port of the proxy, such as \"10.0.0.1:1080\" or \"[2001:db8::1]:1080\"",
            "c.toml:13:11: source.haproxy: \"10.0.0.1\" is not an address with a port; \
             write address and port of the proxy, such as \"10.0.0.1:1080\" or \"[2001:db8::1]:1080\"",
            "c.toml:14:24: source.socks5_password_file: has no effect without socks5; \
             write socks5 = \"10.0.0.1:1080\", or remove it",
            "c.toml:17:11: source.haproxy: stands beside socks5; write one of the two",
        ],
    );
    refused(
        "[[source]]\nname = \"a\"\nhaproxy = \"10.0.0.1:1\"\n",
        &["c.toml:3:1: source.address: is missing, and haproxy needs it; \
           write the address that the proxy is to send from"],
    );
}

#[test]
fn no_two_sources_are_the_same() {
    refused(
        "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\n[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\n\
         [[source]]\nname = \"c\"\n[[source]]\nname = \"d\"\n",
        &[
            "c.toml:7:8: source.name: \"a\" is the name of an earlier source; give each source its own name",
            "c.toml:8:11: source.address: has the address and the way out of the source \"a\"; \
             give each source its own, or remove one of the two",
            "c.toml:12:8: source.name: has the address and the way out of the source \"c\"; \
             give each source its own, or remove one of the two",
        ],
    );
    taken(
        "[[source]]\nname = \"a\"\naddress = \"192.0.2.1\"\n\
         [[source]]\nname = \"b\"\naddress = \"192.0.2.1\"\nsocks5 = \"10.0.0.1:1080\"\n",
    );
}

#[test]
fn pools_are_sets_of_sources_with_weights() {
    let config = taken(&format!(
        "{}[[pool]]\nname = \"default\"\nsources = [\"a\", \"b\"]\nweights = {{ b = 3 }}\noverflow = \"rest\"\n\
         messages_per_minute = 60\n[[pool]]\nname = \"rest\"\nsources = [\"b\", \"c\"]\n",
        sources(&["a", "b", "c"])
    ));
    assert_eq!(pools(&config), ["default: a x1, b x3", "rest: b x1, c x1"]);
    let default = config.delivery.pools.pool_or_default("");
    assert_eq!((default.overflow.as_ref().map(PoolName::as_str), default.rates.minute), (Some("rest"), Some(60)));
}

#[test]
fn a_pool_that_could_not_send_is_refused() {
    let pool = |text: &str| format!("source = [{{ name = \"a\" }}]\n{text}");
    refused(
        &pool("[[pool]]\nname = \"shop\"\nsources = [\"a\"]\n"),
        &["c.toml:4:1: pool: there is no pool named \"default\"; \
           add a [[pool]] with name = \"default\": mail of tenants without a pool of their own goes by it"],
    );
    refused(
        &pool(
            "[[pool]]\nname = \"default\"\nsources = [\"x\", \"a\", \"a\"]\nweights = { a = 0, b = 2 }\noverflow = \"y\"\n",
        ),
        &[
            "c.toml:6:11: pool.sources: \"a\" stands there twice; leave it there once; weights give it a larger share",
            "c.toml:6:12: pool.sources: there is no source named \"x\"; add [[source]] with name = \"x\"",
            "c.toml:7:13: pool.weights: 0 is out of range; write a whole number from 1 to 1000",
            "c.toml:7:20: pool.weights: \"b\" is not among the sources of this pool; add it to sources, or remove it",
            "c.toml:8:12: pool.overflow: there is no pool named \"y\"; add [[pool]] with name = \"y\"",
        ],
    );
    refused(
        &pool("[[pool]]\nname = \"default\"\nsources = []\n[[pool]]\nname = \"default\"\nweights = 3\n"),
        &[
            "c.toml:6:11: pool.sources: names no source; write sources = [\"a\"], names of [[source]]",
            "c.toml:7:1: pool.sources: is missing; write sources = [\"a\"], names of [[source]]",
            "c.toml:8:8: pool.name: \"default\" is the name of an earlier pool; give each pool its own name",
            "c.toml:9:11: pool.weights: expected a table, found the number 3; write weights = { a = 3 }",
        ],
    );
    refused(
        &pool(
            "[[pool]]\nname = \"default\"\nsources = [\"a\"]\noverflow = \"b\"\n\
             [[pool]]\nname = \"b\"\nsources = [\"a\"]\noverflow = \"default\"\n",
        ),
        &["c.toml:11:12: pool.overflow: leads back to this pool; end the chain at a pool without overflow"],
    );
}

#[test]
fn a_source_in_no_pool_is_warned_of() {
    warned(
        &format!("{}[[pool]]\nname = \"default\"\nsources = [\"a\"]\n", sources(&["a", "b"])),
        &["c.toml:9:1: pool: source \"b\" is in no pool, so nothing is sent from it; \
           add it to the sources of a [[pool]]"],
    );
}

#[test]
fn tenants_and_sets_choose_pools_and_priorities() {
    let text = format!(
        "{}[[pool]]\nname = \"default\"\nsources = [\"a\"]\n[[pool]]\nname = \"own\"\nsources = [\"a\"]\n\
         [[tenant]]\nname = \"shop\"\npool = \"own\"\npriority = \"high\"\n\
         [[configuration_set]]\nname = \"news\"\npriority = \"bulk\"\n",
        sources(&["a"])
    );
    let config = taken(&text);
    let tenant = config.admission.tenant("shop").unwrap();
    assert_eq!(tenant.way, Way { pool: PoolName::parse("own"), priority: Some(Priority::High) });
    let set = config.admission.set("news").unwrap();
    assert_eq!(set.way, Way { pool: None, priority: Some(Priority::Bulk) });
    refused(
        "[[tenant]]\nname = \"shop\"\npool = \"own\"\npriority = \"urgent\"\n",
        &[
            "c.toml:5:8: tenant.pool: there is no pool named \"own\"; add [[pool]] with name = \"own\"",
            "c.toml:6:12: tenant.priority: \"urgent\" is not known; write \"high\" or \"normal\" or \"bulk\"",
        ],
    );
}

/// The config's checks say at their keys all that `Pools` would refuse: it is never replaced in silence.
#[test]
fn whatever_pools_are_refused_there_is_an_error() {
    let named = SourceName::default();
    assert_eq!(taken("").delivery.pools.source(named.as_str()).unwrap().name, named);
    for overflow in ["a", "b", "c", "default", ""] {
        for sources in ["", "\"s\"", "\"s\", \"s\"", "\"t\""] {
            let overflow = if overflow.is_empty() { String::new() } else { format!("overflow = \"{overflow}\"\n") };
            let text = format!(
                "{}source = [{{ name = \"s\" }}]\n[[pool]]\nname = \"default\"\nsources = [\"s\"]\n\
                 [[pool]]\nname = \"a\"\nsources = [{sources}]\n{overflow}\
                 [[pool]]\nname = \"b\"\nsources = [\"s\"]\noverflow = \"a\"\n",
                rejection_test::HEAD
            );
            match Config::parse(&text, "c.toml") {
                Ok(config) => assert_eq!(config.delivery.pools.pools().len(), 3, "{text}"),
                Err(errors) => assert!(!errors.errors.is_empty()),
            }
        }
    }
}

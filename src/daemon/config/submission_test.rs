//! Tenants, credentials, identities and configuration sets: what is taken, what is refused, with the words and places.

use std::time::Duration;

use super::rejection_test::{refused, taken};
use crate::admission::directory::{Quota, Senders};
use crate::admission::identity::IdentityName;
use crate::queue::Granularity;
use crate::types::SuppressionReasons;

const HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$bm90IGEgcmVhbCBoYXNoIGF0IGFsbCwgbm8gbm8gbm8";

#[test]
fn everything_about_submission_is_read() {
    let directory = taken(&format!(
        "[relay]\ntenant = \"shop\"\n\
         [sending]\nenabled = false\nquota_per_day = 10\nconfiguration_set = \"news\"\n\
         [[tenant]]\nname = \"shop\"\nsenders = \"any\"\nsuppression = [\"complaint\"]\nquota_per_second = 14\n\
         [[tenant]]\nname = \"lab\"\nsandbox = true\nsandbox_recipients = [\"qa@x.test\"]\nquota_per_day = 1000\nsending = false\n\
         [[configuration_set]]\nname = \"news\"\ntenants = [\"shop\"]\ntls = \"require\"\ndelivery_time_max = \"14h\"\ntags = [\"a=b\"]\n\
         suppression = []\nsending = false\n\
         [[identity]]\nname = \"Shop.test\"\ntenant = \"shop\"\nconfiguration_set = \"news\"\ndelegates = [\"lab-1\"]\n\
         [[credential]]\nuser = \"shop-1\"\nsecrets = [\"{HASH}\", \"{HASH}\"]\ntenant = \"shop\"\nnetworks = [\"10.0.0.0/8\"]\n\
         identities = [\"news.shop.test\"]\nconfiguration_set = \"news\"\nquota_per_day = 5\n"
    ))
    .admission;
    assert_eq!((directory.sending, directory.quota), (false, Quota { per_day: Some(10), per_second: None }));
    assert_eq!(directory.configuration_set.as_ref().map(|set| set.as_str()), Some("news"));
    let shop = directory.tenant("shop").unwrap();
    assert_eq!((shop.senders, shop.quota.per_second, shop.sending), (Senders::Any, Some(14), true));
    assert_eq!(shop.suppression, SuppressionReasons { bounce: false, complaint: true });
    assert_eq!(directory.relay.tenant, *shop);
    let lab = directory.tenant("lab").unwrap();
    assert_eq!(lab.quota, Quota { per_day: Some(200), per_second: Some(1) }, "the sandbox is narrower");
    assert_eq!((lab.sandbox.as_ref().map(Vec::len), lab.sending, lab.senders), (Some(1), false, Senders::Identities));
    let set = directory.set("news").unwrap();
    assert!(set.tls_required && !set.sending);
    assert_eq!(set.lifetime, Some(Duration::from_secs(14 * 3_600)));
    assert_eq!(set.suppression, Some(SuppressionReasons { bounce: false, complaint: false }));
    assert_eq!(set.tags, [("a".to_owned(), "b".to_owned())]);
    let identity = directory.identity(&IdentityName::parse("shop.test").unwrap()).unwrap();
    assert_eq!((identity.tenant.as_str(), identity.delegates.len()), ("shop", 1));
    let credential = directory.credential("shop-1").unwrap();
    assert_eq!((credential.secrets.len(), credential.networks.len(), credential.quota.per_day), (2, 1, Some(5)));
    assert_eq!(credential.tenant, *shop);
}

#[test]
fn without_tenants_relay_clients_may_send_as_anybody() {
    let directory = taken("").admission;
    assert_eq!((directory.relay.tenant.name.as_str(), directory.relay.tenant.senders), ("local", Senders::Any));
    assert!(!directory.has_credentials() && !directory.has_sets() && directory.sending);
    let directory = taken("[[tenant]]\nname = \"local\"\n").admission;
    assert_eq!(directory.relay.tenant.senders, Senders::Identities, "a tenant of that name takes its place");
}

#[test]
fn names_that_refer_to_nothing_are_refused() {
    refused(
        "[relay]\ntenant = \"a\"\n[sending]\nconfiguration_set = \"b\"\n[[configuration_set]]\nname = \"c\"\ntenants = [\"d\"]\n\
         [[identity]]\nname = \"e.test\"\ntenant = \"f\"\n[[events.file]]\nconfiguration_sets = [\"g\"]\n",
        &[
            "c.toml:4:10: relay.tenant: there is no tenant named \"a\"; add [[tenant]] with name = \"a\"",
            "c.toml:6:21: sending.configuration_set: there is no configuration_set named \"b\"; \
             add [[configuration_set]] with name = \"b\"",
            "c.toml:9:12: configuration_set.tenants: there is no tenant named \"d\"; add [[tenant]] with name = \"d\"",
            "c.toml:12:10: identity.tenant: there is no tenant named \"f\"; add [[tenant]] with name = \"f\"",
            "c.toml:14:23: events.file.configuration_sets: there is no configuration_set named \"g\"; \
             add [[configuration_set]] with name = \"g\"",
        ],
    );
}

#[test]
fn what_is_named_twice_is_refused() {
    refused(
        "[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"a\"\n[[identity]]\nname = \"e.test\"\ntenant = \"a\"\n\
         [[identity]]\nname = \"E.test\"\ntenant = \"a\"\n",
        &[
            "c.toml:6:8: tenant.name: \"a\" is the name of an earlier tenant; give each tenant its own name",
            "c.toml:11:8: identity.name: \"e.test\" is the name of an earlier identity; give each identity its own name",
        ],
    );
}

#[test]
fn wrong_values_are_refused_and_a_secret_that_stands_there_is_not_shown() {
    refused(
        "[[tenant]]\nname = \"a b\"\nsandbox_recipients = [\"@\"]\nsuppression = [\"bounces\"]\n\
         [[configuration_set]]\nname = \"s\"\ndelivery_time_max = \"1m\"\ntls = \"required\"\ntags = [\"a b=c\"]\nquota_per_second = 0\n",
        &[
            "c.toml:4:8: tenant.name: \"a b\" cannot be a name; write 1 to 64 letters, digits, - or _",
            "c.toml:5:22: tenant.sandbox_recipients: has no effect without the sandbox; write sandbox = true, or remove it",
            "c.toml:5:23: tenant.sandbox_recipients: \"@\" is neither a domain nor an address; write one such as \"example.com\" or \
             \"news@example.com\"; a domain covers its subdomains",
            "c.toml:6:16: tenant.suppression: \"bounces\" is not known; write \"bounce\"",
            "c.toml:9:21: configuration_set.delivery_time_max: \"1m\" is out of range; write one from \"5m\" to \"14h\"",
            "c.toml:10:7: configuration_set.tls: \"required\" is not known; write \"require\"",
            "c.toml:11:9: configuration_set.tags: \"a b=c\" is not a tag; write one such as \"team=shop\": letters, digits, _ and -",
            "c.toml:12:20: configuration_set.quota_per_second: 0 is out of range; write a whole number from 1 to 1000000",
        ],
    );
    refused(
        "[[tenant]]\nname = \"t\"\n[[credential]]\nuser = \"a b\"\nsecrets = [\"hunter2\"]\ntenant = \"t\"\n[[credential]]\n\
         user = \"u\"\ntenant = \"t\"\n",
        &[
            "c.toml:6:8: credential.user: \"a b\" cannot be a user name; write 1 to 128 octets without white space",
            "c.toml:7:12: credential.secrets: a secret is not a hash of argon2id; write what `posthaste credential hash` prints, \
             never the secret",
            "c.toml:9:1: credential.secrets: is missing, so nobody can log in; write secrets = [\"$argon2id$...\"], as \
             `posthaste credential hash` prints",
        ],
    );
}

/// The return path of a message from this identity, under the set "bulk" or none.
fn return_path(
    directory: &crate::admission::Directory,
    identity: &str,
    set: Option<&str>,
) -> Option<(String, Granularity)> {
    let identity = IdentityName::parse(identity).and_then(|name| directory.identity(&name));
    let set = set.and_then(|set| directory.set(set));
    let path = directory.return_path(identity.map(|identity| &**identity), set.map(|set| &**set))?;
    Some((path.domain.to_string(), path.granularity))
}

#[test]
fn an_identity_has_its_own_return_path_or_that_of_its_tenants_domain_above_or_the_operators() {
    let text = "[[tenant]]\nname = \"shop\"\n[[tenant]]\nname = \"bank\"\n\
         [[configuration_set]]\nname = \"bulk\"\nreturn_path = \"per-message\"\n[[configuration_set]]\nname = \"plain\"\n\
         [[identity]]\nname = \"shop.test\"\ntenant = \"shop\"\nmail_from = \"Bounce.shop.test\"\n\
         [[identity]]\nname = \"news.shop.test\"\ntenant = \"shop\"\n\
         [[identity]]\nname = \"ann@news.shop.test\"\ntenant = \"shop\"\n\
         [[identity]]\nname = \"own.news.shop.test\"\ntenant = \"shop\"\nmail_from = \"r.own.news.shop.test\"\n\
         [[identity]]\nname = \"bank.shop.test\"\ntenant = \"bank\"\n\
         [[identity]]\nname = \"a.bank.shop.test\"\ntenant = \"shop\"\n";
    let directory = taken(text).admission;
    let expect = |identity, domain: Option<&str>| {
        let path = domain.map(|domain| (domain.to_owned(), Granularity::PerRecipient));
        assert_eq!(return_path(&directory, identity, None), path, "{identity}");
    };
    expect("shop.test", Some("bounce.shop.test"));
    expect("news.shop.test", Some("bounce.shop.test"));
    expect("ann@news.shop.test", Some("bounce.shop.test"));
    expect("own.news.shop.test", Some("r.own.news.shop.test"));
    expect("a.bank.shop.test", Some("bounce.shop.test"));
    expect("bank.shop.test", None);
    let per_message = return_path(&directory, "shop.test", Some("bulk")).unwrap();
    assert_eq!(per_message, ("bounce.shop.test".to_owned(), Granularity::PerMessage));
    assert_eq!(return_path(&directory, "shop.test", Some("plain")).unwrap().1, Granularity::PerRecipient);
    let directory = taken(&format!("{text}[return_path]\ndomain = \"bounces.op.test\"\n")).admission;
    assert_eq!(return_path(&directory, "bank.shop.test", None).unwrap().0, "bounces.op.test");
    assert_eq!(return_path(&directory, "nobody.test", None).unwrap().0, "bounces.op.test");
    assert_eq!(return_path(&directory, "news.shop.test", None).unwrap().0, "bounce.shop.test");
}

#[test]
fn return_paths_that_could_not_work_are_refused() {
    refused(
        &format!(
            "[queue]\nlifetime = \"30d\"\n[[tenant]]\nname = \"shop\"\n\
             [[identity]]\nname = \"shop.test\"\ntenant = \"shop\"\nmail_from = \"shop.test\"\n\
             [[identity]]\nname = \"a.test\"\ntenant = \"shop\"\nmail_from = \"bounce.ba.test\"\n\
             [[identity]]\nname = \"b.test\"\ntenant = \"shop\"\nmail_from = \"my_bounces.b.test\"\n\
             [return_path]\ndomain = \"{}.test\"\nkey_age_max = \"1d\"\ntoken_lifetime = \"20d\"\nkey_file = \"keys\"\n",
            ["x"; 100].join(".")
        ),
        &[
            "c.toml:10:13: identity.mail_from: \"shop.test\" is no subdomain of shop.test; write one such as \"bounce.shop.test\", with \
             an MX record and SPF",
            "c.toml:14:13: identity.mail_from: \"bounce.ba.test\" is no subdomain of a.test; write one such as \"bounce.a.test\", with \
             an MX record and SPF",
            "c.toml:18:13: identity.mail_from: \"my_bounces.b.test\" cannot be the domain of a return path: an underscore is not \
             allowed in mail domains; write one such as \"bounces.example.net\", with an MX record and SPF",
            &format!(
                "c.toml:20:10: return_path.domain: \"{}.test\" cannot be the domain of a return path: it is too long for a token \
                 before it; write one such as \"bounces.example.net\", with an MX record and SPF",
                ["x"; 100].join(".")
            ),
            "c.toml:22:18: return_path.token_lifetime: messages may wait for 30d, longer than their tokens count; lengthen it, or \
             shorten lifetime in [queue]",
            "c.toml:23:12: return_path.key_file: \"keys\" is not an absolute path; write the whole path, from / on",
        ],
    );
    let many_keys = "[return_path]\nkey_age_max = \"1d\"\ntoken_lifetime = \"201d\"\n";
    let errors = super::rejection_test::parse(&format!("{}{many_keys}", super::rejection_test::HEAD)).unwrap_err();
    assert!(errors.to_string().contains("return_path.key_age_max: asks for more than 200 keys"), "{errors}");
    taken("[return_path]\nkey_age_max = \"1d\"\ntoken_lifetime = \"200d\"\n");
}

//! Who may send as whom, over a small directory.

use std::time::Duration;

use proptest::prelude::*;

use super::directory::{ConfigurationSet, Name, Quota, Relay, Senders, Way};
use super::identity::{Identity, IdentityName};
use super::*;
use crate::message::{Claims, Control};
use crate::queue::Granularity;
use crate::types::{
    BodyKind, EmailAddress, Envelope, PoolName, Priority, Recipient, ReversePath, ScopeKind, SuppressionReasons,
};

const DAY: Duration = Duration::from_secs(86_400);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn identity_name(text: &str) -> IdentityName {
    IdentityName::parse(text).unwrap()
}

fn tenant(text: &str, senders: Senders) -> Tenant {
    Tenant {
        name: name(text),
        senders,
        sending: true,
        quota: Quota::default(),
        sandbox: None,
        suppression: SuppressionReasons::default(),
        way: Way::default(),
    }
}

fn identity(text: &str, tenant: &str, set: Option<&str>, delegates: &[&str]) -> Identity {
    Identity {
        mail_from: None,
        name: identity_name(text),
        tenant: name(tenant),
        configuration_set: set.map(name),
        forward_feedback: None,
        delegates: delegates.iter().map(|user| (*user).into()).collect(),
    }
}

fn credential(user: &str, tenant: &Arc<Tenant>) -> Credential {
    Credential {
        user: user.into(),
        secrets: vec!["hash-1".into(), "hash-2".into()],
        tenant: Arc::clone(tenant),
        networks: Vec::new(),
        identities: None,
        configuration_set: None,
        quota: Quota::default(),
    }
}

fn set(text: &str) -> ConfigurationSet {
    ConfigurationSet {
        return_path: Granularity::PerRecipient,
        is_bulk: false,
        unsubscribe_url: None,
        way: Way::default(),
        warmup: None,
        name: name(text),
        tenants: Vec::new(),
        sending: true,
        tls_required: false,
        lifetime: None,
        suppression: None,
        tags: Vec::new(),
        quota: Quota::default(),
    }
}

/// Tenants `shop` and `bank`; `shop.test` is the shop's, `pay.shop.test` the bank's; `boss@bank.test` is delegated to the shop.
fn directory() -> Directory {
    let local = Arc::new(tenant("local", Senders::Any));
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let mut directory = Directory::new(Relay { networks, tenant: local }, 4 * DAY);
    let (shop, bank) = (tenant("shop", Senders::Identities), tenant("bank", Senders::Identities));
    let (shop, bank) = (Arc::new(shop), Arc::new(bank));
    directory.add_tenant(Arc::clone(&shop));
    directory.add_tenant(Arc::clone(&bank));
    directory.add_credential(credential("shop-1", &shop));
    let limited = Some(vec![identity_name("news.shop.test")]);
    let networks = vec!["10.0.0.0/8".parse().unwrap()];
    directory.add_credential(Credential { identities: limited, networks, ..credential("shop-2", &shop) });
    let set_of_credential = Some(name("of-credential"));
    directory.add_credential(Credential { configuration_set: set_of_credential, ..credential("bank-1", &bank) });
    directory.add_identity(identity("shop.test", "shop", Some("of-domain"), &[]));
    directory.add_identity(identity("info@shop.test", "shop", Some("of-address"), &[]));
    directory.add_identity(identity("pay.shop.test", "bank", None, &[]));
    directory.add_identity(identity("bank.test", "bank", None, &[]));
    directory.add_identity(identity("boss@bank.test", "bank", None, &["shop-1"]));
    for text in ["of-domain", "of-address", "of-credential", "asked"] {
        directory.add_set(set(text));
    }
    directory.add_set(ConfigurationSet { tenants: vec![name("bank")], ..set("bank-only") });
    directory.add_set(ConfigurationSet { sending: false, ..set("stopped") });
    let lifetime = Some(Duration::from_secs(300));
    directory.add_set(ConfigurationSet { lifetime, ..set("short") });
    directory
}

fn proved(user: &str) -> Authenticated {
    Authenticated { user: user.into(), secret: "hash-2".into() }
}

fn admitted(directory: &Directory, user: &str) -> Grant {
    let credential = proved(user);
    let client = Client { address: "10.0.0.1".parse().unwrap(), credential: Some(&credential) };
    admit(directory, client, "a@shop.test").unwrap()
}

fn address(text: &str) -> EmailAddress {
    EmailAddress::parse(text, true).unwrap()
}

fn envelope(sender: &str, recipients: &[&str]) -> Envelope {
    let recipient = |text: &&str| Recipient { address: address(text), notify: None, orcpt: None };
    let reverse_path = if sender.is_empty() { ReversePath::Null } else { ReversePath::Mailbox(address(sender)) };
    Envelope {
        reverse_path,
        recipients: recipients.iter().map(recipient).collect(),
        body: BodyKind::SevenBit,
        smtputf8: false,
        ret: None,
        envid: None,
    }
}

fn from(texts: &[&str]) -> Claims {
    Claims { from: texts.iter().map(|text| Ok(address(text))).collect(), ..Claims::default() }
}

fn judge(user: &str, sender: &str, claims: &Claims, control: &Control) -> Result<Authority, Denial> {
    let directory = directory();
    let envelope = envelope(sender, &["r@x.test"]);
    authorize(&directory, &admitted(&directory, user), Submission { envelope: &envelope, claims, control })
}

fn judged(user: &str, sender: &str, claims: &Claims) -> Result<Authority, Denial> {
    judge(user, sender, claims, &Control::default())
}

fn text(outcome: Result<Authority, Denial>) -> String {
    let reply = outcome.expect_err("a denial").reply();
    format!("{} {} {}", reply.code(), reply.enhanced().unwrap(), reply.text())
}

#[test]
fn relay_clients_send_as_the_relay_tenant_and_others_need_a_credential() {
    let directory = directory();
    let client = |address: &str| Client { address: address.parse().unwrap(), credential: None };
    let grant = admit(&directory, client("127.0.0.1"), "").unwrap();
    assert_eq!((&*grant.caller, grant.tenant.name.as_str()), ("network", "local"));
    assert_eq!(admit(&directory, client("10.0.0.1"), "").unwrap_err(), Denial::NotARelayClient);
}

#[test]
fn a_credential_counts_from_its_networks_and_while_its_secret_stands_in_the_config() {
    let mut directory = directory();
    let (one, two) = (proved("shop-1"), proved("shop-2"));
    let client = |address: &str, credential| Client { address: address.parse().unwrap(), credential: Some(credential) };
    assert!(admit(&directory, client("10.1.1.1", &two), "a@shop.test").is_ok());
    let denial = admit(&directory, client("192.0.2.1", &two), "a@shop.test").unwrap_err();
    assert_eq!(
        denial.reply().text(),
        "Access denied: User shop-2 is not authorized to perform ses:SendRawEmail on resource a@shop.test"
    );
    assert!(admit(&directory, client("192.0.2.1", &one), "a@shop.test").is_ok());
    let shop = Arc::clone(directory.tenant("shop").unwrap());
    directory.add_credential(Credential { secrets: vec!["hash-3".into()], ..credential("shop-1", &shop) });
    assert_eq!(admit(&directory, client("192.0.2.1", &one), "").unwrap_err(), Denial::Revoked);
    assert_eq!(admit(&directory, client("127.0.0.1", &proved("nobody")), "").unwrap_err(), Denial::Revoked);
}

#[test]
fn every_sender_of_a_message_must_be_of_the_callers_identities() {
    assert!(judged("shop-1", "a@shop.test", &from(&["b@news.shop.test"])).is_ok());
    assert!(judged("shop-1", "", &from(&["b@shop.test"])).is_ok(), "the null reverse-path claims nothing");
    let mut claims = from(&["a@shop.test", "x@evil.test", "y@pay.shop.test"]);
    claims.sender = vec![Ok(address("boss@bank.test"))];
    claims.return_path = vec![Err("no address".into()), Ok(address("x@evil.test"))];
    assert_eq!(
        text(judged("shop-1", "z@evil.test", &claims)),
        "554 5.7.1 Message rejected: Email address is not verified. The following identities failed the check: \
         z@evil.test, x@evil.test, y@pay.shop.test, boss@bank.test, no address"
    );
    assert_eq!(
        text(judged("shop-1", "a@shop.test", &Claims::default())),
        "554 5.6.0 Transaction failed: Missing header 'From'."
    );
}

#[test]
fn a_credential_can_be_limited_to_some_identities() {
    assert!(judged("shop-2", "a@news.shop.test", &from(&["b@x.news.shop.test"])).is_ok());
    assert_eq!(
        text(judged("shop-2", "a@news.shop.test", &from(&["b@shop.test"]))),
        "554 5.7.1 Access denied: User shop-2 is not authorized to perform ses:SendRawEmail on resource b@shop.test"
    );
}

#[test]
fn a_delegate_sends_as_an_identity_that_it_names() {
    let arn = |name: &str| Some(format!("arn:aws:ses:us-east-1:123456789012:identity/{name}"));
    let boss = from(&["boss@bank.test"]);
    assert!(judged("shop-1", "boss@bank.test", &boss).is_err());
    let control = Control { source_arn: arn("boss@bank.test"), ..Control::default() };
    let authority = judge("shop-1", "boss@bank.test", &boss, &control).unwrap();
    assert_eq!(authority.tenant.name.as_str(), "shop", "it counts against the delegate");
    assert_eq!(authority.identity.unwrap().name, identity_name("boss@bank.test"));
    let control = Control { from_arn: arn("boss@bank.test"), ..Control::default() };
    assert!(judge("shop-1", "a@shop.test", &boss, &control).is_ok());
    assert!(judge("shop-1", "boss@bank.test", &boss, &control).is_err(), "the source is not delegated by it");
    for denied in ["bank.test", "evil.test", "no name"] {
        let control = Control { source_arn: arn(denied), ..Control::default() };
        let expected = format!(
            "554 5.7.1 Access denied: User shop-1 is not authorized to perform ses:SendRawEmail on resource {denied}"
        );
        assert_eq!(text(judge("shop-1", "a@shop.test", &from(&["a@shop.test"]), &control)), expected);
    }
}

#[test]
fn the_configuration_set_comes_from_header_credential_identity_default() {
    let chosen = |user: &str, sender: &str, asked: Option<&str>| {
        let control = Control { configuration_set: asked.map(str::to_owned), ..Control::default() };
        judge(user, sender, &from(&[sender]), &control).map(|authority| authority.set.unwrap().name.to_string())
    };
    assert_eq!(chosen("shop-1", "a@shop.test", Some("asked")).unwrap(), "asked");
    assert_eq!(chosen("bank-1", "a@bank.test", None).unwrap(), "of-credential");
    assert_eq!(chosen("shop-1", "a@news.shop.test", None).unwrap(), "of-domain");
    assert_eq!(chosen("shop-1", "INFO@shop.test", None).unwrap(), "of-address");
    assert_eq!(chosen("bank-1", "a@bank.test", Some("bank-only")).unwrap(), "bank-only");
    for refused in ["bank-only", "nowhere", "no name!"] {
        let expected = format!("554 5.7.1 Message rejected: Configuration set {refused} does not exist");
        let control = Control { configuration_set: Some(refused.to_owned()), ..Control::default() };
        assert_eq!(text(judge("shop-1", "a@shop.test", &from(&["a@shop.test"]), &control)), expected);
    }
}

#[test]
fn pool_and_priority_come_from_message_set_tenant_default() {
    let own = PoolName::parse("own").unwrap();
    let check = |of_tenant: Way, set: Option<ConfigurationSet>, asked: Option<Priority>, expected: (&str, Priority)| {
        let mut directory = directory();
        let shop = Tenant { way: of_tenant, ..tenant("shop", Senders::Identities) };
        directory.add_credential(credential("shop-1", &Arc::new(shop)));
        let set_name = set.as_ref().map_or("asked", |set| set.name.as_str()).to_owned();
        set.into_iter().for_each(|set| directory.add_set(set));
        let control = Control { priority: asked.map(Ok), configuration_set: Some(set_name), ..Control::default() };
        let (envelope, claims) = (envelope("a@shop.test", &["r@x.test"]), from(&["a@shop.test"]));
        let submission = Submission { envelope: &envelope, claims: &claims, control: &control };
        let authority = authorize(&directory, &admitted(&directory, "shop-1"), submission).unwrap();
        assert_eq!((authority.pool.as_str(), authority.priority), expected);
    };
    let way = |pool: Option<&PoolName>, priority| Way { pool: pool.cloned(), priority };
    let of_tenant = || way(Some(&own), Some(Priority::High));
    check(Way::default(), None, None, ("default", Priority::Normal));
    check(of_tenant(), None, None, ("own", Priority::High));
    let shared = PoolName::parse("shared");
    let of_set = || ConfigurationSet { way: way(shared.as_ref(), Some(Priority::Normal)), ..set("way") };
    check(of_tenant(), Some(of_set()), None, ("shared", Priority::Normal));
    check(of_tenant(), Some(of_set()), Some(Priority::Bulk), ("shared", Priority::Bulk));
    // A set that says nothing of a priority and is for bulk mail is before the tenant.
    let bulk = |way| ConfigurationSet { is_bulk: true, way, ..set("bulk") };
    check(of_tenant(), Some(bulk(Way::default())), None, ("own", Priority::Bulk));
    check(of_tenant(), Some(bulk(way(None, Some(Priority::Normal)))), None, ("own", Priority::Normal));
}

#[test]
fn a_priority_that_is_none_is_refused() {
    let control = Control { priority: Some(Err("urgent".to_owned())), ..Control::default() };
    let outcome = judge("shop-1", "a@shop.test", &from(&["a@shop.test"]), &control);
    assert_eq!(
        text(outcome),
        "554 5.6.0 Message rejected: X-Posthaste-Priority \"urgent\" is not high, normal or bulk"
    );
}

#[test]
fn what_is_paused_is_refused_for_now() {
    let control = Control { configuration_set: Some("stopped".to_owned()), ..Control::default() };
    let outcome = judge("shop-1", "a@shop.test", &from(&["a@shop.test"]), &control);
    assert_eq!(text(outcome), "454 4.7.0 Sending is paused for configuration set stopped");
    let mut directory = directory();
    let local = Client { address: "127.0.0.1".parse().unwrap(), credential: None };
    let shop = Tenant { sending: false, ..tenant("shop", Senders::Identities) };
    directory.add_credential(credential("shop-1", &Arc::new(shop)));
    let proof = proved("shop-1");
    let denial = admit(&directory, Client { credential: Some(&proof), ..local }, "").unwrap_err();
    assert_eq!(denial, Denial::Paused("tenant shop".into()));
    assert!(admit(&directory, local, "").is_ok());
    directory.sending = false;
    assert_eq!(admit(&directory, local, "").unwrap_err(), Denial::Paused("this server".into()));
}

#[test]
fn a_set_shortens_the_lifetime_and_never_lengthens_it() {
    let control = Control { configuration_set: Some("short".to_owned()), ..Control::default() };
    let authority = judge("shop-1", "a@shop.test", &from(&["a@shop.test"]), &control).unwrap();
    assert_eq!(authority.lifetime, Duration::from_secs(300));
    assert_eq!(judged("shop-1", "a@shop.test", &from(&["a@shop.test"])).unwrap().lifetime, 4 * DAY);
}

#[test]
fn in_the_sandbox_only_listed_recipients_get_mail() {
    let directory = directory();
    let mut grant = admitted(&directory, "shop-1");
    let sandbox = Some(vec![identity_name("qa@shop.test"), identity_name("lab.test")]);
    grant.tenant = Arc::new(Tenant { sandbox, ..tenant("shop", Senders::Identities) });
    let judge = |recipients: &[&str]| {
        let envelope = envelope("a@shop.test", recipients);
        let (claims, control) = (from(&["a@shop.test"]), Control::default());
        authorize(&directory, &grant, Submission { envelope: &envelope, claims: &claims, control: &control })
    };
    assert!(judge(&["QA@shop.test", "x@sub.lab.test"]).is_ok());
    let denial = judge(&["qa@shop.test", "x@y.test", "other@shop.test"]).unwrap_err();
    assert_eq!(denial, Denial::NotVerified(vec!["x@y.test".into(), "other@shop.test".into()]));
}

#[test]
fn without_configured_sets_their_names_are_tags() {
    let local = Arc::new(tenant("local", Senders::Any));
    let directory = Directory::new(Relay { networks: vec!["::1/128".parse().unwrap()], tenant: local }, DAY);
    let grant = admit(&directory, Client { address: "::1".parse().unwrap(), credential: None }, "").unwrap();
    let envelope = envelope("a@shop.test", &["r@x.test"]);
    let control = Control { configuration_set: Some("any thing".to_owned()), ..Control::default() };
    let submission = Submission { envelope: &envelope, claims: &Claims::default(), control: &control };
    let authority = authorize(&directory, &grant, submission).unwrap();
    assert!(authority.set.is_none());
    assert_eq!(authority.set_name.as_deref(), Some("any thing"));
}

proptest! {
    /// Whatever is claimed, what passes has only senders of the tenant's own most specific identities.
    #[test]
    fn nothing_passes_with_a_foreign_sender(
        senders in prop::collection::vec("(a|info|boss)@((news|pay)\\.)?(shop|bank|evil)\\.test", 1..4),
        source in "(a|boss)@(shop|bank)\\.test"
    ) {
        let claims = from(&senders.iter().map(String::as_str).collect::<Vec<_>>());
        let all_own = senders.iter().chain([&source]).all(|sender| {
            (sender.ends_with("@shop.test") || sender.ends_with(".shop.test")) && !sender.ends_with("pay.shop.test")
        });
        prop_assert_eq!(judged("shop-1", &source, &claims).is_ok(), all_own);
    }
}

#[test]
fn who_is_paused_for_its_reputation_is_refused_and_nobody_else() {
    let directory = directory();
    let scope = |kind, name: &str| crate::types::ReputationScope::new(kind, name);
    let paused = [scope(ScopeKind::Tenant, "bank"), scope(ScopeKind::ConfigurationSet, "asked")];
    directory.pauses.replace(paused.iter());
    let admitted = |user: &str| {
        let proved = Authenticated { user: user.into(), secret: "hash-1".into() };
        let client = Client { address: "10.0.0.1".parse().unwrap(), credential: Some(&proved) };
        admit(&directory, client, "a@shop.test")
    };
    assert_eq!(admitted("bank-1").unwrap_err(), Denial::Paused("tenant bank".into()));
    assert_eq!(admitted("bank-1").unwrap_err().reply().to_string(), "454 4.7.0 Sending is paused for tenant bank");
    assert!(admitted("shop-1").is_ok());
    // A reload goes on with the same pauses; then they end.
    let mut reloaded = super::tests::directory();
    reloaded.pauses = Arc::clone(&directory.pauses);
    assert!(
        reloaded.pauses.has_set("asked") && !reloaded.pauses.has_set("bank") && !reloaded.pauses.has_tenant("asked")
    );
    directory.pauses.replace(std::iter::empty());
    assert!(admitted("bank-1").is_ok());
    assert!(!reloaded.pauses.has_set("asked"));
}

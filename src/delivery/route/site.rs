//! Names of sites: destinations that share one set of hosts, and so one set of limits.

use crate::delivery::settings::{NextHop, RouteRule, TlsMode};
use crate::queue::fnv1a;
use crate::scheduler::SiteName;
use crate::types::Domain;

/// Longest name, in octets; longer sets of hosts are shortened to their first host, a count and a hash.
const SITE_NAME_BYTES_MAX: usize = 200;

/// The site of MX hosts, whatever their order and preferences: their names, sorted, joined by commas. One host
/// alone, or the domain itself where it has no MX, gives just that name.
pub fn site_of_hosts<'a>(hosts: impl IntoIterator<Item = &'a Domain>) -> SiteName {
    let mut names: Vec<&str> = hosts.into_iter().map(Domain::as_str).collect();
    names.sort_unstable();
    names.dedup();
    let joined = names.join(",");
    if joined.len() <= SITE_NAME_BYTES_MAX {
        return SiteName::new(&joined);
    }
    // A name has at most 255 octets; the hash still tells apart what the cut makes equal.
    let first = names.first().copied().unwrap_or_default();
    let shown = first.get(..first.len().min(SITE_NAME_BYTES_MAX - 48)).unwrap_or_default();
    SiteName::new(&format!("{shown},+{}#{:032x}", names.len() - 1, fnv1a(joined.as_bytes())))
}

/// The site of a route of the config: `smarthost:host:port`. What must not share connections with it stands in the
/// name as well: another login (`smarthost:user@host:port`), or another demand on TLS (`;tls`, `;clear`).
pub fn site_of_rule(rule: &RouteRule) -> SiteName {
    let login = rule.login.as_ref().map_or_else(String::new, |login| format!("{}@", login.user));
    let host = match &rule.host {
        NextHop::Host(host) => host.to_string(),
        NextHop::Address(address) if address.is_ipv6() => format!("[{address}]"),
        NextHop::Address(address) => address.to_string(),
    };
    let tls = match rule.tls {
        TlsMode::Opportunistic => "",
        TlsMode::Encrypt => ";encrypt",
        TlsMode::Require => ";tls",
        TlsMode::None => ";clear",
    };
    SiteName::new(&format!("smarthost:{login}{host}:{}{tls}", rule.port))
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::delivery::settings::{DomainPattern, Login};

    fn hosts(names: &[&str]) -> Vec<Domain> {
        names.iter().map(|name| Domain::parse(name).unwrap()).collect()
    }

    #[test]
    fn the_order_of_hosts_does_not_matter() {
        let site = site_of_hosts(&hosts(&["mx2.a.test", "mx1.a.test", "mx2.a.test"]));
        assert_eq!(site.as_str(), "mx1.a.test,mx2.a.test");
        assert_eq!(site_of_hosts(&hosts(&["mx1.a.test", "mx2.a.test"])), site);
        assert_eq!(site_of_hosts(&hosts(&["a.test"])).as_str(), "a.test");
    }

    #[test]
    fn a_long_set_gets_a_short_name_that_never_changes() {
        let many: Vec<Domain> =
            (0..30).map(|number| Domain::parse(&format!("mx{number}.long-provider.test")).unwrap()).collect();
        let site = site_of_hosts(&many);
        assert_eq!(site.as_str(), "mx0.long-provider.test,+29#232a7666c0391fa42fbf63baa292f05e");
        assert_ne!(site_of_hosts(many.iter().skip(1)), site);
        let longest = Domain::parse(&format!("{0}.{0}.{0}.{1}", "a".repeat(63), "b".repeat(60))).unwrap();
        assert!(site_of_hosts([&longest]).as_str().len() <= SITE_NAME_BYTES_MAX);
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        // From the test vectors of the FNV draft.
        assert_eq!(fnv1a(b""), 0x6c62272e07bb014262b821756295c58d);
        assert_eq!(fnv1a(b"a"), 0xd228cb696f1a8caf78912b704e4a8964);
    }

    #[test]
    fn smart_hosts_are_told_apart_by_what_must_not_share_a_connection() {
        let mut rule = RouteRule {
            domains: DomainPattern::All,
            host: NextHop::Host(Domain::parse("relay.test").unwrap()),
            port: 587,
            tls: TlsMode::Opportunistic,
            login: None,
        };
        assert_eq!(site_of_rule(&rule).as_str(), "smarthost:relay.test:587");
        rule.login = Some(Login { user: "app".to_owned(), password_file: PathBuf::from("/secret") });
        rule.tls = TlsMode::Require;
        assert_eq!(site_of_rule(&rule).as_str(), "smarthost:app@relay.test:587;tls");
        rule.login = None;
        rule.host = NextHop::Address("2001:db8::1".parse().unwrap());
        rule.tls = TlsMode::None;
        assert_eq!(site_of_rule(&rule).as_str(), "smarthost:[2001:db8::1]:587;clear");
    }
}

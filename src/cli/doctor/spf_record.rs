//! The text of SPF records (RFC 7208 §4.6, §12): terms, what they cost in lookups, and records with sources added.

use std::net::IpAddr;

/// Whether a TXT record is an SPF record at all (RFC 7208 §4.5).
pub(super) fn is_spf(text: &str) -> bool {
    let Some((version, rest)) = text.split_at_checked(6) else { return false };
    version.eq_ignore_ascii_case("v=spf1") && (rest.is_empty() || rest.starts_with(' '))
}

/// One mechanism or modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Term<'a> {
    text: &'a str,
    /// `include`, `ip4`, `redirect` and so on, as written.
    name: &'a str,
    /// What stands behind the colon, or the equals sign of a modifier.
    value: &'a str,
    is_modifier: bool,
}

impl<'a> Term<'a> {
    fn parse(text: &'a str) -> Self {
        let bare = text.strip_prefix(['+', '-', '~', '?']).unwrap_or(text);
        let end = bare.find([':', '/', '=']).unwrap_or(bare.len());
        let (name, rest) = bare.split_at_checked(end).unwrap_or((bare, ""));
        let is_modifier = rest.starts_with('=');
        let value = if is_modifier || rest.starts_with(':') { rest.get(1..).unwrap_or_default() } else { "" };
        Self { text, name, value, is_modifier }
    }

    fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }

    pub(super) fn is_all(&self) -> bool {
        !self.is_modifier && self.is("all")
    }

    fn is_redirect(&self) -> bool {
        self.is_modifier && self.is("redirect")
    }

    /// `all` or `+all`: anybody may send.
    pub(super) fn allows_everybody(&self) -> bool {
        self.is_all() && !self.text.starts_with(['-', '~', '?'])
    }

    /// [`Term::allows_everybody`] of a word.
    pub(super) fn is_open(word: &str) -> bool {
        Term::parse(word).allows_everybody()
    }

    /// Whether it counts against the limit of ten (RFC 7208 §4.6.4).
    fn costs_a_lookup(&self) -> bool {
        let mechanisms = ["include", "a", "mx", "ptr", "exists"];
        self.is_redirect() || (!self.is_modifier && mechanisms.iter().any(|name| self.is(name)))
    }

    /// The domain whose record is read in its place, as written.
    fn target(&self) -> Option<&'a str> {
        (self.is_redirect() || (!self.is_modifier && self.is("include"))).then_some(self.value)
    }

    /// Whether a receiver can make sense of it; an unknown modifier is ignored, an unknown mechanism is an error.
    fn is_valid(&self) -> bool {
        if self.is_modifier {
            return !self.name.is_empty();
        }
        let network = |is_right: fn(&IpAddr) -> bool, bits_max: u8| {
            let (address, bits) = self.value.split_once('/').unwrap_or((self.value, "0"));
            address.parse().is_ok_and(|address| is_right(&address))
                && bits.parse().is_ok_and(|bits: u8| bits <= bits_max)
        };
        match self.name.to_ascii_lowercase().as_str() {
            "all" => self.value.is_empty(),
            "a" | "mx" | "ptr" => true,
            "include" | "exists" => !self.value.is_empty(),
            "ip4" => network(IpAddr::is_ipv4, 32),
            "ip6" => network(IpAddr::is_ipv6, 128),
            _ => false,
        }
    }
}

/// The terms behind `v=spf1`.
pub(super) fn terms(record: &str) -> Vec<Term<'_>> {
    record.split(' ').skip(1).filter(|word| !word.is_empty()).map(Term::parse).collect()
}

/// Terms that no receiver understands; one is enough to make the whole record an error.
pub(super) fn invalid_terms(record: &str) -> Vec<&str> {
    terms(record).iter().filter(|term| !term.is_valid()).map(|term| term.text).collect()
}

/// What one record costs, and the domains that are read in turn.
pub(super) struct Cost<'a> {
    pub(super) lookups: usize,
    pub(super) targets: Vec<&'a str>,
}

/// A `redirect` behind an `all` is never followed (RFC 7208 §6.1).
pub(super) fn cost(record: &str) -> Cost<'_> {
    let terms = terms(record);
    let has_all = terms.iter().any(Term::is_all);
    let counted = || terms.iter().filter(|term| term.costs_a_lookup() && !(has_all && term.is_redirect()));
    Cost { lookups: counted().count(), targets: counted().filter_map(Term::target).collect() }
}

/// A record that lets `sources` send.
pub(super) fn fresh(sources: &[IpAddr]) -> String {
    let mechanisms: Vec<String> = sources.iter().map(|source| format!("{} ", mechanism(*source))).collect();
    format!("v=spf1 {}-all", mechanisms.concat())
}

/// One record in place of `records`, with `sources` first, so that they cost no lookup; what no receiver understands is left
/// out, and `all` stays as the first record has it.
pub(super) fn with_sources(records: &[&str], sources: &[IpAddr]) -> String {
    let all_terms: Vec<Term<'_>> = records.iter().flat_map(|record| terms(record)).filter(Term::is_valid).collect();
    let mut words: Vec<String> = vec!["v=spf1".to_owned()];
    let mut add = |word: String| {
        if !words.iter().any(|other| other.eq_ignore_ascii_case(&word)) {
            words.push(word);
        }
    };
    sources.iter().for_each(|source| add(mechanism(*source)));
    let is_last = |term: &&Term<'_>| term.is_all() || term.is_redirect();
    all_terms.iter().filter(|term| !is_last(term)).for_each(|term| add(term.text.to_owned()));
    let last = all_terms.iter().find(|term| term.is_all()).or_else(|| all_terms.iter().find(|term| term.is_redirect()));
    match last {
        Some(term) => add(term.text.to_owned()),
        None if records.len() > 1 => add("~all".to_owned()),
        None => {}
    }
    words.join(" ")
}

fn mechanism(source: IpAddr) -> String {
    match source.to_canonical() {
        IpAddr::V4(address) => format!("ip4:{address}"),
        IpAddr::V6(address) => format!("ip6:{address}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn only_the_version_makes_an_spf_record() {
        for (text, expected) in [
            ("v=spf1 -all", true),
            ("V=SPF1", true),
            ("v=spf10 -all", false),
            ("v=spf1; -all", false),
            ("spf2.0/pra -all", false),
            ("", false),
            ("\u{e9}\u{e9}\u{e9}\u{e9}", false),
        ] {
            assert_eq!(is_spf(text), expected, "{text}");
        }
    }

    #[test]
    fn terms_that_ask_dns_cost_a_lookup() {
        for (record, lookups, targets) in [
            ("v=spf1 ip4:192.0.2.1 ip6:2001:db8::/32 -all", 0, vec![]),
            ("v=spf1 a mx:b.test ptr exists:%{i}.c.test include:d.test ~all", 5, vec!["d.test"]),
            ("v=spf1 A/24 +MX ?Include:e.test", 3, vec!["e.test"]),
            ("v=spf1 redirect=f.test", 1, vec!["f.test"]),
            ("v=spf1 redirect=f.test -all", 0, vec![]),
            ("v=spf1 exp=explain.test -all", 0, vec![]),
            ("v=spf1", 0, vec![]),
        ] {
            let found = cost(record);
            assert_eq!((found.lookups, found.targets), (lookups, targets), "{record}");
        }
    }

    #[test]
    fn what_no_receiver_understands_is_found() {
        for (record, expected) in [
            ("v=spf1 a mx ip4:192.0.2.0/24 unknown=x -all", vec![]),
            ("v=spf1 ipv4:192.0.2.1 -all", vec!["ipv4:192.0.2.1"]),
            (
                "v=spf1 ip4:192.0.2.300 ip4:192.0.2.1/33 ip6:192.0.2.1 -all",
                vec!["ip4:192.0.2.300", "ip4:192.0.2.1/33", "ip6:192.0.2.1"],
            ),
            ("v=spf1 include: 192.0.2.1 all:x", vec!["include:", "192.0.2.1", "all:x"]),
        ] {
            assert_eq!(invalid_terms(record), expected, "{record}");
        }
    }

    #[test]
    fn sources_come_first_and_the_rest_stays() {
        for (records, sources, expected) in [
            (vec!["v=spf1 -all"], vec!["192.0.2.1"], "v=spf1 ip4:192.0.2.1 -all"),
            (
                vec!["v=spf1  include:x.test ~all"],
                vec!["192.0.2.1", "2001:db8::1"],
                "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 include:x.test ~all",
            ),
            (vec!["v=spf1 a IP4:192.0.2.1"], vec!["192.0.2.1"], "v=spf1 ip4:192.0.2.1 a"),
            (vec!["v=spf1 a ?all", "v=spf1 mx a -all"], vec![], "v=spf1 a mx ?all"),
            (vec!["v=spf1 a", "v=spf1 mx"], vec![], "v=spf1 a mx ~all"),
            (vec!["v=spf1 redirect=x.test"], vec!["192.0.2.1"], "v=spf1 ip4:192.0.2.1 redirect=x.test"),
            (vec!["v=spf1 ipv4:192.0.2.1 mx -all"], vec!["192.0.2.1"], "v=spf1 ip4:192.0.2.1 mx -all"),
        ] {
            assert_eq!(with_sources(&records, &addresses(&sources)), expected, "{records:?}");
        }
        assert_eq!(fresh(&addresses(&["192.0.2.1", "2001:db8::1"])), "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all");
    }

    #[test]
    fn everybody_is_seen() {
        for (record, expected) in
            [("v=spf1 +all", true), ("v=spf1 all", true), ("v=spf1 ~all", false), ("v=spf1 a -ALL", false)]
        {
            assert_eq!(terms(record).iter().any(Term::allows_everybody), expected, "{record}");
        }
    }
}

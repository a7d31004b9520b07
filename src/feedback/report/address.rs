//! Addresses in text that strangers wrote.
//!
//! Promises: linear: from each `@` the scan goes at most to the next one, and at most a mailbox far.

use super::decode;
use crate::types::EmailAddress;

/// Octets looked at on each side of an `@`.
const REACH_BYTES_MAX: usize = 255;
/// Addresses of one text. Above: the others are not found.
const FOUND_MAX: usize = 500;

/// An address and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) address: EmailAddress,
}

/// All addresses of a text whose domain has a dot.
pub(super) fn find_all(text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut behind = 0;
    for (at, _) in text.match_indices('@') {
        if found.len() >= FOUND_MAX {
            break;
        }
        let Some(one) = around(text, at, behind) else { continue };
        behind = one.end;
        found.push(one);
    }
    found
}

fn around(text: &str, at: usize, behind: usize) -> Option<Found> {
    let floor = text.ceil_char_boundary(at.saturating_sub(REACH_BYTES_MAX).max(behind));
    let before = text.get(floor..at)?;
    let start = match before.strip_suffix('"').and_then(|quoted| quoted.rfind('"')) {
        Some(quote) => floor + quote,
        None => {
            let local = before.rfind(|c: char| !is_local(c)).map_or(0, |end| {
                end + before.get(end..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8)
            });
            let local = floor + local;
            local + leading(text.get(local..at)?, ['.', '\'', '=', '*', '|', '`'])
        }
    };
    let ceiling = text.floor_char_boundary((at + 1 + REACH_BYTES_MAX).min(text.len()));
    let after = text.get(at + 1..ceiling)?;
    let length = after.find(|c: char| !is_host(c)).unwrap_or(after.len());
    let host = after.get(..length)?.trim_end_matches(['.', '-', '_']);
    let end = at + 1 + host.len();
    if !host.contains('.') {
        return None;
    }
    let address = EmailAddress::parse(text.get(start..end)?, true).ok()?;
    Some(Found { start, end, address })
}

fn leading(text: &str, marks: [char; 6]) -> usize {
    text.len() - text.trim_start_matches(marks).len()
}

fn is_local(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && c.is_alphanumeric())
}

fn is_host(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_') || (!c.is_ascii() && c.is_alphanumeric())
}

/// The address in a value such as `rfc822; <bob@example.test>`, `SMTP:bob@example.test`, `utf-8; ...` or of an X.400 gateway.
pub(super) fn mailbox(value: &str) -> Option<EmailAddress> {
    let typed = value.split_once(';').filter(|(kind, _)| kind.len() <= 20 && !kind.contains('@'));
    let text = typed.map_or(value, |(_, text)| text).trim();
    let text = decode::unitext(text.split_once(" (").map_or(text, |(text, _)| text));
    let bare = text.trim().trim_start_matches('<').trim_end_matches('>').trim();
    let bare =
        ["smtp:", "mailto:", "internet:"].iter().find_map(|prefix| strip_prefix_of(bare, prefix)).unwrap_or(bare);
    // A source route (RFC 5321 §4.1.2) says nothing.
    let bare = bare.strip_prefix('@').and_then(|route| route.split_once(':')).map_or(bare, |(_, bare)| bare);
    EmailAddress::parse(bare, true)
        .ok()
        .or_else(|| gateway(bare))
        .or_else(|| find_all(&text).into_iter().next().map(|found| found.address))
}

fn strip_prefix_of<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    text.get(..prefix.len()).filter(|head| head.eq_ignore_ascii_case(prefix)).and(text.get(prefix.len()..))
}

/// `/c=de/a=x/p=y/dd.rfc-822=bob(a)example.test/` (RFC 2156 §4.1).
fn gateway(text: &str) -> Option<EmailAddress> {
    let lower = text.to_ascii_lowercase();
    let at = ["rfc-822=", "rfc822=", "smtp="].iter().find_map(|mark| lower.find(mark).map(|at| at + mark.len()))?;
    let value = text.get(at..)?.split(['/', ';']).next()?;
    let value = value.replace("(a)", "@").replace("(A)", "@").replace("(u)", "_").replace("(p)", "%");
    EmailAddress::parse(value.trim(), true).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<String> {
        find_all(text).into_iter().map(|found| found.address.as_str().to_owned()).collect()
    }

    #[test]
    fn addresses_are_found_in_any_dress() {
        assert_eq!(all("<bob@a.test>: x 'al@b.test'. (c+d@e.test)"), ["bob@a.test", "al@b.test", "c+d@e.test"]);
        assert_eq!(
            all("\"a b\"@c.test [SMTP:x@y.test] 用户@例子.test"),
            ["\"a b\"@c.test", "x@y.test", "用户@例子.test"]
        );
        assert_eq!(all("@ a@ @b.test user@host x@@y.test"), Vec::<String>::new());
        assert!(all(&"@".repeat(100_000)).is_empty());
        assert_eq!(all(&"a@b.test ".repeat(10_000)).len(), FOUND_MAX);
    }

    #[test]
    fn typed_addresses_are_read() {
        for value in [
            "rfc822; bob@a.test",
            "RFC822;<bob@a.test>",
            "bob@a.test",
            "rfc822; <@x.test,@y.test:bob@a.test>",
            "smtp; SMTP:bob@a.test",
            "X400; /c=de/a=x/p=y/dd.rfc-822=bob(a)a.test/",
            "rfc822; bob@a.test (Bob)",
            "rfc822;\"Bob\" <bob@a.test>",
        ] {
            assert_eq!(
                mailbox(value).map(|address| address.as_str().to_owned()).as_deref(),
                Some("bob@a.test"),
                "{value}"
            );
        }
        assert_eq!(mailbox("utf-8; \\x{5F20}@a.test").unwrap().as_str(), "张@a.test");
        assert!(mailbox("rfc822; CN=Bob/O=Acme").is_none());
    }
}

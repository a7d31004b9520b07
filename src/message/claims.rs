//! Whom a message says it is from: the addresses of `From`, `Sender` and `Return-Path` as submitted.
//!
//! For the check of who may send as whom, so whatever cannot be read for certain is no address: text in encoded words, quotes
//! and comments never becomes one, and a field too long to look at in whole is not looked at in part.

use super::header::{Field, Known, Single};
use super::original::{split, unfold};
use crate::types::EmailAddress;

/// Octets of one field that are looked at. Above: it counts as unreadable.
const CLAIM_BYTES_MAX: usize = 10 * 1024;
/// Octets of an unreadable address that are kept to be shown.
const SHOWN_BYTES_MAX: usize = 128;

/// One address that a message claims, or what stands there and cannot be read as one.
pub type Claim = Result<EmailAddress, Box<str>>;

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    /// Of `From`; empty where there is none.
    pub from: Vec<Claim>,
    /// Of `Sender`.
    pub sender: Vec<Claim>,
    /// Of all `Return-Path` fields; `<>` claims nothing.
    pub return_path: Vec<Claim>,
}

impl Claims {
    /// Takes one field, whichever it is.
    pub(super) fn add(&mut self, field: &Field<'_>, known: Known) {
        let list = match known {
            Known::Single(Single::From) => &mut self.from,
            Known::Single(Single::Sender) => &mut self.sender,
            Known::Stripped if field.name().eq_ignore_ascii_case(b"Return-Path") => &mut self.return_path,
            _ => return,
        };
        let value = unfold(field.value());
        if value.len() > CLAIM_BYTES_MAX {
            return list.push(Err(shown(&value)));
        }
        let is_null = known == Known::Stripped && value.trim() == "<>";
        let elements = split(&value).into_iter().filter(|_| !is_null);
        list.extend(elements.map(|element| address_of(element).ok_or_else(|| shown(element))));
    }
}

fn shown(text: &str) -> Box<str> {
    let end = text.floor_char_boundary(SHOWN_BYTES_MAX);
    text.get(..end).unwrap_or_default().chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The address of one mailbox (RFC 5322 §3.4): `local@domain`, or `name <local@domain>`, with comments anywhere outside of them;
/// a source route is dropped (§4.4).
fn address_of(element: &str) -> Option<EmailAddress> {
    let mut parts = Parts::default();
    element.chars().try_for_each(|c| parts.take(c))?;
    EmailAddress::parse(parts.finish()?.trim(), true).ok()
}

/// Where in a mailbox we are.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    /// A display name, or an address without angle brackets.
    #[default]
    Outside,
    Angle,
    /// Behind `>`: nothing but white space and comments may follow.
    Behind,
}

/// The characters of a mailbox, sorted.
#[derive(Default)]
struct Parts {
    place: Place,
    quoted: bool,
    escaped: bool,
    comments: u32,
    outside: String,
    angle: String,
}

impl Parts {
    /// `None`: it is no mailbox.
    fn take(&mut self, c: char) -> Option<()> {
        if std::mem::take(&mut self.escaped) {
            self.keep(c);
            return Some(());
        }
        match c {
            '\\' if self.quoted || self.comments > 0 => {
                self.escaped = true;
                self.keep(c);
            }
            '"' if self.comments == 0 => {
                self.quoted = !self.quoted;
                self.keep(c);
            }
            _ if self.quoted => self.keep(c),
            '(' => self.comments += 1,
            ')' => self.comments = self.comments.checked_sub(1)?,
            _ if self.comments > 0 => {}
            '<' if self.place == Place::Outside => self.place = Place::Angle,
            '>' if self.place == Place::Angle => self.place = Place::Behind,
            '<' | '>' => return None,
            _ if self.place == Place::Behind && !c.is_whitespace() => return None,
            _ => self.keep(c),
        }
        Some(())
    }

    fn keep(&mut self, c: char) {
        match self.place {
            _ if self.comments > 0 => {}
            Place::Outside => self.outside.push(c),
            Place::Angle | Place::Behind => self.angle.push(c),
        }
    }

    /// The address, in brackets or alone.
    fn finish(self) -> Option<String> {
        if self.quoted || self.escaped || self.comments > 0 {
            return None;
        }
        match self.place {
            Place::Outside => Some(self.outside),
            Place::Angle => None,
            Place::Behind => {
                let angle = self.angle.trim();
                let routed = angle.strip_prefix('@').and_then(|route| route.rsplit_once(':'));
                Some(routed.map_or(angle, |(_, address)| address).to_owned())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::header::Fields;
    use super::*;

    fn claims(block: &str) -> Claims {
        let mut claims = Claims::default();
        Fields::new(block.as_bytes()).for_each(|field| claims.add(&field, field.known()));
        claims
    }

    /// The addresses in a `From` of this value; `None` for what is unreadable.
    fn from(value: &str) -> Vec<Option<String>> {
        let claims = claims(&format!("From: {value}\r\n"));
        claims.from.into_iter().map(|claim| claim.ok().map(|address| address.to_string())).collect()
    }

    #[test]
    fn the_address_is_what_a_reader_takes_for_it() {
        for (value, expected) in [
            ("a@b.test", "a@b.test"),
            (" Shop <a@b.test> ", "a@b.test"),
            ("\"x@evil.test\" <a@b.test>", "a@b.test"),
            ("\"x <x@evil.test>\" <a@b.test>", "a@b.test"),
            ("(x@evil.test) a@b.test (<y@evil.test>)", "a@b.test"),
            ("x@evil.test <a@b.test>", "a@b.test"),
            ("=?utf-8?q?=3Cx=40evil.test=3E?= <a@b.test>", "a@b.test"),
            ("<@x.test,@y.test:a@b.test>", "a@b.test"),
            ("\"a b\"@b.test", "\"a b\"@b.test"),
            ("J\u{fc}rgen <j\u{fc}@b.test>", "j\u{fc}@b.test"),
        ] {
            assert_eq!(from(value), [Some(expected.to_owned())], "{value}");
        }
        assert_eq!(from("a@b.test, \"C, D\" <c@d.test>").len(), 2);
        assert_eq!(from("Team: a@b.test, c@d.test;").len(), 2);
    }

    #[test]
    fn what_is_ambiguous_is_no_address() {
        for value in [
            "a@b.test c@d.test",
            "<a@b.test> <c@d.test>",
            "<a@b.test> c@d.test",
            "<a@b.test",
            "a@b.test>",
            "\"a@b.test",
            "a@b.test (",
            "a@b.test)",
            "=?utf-8?q?a=40b.test?=",
            "Shop",
            "undisclosed-recipients:;",
            "<>",
            "a@[192.0.2.1]",
        ] {
            assert_eq!(from(value), [None], "{value}");
        }
        assert!(claims(&format!("From: a@b.test{}\r\n", " ".repeat(11_000) + ",c@d.test")).from[0].is_err());
    }

    #[test]
    fn sender_and_every_return_path_claim_too() {
        let claims =
            claims("Sender: s@a.test\r\nReturn-Path: <r@a.test>\r\nreturn-path: <>\r\nReturn-Path: q@b.test\r\n");
        assert!(claims.from.is_empty());
        assert_eq!(claims.sender.len(), 1);
        let paths: Vec<String> = claims.return_path.iter().map(|claim| claim.clone().unwrap().to_string()).collect();
        assert_eq!(paths, ["r@a.test", "q@b.test"]);
    }

    proptest! {
        #[test]
        fn any_value_is_read_and_a_written_address_comes_back(
            name in "[ -~]{0,20}", local in "[a-z.+]{1,8}", noise in "[ -~\u{e4}]{0,60}"
        ) {
            let _ = from(&noise);
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let address = format!("{local}@b.test");
            prop_assert_eq!(from(&format!("\"{quoted}\" <{address}>")), vec![Some(address)]);
        }
    }
}

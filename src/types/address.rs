//! Domains and mailboxes, parsed at the edge (RFC 5321 §4.1.2, RFC 6531 §3.3, RFC 5890).
//!
//! Address literals (`user@[192.0.2.1]`) are refused: mail to them cannot be signed, aligned or warmed up, and every
//! large provider refuses them.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// RFC 5321 §4.5.3.1.2.
const DOMAIN_BYTES_MAX: usize = 255;
/// RFC 5321 §4.5.3.1.1 says 64; longer ones exist, and large providers take them.
const LOCAL_PART_BYTES_MAX: usize = 128;
/// RFC 1035 §2.3.4.
const LABEL_BYTES_MAX: usize = 63;

/// A DNS domain as A-labels, lower case, without a trailing dot (RFC 5321 §2.3.5). Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Domain(Arc<str>);

/// Why a text is not a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DomainError {
    /// No text.
    #[error("domain is empty")]
    Empty,
    /// More than 255 octets, or a label of more than 63.
    #[error("domain or one of its labels is too long")]
    TooLong,
    /// Characters that no host name has, or a broken U-label.
    #[error("domain has a character that is not allowed")]
    Character,
    /// `[...]`.
    #[error("address literals are not supported")]
    Literal,
}

impl Domain {
    /// Parses a domain; U-labels become A-labels (UTS 46), a trailing dot is dropped, underscores are tolerated.
    pub fn parse(text: &str) -> Result<Self, DomainError> {
        let text = text.strip_suffix('.').unwrap_or(text);
        if text.is_empty() {
            return Err(DomainError::Empty);
        }
        if text.starts_with('[') {
            return Err(DomainError::Literal);
        }
        // UTS 46 may shrink text, but never from a kilobyte to a legal name that anyone uses.
        if text.len() > 4 * DOMAIN_BYTES_MAX {
            return Err(DomainError::TooLong);
        }
        let ascii = if text.is_ascii() {
            text.to_ascii_lowercase()
        } else {
            idna::domain_to_ascii(text).map_err(|_| DomainError::Character)?
        };
        if ascii.len() > DOMAIN_BYTES_MAX {
            return Err(DomainError::TooLong);
        }
        for label in ascii.split('.') {
            check_label(label)?;
        }
        Ok(Self(ascii.into()))
    }

    /// The A-labels.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The domain and all above it, itself first, a top-level domain last.
    pub fn with_parents(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(Some(self.as_str()), |name| name.split_once('.').map(|(_, parent)| parent))
    }
}

fn check_label(label: &str) -> Result<(), DomainError> {
    if label.len() > LABEL_BYTES_MAX {
        return Err(DomainError::TooLong);
    }
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let edge_is_dash = label.starts_with('-') || label.ends_with('-');
    if label.is_empty() || edge_is_dash || !label.bytes().all(allowed) {
        return Err(DomainError::Character);
    }
    Ok(())
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Domain {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A mailbox: local part and domain, with the spelling the client used (RFC 5321 §4.1.2 `Mailbox`).
///
/// Two addresses are equal if their local parts are equal to the letter and their domains are.
#[derive(Clone)]
pub struct EmailAddress {
    /// `local@domain` as submitted; holds no control character, space outside quotes, `<` or `>` outside quotes.
    text: Box<str>,
    /// Octets of the local part, quotes included.
    local_bytes: u16,
    domain: Domain,
}

/// Why a text is not a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// No `@`.
    #[error("address has no domain")]
    NoDomain,
    /// Nothing before the `@`, or more than 128 octets.
    #[error("local part is empty or too long")]
    LocalPartLength,
    /// A character that must be quoted or may not stand at all.
    #[error("local part has a character that is not allowed")]
    LocalPartCharacter,
    /// Non-ASCII without SMTPUTF8 (RFC 6531 §3.4).
    #[error("non-ASCII address without SMTPUTF8")]
    NeedsSmtpUtf8,
    /// See the domain's error.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

impl EmailAddress {
    /// Parses `local@domain` without angle brackets. `smtputf8` allows non-ASCII in the local part and the domain.
    pub fn parse(text: &str, smtputf8: bool) -> Result<Self, AddressError> {
        let (local, domain_text) = text.rsplit_once('@').ok_or(AddressError::NoDomain)?;
        if local.is_empty() || local.len() > LOCAL_PART_BYTES_MAX {
            return Err(AddressError::LocalPartLength);
        }
        if !smtputf8 && !text.is_ascii() {
            return Err(AddressError::NeedsSmtpUtf8);
        }
        check_local_part(local)?;
        let domain = Domain::parse(domain_text)?;
        let local_bytes = u16::try_from(local.len()).map_err(|_| AddressError::LocalPartLength)?;
        // A trailing dot in the domain is dropped from the spelling too: no peer expects it.
        let text = text.strip_suffix('.').unwrap_or(text).into();
        Ok(Self { text, local_bytes, domain })
    }

    /// `local@domain` as submitted.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The local part as submitted, quotes included.
    pub fn local_part(&self) -> &str {
        self.text.get(..usize::from(self.local_bytes)).unwrap_or_default()
    }

    /// The domain to route to, as A-labels.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Whether the local part has octets above 127, so that only an SMTPUTF8 path can carry it. A U-label domain
    /// alone does not: [`EmailAddress::to_ascii_domain`] sends its A-labels.
    pub fn needs_smtputf8(&self) -> bool {
        !self.local_part().is_ascii()
    }

    /// Whether it is the same mailbox for all that anybody does: hosts on the way change the case of a local part now and then.
    pub fn is_same_mailbox(&self, other: &EmailAddress) -> bool {
        self.domain == other.domain && self.local_part().eq_ignore_ascii_case(other.local_part())
    }

    /// `local@domain` with the domain as A-labels.
    pub fn to_ascii_domain(&self) -> String {
        format!("{}@{}", self.local_part(), self.domain)
    }
}

/// RFC 5321 §4.1.2: `Dot-string / Quoted-string`; leading, trailing and doubled dots are tolerated as in the wild.
fn check_local_part(local: &str) -> Result<(), AddressError> {
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let valid = if quoted { quoted_string_is_valid(local) } else { local.chars().all(is_dot_string_char) };
    if valid { Ok(()) } else { Err(AddressError::LocalPartCharacter) }
}

/// `atext` of RFC 5322 §3.2.3 with the dot, and any non-ASCII character that is not a control (RFC 6531 §3.3).
fn is_dot_string_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c) || (!c.is_ascii() && !is_hidden(c))
}

fn quoted_string_is_valid(local: &str) -> bool {
    let inner = local.get(1..local.len() - 1).unwrap_or_default();
    let mut escaped = false;
    for c in inner.chars() {
        match c {
            _ if c.is_ascii_control() || (!c.is_ascii() && is_hidden(c)) => return false,
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return false,
            _ => {}
        }
    }
    !escaped
}

/// Controls, separators and invisible characters: they only occur in attacks and in broken exports.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || c.is_whitespace()
        || matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
        || matches!(c, '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

impl PartialEq for EmailAddress {
    fn eq(&self, other: &Self) -> bool {
        self.local_part() == other.local_part() && self.domain == other.domain
    }
}

impl Eq for EmailAddress {}

impl std::hash::Hash for EmailAddress {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.local_part().hash(state);
        self.domain.hash(state);
    }
}

impl fmt::Display for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for EmailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// MAIL FROM: a mailbox, or the null reverse-path `<>` of notifications (RFC 5321 §4.5.5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ReversePath {
    /// `<>`.
    Null,
    /// `<local@domain>`.
    Mailbox(EmailAddress),
}

impl ReversePath {
    /// The mailbox, if it is not null.
    pub fn mailbox(&self) -> Option<&EmailAddress> {
        match self {
            ReversePath::Null => None,
            ReversePath::Mailbox(address) => Some(address),
        }
    }

    /// The mailbox as submitted, or the empty text.
    pub fn as_str(&self) -> &str {
        self.mailbox().map_or("", EmailAddress::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<String, AddressError> {
        EmailAddress::parse(text, true).map(|address| address.to_ascii_domain())
    }

    #[test]
    fn common_and_odd_mailboxes_parse() {
        for text in [
            "a@b.test",
            "o'neil+tag@b.test",
            "a..b@b.test",
            ".a@b.test",
            "\"a b\"@b.test",
            "\"a\\\"@x\"@b.test",
            "x@localhost",
            "a@b_c.test",
        ] {
            assert_eq!(address(text).as_deref(), Ok(text), "{text}");
        }
        assert_eq!(address("a@BÜCHER.test.").as_deref(), Ok("a@xn--bcher-kva.test"));
        assert_eq!(address("jürgen@b.test").as_deref(), Ok("jürgen@b.test"));
    }

    #[test]
    fn attacks_and_slips_are_refused() {
        for text in [
            "",
            "a",
            "@b.test",
            "a@",
            "a b@b.test",
            "a@b c.test",
            "a@b..test",
            "a@-b.test",
            "a\r\n@b.test",
            "a@b.test\r\nRCPT",
            "<a@b.test>",
            "a\u{200b}@b.test",
            "a\0@b.test",
            "a@[127.0.0.1]",
            "\"a\"b\"@b.test",
            "\"a\\\"@b.test",
            "a,b@b.test",
            "\"\n\"@b.test",
        ] {
            assert!(address(text).is_err(), "{text:?}");
        }
        assert_eq!(EmailAddress::parse("ü@b.test", false), Err(AddressError::NeedsSmtpUtf8));
        assert!(Domain::parse(&"a.".repeat(129)).is_err());
        assert_eq!(Domain::parse(&"a".repeat(64)), Err(DomainError::TooLong));
    }

    #[test]
    fn equality_ignores_the_case_of_the_domain_only() {
        let parse = |text| EmailAddress::parse(text, false).unwrap();
        assert_eq!(parse("a@B.test"), parse("a@b.TEST"));
        assert_ne!(parse("A@b.test"), parse("a@b.test"));
    }
}

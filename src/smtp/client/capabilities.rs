//! What a peer offered in its EHLO reply (RFC 5321 §4.1.1.1).

use crate::types::Reply;

/// An extension that is on or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Extension {
    /// RFC 2920.
    Pipelining,
    /// RFC 6152.
    EightBitMime,
    /// RFC 6531.
    SmtpUtf8,
    /// RFC 3461.
    Dsn,
    /// RFC 3030.
    Chunking,
    /// RFC 3207.
    StartTls,
    /// RFC 2034.
    EnhancedStatusCodes,
    /// RFC 8689.
    RequireTls,
    /// RFC 4954, mechanism PLAIN (RFC 4616).
    AuthPlain,
    /// RFC 4954, mechanism LOGIN.
    AuthLogin,
}

impl Extension {
    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// RFC 1870.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SizeLimit {
    /// No SIZE keyword: SIZE= must not be sent.
    #[default]
    NotOffered,
    /// SIZE without a number or with 0: declare, but no limit is known.
    Unknown,
    /// Octets of the largest message.
    Bytes(u64),
}

/// RFC 9422; `None` where the peer named no limit, or one that is no number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Transactions on one connection.
    pub mail_max: Option<u32>,
    /// Recipients in one transaction.
    pub rcpt_max: Option<u32>,
    /// Recipient domains in one transaction.
    pub rcpt_domain_max: Option<u32>,
}

/// The extensions of one peer. The default, no extensions, is what HELO gives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    extensions: u16,
    size: SizeLimit,
    limits: Limits,
}

impl Capabilities {
    /// Reads the lines of a positive EHLO reply; the first one is a greeting. Keywords in any case; unknown ones are
    /// passed over.
    pub fn from_reply(reply: &Reply) -> Self {
        let mut capabilities = Self::default();
        for line in reply.lines().iter().skip(1) {
            capabilities.read_line(line);
        }
        capabilities
    }

    /// Whether the peer offers this extension.
    pub const fn offers(&self, extension: Extension) -> bool {
        self.extensions & extension.bit() != 0
    }

    /// What the peer said of SIZE.
    pub const fn size(&self) -> SizeLimit {
        self.size
    }

    /// What the peer said of LIMITS.
    pub const fn limits(&self) -> Limits {
        self.limits
    }

    fn read_line(&mut self, line: &str) {
        // AUTH=LOGIN is how some servers of the 1990s wrote it, and some still add it.
        let mut words = line.split([' ', '=']).filter(|word| !word.is_empty());
        let Some(keyword) = words.next() else { return };
        match keyword.to_ascii_uppercase().as_str() {
            "PIPELINING" => self.add(Extension::Pipelining),
            "8BITMIME" => self.add(Extension::EightBitMime),
            "SMTPUTF8" => self.add(Extension::SmtpUtf8),
            "DSN" => self.add(Extension::Dsn),
            "CHUNKING" => self.add(Extension::Chunking),
            "STARTTLS" => self.add(Extension::StartTls),
            "ENHANCEDSTATUSCODES" => self.add(Extension::EnhancedStatusCodes),
            "REQUIRETLS" => self.add(Extension::RequireTls),
            "SIZE" => self.size = parse_size(words.next()),
            "AUTH" => words.for_each(|word| self.read_mechanism(word)),
            "LIMITS" => self.read_limits(line),
            _ => {}
        }
    }

    const fn add(&mut self, extension: Extension) {
        self.extensions |= extension.bit();
    }

    fn read_mechanism(&mut self, word: &str) {
        if word.eq_ignore_ascii_case("PLAIN") {
            self.add(Extension::AuthPlain);
        } else if word.eq_ignore_ascii_case("LOGIN") {
            self.add(Extension::AuthLogin);
        }
    }

    fn read_limits(&mut self, line: &str) {
        for word in line.split(' ').skip(1) {
            let Some((name, value)) = word.split_once('=') else { continue };
            // A limit of 0 would mean that nothing can be sent: a mistake, not a limit.
            let value = value.parse().ok().filter(|value| *value > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => self.limits.mail_max = value,
                "RCPTMAX" => self.limits.rcpt_max = value,
                "RCPTDOMAINMAX" => self.limits.rcpt_domain_max = value,
                _ => {}
            }
        }
    }
}

fn parse_size(value: Option<&str>) -> SizeLimit {
    match value.and_then(|text| text.parse().ok()) {
        None | Some(0) => SizeLimit::Unknown,
        Some(bytes) => SizeLimit::Bytes(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::ReplyCode;

    fn parse(lines: &[&str]) -> Capabilities {
        let lines = lines.iter().map(|line| (*line).into()).collect();
        Capabilities::from_reply(&Reply::new(ReplyCode::new(250).unwrap(), None, lines))
    }

    #[test]
    fn keywords_are_read_in_any_case_and_the_greeting_is_not() {
        let peer = parse(&["PIPELINING", "dsn", "8BitMime", "XCLIENT", "SIZE 35882577", "AUTH=login Plain", ""]);
        assert!(!peer.offers(Extension::Pipelining));
        for extension in [Extension::Dsn, Extension::EightBitMime, Extension::AuthLogin, Extension::AuthPlain] {
            assert!(peer.offers(extension), "{extension:?}");
        }
        assert_eq!(peer.size(), SizeLimit::Bytes(35_882_577));
        assert!(!peer.offers(Extension::StartTls));
    }

    #[test]
    fn size_without_a_usable_number_is_no_limit() {
        for line in ["SIZE", "SIZE 0", "SIZE lots", "SIZE 99999999999999999999999"] {
            assert_eq!(parse(&["x", line]).size(), SizeLimit::Unknown, "{line}");
        }
        assert_eq!(parse(&["x"]).size(), SizeLimit::NotOffered);
    }

    #[test]
    fn limits_of_rfc_9422_are_read() {
        let limits = parse(&["x", "LIMITS RCPTMAX=20 mailmax=5 RCPTDOMAINMAX=1 NEW=3 odd"]).limits();
        assert_eq!(limits, Limits { mail_max: Some(5), rcpt_max: Some(20), rcpt_domain_max: Some(1) });
        assert_eq!(parse(&["x", "LIMITS RCPTMAX=0 MAILMAX=-1"]).limits(), Limits::default());
    }
}

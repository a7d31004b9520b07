//! SMTP replies as values (RFC 5321 §4.2) and enhanced status codes (RFC 3463).

use std::fmt;
use std::str::FromStr;

/// What the first digit of a reply says (RFC 5321 §4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Severity {
    /// 2yz: done.
    Positive,
    /// 3yz: go on.
    Intermediate,
    /// 4yz: try again later.
    Transient,
    /// 5yz: do not try again.
    Permanent,
}

/// A three-digit reply code, 200 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyCode(u16);

impl ReplyCode {
    /// The code, if it is one that RFC 5321 allows in a reply.
    pub const fn new(code: u16) -> Option<Self> {
        if code >= 200 && code <= 599 { Some(Self(code)) } else { None }
    }

    /// The number.
    pub const fn value(self) -> u16 {
        self.0
    }

    /// The meaning of the first digit.
    pub const fn severity(self) -> Severity {
        match self.0 / 100 {
            2 => Severity::Positive,
            3 => Severity::Intermediate,
            4 => Severity::Transient,
            _ => Severity::Permanent,
        }
    }
}

impl fmt::Display for ReplyCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An enhanced status code such as 5.7.509 (RFC 3463 §2). Subject and detail have up to three digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// The status, if `class` is 2, 4 or 5 and the others have at most three digits.
    pub const fn new(class: u8, subject: u16, detail: u16) -> Option<Self> {
        if matches!(class, 2 | 4 | 5) && subject <= 999 && detail <= 999 {
            Some(Self { class, subject, detail })
        } else {
            None
        }
    }

    /// 2, 4 or 5.
    pub const fn class(self) -> u8 {
        self.class
    }

    /// What it is about: address, mailbox, mail system, network, protocol, content, policy.
    pub const fn subject(self) -> u16 {
        self.subject
    }

    /// The detail within the subject.
    pub const fn detail(self) -> u16 {
        self.detail
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

impl FromStr for EnhancedStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.').map(|part| match part.len() {
            1..=3 if part.bytes().all(|byte| byte.is_ascii_digit()) => part.parse::<u16>().map_err(|_| ()),
            _ => Err(()),
        });
        let class = u8::try_from(parts.next().ok_or(())??).map_err(|_| ())?;
        let subject = parts.next().ok_or(())??;
        let detail = parts.next().ok_or(())??;
        if parts.next().is_some() {
            return Err(());
        }
        Self::new(class, subject, detail).ok_or(())
    }
}

/// A whole reply: what a peer said to us, or what we say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: ReplyCode,
    enhanced: Option<EnhancedStatus>,
    lines: Vec<Box<str>>,
}

impl Reply {
    /// A reply from its parts. `lines` are the texts without code and enhanced status; none gives one empty line.
    pub fn new(code: ReplyCode, enhanced: Option<EnhancedStatus>, lines: Vec<Box<str>>) -> Self {
        let lines = if lines.is_empty() { vec!["".into()] } else { lines };
        Self { code, enhanced, lines }
    }

    /// The three-digit code.
    pub fn code(&self) -> ReplyCode {
        self.code
    }

    /// The enhanced status, where the peer gave one.
    pub fn enhanced(&self) -> Option<EnhancedStatus> {
        self.enhanced
    }

    /// The texts of all lines, at least one.
    pub fn lines(&self) -> &[Box<str>] {
        &self.lines
    }

    /// The meaning of the first digit.
    pub fn severity(&self) -> Severity {
        self.code.severity()
    }

    /// All texts joined by a space.
    pub fn text(&self) -> String {
        self.lines.join(" ")
    }
}

/// One line, as events and logs show it: `550 5.1.1 No such user here`.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.code.fmt(f)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in self.lines.iter().filter(|line| !line.is_empty()) {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enhanced_status_with_three_digits_survives() {
        let status: EnhancedStatus = "5.7.509".parse().unwrap();
        assert_eq!(status.to_string(), "5.7.509");
        for text in ["", "5", "5.7", "3.1.1", "5.7.1000", "5.7.1.1", "5.+7.1", "5..1", "6.0.0"] {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(()), "{text}");
        }
    }

    #[test]
    fn a_reply_prints_on_one_line() {
        let reply = Reply::new(
            ReplyCode::new(550).unwrap(),
            EnhancedStatus::new(5, 1, 1),
            vec!["No such user".into(), "here".into()],
        );
        assert_eq!(reply.to_string(), "550 5.1.1 No such user here");
        assert_eq!(reply.severity(), Severity::Permanent);
        assert_eq!(ReplyCode::new(199), None);
        assert_eq!(ReplyCode::new(600), None);
    }
}

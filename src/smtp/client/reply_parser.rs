//! Cuts replies out of the bytes of a peer (RFC 5321 §4.2, RFC 2034, RFC 3463).
//!
//! Strict where a mistake would change the fate of a message: a reply begins with a code from 200 to 599 and ends with
//! a line `code SP text`; all else is an error and ends the connection. Tolerant where the world is untidy: lines ended
//! by a bare LF, lines of any length within the limits, different codes in one reply (the last line decides, as it is
//! the one that ends the reply), lines without a code in the middle of a reply, and `#` before an enhanced status.

use bytes::BytesMut;

use super::sanitise::sanitise;
use crate::types::{EnhancedStatus, Reply, ReplyCode, Severity};

/// Octets of one reply, line ends included. A longer one is [`ReplyError::TooLong`]: the connection is given up.
pub const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Lines of one reply. More are [`ReplyError::TooLong`].
pub const REPLY_LINES_MAX: usize = 100;
/// Octets of a bad line that an error quotes.
const QUOTE_BYTES_MAX: usize = 120;

/// Why the bytes are not a reply. Always the peer's fault, and always the end of the connection: where a reply is not
/// understood, every later one would be taken for the wrong command.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// The line does not begin with a reply code.
    #[error("peer does not speak SMTP: expected a reply, got {0:?}")]
    NotSmtp(Box<str>),
    /// Above 64 KiB or 100 lines.
    #[error("reply is longer than {REPLY_BYTES_MAX} bytes or {REPLY_LINES_MAX} lines")]
    TooLong,
}

/// An incremental parser. Any chunking of the same bytes gives the same replies.
#[derive(Debug, Default)]
pub struct ReplyParser {
    /// Received and not yet cut into lines. Bounded by [`REPLY_BYTES_MAX`] plus one read.
    buffer: BytesMut,
    /// Octets at the start of `buffer` that are known to hold no LF.
    scanned: usize,
    /// Texts of the reply under way.
    lines: Vec<Line>,
    /// Octets of the reply under way that have left `buffer`.
    line_bytes: usize,
}

/// One line: its code where it has one, and its text as it came.
#[derive(Debug)]
struct Line {
    code: Option<ReplyCode>,
    text: Box<str>,
}

impl ReplyParser {
    /// A parser with no bytes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Where a driver appends what it has read. Must not be changed in any other way.
    pub fn buffer(&mut self) -> &mut BytesMut {
        &mut self.buffer
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether bytes were received that no reply has used yet.
    pub fn has_surplus(&self) -> bool {
        !self.buffer.is_empty() || !self.lines.is_empty()
    }

    /// The next complete reply, or `None` where more bytes are needed. After an error the parser is of no more use.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ReplyError> {
        loop {
            let unscanned = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(at) = memchr::memchr(b'\n', unscanned) else {
                self.scanned = self.buffer.len();
                let too_long = self.line_bytes + self.buffer.len() > REPLY_BYTES_MAX;
                return if too_long { Err(ReplyError::TooLong) } else { Ok(None) };
            };
            let raw = self.buffer.split_to(self.scanned + at + 1);
            self.scanned = 0;
            self.line_bytes += raw.len();
            if self.line_bytes > REPLY_BYTES_MAX || self.lines.len() == REPLY_LINES_MAX {
                return Err(ReplyError::TooLong);
            }
            if let Some(reply) = self.take_line(&raw)? {
                return Ok(Some(reply));
            }
        }
    }

    /// What the end of the stream leaves. A last line without its line end counts as a reply where it refuses: then the
    /// reason for the disconnect is known. An acceptance cut short is none.
    pub fn at_end(&mut self) -> Option<Reply> {
        let rest = self.buffer.split();
        self.scanned = 0;
        let reply = self.take_line(&rest).ok().flatten()?;
        matches!(reply.severity(), Severity::Transient | Severity::Permanent).then_some(reply)
    }

    /// Takes one line; gives the reply if it was the last one.
    fn take_line(&mut self, raw: &[u8]) -> Result<Option<Reply>, ReplyError> {
        let raw = raw.strip_suffix(b"\n").unwrap_or(raw);
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        let Some((code, more, text)) = split_line(raw) else {
            if self.lines.is_empty() {
                let quoted = raw.get(..raw.len().min(QUOTE_BYTES_MAX)).unwrap_or_default();
                return Err(ReplyError::NotSmtp(sanitise(quoted)));
            }
            self.lines.push(Line { code: None, text: sanitise(raw) });
            return Ok(None);
        };
        self.lines.push(Line { code: Some(code), text: sanitise(text) });
        if more {
            return Ok(None);
        }
        self.line_bytes = 0;
        Ok(Some(assemble(code, std::mem::take(&mut self.lines))))
    }
}

/// `code`, whether more lines follow, and the text; `None` where the line is no reply line.
fn split_line(raw: &[u8]) -> Option<(ReplyCode, bool, &[u8])> {
    let (digits, rest) = raw.split_at_checked(3)?;
    let mut value: u16 = 0;
    for digit in digits {
        if !digit.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u16::from(digit - b'0');
    }
    let code = ReplyCode::new(value)?;
    match rest.split_first() {
        None => Some((code, false, &[])),
        Some((b' ' | b'\t', text)) => Some((code, false, text)),
        Some((b'-', text)) => Some((code, true, text)),
        Some(_) => None,
    }
}

/// Finds the enhanced status and takes it off the lines that begin with it (RFC 2034 §4: each line repeats it).
fn assemble(code: ReplyCode, lines: Vec<Line>) -> Reply {
    let class = code.value() / 100;
    let statuses = || {
        lines.iter().filter(|line| line.code.is_some()).filter_map(|line| split_status(&line.text)).map(|found| found.0)
    };
    let fitting = statuses().find(|status| u16::from(status.class()) == class);
    let enhanced = fitting.or_else(|| statuses().next());
    let texts = lines.into_iter().map(|line| match split_status(&line.text) {
        Some((status, rest)) if Some(status) == enhanced => rest.into(),
        _ => line.text,
    });
    Reply::new(code, enhanced, texts.collect())
}

/// An enhanced status at the very start of a text, and what follows it. Some write a `#` before or a colon behind it.
/// `5.7.1.9` is an address and `5.7.1a` a version: both stay text.
fn split_status(text: &str) -> Option<(EnhancedStatus, &str)> {
    let bare = text.trim_start_matches([' ', '#']);
    let end = bare.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(bare.len());
    let (number, rest) = bare.split_at_checked(end)?;
    // A full stop may end a sentence that is nothing but the status.
    let status = number.strip_suffix('.').unwrap_or(number).parse().ok()?;
    let rest = match rest.chars().next() {
        None => rest,
        Some(' ') => rest.trim_start_matches(' '),
        Some(':' | ',' | ';') => rest.get(1..).unwrap_or_default().trim_start_matches(' '),
        Some(_) => return None,
    };
    Some((status, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn replies(bytes: &[u8]) -> Result<Vec<Reply>, ReplyError> {
        let mut parser = ReplyParser::new();
        parser.push(bytes);
        let mut found = Vec::new();
        while let Some(reply) = parser.next_reply()? {
            found.push(reply);
        }
        Ok(found)
    }

    fn check(bytes: &[u8], expected: &str) {
        let found = replies(bytes).unwrap();
        assert_eq!(found.iter().map(Reply::to_string).collect::<Vec<_>>().join(" | "), expected);
    }

    fn enhanced(line: &str) -> Option<String> {
        let found = replies(format!("{line}\r\n").as_bytes()).unwrap();
        found.first().unwrap().enhanced().map(|status| status.to_string())
    }

    #[test]
    fn replies_of_the_wild_parse() {
        check(b"250 2.0.0 Ok: queued as 4A\r\n", "250 2.0.0 Ok: queued as 4A");
        check(b"250\r\n", "250");
        check(b"250 \r\n", "250");
        check(b"250 ok\n221 bye\n", "250 ok | 221 bye");
        check(b"250-first\r\n250-second\r\n250 third\r\n", "250 first second third");
        check(b"550-5.1.1 No such\r\n550 5.1.1 user\r\n", "550 5.1.1 No such user");
        check(b"250-fine\r\n550 5.7.1 not fine\r\n", "550 5.7.1 fine not fine");
        check(b"550-see\r\nhttps://example.test/\r\n550 end\r\n", "550 see https://example.test/ end");
        check(b"354 go\r\n421 4.3.2 closing\r\n", "354 go | 421 4.3.2 closing");
        check(b"550 5.7.1 \x1b[2Jgone\xff\r\n", "550 5.7.1 ?[2Jgone?");
        check(b"220", "");
    }

    #[test]
    fn an_enhanced_status_is_read_only_at_the_start() {
        for (line, expected) in [
            ("550 5.7.509 Access denied", Some("5.7.509")),
            ("550 #5.7.1 refused", Some("5.7.1")),
            ("550 #5.1.0 Address rejected.", Some("5.1.0")),
            ("550 5.7.1: refused", Some("5.7.1")),
            ("550 5.7.1", Some("5.7.1")),
            ("550 5.7.1.", Some("5.7.1")),
            ("450 5.7.26 odd class", Some("5.7.26")),
            ("550-4.0.0 odd\r\n550 5.1.1 fits", Some("5.1.1")),
            ("550 5.7 too short", None),
            ("550 5.7.1.9 is listed", None),
            ("550 5.7.1a is a version", None),
            ("550 5.7.1000 is no status", None),
            ("550 IP 5.7.1 is listed", None),
            ("550 3.7.1 no class", None),
            ("550 [5.7.1] text", None),
        ] {
            assert_eq!(enhanced(line).as_deref(), expected, "{line}");
        }
    }

    #[test]
    fn what_is_not_smtp_is_an_error_that_quotes_it() {
        for bytes in [
            &b"HTTP/1.1 400 Bad Request\r\n"[..],
            b"\r\n",
            b"25\r\n",
            b"250ok\r\n",
            b"199 low\r\n",
            b"600 high\r\n",
            b"2x0 no\r\n",
            b"SSH-2.0-\x1b\r\n",
        ] {
            assert!(matches!(replies(bytes), Err(ReplyError::NotSmtp(_))), "{bytes:?}");
        }
        assert_eq!(replies(b"SSH-2.0-\x1b\r\n"), Err(ReplyError::NotSmtp("SSH-2.0-?".into())));
    }

    #[test]
    fn a_reply_of_unlimited_length_is_given_up() {
        let long_line = format!("250 {}\r\n", "a".repeat(REPLY_BYTES_MAX));
        assert_eq!(replies(long_line.as_bytes()), Err(ReplyError::TooLong));
        assert_eq!(replies(&vec![b'a'; REPLY_BYTES_MAX + 1]), Err(ReplyError::TooLong));
        assert_eq!(replies("250-a\r\n".repeat(REPLY_LINES_MAX + 1).as_bytes()), Err(ReplyError::TooLong));
        let longest = format!("{}250 z\r\n", "250-a\r\n".repeat(REPLY_LINES_MAX - 1));
        assert_eq!(replies(longest.as_bytes()).unwrap().len(), 1);
        check(format!("250 {}\r\n", "b".repeat(2_000)).as_bytes(), &format!("250 {}", "b".repeat(2_000)));
    }

    #[test]
    fn bytes_behind_a_reply_wait_for_the_next() {
        let mut parser = ReplyParser::new();
        parser.push(b"250 ok\r\n421 4.3.2 clos");
        assert_eq!(parser.next_reply().unwrap().unwrap().to_string(), "250 ok");
        assert!(parser.has_surplus());
        assert_eq!(parser.next_reply(), Ok(None));
        parser.push(b"ing\r\n");
        assert_eq!(parser.next_reply().unwrap().unwrap().to_string(), "421 4.3.2 closing");
        assert!(!parser.has_surplus());
    }

    #[test]
    fn a_refusal_cut_off_by_the_end_of_the_stream_is_still_known() {
        for (bytes, expected) in [
            ("554 5.7.1 you are blocked", Some("554 5.7.1 you are blocked")),
            ("550-first\r\n550 second", Some("550 first second")),
            ("250 accepted", None),
            ("550-first", None),
            ("55", None),
            ("", None),
        ] {
            let mut parser = ReplyParser::new();
            parser.push(bytes.as_bytes());
            assert_eq!(parser.next_reply(), Ok(None));
            assert_eq!(parser.at_end().map(|reply| reply.to_string()).as_deref(), expected, "{bytes}");
        }
    }

    proptest! {
        #[test]
        fn any_chunking_gives_the_same_replies(
            bytes in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'), Just(b' '), Just(b'-'),
                Just(b'\r'), Just(b'\n'), Just(b'.'), any::<u8>()], 0..200),
            cuts in proptest::collection::vec(1..20_usize, 1..20),
        ) {
            let mut parser = ReplyParser::new();
            let mut found = Ok(Vec::new());
            let mut rest = &bytes[..];
            for size in cuts.iter().cycle() {
                if rest.is_empty() || found.is_err() {
                    break;
                }
                let (part, later) = rest.split_at((*size).min(rest.len()));
                rest = later;
                parser.push(part);
                loop {
                    match parser.next_reply() {
                        Ok(Some(reply)) => found.as_mut().unwrap().push(reply),
                        Ok(None) => break,
                        Err(error) => { found = Err(error); break; }
                    }
                }
            }
            prop_assert_eq!(found, replies(&bytes));
        }
    }
}

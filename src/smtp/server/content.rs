//! The content of one message while it arrives: line ends, lengths, octets that may not be there.
//!
//! Promises: what is kept has CRLF line ends only and no NUL; the result does not depend on how the octets were cut into
//! reads; after a fault nothing more is kept, but everything is counted, so that the session goes on behind the real end of
//! the message. Does not: parse header fields, or break lines of the body: `message::mime` re-encodes those.
//!
//! A bare CR or LF is more than untidy: a later server may take `LF.LF` for the end of the message and what follows
//! for commands, under our name (SMTP smuggling). RFC 5321 §2.3.8 forbids to send them on. Lines above 998 octets
//! without CRLF are against RFC 5321 §4.5.3.1.6: servers cut or refuse them, so they must not leave as they came.

use crate::types::Reply;

/// What to do with a message that holds a bare CR, a bare LF or a NUL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hygiene {
    /// 550 5.6.11.
    Refuse,
    /// Bare CR and bare LF become CRLF; NULs are dropped. The end of data is CRLF.CRLF only, in either case. A long
    /// line of the header block that is taken is folded here before the last blank in its second half, or, without one,
    /// in the middle of a word.
    Repair,
}

/// What to do with a message that holds a line above 998 octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongLines {
    /// It is taken: who drives the machine folds those of the header and re-encodes those of the body.
    Encode,
    /// 550 5.6.11.
    Refuse,
}

/// Why a message is refused at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 552 5.3.4: more octets than allowed.
    TooLong,
    /// 552 5.3.4: the header block is longer than allowed.
    HeaderTooLong,
    /// 550 5.6.11.
    BareCr,
    /// 550 5.6.11.
    BareLf,
    /// 550 5.6.11.
    Nul,
    /// 550 5.6.11.
    LineTooLong,
    /// What the driver said ([`Content::fail`]).
    Refused(Reply),
}

/// Limits of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentLimits {
    /// Octets of the message as it came, without stuffed dots.
    pub message_bytes_max: u64,
    /// Octets of the header block, with its empty line. Checked at each line end.
    pub header_bytes_max: usize,
    /// Take or refuse.
    pub long_lines: LongLines,
    /// Repair or refuse.
    pub hygiene: Hygiene,
}

/// Octets of a line without its CRLF (RFC 5321 §4.5.3.1.6). Above: as [`LongLines`] says.
const LINE_BYTES_MAX: usize = 998;
const CRLF: &[u8] = b"\r\n";

/// Content of a message, as far as it came.
#[derive(Debug)]
pub struct Content {
    limits: ContentLimits,
    buffer: Vec<u8>,
    /// Octets that came, kept or not.
    total_bytes: u64,
    /// Where the body begins in `buffer`: set with the empty line, zero once the header block was taken.
    body_at: Option<usize>,
    /// Octets in the current line.
    line_bytes: usize,
    /// The last octet was a CR, not yet kept.
    pending_cr: bool,
    fault: Option<Fault>,
}

impl Content {
    /// Nothing yet; room for `expected_bytes` is made when the first octets come.
    pub(super) fn new(limits: ContentLimits, expected_bytes: usize) -> Self {
        Self {
            limits,
            buffer: Vec::with_capacity(expected_bytes),
            total_bytes: 0,
            body_at: None,
            line_bytes: 0,
            pending_cr: false,
            fault: None,
        }
    }

    /// What is kept and was not taken.
    pub fn kept(&self) -> &[u8] {
        &self.buffer
    }

    /// Octets of the header block at the front of [`Content::kept`], its empty line included; `None` while no empty line
    /// came.
    pub fn header_bytes(&self) -> Option<usize> {
        self.body_at
    }

    /// Octets that came, kept or not.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Whether the message is already lost.
    pub fn is_faulty(&self) -> bool {
        self.fault.is_some()
    }

    pub(super) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }

    /// Puts `header` in place of the header block that came (or in front, where it was taken already).
    pub fn replace_header(&mut self, header: &[u8]) {
        let end = self.body_at.unwrap_or(self.buffer.len()).min(self.buffer.len());
        drop(self.buffer.splice(..end, header.iter().copied()));
        self.body_at = Some(0);
    }

    /// Takes the first `bytes` octets of what is kept, or all there is.
    pub fn take_front(&mut self, bytes: usize) -> Vec<u8> {
        let rest = self.buffer.split_off(bytes.min(self.buffer.len()));
        std::mem::replace(&mut self.buffer, rest)
    }

    /// Takes all that is kept.
    pub fn take_all(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.buffer)
    }

    /// The rest of the message is not wanted: it will be refused with `reply` at its end.
    pub fn fail(&mut self, reply: Reply) {
        self.set_fault(Fault::Refused(reply));
    }

    /// Takes octets that came, in order.
    pub(super) fn push(&mut self, run: &[u8]) {
        self.total_bytes = self.total_bytes.saturating_add(u64::try_from(run.len()).unwrap_or(u64::MAX));
        if self.total_bytes > self.limits.message_bytes_max {
            self.set_fault(Fault::TooLong);
        }
        let mut rest = run;
        while self.fault.is_none() {
            let Some(at) = memchr::memchr(0, rest) else {
                self.push_text(rest);
                return;
            };
            let (text, tail) = rest.split_at_checked(at).unwrap_or((rest, &[]));
            self.push_text(text);
            rest = tail.get(1..).unwrap_or_default();
            if self.limits.hygiene == Hygiene::Refuse && self.fault.is_none() {
                self.pending_cr_is_bare();
                self.set_fault(Fault::Nul);
            }
        }
    }

    /// The message is over: its fault, if any. The size counts more than what else is wrong.
    pub(super) fn finish(&mut self) -> Option<Fault> {
        self.pending_cr_is_bare();
        if self.fault.is_none() && self.line_bytes > 0 {
            self.buffer.extend_from_slice(CRLF);
            self.end_line(self.buffer.len());
        }
        self.fault.take()
    }

    /// Text without NUL. Clean lines are kept in one copy for the whole run.
    fn push_text(&mut self, text: &[u8]) {
        let (mut at, mut kept) = (0, 0);
        if self.pending_cr && !text.is_empty() {
            if text.starts_with(b"\n") {
                self.pending_cr = false;
                self.buffer.extend_from_slice(CRLF);
                self.end_line(self.buffer.len());
                (at, kept) = (1, 1);
            } else {
                self.pending_cr_is_bare();
            }
        }
        while self.fault.is_none() {
            let rest = text.get(at..).unwrap_or_default();
            let found = memchr::memchr2(b'\r', b'\n', rest);
            let end = at + found.unwrap_or(rest.len());
            let line_bytes = self.line_bytes + (end - at);
            if line_bytes > LINE_BYTES_MAX && self.is_folded() {
                self.keep(text.get(kept..at).unwrap_or_default());
                self.keep_folded(text.get(at..end).unwrap_or_default());
                kept = end;
            } else {
                self.line_bytes = line_bytes;
                if line_bytes > LINE_BYTES_MAX {
                    self.long_line(self.buffer.len() + (end - kept));
                }
            }
            match text.get(end..) {
                None | Some([]) => break,
                Some([b'\r', b'\n', ..]) => {
                    at = end + CRLF.len();
                    self.end_line(self.buffer.len() + (at - kept));
                }
                Some(tail) => {
                    self.keep(text.get(kept..end).unwrap_or_default());
                    at = end + 1;
                    kept = at;
                    self.lone_terminator(tail);
                }
            }
        }
        if self.fault.is_none() {
            self.keep(text.get(kept..).unwrap_or_default());
        }
    }

    /// `tail` begins with a CR or LF that has no partner in this run.
    fn lone_terminator(&mut self, tail: &[u8]) {
        match tail {
            [b'\r'] => self.pending_cr = true,
            [b'\r', ..] => self.bare(Fault::BareCr),
            _ => self.bare(Fault::BareLf),
        }
    }

    fn pending_cr_is_bare(&mut self) {
        if std::mem::take(&mut self.pending_cr) {
            self.bare(Fault::BareCr);
        }
    }

    fn bare(&mut self, fault: Fault) {
        match self.limits.hygiene {
            Hygiene::Refuse => self.set_fault(fault),
            Hygiene::Repair => {
                self.buffer.extend_from_slice(CRLF);
                self.end_line(self.buffer.len());
            }
        }
    }

    /// A line ended; the next one begins at `next_at` of the buffer.
    fn end_line(&mut self, next_at: usize) {
        if self.body_at.is_none() {
            if next_at > self.limits.header_bytes_max {
                self.set_fault(Fault::HeaderTooLong);
            }
            if self.line_bytes == 0 {
                self.body_at = Some(next_at);
            }
        }
        self.line_bytes = 0;
    }

    fn keep(&mut self, text: &[u8]) {
        if text.is_empty() || self.fault.is_some() {
            return;
        }
        self.buffer.extend_from_slice(text);
    }

    /// Whether a long line that is met now is folded here.
    fn is_folded(&self) -> bool {
        let Self { limits: ContentLimits { long_lines, hygiene, .. }, body_at, .. } = self;
        body_at.is_none() && *long_lines == LongLines::Encode && *hygiene == Hygiene::Repair
    }

    /// The current line is long, and is not folded here. With it, the buffer would have `length` octets.
    fn long_line(&mut self, length: usize) {
        if self.limits.long_lines == LongLines::Refuse {
            self.set_fault(Fault::LineTooLong);
        } else if self.body_at.is_none() && length > self.limits.header_bytes_max {
            // Not only at its end, which may never come.
            self.set_fault(Fault::HeaderTooLong);
        }
    }

    /// More of a line of the header that is, with it, above the limit.
    fn keep_folded(&mut self, text: &[u8]) {
        let mut rest = text;
        while !rest.is_empty() && self.fault.is_none() {
            let room = LINE_BYTES_MAX.saturating_sub(self.line_bytes);
            if room == 0 {
                self.fold_line();
                continue;
            }
            let (head, tail) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.keep(head);
            self.line_bytes += head.len();
            rest = tail;
        }
    }

    /// The current line of the header is full and more of it follows.
    fn fold_line(&mut self) {
        let length = self.buffer.len();
        let line_at = length.saturating_sub(self.line_bytes);
        let half_at = line_at + self.line_bytes / 2;
        let half = self.buffer.get(half_at..).unwrap_or_default();
        let (break_at, blank) = match memchr::memrchr2(b' ', b'\t', half) {
            Some(at) => (half_at + at, ""),
            None => (length, " "),
        };
        let insert = CRLF.iter().chain(blank.as_bytes()).copied();
        drop(self.buffer.splice(break_at..break_at, insert));
        let line_bytes = self.buffer.len() - break_at - CRLF.len();
        self.end_line(break_at + CRLF.len());
        self.line_bytes = line_bytes;
    }

    /// The first fault counts, but size counts most.
    fn set_fault(&mut self, fault: Fault) {
        if self.fault.is_none() || fault == Fault::TooLong {
            self.fault = Some(fault);
        }
        self.buffer = Vec::new();
    }
}

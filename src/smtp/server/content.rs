//! The content of one message while it arrives: line ends, lengths, octets that may not be there.
//!
//! Promises: what is kept has CRLF line ends only, no NUL, no line above the limit; the result does not depend on how
//! the octets were cut into reads; after a fault nothing more is kept, but everything is counted, so that the session
//! goes on behind the real end of the message. Does not: parse header fields.
//!
//! A bare CR or LF is more than untidy: a later server may take `LF.LF` for the end of the message and what follows
//! for commands, under our name (SMTP smuggling). RFC 5321 §2.3.8 forbids to send them on. Lines above 998 octets
//! without CRLF are against RFC 5321 §4.5.3.1.6, and servers cut or refuse them at delivery.

use crate::types::Reply;

/// What to do with a message that holds a bare CR, a bare LF, a NUL, or a line above the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hygiene {
    /// 550 5.6.11.
    Refuse,
    /// Bare CR and bare LF become CRLF; NULs are dropped. The end of data is CRLF.CRLF only, in either case. A long
    /// line of the header block is folded before the last blank in its second half, or, without one, in the middle of
    /// a word; a long line of the body is split with CRLF. This changes what the reader of such a body sees by a line
    /// break, as it does with other servers. It happens before signing, so signatures of ours stay valid.
    Repair,
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
    /// Octets of a line, CRLF included. Below 80: taken as 80.
    pub line_bytes_max: usize,
    /// Repair or refuse.
    pub hygiene: Hygiene,
}

/// Shortest line limit: a fold must make progress.
const LINE_BYTES_MIN: usize = 80;
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
    eight_bit_header: bool,
    eight_bit_body: bool,
    fault: Option<Fault>,
}

impl Content {
    /// Nothing yet; room for `expected_bytes` is made when the first octets come.
    pub(super) fn new(limits: ContentLimits, expected_bytes: usize) -> Self {
        let line_bytes_max = limits.line_bytes_max.max(LINE_BYTES_MIN);
        Self {
            limits: ContentLimits { line_bytes_max, ..limits },
            buffer: Vec::with_capacity(expected_bytes),
            total_bytes: 0,
            body_at: None,
            line_bytes: 0,
            pending_cr: false,
            eight_bit_header: false,
            eight_bit_body: false,
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

    /// Octets above 127 came after the header block.
    pub fn has_eight_bit_body(&self) -> bool {
        self.eight_bit_body
    }

    /// Octets above 127 came in the header block.
    pub fn has_eight_bit_header(&self) -> bool {
        self.eight_bit_header
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
            if line_bytes > self.limits.line_bytes_max - CRLF.len() {
                self.keep(text.get(kept..at).unwrap_or_default());
                self.keep_long(text.get(at..end).unwrap_or_default());
                kept = end;
            } else {
                self.line_bytes = line_bytes;
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
        let start = self.buffer.len();
        self.buffer.extend_from_slice(text);
        if !text.is_ascii() {
            let body_from = self.body_at.map_or(text.len(), |at| at.saturating_sub(start).min(text.len()));
            let (header, body) = text.split_at_checked(body_from).unwrap_or((text, &[]));
            self.eight_bit_header |= !header.is_ascii();
            self.eight_bit_body |= !body.is_ascii();
        }
    }

    /// More of a line that is, with it, above the limit.
    fn keep_long(&mut self, text: &[u8]) {
        if self.limits.hygiene == Hygiene::Refuse {
            return self.set_fault(Fault::LineTooLong);
        }
        let mut rest = text;
        while !rest.is_empty() && self.fault.is_none() {
            let room = (self.limits.line_bytes_max - CRLF.len()).saturating_sub(self.line_bytes);
            if room == 0 {
                self.break_line(rest.first().copied().unwrap_or_default());
                continue;
            }
            let (head, tail) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            self.keep(head);
            self.line_bytes += head.len();
            rest = tail;
        }
    }

    /// The current line is full and `next` does not fit: break it.
    fn break_line(&mut self, next: u8) {
        let length = self.buffer.len();
        let line_at = length.saturating_sub(self.line_bytes);
        let (break_at, blank) = match self.body_at {
            None => {
                let half_at = line_at + self.line_bytes / 2;
                let half = self.buffer.get(half_at..).unwrap_or_default();
                match memchr::memrchr2(b' ', b'\t', half) {
                    Some(at) => (half_at + at, ""),
                    None => (length, " "),
                }
            }
            Some(_) => (length - self.split_character(next), ""),
        };
        let insert = CRLF.iter().chain(blank.as_bytes()).copied();
        drop(self.buffer.splice(break_at..break_at, insert));
        let line_bytes = self.buffer.len() - break_at - CRLF.len();
        self.end_line(break_at + CRLF.len());
        self.line_bytes = line_bytes;
    }

    /// Octets at the end of the buffer that belong to one UTF-8 character with `next`: at most 3.
    fn split_character(&self, next: u8) -> usize {
        let is_continuation = |byte: u8| byte & 0xc0 == 0x80;
        if !is_continuation(next) {
            return 0;
        }
        let back = self.buffer.iter().rev().take(3).position(|byte| !is_continuation(*byte));
        let lead_is_whole = |back: usize| self.buffer.iter().rev().nth(back).is_some_and(|byte| *byte >= 0xc0);
        back.filter(|back| lead_is_whole(*back)).map_or(0, |back| back + 1)
    }

    /// The first fault counts, but size counts most.
    fn set_fault(&mut self, fault: Fault) {
        if self.fault.is_none() || fault == Fault::TooLong {
            self.fault = Some(fault);
        }
        self.buffer = Vec::new();
    }
}

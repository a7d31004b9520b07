//! The structure of a body, line by line: parts of multiparts, headers of parts, attached messages (RFC 2046 §5).
//!
//! A [`Walker`] gets octets in pieces and tells a [`Visitor`] what they are. Each octet is told once and in order: as a header
//! block, as text of a line, as a line end, or as a delimiter line. The line end before a delimiter belongs to the delimiter
//! (RFC 2046 §5.1.1), so each line end is held back until the next line is known.
//!
//! A line is a delimiter if it is `--`, a boundary that is open, perhaps `--`, and perhaps white space. One of an outer
//! multipart ends all parts within; a multipart whose delimiters could be those of one around it is not looked into.

use memchr::memchr;

use super::super::fold::LINE_BYTES_MAX;
use super::super::header::is_header_line;
use super::entity::{Entity, Kind, Role};
use super::plan::Reason;

/// Octets of the header of a part or of an attached message. Above: that part stays as it is.
const PART_HEADER_BYTES_MAX: usize = 64 << 10;
/// Parts and attached messages of a message. Above: the others stay as they are.
pub(super) const PARTS_MAX: usize = 1_000;
/// Multiparts and attached messages within one another. Above: what is deeper stays as it is.
const DEPTH_MAX: usize = 32;

/// Who is told.
pub(super) trait Visitor {
    /// A header block, its empty line included where there was one. What follows is the body of this entity.
    fn begin(&mut self, begin: Begin<'_>);
    /// Octets of a line.
    fn text(&mut self, piece: &[u8]);
    /// CRLF.
    fn line_end(&mut self);
    /// What was open ends here.
    fn delimiter(&mut self, delimiter: Delimiter<'_>);
}

/// A message or part begins.
pub(super) struct Begin<'a> {
    /// Counted from 0, the message itself, in the order of the headers. [`PARTS_MAX`] for all beyond it.
    pub(super) number: usize,
    /// That of the multipart or message around it.
    pub(super) parent: usize,
    pub(super) header: &'a [u8],
    pub(super) entity: &'a Entity,
}

/// A delimiter line.
pub(super) struct Delimiter<'a> {
    /// The CRLF before it.
    pub(super) has_break: bool,
    /// Without its CRLF.
    pub(super) line: &'a [u8],
    /// It has a CRLF.
    pub(super) is_ended: bool,
    pub(super) then: Then,
}

/// What follows a delimiter line, with the number of the multipart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Then {
    Part(usize),
    Epilogue(usize),
}

/// Where a walk is.
#[derive(Debug)]
pub(super) struct Walker {
    /// Open multiparts, the outermost first.
    levels: Vec<Level>,
    place: Place,
    line: Line,
    /// The start of a line that may be a delimiter.
    candidate: Vec<u8>,
    /// A header block that is not complete.
    header: Vec<u8>,
    /// Where the current line begins in `header`.
    line_at: usize,
    has_fields: bool,
    /// A CR at the end of what came.
    held_cr: bool,
    /// A line end that may belong to a delimiter.
    held_break: bool,
    /// Numbers given.
    entities: usize,
    parent: usize,
    depth: usize,
}

#[derive(Debug)]
struct Level {
    boundary: Vec<u8>,
    number: usize,
    digest: bool,
    /// Within it.
    depth: usize,
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Header(Role),
    Body,
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Start,
    Candidate,
    Through,
}

/// A line that is a delimiter of `levels[level]`.
struct Hit {
    level: usize,
    is_close: bool,
}

impl Walker {
    /// At the first octet of the body of `message`.
    pub(super) fn new(message: &Entity) -> Self {
        let mut walker = Self {
            levels: Vec::new(),
            place: Place::Body,
            line: Line::Start,
            candidate: Vec::new(),
            header: Vec::new(),
            line_at: 0,
            has_fields: false,
            held_cr: false,
            held_break: false,
            entities: 1,
            parent: 0,
            depth: 0,
        };
        walker.enter(0, &message.kind);
        walker
    }

    /// More of the body.
    pub(super) fn push<V: Visitor>(&mut self, input: &[u8], visitor: &mut V) {
        let mut rest = input;
        while !rest.is_empty() {
            if std::mem::take(&mut self.held_cr) {
                if let Some(tail) = rest.strip_prefix(b"\n") {
                    self.end_line(visitor);
                    rest = tail;
                    continue;
                }
                self.piece(b"\r", visitor);
            }
            let Some(at) = memchr(b'\n', rest) else {
                let text = rest.strip_suffix(b"\r").unwrap_or(rest);
                self.held_cr = text.len() < rest.len();
                return self.piece(text, visitor);
            };
            let (line, tail) = rest.split_at_checked(at + 1).unwrap_or((rest, &[]));
            rest = tail;
            match line.strip_suffix(b"\r\n") {
                Some(text) => {
                    self.piece(text, visitor);
                    self.end_line(visitor);
                }
                None => self.piece(line, visitor),
            }
        }
    }

    /// The body is over.
    pub(super) fn finish<V: Visitor>(&mut self, visitor: &mut V) {
        self.release_cr(visitor);
        while let Place::Header(_) = self.place {
            let line = self.header.split_off(self.line_at);
            if self.header.is_empty() && line.is_empty() {
                return;
            }
            if self.is_header_line(&line) && self.find(&line).is_none() {
                self.header.extend_from_slice(&line);
                self.end_header(visitor);
            } else {
                self.end_header(visitor);
                self.piece(&line, visitor);
                self.line_at = 0;
            }
        }
        if let Line::Candidate = self.line {
            let line = std::mem::take(&mut self.candidate);
            match self.find(&line) {
                Some(hit) => return self.deliver(&hit, &line, false, visitor),
                None => self.open_line(&line, visitor),
            }
        }
        self.release_break(visitor);
    }

    fn enter(&mut self, number: usize, kind: &Kind) {
        self.place = Place::Body;
        self.line = Line::Start;
        self.held_break = false;
        match kind {
            Kind::Leaf(_) | Kind::Frozen(_) => {}
            Kind::Multipart { boundary, digest } => {
                self.depth += 1;
                let (boundary, digest, depth) = (boundary.clone(), *digest, self.depth);
                self.levels.push(Level { boundary, number, digest, depth });
            }
            Kind::Message => {
                self.depth += 1;
                self.parent = number;
                self.begin_header(Role::Message);
            }
        }
    }

    fn begin_header(&mut self, role: Role) {
        self.place = Place::Header(role);
        self.header.clear();
        self.line_at = 0;
        self.has_fields = false;
    }

    /// Octets of one line.
    #[inline]
    fn piece<V: Visitor>(&mut self, piece: &[u8], visitor: &mut V) {
        let Some(first) = piece.first() else { return };
        match (self.place, self.line) {
            (Place::Header(role), _) => {
                if self.header.len() + piece.len() > PART_HEADER_BYTES_MAX {
                    self.give_header_up(role, visitor);
                    return self.piece(piece, visitor);
                }
                self.header.extend_from_slice(piece);
            }
            (Place::Body, Line::Through) => visitor.text(piece),
            (Place::Body, Line::Start) if *first != b'-' || self.levels.is_empty() => self.open_line(piece, visitor),
            (Place::Body, _) => {
                self.line = Line::Candidate;
                if self.candidate.len() + piece.len() > LINE_BYTES_MAX {
                    let start = std::mem::take(&mut self.candidate);
                    self.open_line(&start, visitor);
                    return visitor.text(piece);
                }
                self.candidate.extend_from_slice(piece);
            }
        }
    }

    /// A line that is no delimiter begins.
    #[inline]
    fn open_line<V: Visitor>(&mut self, piece: &[u8], visitor: &mut V) {
        self.release_break(visitor);
        self.line = Line::Through;
        visitor.text(piece);
    }

    #[inline]
    fn release_break<V: Visitor>(&mut self, visitor: &mut V) {
        if std::mem::take(&mut self.held_break) {
            visitor.line_end();
        }
    }

    fn release_cr<V: Visitor>(&mut self, visitor: &mut V) {
        if std::mem::take(&mut self.held_cr) {
            self.piece(b"\r", visitor);
        }
    }

    #[inline]
    fn end_line<V: Visitor>(&mut self, visitor: &mut V) {
        match (self.place, self.line) {
            (Place::Header(role), _) => return self.end_header_line(role, visitor),
            (Place::Body, Line::Through) => {}
            (Place::Body, Line::Start) => self.release_break(visitor),
            (Place::Body, Line::Candidate) => {
                let mut line = std::mem::take(&mut self.candidate);
                if let Some(hit) = self.find(&line) {
                    return self.deliver(&hit, &line, true, visitor);
                }
                self.open_line(&line, visitor);
                line.clear();
                self.candidate = line;
            }
        }
        self.line = Line::Start;
        self.held_break = true;
    }

    /// The current line of the header block is complete.
    fn end_header_line<V: Visitor>(&mut self, role: Role, visitor: &mut V) {
        let line = self.header.split_off(self.line_at);
        if let Some(hit) = self.find(&line) {
            self.end_header(visitor);
            return self.deliver(&hit, &line, true, visitor);
        }
        if line.is_empty() {
            self.header.extend_from_slice(b"\r\n");
            return self.end_header(visitor);
        }
        if !self.is_header_line(&line) {
            // The body began without an empty line.
            self.end_header(visitor);
            self.piece(&line, visitor);
            return self.end_line(visitor);
        }
        self.has_fields |= !is_mbox_line(&line);
        self.header.extend_from_slice(&line);
        self.header.extend_from_slice(b"\r\n");
        self.line_at = self.header.len();
        if self.header.len() > PART_HEADER_BYTES_MAX {
            self.give_header_up(role, visitor);
        }
    }

    fn is_header_line(&self, line: &[u8]) -> bool {
        match line.first() {
            Some(b' ' | b'\t') => self.has_fields,
            _ => is_header_line(line) || (self.line_at == 0 && is_mbox_line(line)),
        }
    }

    fn end_header<V: Visitor>(&mut self, visitor: &mut V) {
        let Place::Header(role) = self.place else { return };
        let header = std::mem::take(&mut self.header);
        let mut entity = Entity::of(&header, role);
        if self.entities >= PARTS_MAX {
            entity = Entity::frozen(role, Reason::TooManyParts);
        } else if entity.is_composite() && self.depth >= DEPTH_MAX {
            entity = Entity::frozen(role, Reason::TooDeep);
        } else if self.is_ambiguous(&entity.kind) {
            entity = Entity::frozen(role, Reason::NoBoundary);
        }
        self.begin(&header, &entity, visitor);
    }

    /// Its delimiters could be those of a multipart around it.
    fn is_ambiguous(&self, kind: &Kind) -> bool {
        let Kind::Multipart { boundary, .. } = kind else { return false };
        let is_close_of = |long: &[u8], short: &[u8]| long.strip_suffix(b"--") == Some(short);
        self.levels.iter().any(|Level { boundary: open, .. }| {
            open == boundary || is_close_of(open, boundary) || is_close_of(boundary, open)
        })
    }

    fn begin<V: Visitor>(&mut self, header: &[u8], entity: &Entity, visitor: &mut V) {
        let number = self.entities.min(PARTS_MAX);
        self.entities = (number + 1).min(PARTS_MAX);
        visitor.begin(Begin { number, parent: self.parent, header, entity });
        self.enter(number, &entity.kind);
    }

    /// The header is too long: it and its body are content.
    fn give_header_up<V: Visitor>(&mut self, role: Role, visitor: &mut V) {
        let header = std::mem::take(&mut self.header);
        self.begin(&[], &Entity::frozen(role, Reason::HeaderTooLong), visitor);
        self.push(&header, visitor);
        self.release_cr(visitor);
    }

    /// Whether a line without its CRLF is a delimiter, and of which multipart.
    fn find(&self, line: &[u8]) -> Option<Hit> {
        let text = line.strip_prefix(b"--").filter(|_| line.len() <= LINE_BYTES_MAX)?;
        let is_padding = |rest: &[u8]| rest.iter().all(|byte| matches!(byte, b' ' | b'\t'));
        self.levels.iter().enumerate().rev().find_map(|(level, open)| {
            let rest = text.strip_prefix(open.boundary.as_slice())?;
            let is_close = rest.strip_prefix(b"--").is_some_and(is_padding);
            (is_close || is_padding(rest)).then_some(Hit { level, is_close })
        })
    }

    /// Ends all that is within the multipart of a delimiter.
    fn deliver<V: Visitor>(&mut self, hit: &Hit, line: &[u8], is_ended: bool, visitor: &mut V) {
        let has_break = std::mem::take(&mut self.held_break);
        self.levels.truncate(hit.level + 1);
        let Some(level) = self.levels.last() else { return };
        let (number, digest, depth) = (level.number, level.digest, level.depth);
        let then = if hit.is_close { Then::Epilogue(number) } else { Then::Part(number) };
        visitor.delimiter(Delimiter { has_break, line, is_ended, then });
        (self.place, self.line) = (Place::Body, Line::Start);
        (self.depth, self.parent) = (depth, number);
        if hit.is_close {
            drop(self.levels.pop());
        } else {
            self.begin_header(Role::Part { digest });
        }
    }
}

/// The line that mail programs write before each message of an mbox file.
fn is_mbox_line(line: &[u8]) -> bool {
    (line.starts_with(b"From ") || line.starts_with(b">From ")) && !is_header_line(line)
}

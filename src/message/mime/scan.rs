//! The first pass: what a body has, and what is to be done about it.
//!
//! Costs little where nothing is wrong, since every message goes through it: each line is looked for its end and for octets
//! above 127, both by vector instructions, and nothing is copied.

use super::super::fold::LINE_BYTES_MAX;
use super::super::header::{End, Fields};
use super::EightBitBodies;
use super::entity::{Encoding, Entity, Kind, Label, Leaf, Role};
use super::part_header;
use super::plan::{Body, Dirt, EntityPlan, Leftovers, Plan, Reason};
use super::utf8::Utf8;
use super::walk::{Begin, Delimiter, PARTS_MAX, Then, Visitor, Walker};

/// Reads a message once and makes a [`Plan`] for it.
#[derive(Debug)]
pub struct Scanner {
    walker: Walker,
    survey: Survey,
}

impl Scanner {
    /// At the start of the body of a message with this header block, as the client sent it: CRLF line ends, with its empty
    /// line or without. Where the body begins without an empty line, its first lines may stand in `header_block`; they are
    /// taken as pushed.
    pub fn new(header_block: &[u8], eight_bit: EightBitBodies) -> Self {
        let entity = Entity::of(header_block, Role::Message);
        let mut survey = Survey::new(eight_bit);
        survey.add(0, &entity);
        let mut scanner = Self { walker: Walker::new(&entity), survey };
        scanner.push(body_in(header_block));
        scanner
    }

    /// Octets of the body, as they arrive.
    pub fn push(&mut self, input: &[u8]) {
        self.walker.push(input, &mut self.survey);
    }

    /// The body is over.
    pub fn finish(mut self) -> Plan {
        self.walker.finish(&mut self.survey);
        self.survey.finish()
    }
}

/// The lines of the body that stand in a header block without an empty line.
pub(super) fn body_in(header_block: &[u8]) -> &[u8] {
    let mut fields = Fields::new(header_block);
    fields.by_ref().for_each(drop);
    match fields.end() {
        End::EmptyLine => {
            let rest = fields.rest();
            rest.strip_prefix(b"\r\n").or_else(|| rest.strip_prefix(b"\n")).unwrap_or_default()
        }
        End::Body => fields.rest(),
        End::Input => &[],
    }
}

/// What octets are that come now.
#[derive(Clone, Copy, Debug)]
enum Zone {
    /// Nothing: a header comes next.
    Between,
    Leaf(usize, Leaf),
    Frozen(usize, Reason),
    Preamble(usize),
    Epilogue(usize),
}

/// What was counted in a zone.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    bytes: u64,
    eight_bit: u64,
    lines: u64,
    has_long_line: bool,
    line_bytes: usize,
    utf8: Utf8,
}

impl Tally {
    fn dirt(&self) -> Dirt {
        let long_line = self.has_long_line || self.line_bytes > LINE_BYTES_MAX;
        Dirt { eight_bit: self.eight_bit > 0, long_line }
    }
}

/// A message or part, as far as it is known.
#[derive(Debug)]
struct Facts {
    plan: EntityPlan,
    parent: usize,
    /// Where the encoding is `8bit` or `binary`, and it holds other parts.
    may_relabel: bool,
    /// A message without `MIME-Version`.
    lacks_mime_version: bool,
    is_multipart: bool,
    has_parts: bool,
    preamble: Dirt,
    epilogue: Dirt,
    /// In it or what it holds.
    is_changed: bool,
    stays_eight_bit: bool,
}

#[derive(Debug)]
struct Survey {
    eight_bit: EightBitBodies,
    zone: Zone,
    tally: Tally,
    found: Dirt,
    leftovers: Leftovers,
    entities: Vec<Facts>,
}

impl Visitor for Survey {
    fn begin(&mut self, begin: Begin<'_>) {
        self.close();
        let header = part_header::survey(begin.header, self.eight_bit);
        self.found |= header.found;
        let is_known = self.entities.len() < PARTS_MAX && begin.number < PARTS_MAX;
        if is_known {
            self.add(begin.parent, begin.entity);
        }
        let number = if is_known { begin.number } else { begin.parent };
        if let Kind::Frozen(reason) = begin.entity.kind {
            self.zone = Zone::Frozen(number, reason);
            return self.stays(number, reason, header.found);
        }
        if let Some(facts) = self.entities.get_mut(number)
            && header.is_changed
        {
            facts.plan.edits.tidy = Some(self.eight_bit);
            facts.is_changed = true;
        }
        self.stays(number, Reason::HeaderField, header.remaining);
    }

    #[inline]
    fn text(&mut self, piece: &[u8]) {
        let tally = &mut self.tally;
        tally.line_bytes += piece.len();
        tally.bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if !piece.is_ascii() {
            let count = piece.iter().filter(|byte| !byte.is_ascii()).count();
            tally.eight_bit += u64::try_from(count).unwrap_or(u64::MAX);
            tally.utf8.push(piece);
        } else if tally.eight_bit > 0 {
            tally.utf8.push(piece);
        }
    }

    #[inline]
    fn line_end(&mut self) {
        let tally = &mut self.tally;
        tally.has_long_line |= tally.line_bytes > LINE_BYTES_MAX;
        tally.line_bytes = 0;
        tally.lines += 1;
        if tally.eight_bit > 0 {
            tally.utf8.push(b"\n");
        }
    }

    fn delimiter(&mut self, delimiter: Delimiter<'_>) {
        self.close();
        match delimiter.then {
            Then::Epilogue(number) => self.zone = Zone::Epilogue(number),
            Then::Part(number) => {
                if let Some(facts) = self.entities.get_mut(number) {
                    facts.has_parts = true;
                }
            }
        }
    }
}

impl Survey {
    fn new(eight_bit: EightBitBodies) -> Self {
        Self {
            eight_bit,
            zone: Zone::Between,
            tally: Tally::default(),
            found: Dirt::default(),
            leftovers: Leftovers { eight_bit, remaining: Vec::new(), left: Dirt::default() },
            entities: Vec::new(),
        }
    }

    fn add(&mut self, parent: usize, entity: &Entity) {
        let number = self.entities.len();
        self.entities.push(Facts {
            plan: EntityPlan::KEEP,
            parent,
            may_relabel: entity.says_eight_bit && entity.is_composite(),
            lacks_mime_version: entity.role == Role::Message && !entity.has_mime_version,
            is_multipart: matches!(entity.kind, Kind::Multipart { .. }),
            has_parts: false,
            preamble: Dirt::default(),
            epilogue: Dirt::default(),
            is_changed: false,
            stays_eight_bit: false,
        });
        self.zone = match &entity.kind {
            Kind::Leaf(leaf) => Zone::Leaf(number, *leaf),
            Kind::Frozen(reason) => Zone::Frozen(number, *reason),
            Kind::Multipart { .. } => Zone::Preamble(number),
            Kind::Message => Zone::Between,
        };
    }

    /// What the rules ask to be changed.
    fn to_change(&self, dirt: Dirt) -> Dirt {
        Dirt { eight_bit: dirt.eight_bit && self.eight_bit == EightBitBodies::Encode, ..dirt }
    }

    fn stays(&mut self, number: usize, reason: Reason, dirt: Dirt) {
        self.leftovers.note(reason, dirt);
        self.stays_eight_bit(number, dirt);
    }

    fn stays_eight_bit(&mut self, number: usize, dirt: Dirt) {
        if let Some(facts) = self.entities.get_mut(number) {
            facts.stays_eight_bit |= dirt.eight_bit;
        }
    }

    /// The zone ends: judges it.
    fn close(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        let zone = std::mem::replace(&mut self.zone, Zone::Between);
        let dirt = tally.dirt();
        if dirt.is_none() {
            return;
        }
        self.found |= dirt;
        match zone {
            Zone::Between => {}
            Zone::Frozen(number, reason) => self.stays(number, reason, dirt),
            Zone::Leaf(number, leaf) => self.close_leaf(number, leaf, &tally),
            Zone::Preamble(number) => {
                if let Some(facts) = self.entities.get_mut(number) {
                    facts.preamble = dirt;
                }
            }
            Zone::Epilogue(number) => {
                if let Some(facts) = self.entities.get_mut(number) {
                    facts.epilogue = dirt;
                }
            }
        }
    }

    fn close_leaf(&mut self, number: usize, leaf: Leaf, tally: &Tally) {
        let dirt = tally.dirt();
        if self.to_change(dirt).is_none() {
            self.leftovers.left |= dirt;
            return self.stays_eight_bit(number, dirt);
        }
        let Some(facts) = self.entities.get_mut(number) else { return };
        facts.is_changed = true;
        let (body, encoding) = match leaf.encoding {
            Encoding::QuotedPrintable => (Body::ReflowQuotedPrintable, None),
            Encoding::Base64 => (Body::RewrapBase64, None),
            Encoding::Identity | Encoding::Unknown if is_better_quoted(leaf, tally) => {
                (Body::QuotedPrintable { is_text: leaf.is_text }, Some("quoted-printable"))
            }
            Encoding::Identity | Encoding::Unknown => (Body::Base64, Some("base64")),
        };
        facts.plan.body = body;
        facts.plan.edits.encoding = encoding;
        if leaf.encoding == Encoding::Identity && dirt.eight_bit {
            facts.plan.edits.charset = match (leaf.label, tally.utf8.is_valid()) {
                (Label::Settled, _) | (Label::MaybeInside, false) => None,
                (Label::Missing | Label::MaybeInside, true) => Some("utf-8"),
                (Label::Missing, false) => Some("iso-8859-1"),
            };
        }
    }

    fn finish(mut self) -> Plan {
        self.close();
        for number in (0..self.entities.len()).rev() {
            self.settle(number);
        }
        let plans: Vec<EntityPlan> = self.entities.iter().map(|facts| facts.plan).collect();
        Plan::new(&plans, self.leftovers.remaining, self.found, self.leftovers.left)
    }

    /// Completes the plan of one whose parts are complete, and tells the one around it.
    fn settle(&mut self, number: usize) {
        let Some(facts) = self.entities.get(number) else { return };
        let (preamble, epilogue) = (facts.preamble, facts.epilogue);
        let mut margins = preamble;
        margins |= epilogue;
        if facts.is_multipart && !facts.has_parts {
            self.stays(number, Reason::NoParts, margins);
        } else if !self.to_change(margins).is_none() {
            let clean = |dirt| !self.to_change(dirt).is_none();
            let body = Body::Margins { preamble: clean(preamble), epilogue: clean(epilogue) };
            self.clean_margins(number, body, preamble, epilogue);
        } else {
            self.leftovers.left |= margins;
            self.stays_eight_bit(number, margins);
        }
        let Some(facts) = self.entities.get_mut(number) else { return };
        if facts.may_relabel && facts.is_changed && !facts.stays_eight_bit {
            facts.plan.edits.encoding = Some("7bit");
        }
        let edits_type = facts.plan.edits.encoding.is_some() || facts.plan.edits.charset.is_some();
        facts.plan.edits.mime_version = facts.lacks_mime_version && edits_type;
        let (parent, is_changed, stays) = (facts.parent, facts.is_changed, facts.stays_eight_bit);
        if parent != number
            && let Some(parent) = self.entities.get_mut(parent)
        {
            parent.is_changed |= is_changed;
            parent.stays_eight_bit |= stays;
        }
    }

    fn clean_margins(&mut self, number: usize, body: Body, preamble: Dirt, epilogue: Dirt) {
        let Body::Margins { preamble: cleans_preamble, epilogue: cleans_epilogue } = body else { return };
        for (dirt, cleans) in [(preamble, cleans_preamble), (epilogue, cleans_epilogue)] {
            if !cleans {
                self.leftovers.left |= dirt;
                self.stays_eight_bit(number, dirt);
            }
        }
        if let Some(facts) = self.entities.get_mut(number) {
            facts.plan.body = body;
            facts.is_changed = true;
        }
    }
}

/// Text becomes quoted-printable where few of its octets are above 127, so that it can be read as it is: a fifth of them, where
/// base64 begins to be shorter, and a few more for the sake of short texts. All else becomes what is shorter:
/// quoted-printable adds two octets to each above 127, four to each CRLF and three to each 75; base64 a third, and two to each
/// 76. What else needs an escape is rare, and not counted.
fn is_better_quoted(leaf: Leaf, tally: &Tally) -> bool {
    if leaf.is_text {
        return tally.eight_bit <= tally.bytes / 5 + 16;
    }
    let bytes = tally.bytes + 2 * tally.lines;
    bytes + 2 * tally.eight_bit + 4 * tally.lines + bytes / 25 <= bytes * 104 / 76
}

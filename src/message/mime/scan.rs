//! The first pass: what a body has, and what is to be done about it.
//!
//! Costs little where nothing is wrong, since every message goes through it: each line is looked for its end and for octets
//! above 127, both by vector instructions, and nothing is copied.

use super::super::fold::LINE_BYTES_MAX;
use super::super::header;
use super::EightBitBodies;
use super::entity::{Encoding, Entity, Kind, Label, Leaf, Role};
use super::part_header;
use super::plan::{Body, Dirt, EntityPlan, Leftovers, Plan, Reason};
use super::quoted_printable;
use super::utf8::Utf8;
use super::walk::{Begin, Delimiter, PARTS_MAX, Then, Visitor, Walker};

/// Octets that text may be longer in quoted-printable than a third allows: a few words.
const SHORT_TEXT_GRACE_BYTES: u64 = 32;

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
        scanner.push(header::split(header_block).1);
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
    /// Octets that quoted-printable cannot hold as they are. Only of content without an encoding.
    escapes: u64,
    lines: u64,
    has_eight_bit: bool,
    has_long_line: bool,
    line_bytes: usize,
    utf8: Utf8,
}

impl Tally {
    fn dirt(&self) -> Dirt {
        let long_line = self.has_long_line || self.line_bytes > LINE_BYTES_MAX;
        Dirt { eight_bit: self.has_eight_bit, long_line }
    }
}

/// A message or part, as far as it is known.
#[derive(Debug)]
struct Facts {
    plan: EntityPlan,
    parent: usize,
    /// The encoding is `8bit` or `binary`, and not for us to keep.
    may_relabel: bool,
    /// A message without `MIME-Version`.
    lacks_mime_version: bool,
    lacks_empty_line: bool,
    is_multipart: bool,
    has_parts: bool,
    preamble: Dirt,
    epilogue: Dirt,
    /// In it or what it holds, labels apart.
    is_changed: bool,
    /// What stays in its content.
    stays: Dirt,
    /// What stays in the fields of its header, but for `Content-Transfer-Encoding`: content of the one around it.
    fields_stay: Dirt,
    /// What stays in `Content-Transfer-Encoding`, if that stays.
    encoding_stays: Dirt,
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
        if let Some(facts) = self.entities.get_mut(number) {
            facts.lacks_empty_line = !begin.header.ends_with(b"\r\n\r\n") && begin.header != b"\r\n";
            facts.plan.edits.tidy = header.is_changed.then_some(self.eight_bit);
            facts.is_changed = header.is_changed;
            (facts.fields_stay, facts.encoding_stays) = (header.remaining, header.remaining_encoding);
        }
        self.leftovers.note(Reason::HeaderField, header.remaining);
    }

    #[inline]
    fn text(&mut self, piece: &[u8]) {
        let tally = &mut self.tally;
        tally.line_bytes += piece.len();
        tally.bytes += u64::try_from(piece.len()).unwrap_or(u64::MAX);
        if let Zone::Leaf(_, Leaf { encoding: Encoding::Identity, .. }) = self.zone {
            tally.escapes += quoted_printable::escapes(piece);
        }
        tally.has_eight_bit |= !piece.is_ascii();
        if tally.has_eight_bit {
            tally.utf8.push(piece);
        }
    }

    #[inline]
    fn line_end(&mut self) {
        let tally = &mut self.tally;
        tally.has_long_line |= tally.line_bytes > LINE_BYTES_MAX;
        tally.line_bytes = 0;
        tally.lines += 1;
        if tally.has_eight_bit {
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
        let may_relabel = match entity.kind {
            Kind::Frozen(_) => false,
            Kind::Leaf(_) => self.eight_bit == EightBitBodies::Encode,
            Kind::Multipart { .. } | Kind::Message => true,
        };
        self.entities.push(Facts {
            plan: EntityPlan::KEEP,
            parent,
            may_relabel: may_relabel && entity.says_eight_bit,
            lacks_mime_version: entity.role == Role::Message && !entity.has_mime_version,
            lacks_empty_line: false,
            is_multipart: matches!(entity.kind, Kind::Multipart { .. }),
            has_parts: false,
            preamble: Dirt::default(),
            epilogue: Dirt::default(),
            is_changed: false,
            stays: Dirt::default(),
            fields_stay: Dirt::default(),
            encoding_stays: Dirt::default(),
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
        self.stays_unasked(number, dirt);
    }

    /// Without a reason to be told.
    fn stays_unasked(&mut self, number: usize, dirt: Dirt) {
        self.leftovers.left |= dirt;
        if let Some(facts) = self.entities.get_mut(number) {
            facts.stays |= dirt;
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
            return self.stays_unasked(number, dirt);
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
        self.settle_margins(number);
        self.settle_label(number);
        let Some(facts) = self.entities.get_mut(number) else { return };
        let edits = &mut facts.plan.edits;
        let edits_type = edits.encoding.is_some() || edits.charset.is_some();
        edits.ends = facts.is_changed && facts.lacks_empty_line;
        edits.mime_version = facts.lacks_mime_version && facts.is_changed && edits_type;
        let field = if edits.encoding.is_none() { facts.encoding_stays } else { Dirt::default() };
        let mut stays = facts.stays;
        stays |= facts.fields_stay;
        stays |= field;
        let (parent, is_changed) = (facts.parent, facts.is_changed);
        self.leftovers.note(Reason::HeaderField, field);
        if parent != number
            && let Some(parent) = self.entities.get_mut(parent)
        {
            parent.is_changed |= is_changed;
            parent.stays |= stays;
        }
    }

    /// `8bit` and `binary` become `7bit` where nothing needs them any more: hosts without 8BITMIME behind them go by the label,
    /// and re-encode what has none of such octets, too. Where octets may pass, what is not touched otherwise stays.
    fn settle_label(&mut self, number: usize) {
        let is_asked = self.eight_bit == EightBitBodies::Encode;
        let Some(facts) = self.entities.get_mut(number) else { return };
        let is_unclear = facts.is_multipart && !facts.has_parts;
        let is_due = facts.may_relabel && (is_asked || facts.is_changed);
        if is_due && !is_unclear && facts.stays.is_none() && facts.plan.edits.encoding.is_none() {
            facts.plan.edits.encoding = Some("7bit");
        }
    }

    fn settle_margins(&mut self, number: usize) {
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
            self.stays_unasked(number, margins);
        }
    }

    fn clean_margins(&mut self, number: usize, body: Body, preamble: Dirt, epilogue: Dirt) {
        let Body::Margins { preamble: cleans_preamble, epilogue: cleans_epilogue } = body else { return };
        for (dirt, cleans) in [(preamble, cleans_preamble), (epilogue, cleans_epilogue)] {
            if !cleans {
                self.stays_unasked(number, dirt);
            }
        }
        if let Some(facts) = self.entities.get_mut(number) {
            facts.plan.body = body;
            facts.is_changed = true;
        }
    }
}

/// Content becomes what is shorter; but text quoted-printable, so that it can be read as it is, unless that is clearly longer: by
/// more than a third of base64, and a little for the sake of short texts. Quoted-printable adds two octets to each that it
/// must escape, four to each CRLF that is no line break and three to each 75; base64 a third, and two to each 76.
fn is_better_quoted(leaf: Leaf, tally: &Tally) -> bool {
    let bytes = tally.bytes + 2 * tally.lines;
    let escaped = bytes + 2 * tally.escapes + if leaf.is_text { 0 } else { 4 * tally.lines };
    let quoted = escaped + escaped / 25;
    let digits = bytes.div_ceil(3) * 4;
    let base64 = digits + digits.div_ceil(76) * 2;
    let grace = if leaf.is_text { base64 / 3 + SHORT_TEXT_GRACE_BYTES } else { 0 };
    quoted <= base64 + grace
}

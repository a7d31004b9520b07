//! The second pass: the body as the plan says.

use super::super::fold::LINE_BYTES_MAX;
use super::super::header;
use super::base64_lines;
use super::entity::{Entity, Role};
use super::part_header;
use super::plan::{Body, Plan};
use super::quoted_printable;
use super::walk::{Begin, Delimiter, Then, Visitor, Walker};

/// Reads a message a second time and writes its body anew.
#[derive(Debug)]
pub struct Rewriter {
    walker: Walker,
    writer: Writer,
    /// Body octets that stood in the header block.
    first: Vec<u8>,
}

impl Rewriter {
    /// At the start of the body. `header_block` and what is pushed are the same octets that the scanner had for `plan`,
    /// cut in any way; with others the result is no message, but still no panic.
    pub fn new(header_block: &[u8], plan: &Plan) -> Self {
        let entity = Entity::of(header_block, Role::Message);
        let writer = Writer { plan: plan.clone(), mode: mode(plan.entity(0).body), out: Vec::new() };
        // Of a clean plan they stay in the header block.
        let first = if plan.is_clean() { Vec::new() } else { header::split(header_block).1.to_vec() };
        Self { walker: Walker::new(&entity), writer, first }
    }

    /// More of the body: appends what is complete of the new one.
    pub fn push(&mut self, input: &[u8], out: &mut Vec<u8>) {
        if self.writer.plan.is_clean() {
            return out.extend_from_slice(input);
        }
        std::mem::swap(&mut self.writer.out, out);
        let first = std::mem::take(&mut self.first);
        self.walker.push(&first, &mut self.writer);
        self.walker.push(input, &mut self.writer);
        std::mem::swap(&mut self.writer.out, out);
    }

    /// The body is over: appends the rest.
    pub fn finish(mut self, out: &mut Vec<u8>) {
        if self.writer.plan.is_clean() {
            return;
        }
        self.push(&[], out);
        std::mem::swap(&mut self.writer.out, out);
        self.walker.finish(&mut self.writer);
        self.writer.end_body();
        std::mem::swap(&mut self.writer.out, out);
    }
}

/// What becomes of octets that come now.
#[derive(Debug)]
enum Mode {
    Copy,
    QuotedPrintable(quoted_printable::Encode),
    Base64(base64_lines::Encode),
    ReflowQuotedPrintable(quoted_printable::Reflow),
    RewrapBase64(base64_lines::Rewrap),
    Margin(Margin),
}

fn mode(body: Body) -> Mode {
    match body {
        Body::Keep | Body::Margins { preamble: false, .. } => Mode::Copy,
        Body::QuotedPrintable { is_text } => Mode::QuotedPrintable(quoted_printable::Encode::new(is_text)),
        Body::Base64 => Mode::Base64(base64_lines::Encode::default()),
        Body::ReflowQuotedPrintable => Mode::ReflowQuotedPrintable(quoted_printable::Reflow::new()),
        Body::RewrapBase64 => Mode::RewrapBase64(base64_lines::Rewrap::default()),
        Body::Margins { preamble: true, .. } => Mode::Margin(Margin::default()),
    }
}

#[derive(Debug)]
struct Writer {
    plan: Plan,
    mode: Mode,
    out: Vec<u8>,
}

impl Visitor for Writer {
    fn begin(&mut self, begin: Begin<'_>) {
        let plan = self.plan.entity(begin.number);
        if plan.edits_header() {
            self.out.extend_from_slice(&part_header::edit_part(begin.header, &plan.edits));
        } else {
            self.out.extend_from_slice(begin.header);
        }
        self.mode = mode(plan.body);
    }

    fn text(&mut self, piece: &[u8]) {
        let out = &mut self.out;
        match &mut self.mode {
            Mode::Copy => out.extend_from_slice(piece),
            Mode::QuotedPrintable(encode) => encode.text(piece, out),
            Mode::Base64(encode) => encode.content(piece, out),
            Mode::ReflowQuotedPrintable(reflow) => reflow.text(piece, out),
            Mode::RewrapBase64(rewrap) => rewrap.text(piece, out),
            Mode::Margin(margin) => margin.text(piece, out),
        }
    }

    fn line_end(&mut self) {
        let out = &mut self.out;
        match &mut self.mode {
            Mode::Copy => out.extend_from_slice(b"\r\n"),
            Mode::QuotedPrintable(encode) => encode.line_end(out),
            Mode::Base64(encode) => encode.content(b"\r\n", out),
            Mode::ReflowQuotedPrintable(reflow) => reflow.line_end(out),
            Mode::RewrapBase64(_) => {}
            Mode::Margin(margin) => margin.line_end(out),
        }
    }

    fn delimiter(&mut self, delimiter: Delimiter<'_>) {
        self.end_content();
        if delimiter.has_break {
            self.out.extend_from_slice(b"\r\n");
        }
        self.out.extend_from_slice(delimiter.line);
        if delimiter.is_ended {
            self.out.extend_from_slice(b"\r\n");
        }
        self.mode = match delimiter.then {
            Then::Epilogue(number) => match self.plan.entity(number).body {
                Body::Margins { epilogue: true, .. } => Mode::Margin(Margin::default()),
                _ => Mode::Copy,
            },
            Then::Part(_) => Mode::Copy,
        };
    }
}

impl Writer {
    fn end_content(&mut self) {
        let out = &mut self.out;
        match &mut self.mode {
            Mode::QuotedPrintable(encode) => encode.finish(out),
            Mode::Base64(encode) => encode.finish(out),
            Mode::ReflowQuotedPrintable(reflow) => reflow.finish(out),
            Mode::Copy | Mode::RewrapBase64(_) | Mode::Margin(_) => {}
        }
    }

    /// The end of the message. A line end behind base64 is none of its content.
    fn end_body(&mut self) {
        self.end_content();
        if matches!(self.mode, Mode::Base64(_) | Mode::RewrapBase64(_)) {
            self.out.extend_from_slice(b"\r\n");
        }
    }
}

/// Lines that no reader shows: before the first and behind the last part of a multipart.
#[derive(Debug, Default)]
struct Margin {
    column: usize,
}

impl Margin {
    fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            if self.column >= LINE_BYTES_MAX {
                self.line_end(out);
            }
            // What is changed must not become a boundary.
            if self.column == 0 && *byte == b'-' {
                out.push(b' ');
                self.column += 1;
            }
            out.push(if byte.is_ascii() { *byte } else { b'?' });
            self.column += 1;
        }
    }

    fn line_end(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        self.column = 0;
    }
}

//! What is rewritten says what it said, can be carried by any host, and is not rewritten again.

mod cases;
mod properties;
mod reader;
mod trees;

use super::super::header::block_end;
use super::*;

/// A message taken through both passes.
struct Done {
    plan: Plan,
    header: Vec<u8>,
    body: Vec<u8>,
}

impl Done {
    fn message(&self) -> Vec<u8> {
        [self.header.as_slice(), &self.body].concat()
    }

    /// With the lines of it that stand in a header block without an empty line.
    fn whole_body(&self) -> Vec<u8> {
        [crate::message::header::split(&self.header).1, &self.body].concat()
    }
}

/// The header block as reception cuts it, and the rest.
fn cut(message: &[u8]) -> (&[u8], &[u8]) {
    message.split_at(block_end(message, 0).unwrap_or(message.len()))
}

/// The body comes in pieces of `step` octets, differently in the second pass.
fn run_by(message: &[u8], eight_bit: EightBitBodies, step: usize) -> Done {
    let (header, body) = cut(message);
    let mut scanner = Scanner::new(header, eight_bit);
    body.chunks(step).for_each(|piece| scanner.push(piece));
    let plan = scanner.finish();
    let mut rewriter = Rewriter::new(header, &plan);
    let mut out = Vec::new();
    body.chunks(step + 1).for_each(|piece| rewriter.push(piece, &mut out));
    rewriter.finish(&mut out);
    Done { header: plan.header(header).into_owned(), body: out, plan }
}

/// Rewritten already: nothing changes, be it a label.
#[track_caller]
fn assert_settled(message: &[u8]) {
    let again = run(message);
    assert!(again.plan.is_clean());
    assert_eq!(String::from_utf8_lossy(&again.message()), String::from_utf8_lossy(message));
}

fn run(message: &[u8]) -> Done {
    run_by(message, EightBitBodies::Encode, 4_096)
}

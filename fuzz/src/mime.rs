//! Bodies that are made 7-bit: structure that a hostile client wrote, cut in any way.

use posthaste::message::header::block_end;
use posthaste::message::mime::{Dirt, EightBitBodies, Plan, Rewriter, Scanner};

use super::octets::{LINE_BYTES_MAX, assert_short_lines};

/// A message re-encoded. Octet 0 is the size of pieces, and its high bit lets octets above 127 pass.
pub fn message_mime(data: &[u8]) {
    let Some((flags, message)) = data.split_first() else { return };
    let eight_bit = if flags & 128 == 0 { EightBitBodies::Encode } else { EightBitBodies::Pass };
    let (came_header, came_body) = message.split_at(block_end(message, 0).unwrap_or(message.len()));
    let (_, header, body) = rewritten(message, eight_bit, message.len());
    let (plan, header_again, body_again) = rewritten(message, eight_bit, usize::from(flags & 127));
    assert_eq!(header, header_again, "the header depends on how the body was cut");
    assert_eq!(body, body_again, "the body depends on how it was cut");
    if plan.is_clean() {
        assert_eq!(body, came_body, "a clean body was changed");
        assert!(eight_bit == EightBitBodies::Encode || header == came_header, "a label that may stay was changed");
    }
    if !plan.left().long_line {
        assert_short_lines(&body, LINE_BYTES_MAX);
    }
    assert!(plan.left().eight_bit || body.is_ascii(), "the plan says what is left");
    // A header that reception would refuse may turn into another when it is read again.
    if is_clean(message) {
        let whole = [header, body].concat();
        let (again, header, body) = rewritten(&whole, eight_bit, message.len());
        assert!(again.is_clean(), "what was rewritten is rewritten again");
        assert_eq!([header, body].concat(), whole, "what was rewritten is changed again");
        let (found, left) = (again.found(), plan.left());
        assert!(left.eight_bit || !found.eight_bit, "more is found than was left");
        assert!(left.long_line || !found.long_line, "more is found than was left");
    }
    let mut remaining = Dirt::default();
    for one in plan.remaining() {
        remaining.eight_bit |= one.dirt.eight_bit;
        remaining.long_line |= one.dirt.long_line;
    }
    assert_eq!(remaining.long_line, plan.left().long_line, "each long line that is left has its reason");
}

fn rewritten(message: &[u8], eight_bit: EightBitBodies, piece_bytes: usize) -> (Plan, Vec<u8>, Vec<u8>) {
    let (header, body) = message.split_at(block_end(message, 0).unwrap_or(message.len()));
    let pieces = || body.chunks(piece_bytes.max(1));
    let mut scanner = Scanner::new(header, eight_bit);
    pieces().for_each(|piece| scanner.push(piece));
    let plan = scanner.finish();
    let mut out = Vec::new();
    let mut rewriter = Rewriter::new(header, &plan);
    pieces().for_each(|piece| rewriter.push(piece, &mut out));
    rewriter.finish(&mut out);
    (plan.clone(), plan.header(header).into_owned(), out)
}

/// CRLF line ends only, and no NUL, as reception makes them.
fn is_clean(octets: &[u8]) -> bool {
    let mut before = 0;
    octets.iter().all(|octet| {
        let is_right = *octet != 0 && (*octet == b'\n') == (before == b'\r');
        before = *octet;
        is_right
    }) && before != b'\r'
}

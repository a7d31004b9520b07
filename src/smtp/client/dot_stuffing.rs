//! Makes message data out of a body: doubles each dot that begins a line, and ends with one CRLF and the final dot
//! (RFC 5321 §4.5.2).
//!
//! Bodies of the queue have CRLF line ends only. Should a bare LF ever come through, the dot behind it is doubled too:
//! a receiver that takes a bare LF for a line end then sees no end of data, and nobody can be smuggled a second message.

use memchr::memmem;

/// Where the last octet left us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// Before the first octet of a line.
    LineStart,
    /// Behind a CR.
    AfterCr,
    /// Behind a LF that had no CR.
    AfterBareLf,
    /// Anywhere else.
    Middle,
}

/// Stuffs one message, given in any number of parts.
#[derive(Debug)]
pub struct DotStuffer {
    position: Position,
}

impl Default for DotStuffer {
    fn default() -> Self {
        Self::new()
    }
}

impl DotStuffer {
    /// At the first octet of the body.
    pub const fn new() -> Self {
        Self { position: Position::LineStart }
    }

    /// Appends the next part of the body to `out`, stuffed.
    pub fn stuff(&mut self, part: &[u8], out: &mut Vec<u8>) {
        let Some(last) = part.last() else { return };
        out.reserve(part.len() + part.len() / 64 + 8);
        let at_line_start = matches!(self.position, Position::LineStart | Position::AfterBareLf);
        if at_line_start && part.starts_with(b".") {
            out.push(b'.');
        }
        let mut copied = 0;
        for lf in memmem::find_iter(part, b"\n.") {
            let (Some(line), dot) = (part.get(copied..=lf), lf + 1) else { break };
            out.extend_from_slice(line);
            out.push(b'.');
            copied = dot;
        }
        out.extend_from_slice(part.get(copied..).unwrap_or_default());
        self.position = match last {
            b'\n' if self.lf_has_cr(part) => Position::LineStart,
            b'\n' => Position::AfterBareLf,
            b'\r' => Position::AfterCr,
            _ => Position::Middle,
        };
    }

    /// Appends the end of the data: the CRLF that a last line may lack, and the final dot.
    pub fn finish(self, out: &mut Vec<u8>) {
        let end: &[u8] = match self.position {
            Position::LineStart => b".\r\n",
            Position::AfterCr => b"\n.\r\n",
            Position::AfterBareLf | Position::Middle => b"\r\n.\r\n",
        };
        out.extend_from_slice(end);
    }

    /// Whether the LF at the end of `part` follows a CR, be it in this part or at the end of the one before.
    fn lf_has_cr(&self, part: &[u8]) -> bool {
        if part.len() == 1 { self.position == Position::AfterCr } else { part.ends_with(b"\r\n") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn stuffed(parts: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut stuffer = DotStuffer::new();
        for part in parts {
            stuffer.stuff(part, &mut out);
        }
        stuffer.finish(&mut out);
        out
    }

    /// What a receiver makes of it. `lax`: one that takes a bare LF for a line end.
    fn unstuffed(data: &[u8], lax: bool) -> Vec<u8> {
        let mut out = Vec::new();
        let mut rest = data;
        loop {
            if rest == b".\r\n" {
                return out;
            }
            rest = rest.strip_prefix(b".").unwrap_or(rest);
            let end = if lax {
                memmem::find(rest, b"\n").map(|at| at + 1)
            } else {
                memmem::find(rest, b"\r\n").map(|at| at + 2)
            };
            let (line, later) = rest.split_at(end.expect("data ends in a line"));
            assert!(!(lax && later == b".\n"), "end of data where there is none");
            out.extend_from_slice(line);
            rest = later;
        }
    }

    #[test]
    fn dots_and_ends_in_a_table() {
        for (body, expected) in [
            (&b""[..], &b".\r\n"[..]),
            (b"a\r\n", b"a\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\r", b"a\r\n.\r\n"),
            (b"a\n", b"a\n\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b".\r\n", b"..\r\n.\r\n"),
            (b"..a\r\n.\r\n.\r\nb.c\r\n", b"...a\r\n..\r\n..\r\nb.c\r\n.\r\n"),
            (b"a\n.\r\nMAIL", b"a\n..\r\nMAIL\r\n.\r\n"),
            (b"\r\n", b"\r\n.\r\n"),
        ] {
            assert_eq!(stuffed(&[body]).escape_ascii().to_string(), expected.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_line_end_split_between_parts_still_counts() {
        assert_eq!(stuffed(&[b"a\r", b"\n", b"", b".b\r", b"\n"]), b"a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\r\n", b".b\r\n"]), b"a\r\n..b\r\n.\r\n");
        assert_eq!(stuffed(&[b"a\n", b".b"]), b"a\n..b\r\n.\r\n");
    }

    fn nasty_bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![Just(b'.'), Just(b'\r'), Just(b'\n'), Just(b'a')];
        proptest::collection::vec(byte, 0..60)
    }

    proptest! {
        #[test]
        fn a_strict_receiver_reads_what_was_given(body in nasty_bytes(), cuts in proptest::collection::vec(1..9_usize, 1..9)) {
            let body = String::from_utf8(body).unwrap().replace('\r', "").replace('\n', "\r\n").into_bytes();
            let mut parts = Vec::new();
            let mut rest = &body[..];
            for size in cuts.iter().cycle() {
                if rest.is_empty() { break; }
                let (part, later) = rest.split_at((*size).min(rest.len()));
                parts.push(part);
                rest = later;
            }
            let data = stuffed(&parts);
            prop_assert_eq!(&data, &stuffed(&[&body]));
            let mut expected = body.clone();
            if !body.is_empty() && !body.ends_with(b"\r\n") { expected.extend_from_slice(b"\r\n"); }
            prop_assert_eq!(unstuffed(&data, false), expected);
        }

        #[test]
        fn not_even_a_lax_receiver_can_be_smuggled_an_end_of_data(body in nasty_bytes()) {
            let data = stuffed(&[&body]);
            prop_assert!(data.ends_with(b".\r\n"));
            let received = unstuffed(&data, true);
            prop_assert!(received.starts_with(&body));
        }
    }
}

//! Where a command line and where a message ends.
//!
//! Promises: a command line ends at CRLF only; a message ends at CRLF "." CRLF only (RFC 5321 §2.3.8, §4.1.1.4), so
//! that no spelling of a line end that another server takes for one can split a message in two; what has been decided
//! does not depend on how the octets were cut into reads: an octet that needs its successor is left in the buffer.
//! Does not: look into the content of a message (`server::content` does).

use memchr::memmem;

/// Octets of a command line, CRLF included. RFC 5321 §4.5.3.1.4 says 512, extensions add to it: MAIL and RCPT with
/// SIZE, BODY, SMTPUTF8, ENVID (100), ORCPT (500), NOTIFY and a path of three times 256 fit. Longer: 500 5.5.2, and the
/// rest of the line is skipped.
pub const COMMAND_LINE_BYTES_MAX: usize = 2_048;

/// Octets of a line within an AUTH exchange, CRLF included (RFC 4954 §4). Longer: 500 5.5.6, and the exchange is over.
pub const AUTH_LINE_BYTES_MAX: usize = 12_288;

const CRLF: &[u8] = b"\r\n";

/// Cuts command lines out of a buffer.
#[derive(Debug, Default)]
pub struct LineFramer {
    /// The line was refused: swallow up to the next CRLF.
    skipping: bool,
}

/// What [`LineFramer::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framed<'a> {
    /// No whole line yet.
    Incomplete,
    /// A line without its CRLF.
    Line(&'a [u8]),
    /// No line end within the limit: reported once, the rest of the line is skipped.
    TooLong,
    /// An LF without a CR: reported once, and everything up to the next CRLF is skipped. So a client that ends its
    /// lines with LF gets an answer at once, and what follows the LF is never run as a command.
    BareLf,
}

impl LineFramer {
    /// The next line of `input`, of at most `bytes_max` octets with its CRLF, and how many octets to drop from its front.
    pub fn next<'a>(&mut self, input: &'a [u8], bytes_max: usize) -> (usize, Framed<'a>) {
        let skipped = if self.skipping { self.skip(input) } else { 0 };
        let input = input.get(skipped..).unwrap_or_default();
        if self.skipping || input.is_empty() {
            return (skipped, Framed::Incomplete);
        }
        let window = input.get(..bytes_max).unwrap_or(input);
        match memchr::memchr(b'\n', window) {
            Some(lf_at) => {
                let used = skipped + lf_at + 1;
                let line = window.get(..lf_at).unwrap_or_default();
                match line.strip_suffix(b"\r") {
                    Some(line) => (used, Framed::Line(line)),
                    None => {
                        self.skipping = true;
                        (used, Framed::BareLf)
                    }
                }
            }
            None if window.len() == bytes_max => {
                self.skipping = true;
                let last_is_cr = window.ends_with(b"\r");
                (skipped + window.len() - usize::from(last_is_cr), Framed::TooLong)
            }
            None => (skipped, Framed::Incomplete),
        }
    }

    /// Octets to drop of a refused line; a CR at the end stays, its LF may follow.
    fn skip(&mut self, input: &[u8]) -> usize {
        match memmem::find(input, CRLF) {
            Some(at) => {
                self.skipping = false;
                at + CRLF.len()
            }
            None => input.len() - usize::from(input.ends_with(b"\r")),
        }
    }
}

/// Finds the content and the end of message data after DATA (RFC 5321 §4.1.1.4), and takes away the dots that the
/// client stuffed (§4.5.2).
#[derive(Debug)]
pub struct DotFramer {
    /// The last octets of content were CRLF, or there was none yet.
    at_line_start: bool,
}

/// What [`DotFramer::next`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dotted<'a> {
    /// Needs more octets.
    Incomplete,
    /// A run of content, without stuffed dots.
    Content(&'a [u8]),
    /// The message is over.
    End,
}

impl Default for DotFramer {
    fn default() -> Self {
        Self { at_line_start: true }
    }
}

impl DotFramer {
    /// The next piece of `input`, and how many octets to drop from its front. Leaves at most two octets undecided.
    pub fn next<'a>(&mut self, input: &'a [u8]) -> (usize, Dotted<'a>) {
        if !self.at_line_start {
            return self.run(input, 0);
        }
        match input {
            [] | [b'.'] | [b'.', b'\r'] => (0, Dotted::Incomplete),
            [b'.', b'\r', b'\n', ..] => (3, Dotted::End),
            [b'.', rest @ ..] => self.run(rest, 1),
            _ => self.run(input, 0),
        }
    }

    fn run<'a>(&mut self, text: &'a [u8], dots: usize) -> (usize, Dotted<'a>) {
        let length = match memmem::find(text, b"\r\n.") {
            Some(at) => at + CRLF.len(),
            None => text.len() - usize::from(text.ends_with(b"\r")),
        };
        let content = text.get(..length).unwrap_or_default();
        if content.is_empty() {
            return (0, Dotted::Incomplete);
        }
        self.at_line_start = content.ends_with(CRLF);
        (dots + length, Dotted::Content(content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lines and faults of `input`, read in pieces of `step` octets.
    fn lines(input: &[u8], step: usize) -> Vec<String> {
        let mut framer = LineFramer::default();
        let mut buffer = Vec::new();
        let mut found = Vec::new();
        for chunk in input.chunks(step) {
            buffer.extend_from_slice(chunk);
            loop {
                let (used, framed) = framer.next(&buffer, COMMAND_LINE_BYTES_MAX);
                let text = match framed {
                    Framed::Line(line) => String::from_utf8_lossy(line).into_owned(),
                    Framed::Incomplete => String::new(),
                    other => format!("{other:?}"),
                };
                let incomplete = framed == Framed::Incomplete;
                buffer.drain(..used);
                if incomplete {
                    break;
                }
                found.push(text);
            }
        }
        found
    }

    /// Content and the count of octets used up to the end of data; `None` without an end.
    fn undot(input: &[u8], step: usize) -> (Vec<u8>, Option<usize>) {
        let mut framer = DotFramer::default();
        let (mut buffer, mut content, mut total) = (Vec::new(), Vec::new(), 0);
        for chunk in input.chunks(step) {
            buffer.extend_from_slice(chunk);
            loop {
                let (used, dotted) = framer.next(&buffer);
                total += used;
                match dotted {
                    Dotted::End => return (content, Some(total)),
                    Dotted::Content(run) => content.extend_from_slice(run),
                    Dotted::Incomplete => break,
                }
                buffer.drain(..used);
            }
        }
        (content, None)
    }

    #[test]
    fn lines_end_at_crlf_only_and_faults_skip_to_the_line_end() {
        let long = "x".repeat(COMMAND_LINE_BYTES_MAX - 1);
        let input = format!("NOOP\r\nA\nQUIT\r\n{long}\r\nB\rC\r\n\r\n{}\r\nD\r\nE", &long[1..]);
        for step in [1, 2, 3, 7, 10_000] {
            let expected = ["NOOP", "BareLf", "TooLong", "B\rC", "", &long[1..], "D"];
            assert_eq!(lines(input.as_bytes(), step), expected, "{step}");
        }
    }

    #[test]
    fn data_ends_at_crlf_dot_crlf_only() {
        let table: [(&[u8], &[u8], bool); 12] = [
            (b".\r\n", b"", true),
            (b"a\r\n.\r\n", b"a\r\n", true),
            (b"..a\r\n...\r\n.\r\n", b".a\r\n..\r\n", true),
            (b".a\r\n.\r\n", b"a\r\n", true),
            (b"a\n.\n", b"a\n.\n", false),
            (b"a\n.\r\n", b"a\n.\r\n", false),
            (b"a\r\n.\n", b"a\r\n\n", false),
            (b"a\r.\r\n", b"a\r.\r\n", false),
            (b"a\r\n.\r", b"a\r\n", false),
            (b"a\r\n.\r\r\n.\r\n", b"a\r\n\r\r\n", true),
            (b"a\r\r\n.\r\n", b"a\r\r\n", true),
            (b"a\r\n\0.\r\n.\r\n", b"a\r\n\0.\r\n", true),
        ];
        for (input, content, ends) in table {
            for step in [1, 2, 3, 100] {
                let end = ends.then_some(input.len());
                assert_eq!(undot(input, step), (content.to_vec(), end), "{input:?} by {step}");
            }
        }
    }
}

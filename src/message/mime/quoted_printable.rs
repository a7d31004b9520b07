//! Quoted-printable (RFC 2045 §6.7), written piece by piece: [`Encode`] for content, [`Reflow`] for what is quoted-printable
//! already and has long lines or octets above 127.
//!
//! Promises: lines of at most 76 octets; none ends with white space that counts, begins with a dot, with `From ` or with
//! `--`; the result does not depend on how the content was cut. Does not: repair. What is no right escape stays as it
//! stands, for readers differ in what they make of it; only a right place is ever broken.

/// Octets of a line before the `=` of a soft line break.
const COLUMNS: usize = 75;
/// Octets that follow a `=` and are undecided: white space that ends the line, perhaps. Above: they are no soft line break.
const HELD_BYTES: usize = 60;
/// Columns that the rules about the start of a line look at.
const START_COLUMNS: usize = 5;

const HEX: &[u8; 16] = b"0123456789ABCDEF";

/// The line that is being written.
#[derive(Debug, Default)]
struct Column {
    column: usize,
    /// Octets of `From` that the line begins with.
    from: usize,
    starts_with_dash: bool,
    /// White space stays as it is: readers drop it at the end of a line, and where that is, is not known yet.
    keeps_blanks: bool,
}

impl Column {
    /// Something that must not be cut.
    fn unit(&mut self, unit: &[u8], out: &mut Vec<u8>) {
        if self.column > 0 && self.column + unit.len() > COLUMNS {
            self.soft_break(out);
        }
        out.extend_from_slice(unit);
        self.column += unit.len();
    }

    fn escape(&mut self, byte: u8, out: &mut Vec<u8>) {
        let digit = |nibble: u8| HEX.get(usize::from(nibble)).copied().unwrap_or_default();
        self.unit(&[b'=', digit(byte >> 4), digit(byte & 15)], out);
    }

    /// An octet that may stand for itself, where it may at the start of the line.
    fn literal(&mut self, byte: u8, out: &mut Vec<u8>) {
        if self.column >= COLUMNS {
            self.soft_break(out);
        }
        match (self.column, byte) {
            (0, b'.') => return self.escape(byte, out),
            (1, b'-') if self.starts_with_dash => return self.escape(byte, out),
            (0, b'F') if self.keeps_blanks => return self.escape(byte, out),
            (4, b' ') if self.from == 4 => return self.escape(byte, out),
            (0, b'-') => self.starts_with_dash = true,
            (column, _) if column == self.from && b"From".get(column) == Some(&byte) => self.from += 1,
            _ => {}
        }
        out.push(byte);
        self.column += 1;
    }

    /// How many octets fit where the start of the line is past.
    fn room(&self) -> usize {
        if self.column < START_COLUMNS { 0 } else { COLUMNS.saturating_sub(self.column) }
    }

    fn run(&mut self, run: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(run);
        self.column += run.len();
    }

    fn soft_break(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"=\r\n");
        *self = Self { keeps_blanks: self.keeps_blanks, ..Self::default() };
    }

    fn hard_break(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"\r\n");
        *self = Self { keeps_blanks: self.keeps_blanks, ..Self::default() };
    }
}

/// Octets that stand for themselves anywhere behind the start of a line, white space but at its end.
#[allow(clippy::indexing_slicing, reason = "evaluated by the compiler, which would not go past the end")]
const PLAIN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte = b' ';
    while byte <= b'~' {
        // `usize::from` is not const.
        table[byte as usize] = byte != b'=';
        byte += 1;
    }
    table[b'\t' as usize] = true;
    table
};

/// How many octets of `text` an encoder cannot write as they are, wherever they stand in a line.
#[inline]
pub(super) fn escapes(text: &[u8]) -> u64 {
    // In pieces whose count fits an octet, and by comparisons: so the compiler makes vector instructions of it.
    let is_escape = |byte: u8| (byte < b' ' && byte != b'\t') || byte == b'=' || byte > b'~';
    let count = |piece: &[u8]| piece.iter().map(|byte| u8::from(is_escape(*byte))).sum::<u8>();
    text.chunks(usize::from(u8::MAX)).map(|piece| u64::from(count(piece))).sum()
}

fn is_plain(byte: u8) -> bool {
    PLAIN.get(usize::from(byte)).copied().unwrap_or_default()
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

/// How many octets at the start of `text` are plain, and the last of them no white space.
fn plain_run(text: &[u8], room: usize) -> usize {
    let run = text.iter().take(room).take_while(|byte| is_plain(**byte)).count();
    let run = text.get(..run).unwrap_or_default();
    run.iter().rposition(|byte| !is_blank(*byte)).map_or(0, |last| last + 1)
}

/// Encodes content.
#[derive(Debug)]
pub(super) struct Encode {
    column: Column,
    /// White space that may end a line.
    held: Option<u8>,
    /// A CRLF of the content is a line break, and not two octets among others.
    is_text: bool,
}

impl Encode {
    pub(super) fn new(is_text: bool) -> Self {
        Self { column: Column::default(), held: None, is_text }
    }

    /// Octets of a line.
    pub(super) fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        let mut rest = text;
        while let Some((first, tail)) = rest.split_first() {
            let run = if self.held.is_none() { plain_run(rest, self.column.room()) } else { 0 };
            if run > 0 {
                let (head, behind) = rest.split_at_checked(run).unwrap_or((rest, &[]));
                self.column.run(head, out);
                rest = behind;
                continue;
            }
            self.release(out);
            match *first {
                byte if is_blank(byte) => self.held = Some(byte),
                byte if is_plain(byte) => self.column.literal(byte, out),
                byte => self.column.escape(byte, out),
            }
            rest = tail;
        }
    }

    /// CRLF.
    pub(super) fn line_end(&mut self, out: &mut Vec<u8>) {
        if self.is_text {
            self.finish(out);
            self.column.hard_break(out);
        } else {
            self.release(out);
            self.column.escape(b'\r', out);
            self.column.escape(b'\n', out);
        }
    }

    /// The content is over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(blank) = self.held.take() {
            self.column.escape(blank, out);
        }
    }

    fn release(&mut self, out: &mut Vec<u8>) {
        if let Some(blank) = self.held.take() {
            self.column.literal(blank, out);
        }
    }
}

/// Wraps quoted-printable lines anew.
#[derive(Debug)]
pub(super) struct Reflow {
    column: Column,
    /// A `=` and what may belong to it.
    held: Vec<u8>,
}

impl Reflow {
    pub(super) fn new() -> Self {
        Self { column: Column { keeps_blanks: true, ..Column::default() }, held: Vec::new() }
    }

    /// Octets of a line.
    pub(super) fn text(&mut self, text: &[u8], out: &mut Vec<u8>) {
        for byte in text {
            match *byte {
                byte if !byte.is_ascii() => {
                    // A `=` before it is none of an escape: with one behind it, it would be.
                    self.release_escaped(out);
                    self.column.escape(byte, out);
                }
                byte if !self.held.is_empty() => self.undecided(byte, out),
                b'=' => self.held.push(b'='),
                byte => self.column.literal(byte, out),
            }
        }
    }

    /// CRLF: of a soft line break, if a `=` came before it.
    pub(super) fn line_end(&mut self, out: &mut Vec<u8>) {
        self.finish(out);
        self.column.hard_break(out);
    }

    /// The content is over.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        let held = std::mem::take(&mut self.held);
        if held.first() == Some(&b'=') && held.iter().skip(1).all(|byte| is_blank(*byte)) {
            // A soft line break of their own; one before it would make it a line with nothing in it.
            self.column.run(&held, out);
        } else {
            self.column.unit(&held, out);
        }
    }

    fn undecided(&mut self, byte: u8, out: &mut Vec<u8>) {
        self.held.push(byte);
        let since = self.held.iter().rposition(|byte| *byte == b'=').unwrap_or_default();
        let escape = self.held.get(since + 1..).unwrap_or_default();
        let is_open = match escape {
            [] => true,
            [first] => first.is_ascii_hexdigit() || is_blank(*first),
            _ => escape.iter().all(|byte| is_blank(*byte)),
        };
        if !is_open || self.held.len() >= HELD_BYTES {
            let held = std::mem::take(&mut self.held);
            self.column.unit(&held, out);
        }
    }

    fn release_escaped(&mut self, out: &mut Vec<u8>) {
        for byte in std::mem::take(&mut self.held) {
            match byte {
                b'=' => self.column.escape(byte, out),
                byte => self.column.literal(byte, out),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(content: &[u8], is_text: bool, step: usize) -> String {
        let (mut encoder, mut out) = (Encode::new(is_text), Vec::new());
        for (number, line) in content.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 {
                encoder.line_end(&mut out);
            }
            line.chunks(step).for_each(|piece| encoder.text(piece, &mut out));
        }
        encoder.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn reflow(encoded: &[u8], step: usize) -> String {
        let (mut reflow, mut out) = (Reflow::new(), Vec::new());
        for (number, line) in encoded.split(|byte| *byte == b'\n').enumerate() {
            if number > 0 {
                reflow.line_end(&mut out);
            }
            line.chunks(step).for_each(|piece| reflow.text(piece, &mut out));
        }
        reflow.finish(&mut out);
        String::from_utf8(out).unwrap()
    }

    /// What a reader makes of it (RFC 2045 §6.7).
    fn decode(encoded: &str) -> Vec<u8> {
        mail_parser::decoders::quoted_printable::quoted_printable_decode(encoded.as_bytes()).unwrap()
    }

    #[test]
    fn what_hosts_do_to_lines_cannot_change_the_text() {
        for (content, expected) in [
            ("ü = x", "=C3=BC =3D x"),
            ("a \nb\t\n \n", "a=20\r\nb=09\r\n=20\r\n"),
            (".\n..a\na.", "=2E\r\n=2E.a\r\na."),
            ("From me\nFrom\nFromm x\n>From y", "From=20me\r\nFrom\r\nFromm x\r\n>From y"),
            ("--b\n-- \n- a\n---", "-=2Db\r\n-=2D=20\r\n- a\r\n-=2D-"),
            ("a\tb\u{7f}\u{1}", "a\tb=7F=01"),
            ("", ""),
        ] {
            assert_eq!(encode(content.as_bytes(), true, 100), expected, "{content:?}");
        }
        assert_eq!(encode(b"a \n\xff", false, 9), "a =0D=0A=FF");
    }

    #[test]
    fn what_is_counted_as_an_escape_is_what_is_escaped() {
        for byte in 0..=255_u8 {
            let mut out = Vec::new();
            let mut encoder = Encode::new(true);
            encoder.text(&[b'x', byte, b'x'], &mut out);
            encoder.finish(&mut out);
            assert_eq!(escapes(&[byte]), u64::from(out.len() == 5), "{byte}");
        }
        assert_eq!(escapes(&[b'='; 1_000]), 1_000);
    }

    #[test]
    fn lines_are_broken_between_what_belongs_together() {
        assert_eq!(encode(&[b'x'; 76], true, 100), format!("{}=\r\nx", "x".repeat(75)));
        let line = format!("{}ü", "x".repeat(73));
        assert_eq!(encode(line.as_bytes(), true, 100), format!("{}=\r\n=C3=BC", "x".repeat(73)));
        // What begins a line by a soft line break is guarded too.
        assert_eq!(
            encode(format!("{}.--From ", "x".repeat(75)).as_bytes(), true, 7),
            format!("{}=\r\n=2E--From=20", "x".repeat(75))
        );
    }

    #[test]
    fn wrapping_anew_breaks_no_escape() {
        let long = "=C3=BC".repeat(30);
        let broken = reflow(long.as_bytes(), 7);
        assert!(broken.split("\r\n").all(|line| line.len() <= 76), "{broken}");
        assert_eq!(broken.replace("=\r\n", ""), long);
        for (encoded, expected) in [
            ("a=\nb", "a=\r\nb"),
            ("a=  \nb", "a=  \r\nb"),
            ("a \nb", "a \r\nb"),
            ("a=3", "a=3"),
            ("=", "="),
            ("a=zb==3D", "a=zb==3D"),
            ("From \nFrom x", "=46rom \r\n=46rom x"),
        ] {
            assert_eq!(reflow(encoded.as_bytes(), 1), expected, "{encoded:?}");
        }
        assert_eq!(reflow(b"=\xc3=3\xbc", 1), "=3D=C3=3D3=BC");
        let padded = format!("a= {}", " ".repeat(100));
        assert_eq!(reflow(padded.as_bytes(), 1).replace("=\r\n", ""), padded);
    }

    proptest! {
        #[test]
        fn content_comes_back(
            words in prop::collection::vec("(From |[.]|-|--|=| |\t|\n|ü|[a-z]{1,90})", 0..40),
            is_text: bool,
            step in 1_usize..40,
        ) {
            let content = words.concat();
            let encoded = encode(content.as_bytes(), is_text, step);
            prop_assert_eq!(&encoded, &encode(content.as_bytes(), is_text, 1_000));
            prop_assert!(encoded.split("\r\n").all(|line| line.len() <= 76 && !line.ends_with([' ', '\t'])), "{}", encoded);
            for line in encoded.split("\r\n") {
                prop_assert!(!line.starts_with('.') && !line.starts_with("--") && !line.starts_with("From "), "{}", encoded);
            }
            prop_assert_eq!(decode(&encoded), content.replace('\n', "\r\n").into_bytes());
            prop_assert_eq!(decode(&reflow(encoded.replace("\r\n", "\n").as_bytes(), step)), decode(&encoded));
        }

        #[test]
        fn wrapping_anew_does_not_depend_on_the_pieces(
            words in prop::collection::vec("(=|=3D|=C|= |\n|[ -~]{1,90})", 0..40),
            eight_bit: bool,
            step in 1_usize..40,
        ) {
            let text = words.join(if eight_bit { "ü" } else { "" });
            let whole = reflow(text.as_bytes(), 1_000);
            prop_assert!(whole.split("\r\n").all(|line| line.len() <= 75 + HELD_BYTES));
            prop_assert_eq!(whole, reflow(text.as_bytes(), step));
        }
    }
}

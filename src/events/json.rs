//! JSON written by hand into one buffer: fast, without an intermediate tree, one line whatever the text holds.
//!
//! Promises: what comes out parses back to the same text (RFC 8259), and holds no character that any reader takes for a
//! line end: U+0085, U+2028 and U+2029 are escaped too, since some languages split lines there.

use std::fmt;
use std::io::Write;

/// An object that is being written: the brace is open, and it is closed by who opened it.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Writes an object whose members `fill` adds.
    pub(super) fn write(out: &'a mut Vec<u8>, fill: impl FnOnce(&mut Object<'_>)) {
        out.push(b'{');
        let mut object = Object { out, empty: true };
        fill(&mut object);
        object.out.push(b'}');
    }

    /// Goes on with an object that has a member already.
    pub(super) fn resume(out: &'a mut Vec<u8>) -> Self {
        Self { out, empty: false }
    }

    /// A name of ours, which needs no escape; the value has to follow in the buffer that this returns.
    fn key(&mut self, name: &'static str) -> &mut Vec<u8> {
        self.out.extend_from_slice(if self.empty { b"\"" } else { b",\"" });
        self.empty = false;
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"\":");
        self.out
    }

    /// A name that someone else chose.
    fn foreign_key(&mut self, name: &str) -> &mut Vec<u8> {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        push_string(self.out, name);
        self.out.push(b':');
        self.out
    }

    pub(super) fn string(&mut self, name: &'static str, value: &str) {
        push_string(self.key(name), value);
    }

    /// Nothing where there is no value.
    pub(super) fn optional(&mut self, name: &'static str, value: Option<&str>) {
        if let Some(value) = value {
            self.string(name, value);
        }
    }

    /// A string of what the value displays: a time, an address, an id, whose text needs no escape.
    /// A member that is there and says nothing.
    pub(super) fn null(&mut self, name: &'static str) {
        self.key(name).extend_from_slice(b"null");
    }

    pub(super) fn plain(&mut self, name: &'static str, value: impl fmt::Display) {
        push_plain(self.key(name), value);
    }

    pub(super) fn number(&mut self, name: &'static str, value: u64) {
        write!(self.key(name), "{value}").expect("writing to a Vec does not fail");
    }

    /// A number of millionths, as a decimal: `0.0525`.
    pub(super) fn share(&mut self, name: &'static str, millionths: u32) {
        let (whole, rest) = (millionths / 1_000_000, millionths % 1_000_000);
        let text = format!("{whole}.{rest:06}");
        let text = text.trim_end_matches('0').trim_end_matches('.');
        self.key(name).extend_from_slice(text.as_bytes());
    }

    pub(super) fn boolean(&mut self, name: &'static str, value: bool) {
        self.key(name).extend_from_slice(if value { b"true" } else { b"false" });
    }

    pub(super) fn strings<'s>(&mut self, name: &'static str, values: impl IntoIterator<Item = &'s str>) {
        push_array(self.key(name), values, push_string);
    }

    /// Strings under a name that someone else chose.
    pub(super) fn foreign_strings<'s>(&mut self, name: &str, values: impl IntoIterator<Item = &'s str>) {
        push_array(self.foreign_key(name), values, push_string);
    }

    /// An array of one string, as [`Object::plain`] writes it.
    pub(super) fn plain_single(&mut self, name: &'static str, value: impl fmt::Display) {
        push_array(self.key(name), [value], push_plain);
    }

    pub(super) fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut Object<'_>)) {
        Object::write(self.key(name), fill);
    }

    pub(super) fn objects<T>(&mut self, name: &'static str, items: &[T], fill: impl Fn(&mut Object<'_>, &T)) {
        push_array(self.key(name), items, |out, item| Object::write(out, |object| fill(object, item)));
    }
}

fn push_array<T>(out: &mut Vec<u8>, values: impl IntoIterator<Item = T>, push: impl Fn(&mut Vec<u8>, T)) {
    out.push(b'[');
    for (index, value) in values.into_iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        push(out, value);
    }
    out.push(b']');
}

pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    push_escaped(out, text);
    out.push(b'"');
}

fn push_plain(out: &mut Vec<u8>, value: impl fmt::Display) {
    write!(out, "\"{value}\"").expect("writing to a Vec does not fail");
}

/// RFC 8259 §7.
fn push_escaped(out: &mut Vec<u8>, text: &str) {
    let mut rest = text.as_bytes();
    loop {
        let (plain, special) = rest.split_at(plain_prefix(rest));
        out.extend_from_slice(plain);
        let (escape, after): (&[u8], &[u8]) = match special {
            [] => return,
            [b'"', after @ ..] => (b"\\\"", after),
            [b'\\', after @ ..] => (b"\\\\", after),
            [b'\n', after @ ..] => (b"\\n", after),
            [b'\r', after @ ..] => (b"\\r", after),
            [b'\t', after @ ..] => (b"\\t", after),
            [0xc2, 0x85, after @ ..] => (b"\\u0085", after),
            [0xe2, 0x80, 0xa8, after @ ..] => (b"\\u2028", after),
            [0xe2, 0x80, 0xa9, after @ ..] => (b"\\u2029", after),
            [control @ 0..=0x1f, after @ ..] => {
                let hex = |digit: u8| if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
                out.extend_from_slice(&[b'\\', b'u', b'0', b'0', hex(control >> 4), hex(control & 0xf)]);
                (b"", after)
            }
            [lead, after @ ..] => {
                out.push(*lead);
                (b"", after)
            }
        };
        out.extend_from_slice(escape);
        rest = after;
    }
}

/// Octets at the start of `bytes` that need no second look: eight at a time while they are plain ASCII.
fn plain_prefix(bytes: &[u8]) -> usize {
    let words = 8 * bytes.chunks_exact(8).take_while(|word| word_is_plain(word)).count();
    let tail = bytes.get(words..).unwrap_or_default();
    words + tail.iter().take_while(|byte| byte_is_plain(**byte)).count()
}

fn byte_is_plain(byte: u8) -> bool {
    byte >= 0x20 && !matches!(byte, b'"' | b'\\' | 0xc2 | 0xe2)
}

/// Whether all of eight octets are printable ASCII other than `"` and `\`. May say no too often, never yes too often.
fn word_is_plain(word: &[u8]) -> bool {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let Ok(octets) = word.try_into() else { return false };
    let word = u64::from_le_bytes(octets);
    let has = |byte: u8| {
        let zeros = word ^ (ONES * u64::from(byte));
        zeros.wrapping_sub(ONES) & !zeros & HIGH
    };
    let control = word.wrapping_sub(ONES * 0x20) & HIGH;
    (word & HIGH) | control | has(b'"') | has(b'\\') == 0
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rendered(text: &str) -> String {
        let mut out = Vec::new();
        push_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_character_of_the_basic_plane_survives_on_one_line() {
        for code in 0..0x1_0000 {
            let Some(c) = char::from_u32(code) else { continue };
            for text in [format!("{c}"), format!("1234567{c}"), format!("12345678901{c}x")] {
                let json = rendered(&text);
                assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text, "{code:x}");
                assert!(!json.contains(['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}']), "{code:x}");
            }
        }
    }

    #[test]
    fn members_are_separated_and_nested() {
        let mut out = Vec::new();
        Object::write(&mut out, |object| {
            object.string("a", "\"\\\n\u{1}");
            object.optional("never", None);
            object.number("n", 7);
            object.strings("s", ["x", "y"]);
            object.plain_single("one", 1.5);
            object.foreign_strings("\"", []);
            object.objects("o", &[1, 2], |object, n| object.number("n", *n));
            object.object("e", |_| {});
            object.boolean("b", true);
        });
        let expected =
            r#"{"a":"\"\\\n\u0001","n":7,"s":["x","y"],"one":["1.5"],"\"":[],"o":[{"n":1},{"n":2}],"e":{},"b":true}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    proptest! {
        #[test]
        fn any_text_parses_back_equal(text in "\\PC*|.*|[\\x00-\\x7f]*") {
            prop_assert_eq!(serde_json::from_str::<String>(&rendered(&text)).unwrap(), text);
        }
    }
}

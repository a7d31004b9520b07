//! The field `Content-Type` (RFC 2045 §5.1) as far as the structure needs it: type, subtype, boundary, whether there is a
//! charset.
//!
//! Promises: a boundary that readers may read differently is [`Boundary::Unclear`], never a guess. Does not: read RFC 2231
//! continuations, which no boundary needs.

/// What a field says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ContentType {
    /// Lower case.
    pub(super) main: Vec<u8>,
    /// Lower case.
    pub(super) sub: Vec<u8>,
    pub(super) boundary: Boundary,
    pub(super) has_charset: bool,
    /// A quotation or comment without an end: nothing can be appended.
    pub(super) is_open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Boundary {
    Missing,
    One(Vec<u8>),
    Unclear,
}

impl ContentType {
    /// The type in a field's value, folds included. `None` where it is not `type/subtype`: such a part is plain text
    /// (RFC 2045 §5.2).
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        let value: Vec<u8> = value.iter().copied().filter(|byte| !matches!(byte, b'\r' | b'\n')).collect();
        let mut cursor = Cursor { rest: &value, is_open: false };
        cursor.skip_blanks_and_comments();
        let main = cursor.token(b"/;").to_ascii_lowercase();
        cursor.skip_blanks_and_comments();
        if !cursor.take(b'/') {
            return None;
        }
        cursor.skip_blanks_and_comments();
        let sub = cursor.token(b"/;").to_ascii_lowercase();
        if main.is_empty() || sub.is_empty() {
            return None;
        }
        let mut parsed = Self { main, sub, boundary: Boundary::Missing, has_charset: false, is_open: false };
        while !cursor.rest.is_empty() {
            cursor.skip_to_parameter();
            parsed.parameter(&mut cursor);
        }
        parsed.is_open = cursor.is_open;
        Some(parsed)
    }

    fn parameter(&mut self, cursor: &mut Cursor<'_>) {
        let name = cursor.token(b"=;").to_ascii_lowercase();
        cursor.skip_blanks_and_comments();
        if !cursor.take(b'=') {
            return;
        }
        cursor.skip_blanks_and_comments();
        let value = cursor.value();
        cursor.skip_blanks_and_comments();
        let is_whole = cursor.rest.is_empty() || cursor.rest.starts_with(b";");
        self.has_charset |= name.starts_with(b"charset");
        if name == b"boundary" {
            let is_first = self.boundary == Boundary::Missing;
            self.boundary = if is_whole && is_first { Boundary::One(value) } else { Boundary::Unclear };
        }
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
    is_open: bool,
}

impl<'a> Cursor<'a> {
    fn advance(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
        self.rest = rest;
        taken
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.rest.first() == Some(&byte);
        if is_next {
            self.advance(1);
        }
        is_next
    }

    /// RFC 5322 §3.2.2; comments nest.
    fn skip_blanks_and_comments(&mut self) {
        let mut depth = 0_usize;
        let mut escaped = false;
        let mut used = 0;
        for byte in self.rest {
            match byte {
                _ if escaped => escaped = false,
                b'\\' if depth > 0 => escaped = true,
                b'(' => depth += 1,
                b')' if depth > 0 => depth -= 1,
                b' ' | b'\t' => {}
                _ if depth > 0 => {}
                _ => break,
            }
            used += 1;
        }
        self.is_open |= depth > 0;
        self.advance(used);
    }

    /// Up to a blank, a comment, a quotation or one of `ends`.
    fn token(&mut self, ends: &[u8]) -> &'a [u8] {
        let is_end = |byte: &u8| b" \t(\"".contains(byte) || ends.contains(byte);
        let length = self.rest.iter().position(is_end).unwrap_or(self.rest.len());
        self.advance(length)
    }

    /// A token, in which programs write `/`, `=`, `?` and others without quotes, or a quoted-string.
    fn value(&mut self) -> Vec<u8> {
        if !self.take(b'"') {
            return self.token(b";").to_vec();
        }
        let mut value = Vec::new();
        let mut escaped = false;
        while let [byte] = self.advance(1) {
            match byte {
                _ if std::mem::take(&mut escaped) => value.push(*byte),
                b'\\' => escaped = true,
                b'"' => return value,
                _ => value.push(*byte),
            }
        }
        self.is_open = true;
        value
    }

    /// Behind the next semicolon that is not quoted.
    fn skip_to_parameter(&mut self) {
        loop {
            self.skip_blanks_and_comments();
            if self.rest.is_empty() || self.take(b';') {
                return self.skip_blanks_and_comments();
            }
            match self.rest.first() {
                Some(b'"') => drop(self.value()),
                _ => drop(self.advance(1)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<(&str, &str, bool)>) {
        let parsed = ContentType::parse(value.as_bytes());
        let shown = parsed.as_ref().map(|found| {
            let boundary = match &found.boundary {
                Boundary::Missing => "-".to_owned(),
                Boundary::One(text) => String::from_utf8(text.clone()).unwrap(),
                Boundary::Unclear => "?".to_owned(),
            };
            let name = format!("{}/{}", String::from_utf8_lossy(&found.main), String::from_utf8_lossy(&found.sub));
            (name, boundary, found.has_charset)
        });
        let expected = expected.map(|(name, boundary, charset)| (name.to_owned(), boundary.to_owned(), charset));
        assert_eq!(shown, expected, "{value:?}");
    }

    #[test]
    fn types_and_parameters_are_read_as_programs_write_them() {
        check("text/plain", Some(("text/plain", "-", false)));
        check(" TEXT / Html (c;c) ; CharSet = \"utf-8\" ", Some(("text/html", "-", true)));
        check("text/plain;charset*0=utf-8", Some(("text/plain", "-", true)));
        check("multipart/mixed;\r\n\tboundary=\"a b\\\"c;d\"; x=y", Some(("multipart/mixed", "a b\"c;d", false)));
        check("multipart/mixed; boundary=----=_Part/1?=", Some(("multipart/mixed", "----=_Part/1?=", false)));
        check("multipart/mixed; junk; boundary=b;", Some(("multipart/mixed", "b", false)));
        check("multipart/mixed boundary=b", Some(("multipart/mixed", "-", false)));
        check("multipart/mixed; x=\"; boundary=no\"; boundary=b (c)", Some(("multipart/mixed", "b", false)));
    }

    #[test]
    fn what_readers_may_read_differently_is_unclear() {
        check("multipart/mixed; boundary=a b", Some(("multipart/mixed", "?", false)));
        check("multipart/mixed; boundary=\"a\"b", Some(("multipart/mixed", "?", false)));
        check("multipart/mixed; boundary=a; boundary=b", Some(("multipart/mixed", "?", false)));
        check("multipart/mixed; boundary*=utf-8''a", Some(("multipart/mixed", "-", false)));
    }

    #[test]
    fn what_is_no_type_is_none() {
        for value in ["", "text", "plain; charset=utf-8", "/x", "text/", ";"] {
            check(value, None);
        }
    }

    #[test]
    fn a_quotation_without_an_end_is_noticed() {
        for (value, is_open) in
            [("a/b; c=\"d", true), ("a/b; c=d (e", true), ("a/b; c=\"d\"", false), ("a/b; c=\"d\\\"", true)]
        {
            assert_eq!(ContentType::parse(value.as_bytes()).unwrap().is_open, is_open, "{value}");
        }
    }
}

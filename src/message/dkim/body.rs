//! The hash of a body in relaxed canonical form (RFC 6376 §3.4.4), taken as the octets pass.

use aws_lc_rs::digest::{Context, Digest, SHA256};

/// SHA-256 of a canonical body.
#[derive(Clone, Copy, Debug)]
pub struct BodyHash(Digest);

impl BodyHash {
    /// The 32 octets.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_ref()
    }
}

/// Takes a body in pieces, however they are cut. Line ends are CRLF; a CR or LF alone counts as an octet like any other.
pub struct BodyHasher {
    hasher: Context,
    /// Canonical octets that wait to be hashed together.
    out: Vec<u8>,
    /// Empty lines (CRLF alone in canonical form) that count only if something follows.
    empty_lines: u64,
    /// White space that counts, as one space, only if something follows in the line.
    space: bool,
    /// The current line has octets.
    in_line: bool,
    /// A CR that may belong to a CRLF.
    carriage_return: bool,
}

/// Canonical octets are hashed in runs of about so many.
const RUN_BYTES: usize = 8 * 1024;

impl Default for BodyHasher {
    fn default() -> Self {
        Self {
            hasher: Context::new(&SHA256),
            out: Vec::with_capacity(RUN_BYTES + 1024),
            empty_lines: 0,
            space: false,
            in_line: false,
            carriage_return: false,
        }
    }
}

impl BodyHasher {
    /// Takes the next octets.
    pub fn push(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        if self.carriage_return && !rest.is_empty() {
            self.carriage_return = false;
            if let Some(after) = rest.strip_prefix(b"\n") {
                self.end_line();
                rest = after;
            } else {
                self.text(b"\r");
            }
        }
        while let Some(first) = rest.first() {
            rest = match first {
                b' ' | b'\t' => {
                    self.space = true;
                    rest.get(1..).unwrap_or_default()
                }
                b'\r' => match rest.get(1) {
                    Some(b'\n') => {
                        self.end_line();
                        rest.get(2..).unwrap_or_default()
                    }
                    Some(_) => {
                        self.text(b"\r");
                        rest.get(1..).unwrap_or_default()
                    }
                    None => {
                        self.carriage_return = true;
                        &[]
                    }
                },
                _ => {
                    let (run, after) = rest.split_at_checked(canonical_run(rest)).unwrap_or((rest, &[]));
                    self.text(run);
                    after
                }
            };
        }
    }

    /// The hash. A body without a CRLF at its end gets one; an empty one has none (RFC 6376 §3.4.4).
    pub fn finish(mut self) -> BodyHash {
        if self.carriage_return {
            self.text(b"\r");
        }
        if self.in_line {
            self.end_line();
        }
        self.hasher.update(&self.out);
        BodyHash(self.hasher.finish())
    }

    fn text(&mut self, run: &[u8]) {
        for _ in 0..std::mem::take(&mut self.empty_lines) {
            self.out.extend_from_slice(b"\r\n");
            self.hash_run();
        }
        if std::mem::take(&mut self.space) {
            self.out.push(b' ');
        }
        self.in_line = true;
        if run.len() >= RUN_BYTES {
            self.hasher.update(&self.out);
            self.out.clear();
            self.hasher.update(run);
        } else {
            self.out.extend_from_slice(run);
            self.hash_run();
        }
    }

    fn end_line(&mut self) {
        self.space = false;
        if std::mem::take(&mut self.in_line) {
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.empty_lines += 1;
        }
    }

    fn hash_run(&mut self) {
        if self.out.len() >= RUN_BYTES {
            self.hasher.update(&self.out);
            self.out.clear();
        }
    }
}

/// Octets at the front, of one line, that are canonical as they are: words with single spaces between them. The first is no blank.
fn canonical_run(text: &[u8]) -> usize {
    let line = memchr::memchr2(b'\t', b'\r', text).and_then(|end| text.get(..end)).unwrap_or(text);
    let line = memchr::memmem::find(line, b"  ").and_then(|end| line.get(..end)).unwrap_or(line);
    // A space at the end counts only if a word follows.
    line.strip_suffix(b" ").unwrap_or(line).len()
}

impl std::fmt::Debug for BodyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BodyHasher")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hash(body: &[u8]) -> Vec<u8> {
        let mut hasher = BodyHasher::default();
        hasher.push(body);
        hasher.finish().as_bytes().to_vec()
    }

    fn sha256(canonical: &[u8]) -> Vec<u8> {
        aws_lc_rs::digest::digest(&SHA256, canonical).as_ref().to_vec()
    }

    /// RFC 6376 §3.4.4 to the letter, without any regard to speed.
    fn relaxed(body: &[u8]) -> Vec<u8> {
        let text: String = body.iter().map(|byte| char::from(*byte)).collect();
        let mut lines: Vec<String> = text.split("\r\n").map(str::to_owned).collect();
        for line in &mut lines {
            let mut reduced = String::new();
            for c in line.chars() {
                if !(matches!(c, ' ' | '\t') && reduced.ends_with(' ')) {
                    reduced.push(if c == '\t' { ' ' } else { c });
                }
            }
            *line = reduced.trim_end_matches(' ').to_owned();
        }
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        lines.iter().flat_map(|line| line.chars().map(|c| c as u8).chain(*b"\r\n")).collect()
    }

    #[test]
    fn the_forms_of_the_rfc_are_canonical() {
        for (body, canonical) in [
            (&b""[..], &b""[..]),
            (b"\r\n\r\n", b""),
            (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),
            (b"no end", b"no end\r\n"),
            (b"a\r\n \t\r\n  \r\n", b"a\r\n"),
            (b"  \r\n\r\nb\r\n", b"\r\n\r\nb\r\n"),
            (b"a\rb\nc\r", b"a\rb\nc\r\r\n"),
        ] {
            assert_eq!(hash(body), sha256(canonical), "{:?}", String::from_utf8_lossy(body));
        }
    }

    proptest! {
        #[test]
        fn any_body_in_any_pieces_has_the_hash_of_its_canonical_form(
            pieces in prop::collection::vec(
                prop_oneof![
                    Just(b"\r\n".to_vec()), Just(b" ".to_vec()), Just(b"\t".to_vec()), Just(b"\r".to_vec()),
                    Just(b"\n".to_vec()), Just(vec![b'x'; 9_000]), prop::collection::vec(any::<u8>(), 0..12),
                ],
                0..40,
            ),
            cuts in prop::collection::vec(1_usize..50, 0..20),
        ) {
            let body = pieces.concat();
            let mut hasher = BodyHasher::default();
            let mut rest = &body[..];
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                hasher.push(head);
                rest = tail;
            }
            hasher.push(rest);
            let hash = hasher.finish();
            prop_assert_eq!(hash.as_bytes(), &sha256(&relaxed(&body))[..]);
        }
    }
}

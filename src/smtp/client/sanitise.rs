//! Makes text of a peer's bytes that is safe in logs, JSON and terminals.

/// The bytes as text: one `?` stands for each run of invalid UTF-8 and for each control character, each bidirectional
/// override and each line separator; a tab becomes a space. Never longer, in octets, than what came in.
pub fn sanitise(bytes: &[u8]) -> Box<str> {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.extend(chunk.valid().chars().map(safe));
        if !chunk.invalid().is_empty() {
            text.push('?');
        }
    }
    text.into_boxed_str()
}

fn safe(c: char) -> char {
    match c {
        '\t' => ' ',
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}' => '?',
        _ if c.is_control() => '?',
        _ => c,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_could_forge_a_log_line_or_a_terminal_is_replaced() {
        for (bytes, expected) in [
            (&b"plain text"[..], "plain text"),
            (b"a\tb", "a b"),
            (b"a\r\0\x1b[31mb\x7f", "a???[31mb?"),
            (b"\xff\xfe", "??"),
            ("gr\u{fc}n \u{202e}evil\u{85}".as_bytes(), "gr\u{fc}n ?evil?"),
        ] {
            assert_eq!(&*sanitise(bytes), expected);
        }
    }

    proptest! {
        #[test]
        fn the_result_is_never_longer_and_never_holds_a_control(bytes: Vec<u8>) {
            let text = sanitise(&bytes);
            prop_assert!(text.len() <= bytes.len());
            prop_assert!(!text.chars().any(char::is_control));
        }
    }
}

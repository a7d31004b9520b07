//! Base64 (RFC 4648 §4), as SASL exchanges write it: one line, padded.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let octet = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = octet(0) << 16 | octet(1) << 8 | octet(2);
        for digit in 0..4_usize {
            let index = bits >> (18 - 6 * digit) & 63;
            let byte = usize::try_from(index).ok().and_then(|index| ALPHABET.get(index)).copied().unwrap_or(b'=');
            out.push(if digit <= group.len() { char::from(byte) } else { '=' });
        }
    }
    out
}

/// The octets of `text`; `None` where it is not Base64: another character, or padding that is missing or misplaced. What
/// is decoded may be a secret: it is wiped when it is dropped.
pub(super) fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take(2).take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    // All the room at once: a buffer that grew would leave a copy behind.
    let mut out = Zeroizing::new(Vec::with_capacity(text.len() / 4 * 3));
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in digits {
        bits = bits << 6 | value(*byte)?;
        count += 6;
        if count >= 8 {
            count -= 8;
            out.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    Some(out)
}

fn value(byte: u8) -> Option<u32> {
    let value = match byte {
        b'A'..=b'Z' => byte - b'A',
        b'a'..=b'z' => byte - b'a' + 26,
        b'0'..=b'9' => byte - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    };
    Some(u32::from(value))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decoded(text: &str) -> Option<Vec<u8>> {
        decode(text.as_bytes()).map(|octets| octets.to_vec())
    }

    #[test]
    fn the_vectors_of_rfc_4648_go_both_ways() {
        for (text, expected) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(encode(text.as_bytes()), expected);
            assert_eq!(decoded(expected).as_deref(), Some(text.as_bytes()));
        }
        assert_eq!(encode(&[0xfb, 0xff, 0xbf]), "+/+/");
    }

    #[test]
    fn what_is_not_base64_is_refused() {
        for text in
            ["=", "*", "Zg", "Zg=", "Zm9", "Z===", "====", "Zg==Zg==", "Zm 9", "Zm9v\n", "Zm-_", "Zg=a", " Zg=="]
        {
            assert_eq!(decoded(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_octets_come_back(octets in prop::collection::vec(any::<u8>(), 0..100)) {
            prop_assert_eq!(decoded(&encode(&octets)), Some(octets));
        }
    }
}

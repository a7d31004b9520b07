//! Base64 (RFC 4648 §4), as SASL exchanges write it: one line, padded. By base64ct, whose time does not depend on what is
//! decoded: that may be a secret.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

/// The text of `bytes`.
pub(super) fn encode(bytes: &[u8]) -> String {
    Base64::encode_string(bytes)
}

/// The octets of `text`; `None` where it is not Base64: another character, or padding that is missing or misplaced. They are
/// wiped when they are dropped.
pub(super) fn decode(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    // All the room at once: a buffer that grew would leave a copy behind.
    let mut out = Zeroizing::new(vec![0; text.len() / 4 * 3]);
    let bytes = Base64::decode(text, &mut out).ok()?.len();
    out.truncate(bytes);
    Some(out)
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

//! One-click unsubscription (RFC 8058): the pair `List-Unsubscribe` and `List-Unsubscribe-Post`.

use super::header::Fields;
use super::original::unfold;

const LIST_UNSUBSCRIBE: &[u8] = b"List-Unsubscribe";
const LIST_UNSUBSCRIBE_POST: &[u8] = b"List-Unsubscribe-Post";
/// The value of the second field (RFC 8058 §3.1).
const ONE_CLICK: &str = "List-Unsubscribe=One-Click";
/// Addresses for unsubscription by mail that are carried over from a message's own field. More are left out.
const MAILTO_MAX: usize = 4;
/// Octets of such an address. Longer ones are left out.
const MAILTO_BYTES_MAX: usize = 512;

/// What a message says of unsubscription by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnFields {
    /// It has both fields, the first with an HTTPS URI.
    pub is_pair: bool,
    /// It has any of the two.
    pub any: bool,
    /// `mailto:` URIs of `List-Unsubscribe`.
    pub mailto: Vec<String>,
}

impl OwnFields {
    /// Looks for them in a header block.
    pub fn of(header: &[u8]) -> Self {
        let mut own = OwnFields::default();
        let (mut has_https, mut has_post) = (false, false);
        for field in Fields::new(header) {
            if field.name().eq_ignore_ascii_case(LIST_UNSUBSCRIBE) {
                own.any = true;
                for uri in uris(&unfold(field.value())) {
                    has_https |= has_scheme(&uri, "https:");
                    if has_scheme(&uri, "mailto:") && uri.len() <= MAILTO_BYTES_MAX && own.mailto.len() < MAILTO_MAX {
                        own.mailto.push(uri);
                    }
                }
            } else if field.name().eq_ignore_ascii_case(LIST_UNSUBSCRIBE_POST) {
                own.any = true;
                has_post |= unfold(field.value()).trim().eq_ignore_ascii_case(ONE_CLICK);
            }
        }
        own.is_pair = has_https && has_post;
        own
    }
}

/// The header block without the two fields.
pub fn without(header: &[u8]) -> Vec<u8> {
    let mut fields = Fields::new(header);
    let mut out = Vec::with_capacity(header.len());
    for field in fields.by_ref() {
        let name = field.name();
        if !name.eq_ignore_ascii_case(LIST_UNSUBSCRIBE) && !name.eq_ignore_ascii_case(LIST_UNSUBSCRIBE_POST) {
            out.extend_from_slice(field.raw());
        }
    }
    out.extend_from_slice(fields.rest());
    out
}

/// The fields for one recipient: the pair where there is an HTTPS URI, else the first alone, else nothing. The URIs have neither white
/// space nor angle brackets; those of `mailto` come from [`OwnFields`], or are ours.
pub fn fields(https: Option<&str>, mailto: &[String]) -> String {
    let uris: Vec<_> =
        https.into_iter().chain(mailto.iter().map(String::as_str)).map(|uri| format!("<{uri}>")).collect();
    if uris.is_empty() {
        return String::new();
    }
    let mut out = format!("List-Unsubscribe: {}\r\n", uris.join(",\r\n "));
    if https.is_some() {
        out.push_str("List-Unsubscribe-Post: ");
        out.push_str(ONE_CLICK);
        out.push_str("\r\n");
    }
    out
}

/// What stands in angle brackets (RFC 2369 §2), white space taken out; only what is printable ASCII.
fn uris(value: &str) -> Vec<String> {
    let inside = value.split('<').skip(1).filter_map(|rest| rest.split_once('>')).map(|(uri, _)| uri);
    let clean = inside.map(|uri| uri.chars().filter(|c| !c.is_ascii_whitespace()).collect::<String>());
    clean.filter(|uri| uri.bytes().all(|byte| byte.is_ascii_graphic())).collect()
}

fn has_scheme(uri: &str, scheme: &str) -> bool {
    uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_both_fields_with_an_https_uri() {
        let post = "list-unsubscribe-post:\r\n List-Unsubscribe=One-Click\r\n";
        for (header, is_pair) in [
            (format!("List-Unsubscribe: <https://a.test/u>\r\n{post}"), true),
            (format!("{post}LIST-UNSUBSCRIBE: <mailto:u@a.test>,\r\n <HTTPS://a.test/\r\n u>\r\n"), true),
            (format!("List-Unsubscribe: <http://a.test/u>\r\n{post}"), false),
            ("List-Unsubscribe: <https://a.test/u>\r\n".to_owned(), false),
            ("List-Unsubscribe: https://a.test/u\r\nList-Unsubscribe-Post: yes\r\n".to_owned(), false),
            (String::new(), false),
            (format!("A: b\r\n\r\nList-Unsubscribe: <https://a.test/u>\r\n{post}"), false),
        ] {
            assert_eq!(OwnFields::of(header.as_bytes()).is_pair, is_pair, "{header}");
        }
    }

    #[test]
    fn ours_takes_its_place_and_keeps_the_addresses() {
        let header = b"A: b\r\nList-Unsubscribe: <mailto:u@a.test?subject=off>, <https://a.test/page>\r\nC: d\r\n\r\n";
        let own = OwnFields::of(header);
        assert_eq!(
            (own.is_pair, own.any, &own.mailto[..]),
            (false, true, &["mailto:u@a.test?subject=off".to_owned()][..])
        );
        assert_eq!(without(header), b"A: b\r\nC: d\r\n\r\n");
        let ours = fields(Some("https://u.test/t"), &own.mailto);
        let expected = "List-Unsubscribe: <https://u.test/t>,\r\n <mailto:u@a.test?subject=off>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n";
        assert_eq!(ours, expected);
        assert!(OwnFields::of(ours.as_bytes()).is_pair);
        assert_eq!(fields(None, &own.mailto), "List-Unsubscribe: <mailto:u@a.test?subject=off>\r\n");
        assert_eq!(fields(None, &[]), "");
    }

    #[test]
    fn what_a_client_writes_cannot_add_a_field() {
        for value in ["<mailto:a\r\n b@c.test>", "<mailto:x\u{0}y>", "<mailto:\u{fc}@c.test>", "<mailto:a@b>c.test>"] {
            let own = OwnFields::of(format!("List-Unsubscribe: {value}\r\n").as_bytes());
            let ours = fields(Some("https://u.test/t"), &own.mailto);
            assert_eq!(Fields::new(ours.as_bytes()).count(), 2, "{value:?}: {ours:?}");
            assert!(ours.is_ascii());
        }
    }
}

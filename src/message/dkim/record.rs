//! What is published of a key (RFC 6376 §3.6.1): whether receivers can verify with it.
//!
//! One answer for who asks whether a next key may sign, and for who tells an administrator what to publish.

use base64ct::{Base64Unpadded, Encoding};

use super::super::tags::Tags;
use super::Key;

/// What is wrong with the records of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordFault {
    /// A word for it.
    pub code: &'static str,
    /// A sentence, with words of the record: to be escaped where it is shown.
    pub text: String,
}

/// Why receivers cannot verify signatures of `key` with the TXT records at its name; `None`: they can.
pub fn fault_of(key: &Key, records: &[&str]) -> Option<RecordFault> {
    let fault = |code, text| Some(RecordFault { code, text });
    let [record] = records else {
        return fault("several", format!("{} TXT records where one must be: receivers take any", records.len()));
    };
    let tags = match Tags::parse(record) {
        Ok(tags) => tags,
        Err(problem) => return fault("malformed", format!("cannot be read: {problem}")),
    };
    if let Some(version) = tags.get("v")
        && (version != "DKIM1" || tags.first_name() != Some("v"))
    {
        return fault("malformed", format!("begins with v={version}, not with v=DKIM1"));
    }
    let (kind, our_kind) = (tags.get("k").unwrap_or("rsa"), key.algorithm().name());
    let Some(published) = tags.get("p").map(without_space) else {
        return fault("malformed", format!("has no p=: {record}"));
    };
    if published.is_empty() {
        return fault("revoked", "p= is empty: the key is revoked".to_owned());
    }
    if !kind.eq_ignore_ascii_case(our_kind) {
        return fault("algorithm", format!("k={kind}, and our key is {our_kind}"));
    }
    if !octets(&published).is_some_and(|published| key.is_published_as(&published)) {
        return fault("key_differs", "carries another key than ours: every signature fails".to_owned());
    }
    if let Some(hashes) = tags.list("h")
        && !hashes.contains(&"sha256")
    {
        return fault("hash", format!("h={} does not allow sha256", hashes.join(":")));
    }
    if let Some(services) = tags.list("s")
        && !services.iter().any(|service| matches!(*service, "*" | "email"))
    {
        return fault("service", format!("s={} does not allow mail", services.join(":")));
    }
    None
}

fn without_space(text: &str) -> String {
    text.split_ascii_whitespace().collect()
}

/// Padding is left out by some.
fn octets(text: &str) -> Option<Vec<u8>> {
    Base64Unpadded::decode_vec(text.trim_end_matches('=')).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_may_sign_only_where_receivers_can_verify_with_what_is_published() {
        let path = format!("{}/tests/data/dkim/rsa2048.pem", env!("CARGO_MANIFEST_DIR"));
        let key = Key::from_pem(&std::fs::read(path).unwrap()).unwrap();
        let ours = key.record();
        let p = ours.split("p=").nth(1).unwrap();
        let code = |records: &[&str]| fault_of(&key, records).map(|fault| fault.code);
        for (records, expected) in [
            (vec![ours.as_str()], None),
            (vec![&ours.replace("p=", "t=s; p = ").replace("AAA", "A AA")], None),
            (vec![&format!("p={p}")], None),
            (vec![], Some("several")),
            (vec![ours.as_str(), "v=DKIM1; p="], Some("several")),
            (vec![""], Some("malformed")),
            (vec!["v=DKIM1; k=rsa"], Some("malformed")),
            (vec![&format!("v=DKIM2; p={p}")], Some("malformed")),
            (vec!["v=DKIM1; p="], Some("revoked")),
            (vec![&format!("v=DKIM1; k=ed25519; p={p}")], Some("algorithm")),
            (vec!["v=DKIM1; p=AAAA"], Some("key_differs")),
            (vec![&format!("v=DKIM1; h=sha1; p={p}")], Some("hash")),
            (vec![&format!("v=DKIM1; s=tlsrpt; p={p}")], Some("service")),
        ] {
            assert_eq!(code(&records), expected, "{records:?}");
        }
    }
}

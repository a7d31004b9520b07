//! Tokens of return paths and unsubscribe links, which anybody may write, and the file of their keys.

use std::time::Duration;

use posthaste::policy::token::{Addressee, KeyRing, Purpose, Secret, TOKEN_CHARS, TokenError, mint, verify};
use posthaste::types::{MessageId, Timestamp};

const LIFETIME: Duration = Duration::from_secs(60 * 86_400);

/// The input as a token: what is accepted is what we would write, but for its case. Its first octets as the content of one: it is
/// accepted for its purpose and for no other, and not with the next octet as a change. The input as a file of keys: what is read is written
/// again to the same keys.
pub fn token(data: &[u8]) {
    // The key of the seeds.
    let mut secret = Secret::default();
    secret.fill(7);
    let keys = KeyRing::new(Timestamp::EPOCH, secret).to_keys();
    let text = String::from_utf8_lossy(data);
    for purpose in [Purpose::ReturnPath, Purpose::Unsubscribe] {
        if let Ok(content) = verify(&keys, purpose, &text, Timestamp::MAX, Duration::MAX) {
            assert_eq!(mint(&keys, purpose, content.id, content.addressee), text.to_ascii_lowercase());
        }
    }
    if let Some((id, rest)) = data.split_first_chunk() {
        let id = MessageId::from_bytes(*id);
        let (addressee, rest) = match rest.split_first_chunk() {
            Some((index, rest)) => (Addressee::recipient(usize::from(u16::from_be_bytes(*index))), rest),
            None => (Addressee::Message, rest),
        };
        let token = mint(&keys, Purpose::ReturnPath, id, addressee);
        assert!(token.len() == TOKEN_CHARS && token.bytes().all(|octet| octet.is_ascii_alphanumeric()), "{token}");
        let now = id.accepted_at();
        let read = verify(&keys, Purpose::ReturnPath, &token, now, LIFETIME).expect("a token of ours is accepted");
        assert_eq!((read.id, read.addressee), (id, addressee));
        let other = verify(&keys, Purpose::Unsubscribe, &token, now, LIFETIME);
        assert_eq!(other, Err(TokenError::Forged));
        if let [at, by, ..] = *rest {
            let mut changed = token.clone().into_bytes();
            let place = changed.get_mut(usize::from(at) % TOKEN_CHARS).expect("within the token");
            let is_same = place.eq_ignore_ascii_case(&by);
            *place = by;
            let read = verify(&keys, Purpose::ReturnPath, &String::from_utf8_lossy(&changed), now, LIFETIME);
            assert!(is_same || read.is_err(), "{by} at {at} of {token}");
        }
    }
    if let Ok(ring) = KeyRing::parse(&text) {
        let again = KeyRing::parse(&ring.to_text()).expect("what was written is read");
        assert!(ring.keys().eq(again.keys()) && ring.keys().len() > 0);
    }
}

//! Tokens that count and tokens that do not; keys that come and go.

use proptest::prelude::*;
use zeroize::Zeroizing;

use super::*;

const DAY: Duration = Duration::from_secs(86_400);
const LIFETIME: Duration = Duration::from_secs(60 * 86_400);
const PLAN: RotationPlan = RotationPlan { key_age_max: Duration::from_secs(180 * 86_400), token_lifetime: LIFETIME };
const NOW: Timestamp = Timestamp::from_millis(1_795_302_000_000);

fn secret(seed: u8) -> Secret {
    Zeroizing::new([seed; SECRET_BYTES])
}

fn ring() -> KeyRing {
    KeyRing::new(NOW.minus(DAY), secret(7))
}

fn id(random: u128) -> MessageId {
    MessageId::new(NOW, random)
}

fn check(keys: &TokenKeys, text: &str) -> Result<TokenContent, TokenError> {
    verify(keys, Purpose::ReturnPath, text, NOW, LIFETIME)
}

fn purposes() -> impl Strategy<Value = (Purpose, Purpose)> {
    use Purpose::{Complaint, ReturnPath, Unsubscribe};
    prop_oneof![Just((ReturnPath, Unsubscribe)), Just((Unsubscribe, Complaint)), Just((Complaint, ReturnPath))]
}

fn addressees() -> impl Strategy<Value = Addressee> {
    prop_oneof![4 => (0..u16::MAX).prop_map(Addressee::Recipient), 1 => Just(Addressee::Message)]
}

/// In another mix of cases, one bit a character.
fn folded(token: &str, cases: u64) -> String {
    let fold = |(at, c): (usize, char)| if cases >> (at % 64) & 1 == 1 { c.to_ascii_uppercase() } else { c };
    token.chars().enumerate().map(fold).collect()
}

proptest! {
    #[test]
    fn a_token_is_read_in_any_mix_of_cases_and_for_its_purpose_only(
        random in any::<u128>(), to in addressees(), (purpose, other) in purposes(), cases in any::<u64>()
    ) {
        let keys = ring().to_keys();
        let token = mint(&keys, purpose, id(random), to);
        prop_assert_eq!(token.len(), TOKEN_CHARS);
        prop_assert!(token.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')), "{}", token);
        let content = TokenContent { id: id(random), addressee: to };
        let token = folded(&token, cases);
        prop_assert_eq!(verify(&keys, purpose, &token, NOW, LIFETIME), Ok(content));
        prop_assert_eq!(verify(&keys, other, &token, NOW, LIFETIME), Err(TokenError::Forged));
    }

    #[test]
    fn a_token_with_one_bit_changed_is_none(random in any::<u128>(), to in addressees(), bit in 0..TOKEN_BYTES * 8) {
        let keys = ring().to_keys();
        let token = mint(&keys, Purpose::ReturnPath, id(random), to);
        let mut octets = BASE32_NOPAD.decode(token.to_ascii_uppercase().as_bytes()).unwrap();
        octets[bit / 8] ^= 1 << (bit % 8);
        let changed = BASE32_NOPAD.encode(&octets);
        let error = check(&keys, &changed).unwrap_err();
        let of_key = matches!(error, TokenError::UnknownKey(_)) && bit < 8;
        prop_assert!(of_key || error == TokenError::Forged, "{:?}", error);
    }

    #[test]
    fn a_token_with_one_character_changed_is_none(random in any::<u128>(), at in 0..TOKEN_CHARS, by in "[a-zA-Z0-9=@.+\\-_ ]") {
        let keys = ring().to_keys();
        let token = mint(&keys, Purpose::ReturnPath, id(random), Addressee::Message);
        prop_assume!(!token[at..=at].eq_ignore_ascii_case(&by));
        let changed = [&token[..at], &by, &token[at + 1..]].concat();
        prop_assert!(check(&keys, &changed).is_err());
    }

    #[test]
    fn a_token_that_was_cut_or_extended_is_none(random in any::<u128>(), cut in 0..TOKEN_CHARS, more in "[a-z2-7=]{1,16}") {
        let keys = ring().to_keys();
        let token = mint(&keys, Purpose::ReturnPath, id(random), Addressee::Recipient(3));
        for text in [&token[..cut], &token[cut + 1..], &format!("{token}{more}"), &format!("{more}{token}")] {
            prop_assert_eq!(check(&keys, text), Err(TokenError::Malformed));
        }
    }

    #[test]
    fn a_token_of_another_key_is_none(random in any::<u128>(), seed in any::<u8>()) {
        prop_assume!(seed != 7);
        let forger = KeyRing::new(NOW.minus(DAY), secret(seed)).to_keys();
        let token = mint(&forger, Purpose::ReturnPath, id(random), Addressee::Recipient(0));
        prop_assert_eq!(check(&ring().to_keys(), &token), Err(TokenError::Forged));
    }

    #[test]
    fn any_text_is_refused_without_harm(text in "\\PC{0,80}", octets in prop::collection::vec(any::<u8>(), TOKEN_BYTES)) {
        let keys = ring().to_keys();
        prop_assert!(check(&keys, &text).is_err());
        prop_assert!(check(&keys, &BASE32_NOPAD.encode(&octets)).is_err());
    }

    #[test]
    fn a_token_counts_for_its_lifetime_and_not_before_its_time(age_ms in 0..400 * 86_400_000_u64, ahead_ms in 0..86_400_000_u64) {
        let keys = ring().to_keys();
        let token = mint(&keys, Purpose::ReturnPath, id(1), Addressee::Message);
        let later = NOW.plus(Duration::from_millis(age_ms));
        let result = verify(&keys, Purpose::ReturnPath, &token, later, LIFETIME);
        prop_assert_eq!(result.err(), (later.since(NOW) > LIFETIME).then_some(TokenError::Expired));
        let earlier = NOW.minus(Duration::from_millis(ahead_ms));
        let result = verify(&keys, Purpose::ReturnPath, &token, earlier, LIFETIME);
        prop_assert_eq!(result.err(), (ahead_ms > 3_600_000).then_some(TokenError::FromTheFuture));
    }

    #[test]
    fn through_any_rotation_each_token_counts_for_its_lifetime_and_stays_the_same(
        hours in prop::collection::vec(1..2_000_u64, 1..40), age_days in 1..40_u64
    ) {
        let plan = RotationPlan { key_age_max: Duration::from_secs(age_days * 86_400), token_lifetime: LIFETIME };
        let mut ring = KeyRing::new(NOW, secret(0));
        let (mut now, mut seed, mut made) = (NOW, 0_u8, Vec::new());
        for span in hours {
            let message = MessageId::new(now, 1);
            made.push((message, mint(&ring.to_keys(), Purpose::ReturnPath, message, Addressee::Message)));
            now = now.plus(Duration::from_secs(span * 3_600));
            let rotated = ring.rotate(now, plan, || {
                seed += 1;
                secret(seed)
            });
            prop_assert!(!rotated.is_full);
            ring = KeyRing::parse(&ring.to_text()).unwrap();
            prop_assert!(now.since(ring.keys().last().unwrap().1) <= plan.key_age_max);
            let keys = ring.to_keys();
            made.retain(|(message, _)| now.since(message.accepted_at()) <= LIFETIME);
            for (message, token) in &made {
                prop_assert_eq!(&mint(&keys, Purpose::ReturnPath, *message, Addressee::Message), token);
                prop_assert!(verify(&keys, Purpose::ReturnPath, token, now, LIFETIME).is_ok());
            }
        }
    }

    #[test]
    fn a_changed_octet_of_the_file_is_noticed(at in any::<prop::sample::Index>(), by in "[0-9a-f \\n#e]") {
        let mut ring = ring();
        ring.rotate(NOW.plus(200 * DAY), PLAN, || secret(9));
        let text = ring.to_text();
        let at = at.index(text.len());
        prop_assume!(text[at..=at] != *by);
        let changed = format!("{}{by}{}", &text[..at], &text[at + 1..]);
        // Within the remark nothing is lost.
        if let Ok(read) = KeyRing::parse(&changed) {
            prop_assert_eq!(&*read.to_text(), &*text);
        }
        prop_assert!(at == text.len() - 1 || KeyRing::parse(&text[..at]).is_err());
    }
}

#[test]
fn a_key_is_kept_until_no_token_of_it_counts_and_then_its_id_is_free() {
    let mut ring = KeyRing::new(NOW, secret(0));
    let mut rotate = |days: u32| ring.rotate(NOW.plus(days * DAY), PLAN, || secret(1));
    assert_eq!(rotate(180), Rotated::default());
    assert_eq!(rotate(181), Rotated { added: Some(1), ..Rotated::default() });
    assert_eq!(rotate(181), Rotated::default());
    // The last token of the first key is of the instant before the second came.
    assert_eq!(rotate(242), Rotated::default());
    assert_eq!(rotate(243), Rotated { dropped: vec![0], ..Rotated::default() });
    assert_eq!(ring.keys().map(|(id, _)| id).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_clock_that_was_set_back_makes_no_key_and_drops_none() {
    let mut ring = ring();
    assert_eq!(ring.rotate(NOW.minus(400 * DAY), PLAN, || secret(1)), Rotated::default());
    let token = mint(&ring.to_keys(), Purpose::ReturnPath, MessageId::new(Timestamp::EPOCH, 1), Addressee::Message);
    let read = verify(&ring.to_keys(), Purpose::ReturnPath, &token, Timestamp::EPOCH, LIFETIME);
    assert!(read.is_ok(), "mail from before the first key has its token: {read:?}");
}

#[test]
fn ids_go_round_and_when_all_are_taken_the_newest_key_stays_in_use() {
    let plan = RotationPlan { key_age_max: DAY, token_lifetime: 300 * DAY };
    let mut ring = KeyRing::new(NOW, secret(0));
    let mut ids = vec![0];
    for days in (2..520).step_by(2) {
        let rotated =
            ring.rotate(NOW.plus(days * DAY), RotationPlan { token_lifetime: 100 * DAY, ..plan }, || secret(1));
        ids.extend(rotated.added);
    }
    assert_eq!(ids[254..258], [254, 255, 0, 1]);
    let mut ring = KeyRing::new(NOW, secret(0));
    let full = (1..300).map(|day| {
        ring.rotate(NOW.plus(day * 2 * DAY), RotationPlan { token_lifetime: 900 * DAY, ..plan }, || secret(1))
    });
    assert_eq!(full.filter(|rotated| rotated.is_full).count(), 300 - KEYS_MAX);
    assert_eq!(ring.keys().len(), KEYS_MAX);
}

#[test]
fn what_is_no_file_of_keys_is_refused_by_line_and_shows_nothing_of_it() {
    let text = ring().to_text().to_string();
    let line = text.lines().nth(2).unwrap();
    for (changed, expected) in [
        (String::new(), "it does not begin as a file of token keys does"),
        (text.replace("version 1", "version 2"), "it has version 2, this posthaste knows version 1: start a newer one"),
        (text.replace(line, &line.to_uppercase()), "line 3: it is not a key, or its check does not fit"),
        (text.replace(line, &format!("{line}\n{line}")), "line 4: an earlier key has the same id"),
        (text.replace("end 1", "end 2"), "line 4: another number of keys stands before it"),
        (text.replace("end 1\n", ""), "it is cut off: the line \"end\" is missing"),
        (format!("{text}\n"), "line 5: nothing may stand behind the line \"end\""),
    ] {
        assert_eq!(KeyRing::parse(&changed).unwrap_err().to_string(), expected);
    }
    let shown = format!("{:?} {:?}", ring(), ring().to_keys());
    assert!(!shown.contains("0707") && !shown.contains("[7, 7"), "{shown}");
}

/// What stands in return paths of mail that is under way must be read by later releases.
#[test]
fn the_token_of_a_known_key_and_message_does_not_change() {
    let id = "01010187edb7434c-4187f4b8-3e2b-404c-a5f6-72b9b64e5d66-000000".parse().unwrap();
    let keys = KeyRing::new(Timestamp::EPOCH, secret(7)).to_keys();
    let path = mint(&keys, Purpose::ReturnPath, id, Addressee::Recipient(2));
    let link = mint(&keys, Purpose::Unsubscribe, id, Addressee::Message);
    assert_eq!(
        (path.as_str(), link.as_str()),
        (
            "aaayp3nxingedb7uxa7cwqcmux3hfonwjzowmaacmforkauo6y3ismcu",
            "aaayp3nxingedb7uxa7cwqcmux3hfonwjzown777efdcgtgtnwkfcxlb"
        )
    );
}

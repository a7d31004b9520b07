//! Finding phrases in the text of a reply.
//!
//! Reply texts quote what others chose: addresses, names, whole lines. [`normalise`] takes addresses and the numbers
//! within quotes out, so that `user550full@spam.test` decides nothing, and makes the rest easy to match: lower case,
//! single spaces. A phrase matches only between word boundaries, and `*` in it stands for up to 60 octets.

use std::borrow::Cow;

use memchr::memmem;

/// Octets of a reply that are looked at. Longer ones are cut: what matters stands in front.
const TEXT_BYTES_MAX: usize = 4_096;
/// Octets that a `*` may stand for.
const GAP_BYTES_MAX: usize = 60;

/// Lower case, single spaces, without addresses, bracketed paths, and words with digits inside double quotes.
pub(super) fn normalise(lines: &[Box<str>]) -> String {
    let mut joined = String::with_capacity(lines.iter().map(|line| line.len() + 1).sum::<usize>().min(TEXT_BYTES_MAX));
    for line in lines {
        joined.push_str(line);
        joined.push(' ');
        if joined.len() > TEXT_BYTES_MAX {
            break;
        }
    }
    joined.truncate(joined.floor_char_boundary(TEXT_BYTES_MAX));
    joined.make_ascii_lowercase();
    let joined = without_paths(&joined);
    let mut out = String::with_capacity(joined.len());
    let mut quoted = false;
    for word in joined.split_whitespace() {
        let quotes = word.bytes().filter(|byte| *byte == b'"').count();
        let in_quotes = quoted || quotes > 0;
        quoted ^= quotes % 2 == 1;
        let has_digit = word.bytes().any(|byte| byte.is_ascii_digit());
        if word.contains('@') || (in_quotes && has_digit) {
            continue;
        }
        out.push_str(word);
        out.push(' ');
    }
    out
}

/// Takes `<...>` without white space out: paths, host names, message ids.
fn without_paths(text: &str) -> Cow<'_, str> {
    if !text.contains('<') {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('<') {
        out.push_str(before);
        out.push(' ');
        rest = match after.split_once('>') {
            Some((inner, behind)) if !inner.contains(char::is_whitespace) => behind,
            _ => after,
        };
    }
    out.push_str(rest);
    Cow::Owned(out)
}

/// A normalised text with what tells quickly that a phrase is not in it.
#[derive(Clone, Debug)]
pub(super) struct Text {
    text: String,
    pairs: Pairs,
}

impl Text {
    /// Normalises the lines of a reply.
    pub(super) fn new(lines: &[Box<str>]) -> Self {
        let text = normalise(lines);
        let pairs = Pairs::of(text.as_bytes());
        Self { text, pairs }
    }

    /// The text.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }
}

/// Which pairs of neighbouring octets occur, one bit for many of them: what is not in here is not in the text. Most phrases end
/// here, without a search.
#[derive(Clone, Copy, Debug, Default)]
struct Pairs([u64; 4]);

impl Pairs {
    fn of(text: &[u8]) -> Self {
        let mut pairs = Self::default();
        for pair in text.array_windows::<2>() {
            let mixed = u16::from_le_bytes(*pair).wrapping_mul(0x9e37).to_be_bytes();
            let [high, _] = mixed;
            if let Some(word) = pairs.0.get_mut(usize::from(high >> 6)) {
                *word |= 1 << (high & 63);
            }
        }
        pairs
    }

    fn has_all(&self, wanted: &Pairs) -> bool {
        self.0.iter().zip(&wanted.0).all(|(here, wanted)| here & wanted == *wanted)
    }

    fn with(self, other: Pairs) -> Self {
        let [a, b, c, d] = self.0;
        let [e, f, g, h] = other.0;
        Self([a | e, b | f, c | g, d | h])
    }
}

/// A phrase, ready to be looked for.
#[derive(Clone, Debug)]
pub(super) struct Phrase {
    parts: Vec<memmem::Finder<'static>>,
    pairs: Pairs,
}

impl Phrase {
    /// `text` in lower case; `*` is a gap.
    pub(super) fn new(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let parts = parts(&text);
        let pairs = parts.clone().map(|part| Pairs::of(part.as_bytes())).fold(Pairs::default(), Pairs::with);
        Self { parts: parts.map(|part| memmem::Finder::new(part).into_owned()).collect(), pairs }
    }

    /// Whether a normalised text holds the phrase.
    pub(super) fn is_in(&self, text: &Text) -> bool {
        text.pairs.has_all(&self.pairs) && self.is_within(&text.text)
    }

    /// Whether every text with the phrase `other` holds this one, too; `false` where that is not plain to see.
    pub(super) fn is_implied_by(&self, other: &str) -> bool {
        parts(other).any(|part| self.is_within(part))
            || parts(other).map(str::as_bytes).eq(self.parts.iter().map(|part| part.needle()))
    }

    fn is_within(&self, text: &str) -> bool {
        let Some((first, more)) = self.parts.split_first() else { return false };
        let text = text.as_bytes();
        let mut from = 0;
        while let Some(end) = find_word(first, text, from, text.len()) {
            if follow(more, text, end) {
                return true;
            }
            from = end;
        }
        false
    }
}

/// What stands between the gaps of a phrase.
pub(super) fn parts(phrase: &str) -> impl Iterator<Item = &str> + Clone {
    phrase.split('*').map(str::trim).filter(|part| !part.is_empty())
}

/// Whether the other parts follow, each within the gap.
fn follow(parts: &[memmem::Finder<'static>], text: &[u8], mut end: usize) -> bool {
    parts.iter().all(|part| {
        let limit = (end + GAP_BYTES_MAX + part.needle().len()).min(text.len());
        match find_word(part, text, end, limit) {
            Some(next) => {
                end = next;
                true
            }
            None => false,
        }
    })
}

/// Where the next occurrence between word boundaries ends, if it lies within `from..limit`.
fn find_word(part: &memmem::Finder<'static>, text: &[u8], from: usize, limit: usize) -> Option<usize> {
    let is_word = |at: Option<usize>| at.and_then(|at| text.get(at)).is_some_and(u8::is_ascii_alphanumeric);
    let mut from = from;
    loop {
        let start = from + part.find(text.get(from..limit)?)?;
        let end = start + part.needle().len();
        let starts_word = part.needle().first().is_some_and(u8::is_ascii_alphanumeric);
        let ends_word = part.needle().last().is_some_and(u8::is_ascii_alphanumeric);
        let inside = (starts_word && is_word(start.checked_sub(1))) || (ends_word && is_word(Some(end)));
        if !inside {
            return Some(end);
        }
        from = start + 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(phrase: &str, text: &str) -> bool {
        Phrase::new(phrase).is_in(&Text::new(&[text.into()]))
    }

    #[test]
    fn phrases_match_whole_words_in_any_case() {
        assert!(found("user unknown", "User  Unknown in virtual table"));
        assert!(found("spam", "this is (SPAM)."));
        assert!(found("ts03", "[TS03] later"));
        assert!(!found("spam", "antispamming"));
        assert!(!found("full", "fully"));
        assert!(!found("s3140", "s31401"));
        assert!(found("full", "fully full"));
    }

    #[test]
    fn gaps_span_a_few_words_and_no_more() {
        assert!(found("mailbox * full", "The mailbox of that user is full"));
        assert!(found("mailbox * full", "mailbox full"));
        assert!(!found("mailbox * full", "full mailbox"));
        assert!(!found("mailbox * full", &format!("mailbox {} full", "x ".repeat(50))));
        assert!(found("mailbox * full", &format!("mailbox {} mailbox is full", "x ".repeat(50))));
    }

    #[test]
    fn what_others_chose_does_not_count() {
        assert!(!found("spam", "<spam@example.test>: no"));
        assert!(!found("mailbox full", "mailbox.full@b.test unknown"));
        assert!(!found("spam", "host <mx.spam.test> says no"));
        assert!(!found("ts03", "message \"re: ts03 rocks\" refused"));
        assert!(found("user unknown", "\"user unknown\""));
        assert!(found("5 6 spam", "5 < 6 spam"), "a lone bracket counts as a space");
    }

    proptest! {
        #[test]
        fn any_text_can_be_searched(lines in prop::collection::vec("\\PC{0,80}", 0..5), phrase in "[a-z* <\"]{0,20}") {
            let lines: Vec<Box<str>> = lines.into_iter().map(Into::into).collect();
            let text = Text::new(&lines);
            prop_assert!(text.as_str().len() <= TEXT_BYTES_MAX + 1);
            prop_assert!(!text.as_str().contains('@'));
            let phrase = Phrase::new(&phrase);
            prop_assert_eq!(phrase.is_in(&text), phrase.is_within(text.as_str()), "the pairs only save searches");
        }
    }
}

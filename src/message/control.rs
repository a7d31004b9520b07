//! The control fields `X-SES-*` and `X-Posthaste-*`: read at submission, then stripped.
//!
//! Promises: whatever they hold, all of the header is read: a bad tag is counted and dropped, a bad priority or warm-up is kept for whoever
//! refuses the message. Does not: know which configuration
//! sets exist (`admission` does).

use super::header::Field;
use crate::types::Priority;

/// Message tags kept. More are counted as bad.
const TAGS_MAX: usize = 50;
/// Octets of a tag's name or value, as SES limits them.
const TAG_BYTES_MAX: usize = 256;
/// Octets of a configuration set's name, as SES limits them.
const CONFIGURATION_SET_BYTES_MAX: usize = 64;

/// Characters kept of an ARN: more than the longest address needs.
const ARN_CHARS_MAX: usize = 512;

/// Characters kept of a priority, or a word on warm-ups, that is none.
const PRIORITY_CHARS_MAX: usize = 64;

/// What the control fields of a message asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Control {
    /// `X-SES-CONFIGURATION-SET`, as written (the first one, where it is repeated). May name a set that does not exist,
    /// or be no name at all.
    pub configuration_set: Option<String>,
    /// `X-SES-SOURCE-ARN`: the identity whose authority the sender claims, as written.
    pub source_arn: Option<String>,
    /// `X-SES-FROM-ARN`: the same for `From` and `Sender`.
    pub from_arn: Option<String>,
    /// `X-SES-RETURN-PATH-ARN`: the same for the return path.
    pub return_path_arn: Option<String>,
    /// `X-SES-MESSAGE-TAGS`, in order, names unique (the first one counts), each name and value 1 to 256 of
    /// `A-Za-z0-9_-`. At most 50.
    pub tags: Vec<(String, String)>,
    /// `X-Posthaste-Priority` (the first one, where it is repeated); the text where it names none.
    pub priority: Option<Result<Priority, String>>,
    /// `X-Posthaste-Warmup: preferred` (the first one, where it is repeated): sources that warm up come first; the text where it
    /// says something else.
    pub warmup: Option<Result<(), String>>,
    /// Tags that were dropped: bad characters, no `=`, empty, repeated, too many.
    pub bad_tags: usize,
}

impl Control {
    /// Takes one of these fields.
    pub(super) fn add(&mut self, field: &Field<'_>) {
        let is = |name: &str| field.name().eq_ignore_ascii_case(name.as_bytes());
        let kept = |chars_max: usize| -> String {
            let value = String::from_utf8_lossy(field.value());
            value.chars().filter(|c| !c.is_control()).take(chars_max).collect()
        };
        if is("X-SES-CONFIGURATION-SET") {
            self.configuration_set.get_or_insert_with(|| kept(CONFIGURATION_SET_BYTES_MAX + 1));
        } else if is("X-SES-SOURCE-ARN") {
            self.source_arn.get_or_insert_with(|| kept(ARN_CHARS_MAX));
        } else if is("X-SES-FROM-ARN") {
            self.from_arn.get_or_insert_with(|| kept(ARN_CHARS_MAX));
        } else if is("X-SES-RETURN-PATH-ARN") {
            self.return_path_arn.get_or_insert_with(|| kept(ARN_CHARS_MAX));
        } else if is("X-Posthaste-Priority") {
            self.priority.get_or_insert_with(|| {
                let text = kept(PRIORITY_CHARS_MAX);
                Priority::from_name(text.trim()).ok_or(text)
            });
        } else if is("X-Posthaste-Warmup") {
            self.warmup.get_or_insert_with(|| {
                let text = kept(PRIORITY_CHARS_MAX);
                if text.trim().eq_ignore_ascii_case("preferred") { Ok(()) } else { Err(text) }
            });
        } else if is("X-SES-MESSAGE-TAGS") {
            let value = String::from_utf8_lossy(field.value());
            for tag in value.split(',').map(str::trim).filter(|tag| !tag.is_empty()) {
                self.add_tag(tag);
            }
        }
    }

    fn add_tag(&mut self, tag: &str) {
        let (name, value) = tag.split_once('=').unwrap_or_default();
        let (name, value) = (name.trim(), value.trim());
        let valid = is_tag(name, value);
        let repeated = self.tags.iter().any(|(known, _)| known == name);
        if valid && !repeated && self.tags.len() < TAGS_MAX {
            self.tags.push((name.to_owned(), value.to_owned()));
        } else {
            self.bad_tags += 1;
        }
    }
}

/// Whether these can be a tag: 1 to 256 of `A-Za-z0-9_-` each.
pub fn is_tag(name: &str, value: &str) -> bool {
    let is_word = |text: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        (1..=TAG_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed)
    };
    is_word(name) && is_word(value)
}

#[cfg(test)]
mod tests {
    use super::super::header::Fields;
    use super::*;

    fn control(block: &str) -> Control {
        let mut control = Control::default();
        Fields::new(block.as_bytes()).for_each(|field| control.add(&field));
        control
    }

    fn tags(value: &str) -> (Vec<(String, String)>, usize) {
        let control = control(&format!("X-SES-MESSAGE-TAGS: {value}\r\n"));
        (control.tags, control.bad_tags)
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn tags_are_read_with_or_without_spaces_and_folds() {
        let expected = pairs(&[("campaign", "spring_1"), ("kind", "a-b")]);
        for value in
            ["campaign=spring_1, kind=a-b", "campaign=spring_1,kind=a-b,", " campaign = spring_1,\r\n\tkind=a-b"]
        {
            assert_eq!(tags(value), (expected.clone(), 0), "{value:?}");
        }
    }

    #[test]
    fn a_bad_tag_is_dropped_and_the_others_stay() {
        assert_eq!(tags("a=1, b, =c, d=, e=f g, h=ü, a=2, ok=yes"), (pairs(&[("a", "1"), ("ok", "yes")]), 6));
        assert_eq!(tags(""), (vec![], 0));
        let many = (0..60).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let (kept, bad) = tags(&many);
        assert_eq!((kept.len(), bad), (50, 10));
        assert_eq!(tags(&format!("a={}", "x".repeat(257))).1, 1);
    }

    #[test]
    fn a_priority_is_one_of_three_words() {
        let priority = |value: &str| control(&format!("x-posthaste-priority:{value}\r\n")).priority;
        assert_eq!(priority(" high"), Some(Ok(Priority::High)));
        assert_eq!(priority(" Normal \r\n\t"), Some(Ok(Priority::Normal)));
        assert_eq!(priority("BULK"), Some(Ok(Priority::Bulk)));
        assert_eq!(priority(" urgent\0"), Some(Err("urgent".to_owned())));
        assert_eq!(priority(&"x".repeat(500)), Some(Err("x".repeat(64))));
        assert_eq!(priority(""), Some(Err(String::new())));
        let twice = control("X-Posthaste-Priority: bulk\r\nX-Posthaste-Priority: no\r\nX-Posthaste-Other: x\r\n");
        assert_eq!(twice.priority, Some(Ok(Priority::Bulk)));
        assert_eq!(control("").priority, None);
        let warmup = |value: &str| control(&format!("x-posthaste-warmup:{value}\r\n")).warmup;
        assert_eq!(warmup(" Preferred\r\n "), Some(Ok(())));
        assert_eq!(warmup(" never"), Some(Err("never".to_owned())));
        assert_eq!(control("").warmup, None);
    }

    #[test]
    fn the_configuration_set_is_the_first_one_named() {
        let found =
            control("x-ses-configuration-set:  news_1 \r\nX-SES-Configuration-Set: other\r\nX-SES-OTHER: x\r\n");
        assert_eq!(found.configuration_set.as_deref(), Some("news_1"));
        let hostile = control(&format!("X-SES-CONFIGURATION-SET: a b\0{}\r\n", "x".repeat(500)));
        assert_eq!(hostile.configuration_set.map(|name| name.len()), Some(65));
        assert_eq!(control("").configuration_set, None);
    }
}

//! Times that peers name in a reply: `try again in 300 seconds`, `please come back in 00:04:59`.

use std::time::Duration;

/// Words that make a time a request to wait, if one of them stands shortly before it.
const CUES: [&str; 10] =
    ["again", "retry", "retrying", "back", "wait", "after", "greylisted", "greylisting", "delayed", "deferred"];
/// Words between cue and time that are looked over.
const REACH: usize = 4;
/// Longest hint that is believed; longer ones are cut.
const HINT_MAX: Duration = Duration::from_secs(86_400);

/// The time a peer asks to wait; `text` is normalised.
pub(super) fn find(text: &str) -> Option<Duration> {
    let clean = |word| str::trim_matches(word, |c: char| !c.is_ascii_alphanumeric());
    let words: Vec<&str> = text.split_whitespace().map(clean).collect();
    words.iter().enumerate().find_map(|(at, word)| {
        let wait = clock(word).or_else(|| amount(word, words.get(at + 1).copied().unwrap_or_default()))?;
        let before = words.get(at.saturating_sub(REACH)..at).unwrap_or_default();
        before.iter().any(|word| CUES.contains(word)).then_some(wait.min(HINT_MAX))
    })
}

/// `hh:mm:ss`.
fn clock(word: &str) -> Option<Duration> {
    let mut parts = word.split(':').map(|part| if part.len() <= 2 { number(part) } else { None });
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then(|| Duration::from_secs(hours * 3_600 + minutes * 60 + seconds))
}

/// `300 seconds`, `300s`, `5min`.
fn amount(word: &str, next: &str) -> Option<Duration> {
    let digits = word.bytes().take_while(u8::is_ascii_digit).count();
    let (count, suffix) = word.split_at_checked(digits)?;
    let unit = if suffix.is_empty() { next } else { suffix };
    let unit_seconds = match unit {
        "s" | "sec" | "secs" | "second" | "seconds" => 1,
        "m" | "min" | "mins" | "minute" | "minutes" => 60,
        "h" | "hr" | "hrs" | "hour" | "hours" => 3_600,
        _ => return None,
    };
    Some(Duration::from_secs(number(count)? * unit_seconds))
}

/// At most six digits, so that no product overflows.
fn number(text: &str) -> Option<u64> {
    let valid = (1..=6).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    if valid { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::super::phrase::normalise;
    use super::*;

    #[test]
    fn requests_to_wait_are_understood() {
        for (text, seconds) in [
            ("Greylisted, please try again in 300 seconds", Some(300)),
            ("try again in 300 seconds.", Some(300)),
            ("Please retry in 5 minutes", Some(300)),
            ("Try again after 1 hour", Some(3_600)),
            ("Greylisted for 60s", Some(60)),
            ("Greylisting in action, please come back in 00:04:59", Some(299)),
            ("wait at least 10min before", Some(600)),
            ("Retry after (30 sec)", Some(30)),
            ("try again in 999999 hours", Some(86_400)),
            ("limit of 100 messages per 60 seconds exceeded, try again later", None),
            ("try again later", None),
            ("try again in 9999999 seconds", None),
            ("retry: connection rate from you is above the limit of 30 minutes", None),
            ("try again in seconds", None),
            ("again \"in 5 minutes\" said <a@b.test>", None),
            ("back in 00:99", None),
        ] {
            let found = find(&normalise(&[text.into()]));
            assert_eq!(found, seconds.map(Duration::from_secs), "{text}");
        }
    }
}

//! Texts for people: ages, sizes, counts.

use std::fmt::Display;
use std::time::Duration;

/// The two largest units that are not zero: `3m12s`, `4d2h`, `12s`, `0s`.
pub(super) fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (large, small) = match seconds {
        0..60 => return format!("{seconds}s"),
        60..3_600 => ((60, "m"), (1, "s")),
        3_600..86_400 => ((3_600, "h"), (60, "m")),
        _ => ((86_400, "d"), (3_600, "h")),
    };
    let rest = seconds % large.0 / small.0;
    let whole = format!("{}{}", seconds / large.0, large.1);
    if rest == 0 { whole } else { format!("{whole}{rest}{}", small.1) }
}

/// Three digits at most before the unit: `812B`, `1.5KiB`, `40.0MiB`.
pub(super) fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1_024;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 { format!("{count}{name}") } else { format!("{}.{}{name}", tenths / 10, tenths % 10) }
}

/// `1 message`, `2 messages`.
pub(super) fn count<N: Display + PartialEq + From<u8>>(number: N, noun: &str) -> String {
    let plural = if number == N::from(1) { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Items with commas between, or `none`.
pub(super) fn join<T: Display>(items: &[T], none: &str) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    if texts.is_empty() { none.to_owned() } else { texts.join(", ") }
}

/// What a peer or a client chose, made safe for a terminal: control characters become `?`.
pub(super) fn safe(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// A reverse path as SMTP writes the null one.
pub(super) fn sender(text: &str) -> String {
    if text.is_empty() { "<>".to_owned() } else { safe(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_show_two_units() {
        let check = |seconds: u64, text: &str| assert_eq!(age(Duration::from_secs(seconds)), text);
        check(0, "0s");
        check(59, "59s");
        check(192, "3m12s");
        check(3_600, "1h");
        check(5_430, "1h30m");
        check(352_800, "4d2h");
    }

    #[test]
    fn sizes_show_three_digits() {
        let check = |count: u64, text: &str| assert_eq!(bytes(count), text);
        check(0, "0B");
        check(1_023, "1023B");
        check(1_024, "1.0KiB");
        check(1_536, "1.5KiB");
        check(41_943_040, "40.0MiB");
        check(u64::MAX, "16777215.9TiB");
    }

    #[test]
    fn escape_sequences_of_a_peer_do_not_reach_the_terminal() {
        assert_eq!(safe("a\u{1b}[2Jb\r\n"), "a?[2Jb??");
    }

    #[test]
    fn nouns_follow_their_number() {
        assert_eq!(count(1_u64, "error"), "1 error");
        assert_eq!(count(0_usize, "error"), "0 errors");
    }
}

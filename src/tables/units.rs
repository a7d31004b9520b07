//! Durations and sizes as an administrator writes them.
//!
//! A duration is a row of whole numbers with units, from large to small: `90s`, `1h30m`, `4d`, `1500ms`. A size is one
//! whole number with a unit: `40MB` (10⁶), `10MiB` (2²⁰). Both need their unit, so that nobody has to guess it; fractions
//! are refused, since `1h30m` says it better than `1.5h`. Parsing what was formatted gives the same value back, to the
//! millisecond and to the byte.

use std::time::Duration;

/// Unit names of durations with their milliseconds, from large to small.
const DURATION_UNITS: [(&str, u64); 6] =
    [("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Unit names of sizes with their bytes, from large to small.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("TB", 1_000_000_000_000),
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("B", 1),
];

/// Parses a duration such as `90s` or `1h30m`. `None` for anything else, and for what overflows 64 bits of milliseconds.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total_ms = 0_u64;
    let mut units_left: &[(&str, u64)] = &DURATION_UNITS;
    while !rest.is_empty() {
        let (number, unit, after) = split_quantity(rest)?;
        let position = units_left.iter().position(|(name, _)| *name == unit)?;
        let (_, unit_ms) = units_left.get(position)?;
        total_ms = total_ms.checked_add(number.checked_mul(*unit_ms)?)?;
        units_left = units_left.get(position + 1..)?;
        rest = after;
    }
    if text.is_empty() { None } else { Some(Duration::from_millis(total_ms)) }
}

/// Writes a duration so that [`parse_duration`] reads it back: `1h30m`; `0s` for nothing. Microseconds are cut off.
pub fn format_duration(span: Duration) -> String {
    let mut rest_ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    let mut text = String::new();
    for (name, unit_ms) in DURATION_UNITS.into_iter().filter(|(name, _)| *name != "w") {
        let number = rest_ms / unit_ms;
        rest_ms %= unit_ms;
        if number > 0 {
            text.push_str(&format!("{number}{name}"));
        }
    }
    if text.is_empty() { "0s".to_owned() } else { text }
}

/// Parses a size such as `40MB` or `10MiB` into bytes. Units are taken in any case, since `mb` can mean nothing else.
pub fn parse_size(text: &str) -> Option<u64> {
    let (number, unit, after) = split_quantity(text)?;
    let (_, unit_bytes) = SIZE_UNITS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    if after.is_empty() { number.checked_mul(unit_bytes) } else { None }
}

/// Writes a size in the largest unit that divides it, so that [`parse_size`] reads it back: `40MiB`, `1500B`.
pub fn format_size(bytes: u64) -> String {
    let whole =
        SIZE_UNITS.into_iter().filter(|(_, unit_bytes)| bytes >= *unit_bytes && bytes.is_multiple_of(*unit_bytes));
    // The fewest digits read best: 40MiB rather than 41943040B, 40MB rather than 40000KB.
    let (name, unit_bytes) = whole.min_by_key(|(_, unit_bytes)| bytes / unit_bytes).unwrap_or(("B", 1));
    format!("{}{name}", bytes / unit_bytes)
}

/// `30m5s` gives `(30, "m", "5s")`. The number has 1 to 19 digits, the unit at least one letter.
fn split_quantity(text: &str) -> Option<(u64, &str, &str)> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit())?;
    let (digits, rest) = text.split_at_checked(digits_end)?;
    let unit_end = rest.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(rest.len());
    let (unit, after) = rest.split_at_checked(unit_end)?;
    if unit.is_empty() { None } else { Some((digits.parse().ok()?, unit, after)) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_rows_of_numbers_with_units() {
        let check = |text: &str, seconds: Option<f64>| {
            assert_eq!(parse_duration(text).map(|span| span.as_secs_f64()), seconds, "{text}");
        };
        check("90s", Some(90.0));
        check("5m", Some(300.0));
        check("1h30m", Some(5_400.0));
        check("4d", Some(345_600.0));
        check("1w", Some(604_800.0));
        check("1500ms", Some(1.5));
        check("1m500ms", Some(60.5));
        check("0s", Some(0.0));
        for text in ["", "90", "s", "1.5h", "-1s", "+1s", "5 m", " 5m", "30m1h", "1m1m", "5min", "5M", "1h30", "٣s"] {
            check(text, None);
        }
        check("18446744073709551615ms", Some(18_446_744_073_709_551.615));
        check("18446744073709551615s", None);
        check("99999999999999999999ms", None);
    }

    #[test]
    fn sizes_are_one_number_with_a_unit() {
        let check = |text: &str, bytes: Option<u64>| assert_eq!(parse_size(text), bytes, "{text}");
        check("40MB", Some(40_000_000));
        check("40MiB", Some(41_943_040));
        check("40mib", Some(41_943_040));
        check("512B", Some(512));
        check("1TiB", Some(1 << 40));
        for text in ["", "40", "MB", "40M", "40 MB", "1.5GB", "-1B", "1GB5MB", "99999999999TiB", "١MB"] {
            check(text, None);
        }
    }

    #[test]
    fn formats_choose_the_unit_that_reads_best() {
        assert_eq!(format_duration(Duration::from_secs(345_600)), "4d");
        assert_eq!(format_duration(Duration::from_millis(90_500)), "1m30s500ms");
        assert_eq!(format_duration(Duration::ZERO), "0s");
        assert_eq!(format_size(41_943_040), "40MiB");
        assert_eq!(format_size(40_000_000), "40MB");
        assert_eq!(format_size(1_001), "1001B");
        assert_eq!(format_size(0), "0B");
    }

    proptest! {
        #[test]
        fn a_formatted_duration_parses_to_itself(millis: u64) {
            let span = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(span)), Some(span));
        }

        #[test]
        fn a_formatted_size_parses_to_itself(bytes: u64) {
            prop_assert_eq!(parse_size(&format_size(bytes)), Some(bytes));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String, units in "[0-9]{0,25}[a-zA-Zµ ]{0,4}[0-9]{0,25}[a-z]{0,3}") {
            for text in [text, units] {
                let _ = (parse_duration(&text), parse_size(&text));
            }
        }
    }
}

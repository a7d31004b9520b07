//! Dates as reports write them: RFC 5322 §3.3, with the liberties of the wild, and ISO 8601.

use crate::types::Timestamp;

/// Octets that are looked at; a date with comments is shorter.
const DATE_BYTES_MAX: usize = 100;

/// The time, if it is one.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.get(..text.floor_char_boundary(DATE_BYTES_MAX.min(text.len())))?;
    let bare = text.split_once('(').map_or(text, |(date, _)| date).trim();
    let parser = jiff::fmt::rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let millis = |time: jiff::Timestamp| u64::try_from(time.as_millisecond()).ok().map(Timestamp::from_millis);
    if let Ok(time) = parser.parse_timestamp(bare) {
        return millis(time);
    }
    // Exchange writes none or the name of a zone: UTC is near enough.
    let without_zone = bare.rsplit_once(' ').map_or(bare, |(date, _)| date);
    for candidate in [format!("{bare} +0000"), format!("{without_zone} +0000")] {
        if let Ok(time) = parser.parse_timestamp(&candidate) {
            return millis(time);
        }
    }
    Timestamp::parse_iso8601(bare)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_the_wild_are_read() {
        for text in [
            "Fri, 5 May 2023 21:00:23 +0000",
            "Thu, 5 May 2023 21:00:23 +0000",
            "5 May 2023 21:00:23 +0000 (UTC)",
            "Fri, 05 May 2023 23:00:23 +0200 (CEST)",
            "Fri, 5 May 2023 21:00:23 GMT",
            "Fri, 5 May 2023 21:00:23",
            "2023-05-05T21:00:23Z",
            "Fri, 5 May 2023 21:00:23 XYZ",
        ] {
            assert_eq!(parse(text), Some(Timestamp::from_millis(1_683_320_423_000)), "{text}");
        }
        for text in ["", "yesterday", "Fri, 99 May 2023", "(", "Fri, 5 May 1923 21:00:23 +0000"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}

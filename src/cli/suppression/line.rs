//! One entry, one line: CSV or JSON, in both directions.
//!
//! A CSV line is parsed by itself: no field of an entry has a line end in it, and so a quote that is never closed costs one
//! line and not the file behind it.

use std::io::{self, Write};

use csv_core::ReadRecordResult;

use crate::daemon::admin::suppression::SuppressionItem;

/// The first line of a CSV file.
pub(super) const CSV_HEADER: &str = "EmailAddress,Reason,LastUpdateTime";
/// Fields of a CSV line that are looked at.
const FIELDS_MAX: usize = 8;

/// How entries are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Format {
    /// EmailAddress,Reason,LastUpdateTime.
    Csv,
    /// {"EmailAddress":…,"Reason":…,"LastUpdateTime":…} on each line.
    Jsonl,
}

/// Reads lines of one file.
pub(super) struct LineReader {
    format: Format,
    csv: csv_core::Reader,
    fields: Vec<u8>,
    is_first: bool,
}

impl LineReader {
    pub(super) fn new(format: Format) -> Self {
        Self { format, csv: csv_core::Reader::new(), fields: Vec::new(), is_first: true }
    }

    /// The entry of a line without its end; `None` for a blank line and for the header. The error says what is wrong.
    pub(super) fn read(&mut self, line: &[u8]) -> Result<Option<SuppressionItem>, String> {
        let is_first = std::mem::take(&mut self.is_first);
        let line = if is_first { line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line) } else { line };
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.iter().all(u8::is_ascii_whitespace) {
            return Ok(None);
        }
        let text =
            std::str::from_utf8(line).map_err(|error| format!("not UTF-8 at byte {}", error.valid_up_to() + 1))?;
        let item = match self.format {
            Format::Csv => self.csv(text)?,
            Format::Jsonl => {
                serde_json::from_str(text).map_err(|error| format!("not an entry in JSON: {}", without_line(&error)))?
            }
        };
        let is_header =
            is_first && self.format == Format::Csv && item.email_address.eq_ignore_ascii_case("EmailAddress");
        if is_header {
            return Ok(None);
        }
        let entry = item.check()?;
        // As it will stand there, so that nothing of the file's own spelling goes any further.
        Ok(Some(SuppressionItem {
            email_address: entry.address.to_string(),
            reason: entry.reason.name().to_owned(),
            last_update_time: entry.updated_at.map(|time| time.to_iso8601().into()),
            origin: None,
        }))
    }

    fn csv(&mut self, line: &str) -> Result<SuppressionItem, String> {
        // A field is never longer than the line, whose end closes the last field.
        self.fields.resize(line.len() + 2, 0);
        let mut ends = [0; FIELDS_MAX];
        self.csv.reset();
        let (_, read, written, first) = self.csv.read_record(line.as_bytes(), &mut self.fields, &mut ends);
        let rest = line.as_bytes().get(read..).unwrap_or_default();
        let end: &[u8] = if rest.is_empty() { b"\n" } else { rest };
        let (result, _, _, more) = self.csv.read_record(
            end,
            self.fields.get_mut(written..).unwrap_or_default(),
            ends.get_mut(first..).unwrap_or_default(),
        );
        let count = first + more;
        if matches!(result, ReadRecordResult::OutputEndsFull) {
            return Err(format!("more than {FIELDS_MAX} columns: write {CSV_HEADER}"));
        }
        let mut start = 0;
        let mut texts = [""; FIELDS_MAX];
        for (text, end) in texts.iter_mut().zip(ends.iter().take(count)) {
            let field = self.fields.get(start..*end).unwrap_or_default();
            *text = std::str::from_utf8(field).map_err(|_| "a quoted field is not UTF-8".to_owned())?;
            start = *end;
        }
        let [address, reason, time, ..] = texts;
        if count < 2 {
            return Err(format!("one column only: write {CSV_HEADER}"));
        }
        Ok(SuppressionItem {
            email_address: address.to_owned(),
            reason: reason.to_owned(),
            last_update_time: Some(time).filter(|time| !time.is_empty()).map(Into::into),
            origin: None,
        })
    }
}

/// The parser counts lines within the line.
fn without_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.split_once(" at line ")
        .map_or_else(|| text.clone(), |(what, _)| format!("{what} at column {}", error.column()))
}

/// Writes an entry as a line.
pub(super) fn write(entry: &SuppressionItem, format: Format, out: &mut impl Write) -> io::Result<()> {
    match format {
        Format::Csv => {
            write_field(&entry.email_address, out)?;
            writeln!(out, ",{},{}", entry.reason, entry.updated())
        }
        Format::Jsonl => {
            let plain = SuppressionItem { origin: None, ..entry.clone() };
            serde_json::to_writer(&mut *out, &plain)?;
            writeln!(out)
        }
    }
}

/// RFC 4180 §2: quotes around a field that needs them, doubled within.
fn write_field(text: &str, out: &mut impl Write) -> io::Result<()> {
    if text.contains([',', '"', '\r', '\n']) {
        return write!(out, "\"{}\"", text.replace('"', "\"\""));
    }
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(format: Format, line: &[u8]) -> Result<Option<SuppressionItem>, String> {
        LineReader::new(format).read(line)
    }

    fn item(address: &str, reason: &str, time: Option<&str>) -> SuppressionItem {
        SuppressionItem {
            email_address: address.to_owned(),
            reason: reason.to_owned(),
            last_update_time: time.map(Into::into),
            origin: None,
        }
    }

    #[test]
    fn lines_of_both_formats_give_the_same_entries() {
        let expected = item("a@b.test", "BOUNCE", Some("2026-01-02T03:04:05.000Z"));
        let check = |format: Format, line: &str| {
            assert_eq!(read(format, line.as_bytes()), Ok(Some(expected.clone())), "{line}");
        };
        check(Format::Csv, "a@b.test,bounce,2026-01-02T03:04:05Z");
        check(Format::Csv, " a@b.test , BOUNCE ,2026-01-02T04:04:05+01:00,more\r");
        check(Format::Csv, "\"a@b.test\",\"BOUNCE\",\"1767323045\"");
        check(Format::Jsonl, r#"{"Reason":"BOUNCE","EmailAddress":"a@b.test","LastUpdateTime":1767323045.0,"x":[]}"#);
        check(
            Format::Jsonl,
            r#"{"EmailAddress":"a@b.test","Reason":"Bounce","LastUpdateTime":"2026-01-02T03:04:05Z"}"#,
        );
    }

    #[test]
    fn only_the_first_line_may_be_a_header() {
        let mut reader = LineReader::new(Format::Csv);
        assert_eq!(reader.read(b"EmailAddress,Reason,LastUpdateTime"), Ok(None));
        assert!(reader.read(b"EmailAddress,Reason,LastUpdateTime").is_err());
        assert_eq!(reader.read(b"a@b.test,COMPLAINT"), Ok(Some(item("a@b.test", "COMPLAINT", None))));
    }

    #[test]
    fn a_quote_that_is_never_closed_spoils_one_line() {
        let mut reader = LineReader::new(Format::Csv);
        assert!(reader.read(b"a@b.test,\"BOUNCE").is_err());
        assert!(reader.read(b"c@b.test,BOUNCE").is_ok());
    }

    fn address() -> impl Strategy<Value = String> {
        let local = prop_oneof!["[a-zA-Z0-9._+-]{1,20}", "\"[ !#-\\[\\]-~,]{1,20}\"", "[a-zü]{1,10}"];
        (local, "[a-z]{1,8}\\.(test|ünde)").prop_map(|(local, domain)| format!("{local}@{domain}"))
    }

    proptest! {
        #[test]
        fn what_is_written_comes_back(address in address(), complaint: bool, millis in 0..4_000_000_000_000_u64) {
            let time = crate::types::Timestamp::from_millis(millis).to_iso8601();
            let entry = item(&address, if complaint { "COMPLAINT" } else { "BOUNCE" }, Some(&time));
            for format in [Format::Csv, Format::Jsonl] {
                let mut line = Vec::new();
                write(&entry, format, &mut line).unwrap();
                prop_assert_eq!(line.pop(), Some(b'\n'));
                prop_assert_eq!(read(format, &line), Ok(Some(entry.clone())));
            }
        }

        #[test]
        fn any_line_is_an_entry_or_has_a_reason_not_to_be(
            line in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..200),
                "[\",@a.BOUNCE{}:0-9\\[\\]]{0,80}".prop_map(String::into_bytes),
            ],
        ) {
            for format in [Format::Csv, Format::Jsonl] {
                match read(format, &line) {
                    Ok(Some(entry)) => prop_assert!(entry.check().is_ok()),
                    Ok(None) => {}
                    Err(problem) => prop_assert!(!problem.is_empty() && problem.len() < 1_000),
                }
            }
        }
    }
}

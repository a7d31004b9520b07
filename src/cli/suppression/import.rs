//! `posthaste suppression import`: a file onto a list, chunk by chunk.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::super::Failure;
use super::super::format::{count, safe};
use super::super::status::print_json;
use super::line::{Format, LineReader};
use super::target::Target;
use crate::daemon::admin::suppression::{ENTRIES_MAX, SuppressionItem, SuppressionReport};

/// Octets of a line. A longer one is a bad line.
const LINE_BYTES_MAX: usize = 16 << 10;
/// Bad lines that are named; of the others there is a sum.
const BAD_LINES_SHOWN_MAX: u64 = 100;
/// Lines between two words on how far it is.
const PROGRESS_LINES: u64 = 100_000;
/// Octets read at once.
const READ_BYTES: usize = 256 << 10;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file; standard input if absent or `-`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How it is written; found out by its first character if absent.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Import nothing of a file that has a bad line. Standard input is imported up to the first one.
    #[arg(long)]
    strict: bool,
}

/// What an import came to.
#[derive(Debug, Default, serde::Serialize)]
struct Outcome {
    #[serde(flatten)]
    report: SuppressionReport,
    bad_lines: u64,
}

pub(super) fn run(
    target: &Target,
    args: &Args,
    json: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<(), Failure> {
    let outcome = match args.file.as_deref().filter(|path| *path != Path::new("-")) {
        Some(path) => {
            let unreadable = |error: io::Error| Failure::Failed(format!("cannot read {}: {error}", path.display()));
            let mut file = File::open(path).map_err(unreadable)?;
            if args.strict {
                Import::new(None, true, err).all(&file, args.format)?;
                file.rewind().map_err(unreadable)?;
            }
            Import::new(Some(target), args.strict, err).all(&file, args.format)?
        }
        None => Import::new(Some(target), args.strict, err).all(io::stdin().lock(), args.format)?,
    };
    let SuppressionReport { added, changed, unchanged, warning } = &outcome.report;
    let bad_lines = outcome.bad_lines;
    if let Some(warning) = warning {
        writeln!(err, "{warning}")?;
    }
    if json {
        print_json(&outcome, out)?;
    } else {
        let sum = added + changed + unchanged;
        writeln!(out, "{sum} imported: {added} added, {changed} changed, {unchanged} unchanged")?;
    }
    if bad_lines > 0 {
        return Err(Failure::Failed(format!("{} left out", count(bad_lines, "bad line"))));
    }
    Ok(())
}

struct Import<'a> {
    /// `None`: only look for bad lines.
    target: Option<&'a Target>,
    strict: bool,
    err: &'a mut dyn Write,
    chunk: Vec<SuppressionItem>,
    lines: u64,
    outcome: Outcome,
}

impl<'a> Import<'a> {
    fn new(target: Option<&'a Target>, strict: bool, err: &'a mut dyn Write) -> Self {
        Self { target, strict, err, chunk: Vec::new(), lines: 0, outcome: Outcome::default() }
    }

    fn all(mut self, file: impl Read, format: Option<Format>) -> Result<Outcome, Failure> {
        let mut file = BufReader::with_capacity(READ_BYTES, file);
        let unreadable = |error: io::Error| Failure::Failed(format!("cannot read the import: {error}"));
        let format = match format {
            Some(format) => format,
            None => sniff(file.fill_buf().map_err(unreadable)?),
        };
        let mut reader = LineReader::new(format);
        let mut line = Vec::new();
        while let Some(is_whole) = next_line(&mut file, &mut line).map_err(unreadable)? {
            self.lines += 1;
            let read = if is_whole { reader.read(&line) } else { Err(format!("longer than {LINE_BYTES_MAX} bytes")) };
            match read {
                Ok(None) => {}
                Ok(Some(entry)) => self.chunk.push(entry),
                Err(problem) => self.bad_line(&problem)?,
            }
            if self.chunk.len() == ENTRIES_MAX {
                self.put()?;
            }
            if self.lines.is_multiple_of(PROGRESS_LINES) && self.target.is_some() {
                writeln!(self.err, "{} lines read", self.lines)?;
            }
        }
        self.put()?;
        if self.outcome.bad_lines > BAD_LINES_SHOWN_MAX {
            let more = self.outcome.bad_lines - BAD_LINES_SHOWN_MAX;
            writeln!(self.err, "and {} more", count(more, "bad line"))?;
        }
        Ok(self.outcome)
    }

    fn bad_line(&mut self, problem: &str) -> Result<(), Failure> {
        let text = format!("line {}: {}", self.lines, safe(problem));
        if self.strict {
            let done = self.put_before_failing()?;
            return Err(Failure::Failed(format!("{text}; {done}")));
        }
        self.outcome.bad_lines += 1;
        if self.outcome.bad_lines <= BAD_LINES_SHOWN_MAX {
            writeln!(self.err, "{text}")?;
        }
        Ok(())
    }

    fn put_before_failing(&mut self) -> Result<String, Failure> {
        if self.target.is_none() {
            return Ok("nothing was imported".to_owned());
        }
        self.put()?;
        Ok("what stands before it was imported".to_owned())
    }

    fn put(&mut self) -> Result<(), Failure> {
        let chunk = std::mem::take(&mut self.chunk);
        let (Some(target), false) = (self.target, chunk.is_empty()) else { return Ok(()) };
        let report = target.put(chunk, "imported")?;
        let sum = &mut self.outcome.report;
        sum.added += report.added;
        sum.changed += report.changed;
        sum.unchanged += report.unchanged;
        sum.warning = report.warning;
        Ok(())
    }
}

/// A brace begins JSON, and no address.
fn sniff(start: &[u8]) -> Format {
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(start);
    match start.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'{') => Format::Jsonl,
        _ => Format::Csv,
    }
}

/// The next line without its end, or as much of it as fits, and whether that was all of it; `None` at the end.
fn next_line(file: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<Option<bool>> {
    line.clear();
    let limit = LINE_BYTES_MAX as u64 + 1;
    if file.by_ref().take(limit).read_until(b'\n', line)? == 0 {
        return Ok(None);
    }
    if line.pop_if(|last| *last == b'\n').is_some() {
        return Ok(Some(true));
    }
    if line.len() <= LINE_BYTES_MAX {
        return Ok(Some(true));
    }
    file.skip_until(b'\n')?;
    Ok(Some(false))
}

//! What is wrong with a config, and where: the errors and warnings of one reading, all at once.
//!
//! Each finding prints as one line, `file:line:column: key: what is wrong; what to write instead`, in the order of the
//! file. Values of keys that may be secret never appear: passwords stand in files of their own.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::PathBuf;

use super::nearest::nearest;

/// One error or warning.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file as the administrator named it.
    pub file: String,
    /// Line and column, counted from 1; columns count characters. `None` where the whole file is meant.
    pub place: Option<(usize, usize)>,
    /// The key with its section, such as `delivery.timeouts.connect`; empty where the file is not TOML.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to write, or do, instead.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some((line, column)) = self.place {
            write!(f, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(f, ": {}", self.key)?;
        }
        write!(f, ": {}", self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

/// Why a config cannot be used: every error in it, at least one, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigErrors {
    /// All errors.
    pub errors: Vec<Finding>,
    /// What was noticed besides.
    pub warnings: Vec<Finding>,
}

/// One line an error.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.errors.iter().map(Finding::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// What a value must be, in the words of an error.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) problem: String,
    pub(crate) remedy: String,
}

impl Problem {
    pub(crate) fn new(problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { problem: problem.into(), remedy: remedy.into() }
    }
}

/// A file or directory that the config names, to be looked at by `environment` (parsing itself touches no disk).
#[derive(Debug)]
pub(crate) struct NamedPath {
    pub(crate) kind: PathKind,
    pub(crate) path: PathBuf,
    pub(crate) key: String,
    pub(crate) span: Range<usize>,
}

/// What a named path must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathKind {
    /// PEM with at least one certificate.
    Certificate,
    /// PEM with a private key; not readable by everyone.
    PrivateKey,
    /// PEM with a private key that DKIM can sign with; a warning where others than its owner can read it.
    SigningKey,
    /// A first line that is the password; not readable by everyone.
    Password,
    /// Reply rules; read apart.
    ReplyRules,
    /// Provider rules; read apart.
    ProviderRules,
    /// A directory, or nothing yet.
    DataDirectory,
    /// A directory, or nothing yet.
    Directory,
    /// A socket to be made: its directory, or nothing yet.
    Socket,
}

/// Collects the findings of one reading.
#[derive(Debug)]
pub(crate) struct Findings {
    file: String,
    /// Byte offset of the start of each line.
    line_starts: Vec<usize>,
    text: String,
    errors: Vec<(usize, Finding)>,
    warnings: Vec<(usize, Finding)>,
    /// Section and name of every key that the reader asked for.
    known: BTreeSet<(String, &'static str)>,
    /// Section, name and span of keys that nobody asked for.
    unknown: Vec<(String, String, Range<usize>)>,
    pub(crate) paths: Vec<NamedPath>,
}

impl Findings {
    pub(crate) fn new(file: &str, text: &str) -> Self {
        let after_newlines = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            file: file.to_owned(),
            line_starts: std::iter::once(0).chain(after_newlines).collect(),
            text: text.to_owned(),
            errors: Vec::new(),
            warnings: Vec::new(),
            known: BTreeSet::new(),
            unknown: Vec::new(),
            paths: Vec::new(),
        }
    }

    pub(crate) fn error(&mut self, span: &Range<usize>, key: &str, problem: Problem) {
        let finding = self.finding(span, key, problem);
        self.errors.push((span.start, finding));
    }

    pub(crate) fn warn(&mut self, span: &Range<usize>, key: &str, problem: Problem) {
        let finding = self.finding(span, key, problem);
        self.warnings.push((span.start, finding));
    }

    pub(crate) fn know(&mut self, section: &str, key: &'static str) {
        self.known.insert((section.to_owned(), key));
    }

    pub(crate) fn unknown(&mut self, section: &str, key: &str, span: Range<usize>) {
        self.unknown.push((section.to_owned(), key.to_owned(), span));
    }

    /// Every key asked for, with its section.
    #[cfg(test)]
    pub(crate) fn known(&self) -> &BTreeSet<(String, &'static str)> {
        &self.known
    }

    /// The errors, if any, and the warnings; both in the order of the file.
    pub(crate) fn finish(mut self) -> Result<Vec<Finding>, ConfigErrors> {
        for (section, key, span) in std::mem::take(&mut self.unknown) {
            let problem = self.unknown_problem(&section, &key);
            self.error(&span, &join(&section, &key), problem);
        }
        let in_order = |mut list: Vec<(usize, Finding)>| {
            list.sort_by_key(|(offset, _)| *offset);
            list.into_iter().map(|(_, finding)| finding).collect::<Vec<_>>()
        };
        let (errors, warnings) = (in_order(self.errors), in_order(self.warnings));
        if errors.is_empty() { Ok(warnings) } else { Err(ConfigErrors { errors, warnings }) }
    }

    /// Known now, after the whole file was read: so a key in the wrong section is sent to the right one.
    fn unknown_problem(&self, section: &str, key: &str) -> Problem {
        let siblings: Vec<&str> = self.known.iter().filter(|(of, _)| of == section).map(|(_, name)| *name).collect();
        if let Some(near) = nearest(key, &siblings) {
            return Problem::new("unknown key", format!("write {near}"));
        }
        let elsewhere = self.known.iter().find(|(of, name)| *name == key && of != section);
        match elsewhere {
            Some((of, _)) if of.is_empty() => Problem::new(
                "unknown key here",
                format!("move {key} to the top of the file, above the first [section]"),
            ),
            Some((of, _)) => Problem::new("unknown key here", format!("move {key} to [{of}]")),
            None => Problem::new("unknown key", format!("remove it; known here are: {}", siblings.join(", "))),
        }
    }

    /// `file:line` of what stands there.
    pub(crate) fn file_and_line(&self, span: &Range<usize>) -> String {
        let (line, _) = self.place(span.start);
        format!("{}:{line}", self.file)
    }

    fn finding(&self, span: &Range<usize>, key: &str, problem: Problem) -> Finding {
        Finding {
            file: self.file.clone(),
            place: Some(self.place(span.start)),
            key: key.to_owned(),
            problem: problem.problem,
            remedy: problem.remedy,
        }
    }

    fn place(&self, offset: usize) -> (usize, usize) {
        let line = self.line_starts.partition_point(|start| *start <= offset).max(1);
        let start = self.line_starts.get(line - 1).copied().unwrap_or_default();
        let before = self.text.get(start..offset).unwrap_or_default();
        (line, before.chars().count() + 1)
    }
}

/// `delivery` and `port` give `delivery.port`.
pub(crate) fn join(section: &str, key: &str) -> String {
    if key.is_empty() {
        section.to_owned()
    } else if section.is_empty() {
        key.to_owned()
    } else {
        format!("{section}.{key}")
    }
}

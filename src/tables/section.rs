//! Reading one table of the config: every key by name, with its type, its range and its default.
//!
//! A reader takes each key it knows from a [`Section`]; a wrong value leaves a finding and the default in its place, so
//! that reading goes on and all errors come out at once. What is left when the section is closed, nobody knows.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::{DeTable, DeValue};

use super::findings::{Findings, NamedPath, PathKind, Problem, join};
use super::nearest::nearest;
use super::units::{format_duration, format_size, parse_duration, parse_size};
use crate::types::Domain;

/// One table, or its absence, which means defaults.
pub(crate) struct Section<'a> {
    path: String,
    span: Range<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
    findings: &'a RefCell<Findings>,
}

/// One value as it stands in the file.
pub(crate) struct Value<'a> {
    pub(crate) value: &'a DeValue<'a>,
    pub(crate) span: Range<usize>,
}

impl<'a> Section<'a> {
    pub(crate) fn root(table: &'a DeTable<'a>, findings: &'a RefCell<Findings>) -> Self {
        Self { path: String::new(), span: 0..0, table: Some(table), asked: Vec::new(), findings }
    }

    /// The table `key` of this one; all defaults where it is absent or not a table.
    pub(crate) fn child(&mut self, key: &'static str) -> Section<'a> {
        let path = join(&self.path, key);
        let (span, table) = match self.take(key) {
            None => (self.span.clone(), None),
            Some(Value { value: DeValue::Table(table), span }) => (span, Some(table)),
            Some(other) => {
                let remedy = format!("write [{path}] on a line of its own and its keys below");
                let problem = Problem::new(format!("expected a table, found {}", other.shown()), remedy);
                self.findings.borrow_mut().error(&other.span, &path, problem);
                (other.span, None)
            }
        };
        Section { path, span, table, asked: Vec::new(), findings: self.findings }
    }

    /// The array of tables `key`, such as all `[[listener]]`; `None` where it is absent.
    pub(crate) fn children(&mut self, key: &'static str) -> Option<Vec<Section<'a>>> {
        let path = join(&self.path, key);
        let Value { value, span } = self.take(key)?;
        let items = value.as_array();
        if items.is_none_or(|items| items.iter().any(|item| !item.get_ref().is_table())) {
            let remedy = format!("write [[{path}]] on a line of its own and its keys below, once for each");
            self.findings.borrow_mut().error(&span, &path, Problem::new("expected an array of tables", remedy));
        }
        let sections = items.into_iter().flat_map(|items| items.iter()).filter_map(|item| {
            let table = Some(item.get_ref().as_table()?);
            Some(Section { path: path.clone(), span: item.span(), table, asked: Vec::new(), findings: self.findings })
        });
        Some(sections.collect())
    }

    /// Reads `key` with `convert`; the default where it is absent or wrong.
    pub(crate) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        convert: impl FnOnce(&Value<'a>) -> Result<T, Problem>,
    ) -> T {
        self.optional(key, convert).unwrap_or(default)
    }

    /// Reads `key` with `convert`; `None` where it is absent or wrong.
    pub(crate) fn optional<T>(
        &mut self,
        key: &'static str,
        convert: impl FnOnce(&Value<'a>) -> Result<T, Problem>,
    ) -> Option<T> {
        let value = self.take(key)?;
        match convert(&value) {
            Ok(converted) => Some(converted),
            Err(problem) => {
                self.findings.borrow_mut().error(&value.span, &join(&self.path, key), problem);
                None
            }
        }
    }

    /// Like [`Section::optional`], but absence is an error that shows `example`.
    pub(crate) fn required<T>(
        &mut self,
        key: &'static str,
        example: &str,
        convert: impl FnOnce(&Value<'a>) -> Result<T, Problem>,
    ) -> Option<T> {
        if !self.has(key) {
            self.error(key, Problem::new("is missing", format!("write {key} = {example}")));
        }
        self.optional(key, convert)
    }

    pub(crate) fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, default, Value::flag)
    }

    /// A whole number.
    pub(crate) fn count<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<T>) -> T
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        self.read(key, default, |value| value.count(&range))
    }

    pub(crate) fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        self.read(key, default, |value| value.duration(&range))
    }

    /// Octets.
    pub(crate) fn size<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64>,
    {
        self.read(key, default, |value| {
            let bytes = value.size(&range)?;
            T::try_from(bytes)
                .map_err(|_| value.expected("a size that this machine can address", "write a smaller one"))
        })
    }

    /// One of some words, each with what it means.
    pub(crate) fn word<T: Copy>(&mut self, key: &'static str, default: T, words: &[(&str, T)]) -> T {
        self.read(key, default, |value| value.word(words))
    }

    /// An absolute path, registered to be looked at.
    pub(crate) fn path(&mut self, key: &'static str, kind: PathKind) -> Option<PathBuf> {
        let path = self.optional(key, Value::absolute_path)?;
        let named = NamedPath { kind, path: path.clone(), key: join(&self.path, key), span: self.span_of(key) };
        self.findings.borrow_mut().paths.push(named);
        Some(path)
    }

    /// A list, every item read with `convert`; wrong items are reported one by one.
    pub(crate) fn list<T>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        example: &str,
        convert: impl Fn(&Value<'a>) -> Result<T, Problem>,
    ) -> Vec<T> {
        let Some(list) = self.take(key) else {
            return default;
        };
        let Some(items) = list.value.as_array() else {
            let problem = list.expected("a list", &format!("write {example}"));
            self.findings.borrow_mut().error(&list.span, &join(&self.path, key), problem);
            return default;
        };
        let mut converted = Vec::with_capacity(items.len());
        for item in items.iter() {
            match convert(&Value { value: item.get_ref(), span: item.span() }) {
                Ok(item) => converted.push(item),
                Err(problem) => self.findings.borrow_mut().error(&item.span(), &join(&self.path, key), problem),
            }
        }
        converted
    }

    /// A table whose keys are names, every entry read with `convert`; wrong entries are reported one by one.
    pub(crate) fn entries<T>(
        &mut self,
        key: &'static str,
        example: &str,
        convert: impl Fn(&str, &Value<'a>) -> Result<T, Problem>,
    ) -> Vec<T> {
        let Some(value) = self.take(key) else {
            return Vec::new();
        };
        let Some(table) = value.value.as_table() else {
            let problem = value.expected("a table", &format!("write {key} = {example}"));
            self.findings.borrow_mut().error(&value.span, &join(&self.path, key), problem);
            return Vec::new();
        };
        let mut converted = Vec::with_capacity(table.len());
        for (name, entry) in table.iter() {
            match convert(name.get_ref(), &Value { value: entry.get_ref(), span: entry.span() }) {
                Ok(entry) => converted.push(entry),
                Err(problem) => self.findings.borrow_mut().error(&name.span(), &join(&self.path, key), problem),
            }
        }
        converted
    }

    /// Like [`Section::list`], but `None` where it is absent, and an error where it is empty.
    pub(crate) fn items<T>(
        &mut self,
        key: &'static str,
        example: &str,
        convert: impl Fn(&Value<'a>) -> Result<T, Problem>,
    ) -> Option<Vec<T>> {
        let is_there = self.has(key);
        let is_empty =
            self.table.and_then(|table| table.get(key)?.get_ref().as_array()).is_some_and(|list| list.is_empty());
        if is_empty {
            self.error(key, Problem::new("is empty", format!("write {example}, or remove it")));
        }
        let items = self.list(key, Vec::new(), example, convert);
        is_there.then_some(items)
    }

    /// Where the table stands in the text.
    pub(crate) fn span(&self) -> Range<usize> {
        self.span.clone()
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Reports at the value of `key`, or at the section where it is absent.
    pub(crate) fn error(&self, key: &str, problem: Problem) {
        self.findings.borrow_mut().error(&self.span_of(key), &join(&self.path, key), problem);
    }

    /// Like [`Section::error`].
    pub(crate) fn warn(&self, key: &str, problem: Problem) {
        self.findings.borrow_mut().warn(&self.span_of(key), &join(&self.path, key), problem);
    }

    /// Every key was asked for: what is left is unknown.
    pub(crate) fn close(self) {
        for (key, _) in self.table.into_iter().flat_map(DeTable::iter) {
            let name: &str = key.get_ref();
            if !self.asked.contains(&name) {
                self.findings.borrow_mut().unknown(&self.path, name, key.span());
            }
        }
    }

    fn span_of(&self, key: &str) -> Range<usize> {
        self.table.and_then(|table| table.get(key)).map_or_else(|| self.span.clone(), toml::Spanned::span)
    }

    fn take(&mut self, key: &'static str) -> Option<Value<'a>> {
        self.findings.borrow_mut().know(&self.path, key);
        self.asked.push(key);
        let found = self.table?.get(key)?;
        Some(Value { value: found.get_ref(), span: found.span() })
    }
}

impl Value<'_> {
    pub(crate) fn text(&self) -> Result<&str, Problem> {
        self.value.as_str().ok_or_else(|| self.expected("a text in quotes", "put it in \"quotes\""))
    }

    pub(crate) fn flag(&self) -> Result<bool, Problem> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false", "true or false without quotes"))
    }

    /// A domain.
    pub(crate) fn domain(&self) -> Result<Domain, Problem> {
        let text = self.text()?;
        let remedy = "write a domain such as \"example.com\"";
        Domain::parse(text).map_err(|error| Problem::new(format!("{text:?}: {error}"), remedy))
    }

    /// A whole number.
    pub(crate) fn count<T>(&self, range: &RangeInclusive<T>) -> Result<T, Problem>
    where
        T: TryFrom<u64> + PartialOrd + Display,
    {
        let remedy = format!("write a whole number from {} to {}", range.start(), range.end());
        let Some(integer) = self.value.as_integer() else {
            return Err(self.expected("a whole number", &remedy));
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(|n| T::try_from(n).ok());
        let in_range = number.filter(|number| range.contains(number));
        in_range.ok_or_else(|| Problem::new(format!("{integer} is out of range"), remedy))
    }

    pub(crate) fn duration(&self, range: &RangeInclusive<Duration>) -> Result<Duration, Problem> {
        let remedy = || format!("write {}", shown_range(range.start(), range.end(), |span| format_duration(*span)));
        if let Some(integer) = self.value.as_integer() {
            return Err(Problem::new(
                format!("{integer} has no unit"),
                format!("write \"{integer}s\" if seconds were meant"),
            ));
        }
        let Some(text) = self.value.as_str() else {
            return Err(self.expected("a duration", "write one such as \"90s\", \"5m\", \"1h30m\" or \"4d\""));
        };
        let Some(span) = parse_duration(text) else {
            let remedy = "write one such as \"90s\", \"5m\", \"1h30m\" or \"4d\"";
            return Err(Problem::new(format!("{text:?} is not a duration"), remedy));
        };
        if range.contains(&span) { Ok(span) } else { Err(Problem::new(format!("{text:?} is out of range"), remedy())) }
    }

    pub(crate) fn size(&self, range: &RangeInclusive<u64>) -> Result<u64, Problem> {
        if let Some(integer) = self.value.as_integer() {
            return Err(Problem::new(
                format!("{integer} has no unit"),
                format!("write \"{integer}B\" if bytes were meant"),
            ));
        }
        let remedy = "write one such as \"512KiB\", \"40MB\" or \"10GiB\"";
        let Some(text) = self.value.as_str() else {
            return Err(self.expected("a size", remedy));
        };
        let bytes = parse_size(text).ok_or_else(|| Problem::new(format!("{text:?} is not a size"), remedy))?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let remedy = format!("write {}", shown_range(range.start(), range.end(), |bytes| format_size(*bytes)));
        Err(Problem::new(format!("{text:?} is out of range"), remedy))
    }

    pub(crate) fn word<T: Copy>(&self, words: &[(&str, T)]) -> Result<T, Problem> {
        let names: Vec<&str> = words.iter().map(|(name, _)| *name).collect();
        let all = format!("write {}", names.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(" or "));
        let Some(text) = self.value.as_str() else {
            return Err(self.expected("a word in quotes", &all));
        };
        let found = words.iter().find(|(name, _)| *name == text).map(|(_, meaning)| *meaning);
        found.ok_or_else(|| {
            let remedy = nearest(text, &names).map_or(all, |near| format!("write \"{near}\""));
            Problem::new(format!("{text:?} is not known"), remedy)
        })
    }

    pub(crate) fn absolute_path(&self) -> Result<PathBuf, Problem> {
        let text = self.text()?;
        if !text.starts_with('/') || text.contains('\0') {
            let problem = format!("{text:?} is not an absolute path");
            return Err(Problem::new(problem, "write the whole path, from / on"));
        }
        Ok(Path::new(text).to_owned())
    }

    pub(crate) fn expected(&self, what: &str, remedy: &str) -> Problem {
        Problem::new(format!("expected {what}, found {}", self.shown()), remedy)
    }

    fn shown(&self) -> String {
        match self.value {
            DeValue::String(_) => "a text".to_owned(),
            DeValue::Integer(integer) => format!("the number {integer}"),
            DeValue::Float(float) => format!("the number {float}"),
            DeValue::Boolean(flag) => flag.to_string(),
            DeValue::Datetime(_) => "a date".to_owned(),
            DeValue::Array(_) => "a list".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }
}

fn shown_range<T>(least: &T, most: &T, format: impl Fn(&T) -> String) -> String {
    format!("one from \"{}\" to \"{}\"", format(least), format(most))
}

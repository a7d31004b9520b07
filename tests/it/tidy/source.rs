//! Rust sources as tokens and paths: no parser, just enough to tell code from comments, strings and tests.

use std::fs;
use std::path::{Path, PathBuf};

/// One source file.
pub(super) struct Source {
    /// Relative to the repository, with `/`: `src/queue/mod.rs`.
    pub(super) path: String,
    pub(super) text: String,
    /// Compiled for tests only: so named, or declared under `#[cfg(test)]`.
    pub(super) is_test: bool,
    pub(super) tokens: Vec<Token>,
}

/// An identifier or keyword, `::`, or one character of punctuation. Literals and comments leave none.
pub(super) struct Token {
    /// Counted from 1.
    pub(super) line: usize,
    pub(super) text: String,
    /// Under `#[cfg(test)]`, or in a file of tests.
    pub(super) in_test: bool,
}

/// A path in code or in a `use`, groups taken apart: `use a::{b, c::d}` gives `a::b` and `a::c::d`.
pub(super) struct CodePath {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    pub(super) in_test: bool,
}

impl Source {
    pub(super) fn new(path: &str, text: &str) -> Self {
        let mut tokens = Lexer { rest: text, line: 1, tokens: Vec::new() }.run();
        let is_test = is_test_file(path);
        mark_tests(&mut tokens, is_test);
        Self { path: path.to_owned(), text: text.to_owned(), is_test, tokens }
    }

    /// All `.rs` files under `directory`, sorted by path; none where the directory does not exist.
    pub(super) fn load_all(root: &Path, directory: &str) -> Vec<Self> {
        let mut waiting = vec![root.join(directory)];
        let mut files: Vec<PathBuf> = Vec::new();
        while let Some(directory) = waiting.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            for path in entries.map(|entry| entry.unwrap().path()) {
                if path.is_dir() && !path.ends_with("target") {
                    waiting.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    files.push(path);
                }
            }
        }
        files.sort();
        let relative = |path: &Path| path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let mut sources: Vec<Self> =
            files.iter().map(|path| Self::new(&relative(path), &fs::read_to_string(path).unwrap())).collect();
        let test_modules: Vec<String> = sources.iter().flat_map(Self::test_modules).collect();
        for source in &mut sources {
            let stem = format!("{}/", source.path.trim_end_matches(".rs"));
            source.is_test |= test_modules.iter().any(|module| stem.starts_with(module));
            mark_tests(&mut source.tokens, source.is_test);
        }
        sources
    }

    /// Where the modules lie that this file declares under `#[cfg(test)]`: `src/net/dns/responder/`.
    fn test_modules(&self) -> Vec<String> {
        let stem = self.path.trim_end_matches(".rs");
        let directory = ["/mod", "/lib", "/main"].iter().find_map(|root| stem.strip_suffix(root)).unwrap_or(stem);
        let declares =
            |at: &usize| self.tokens[*at].text == "mod" && self.tokens[*at].in_test && self.tokens_are(at + 2, &[";"]);
        (0..self.tokens.len()).filter(declares).map(|at| format!("{directory}/{}/", self.tokens[at + 1].text)).collect()
    }

    /// The modules from the crate root down to this file: `["queue", "intake"]`, or empty for `lib.rs` and `main.rs`.
    pub(super) fn module_path(&self) -> Vec<&str> {
        let inside = self.path.strip_prefix("src/").unwrap_or(&self.path).trim_end_matches(".rs");
        inside.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main")).collect()
    }

    /// Whether the tokens at `index` are these.
    pub(super) fn tokens_are(&self, index: usize, expected: &[&str]) -> bool {
        let here = self.tokens.iter().skip(index).map(|token| token.text.as_str());
        here.take(expected.len()).eq(expected.iter().copied())
    }

    /// Every path that the code names, except single names outside of a `use`.
    pub(super) fn paths(&self) -> Vec<CodePath> {
        let mut paths = Vec::new();
        let mut at = 0;
        while at < self.tokens.len() {
            let after_use = at > 0 && self.tokens[at - 1].text == "use";
            let starts = is_name(&self.tokens[at].text) && !self.continues_a_path(at);
            if starts && (after_use || self.tokens_are(at + 1, &["::"])) {
                at = self.take_tree(at, &mut Vec::new(), &mut paths).max(at + 1);
            } else {
                at += 1;
            }
        }
        paths
    }

    /// Names that mean something inside this crate here: its own `mod`s and what it imports from `crate`, `self`, `super`.
    pub(super) fn local_names(&self, paths: &[CodePath]) -> Vec<String> {
        let modules = self.tokens.windows(2).filter(|pair| pair[0].text == "mod").map(|pair| pair[1].text.clone());
        let imported = paths
            .iter()
            .filter(|path| matches!(path.segments[0].as_str(), "crate" | "self" | "super"))
            .filter_map(|path| path.segments.last().cloned());
        modules.chain(imported).collect()
    }

    /// A name after `a::` or `a.`, but not after a leading `::`.
    fn continues_a_path(&self, at: usize) -> bool {
        let before = |back: usize| at.checked_sub(back).map_or("", |index| self.tokens[index].text.as_str());
        before(1) == "." || (before(1) == "::" && (is_name(before(2)) || before(2) == ">"))
    }

    /// Reads the use-tree or path at `at` behind `prefix`; returns where it ends.
    fn take_tree(&self, mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<CodePath>) -> usize {
        let depth = prefix.len();
        let (line, in_test) = (self.tokens[at].line, self.tokens[at].in_test);
        while let Some(token) = self.tokens.get(at) {
            if token.text == "{" {
                at = self.take_group(at + 1, prefix, paths);
                prefix.truncate(depth);
                return at;
            }
            if !is_name(&token.text) && token.text != "*" {
                break;
            }
            prefix.push(token.text.clone());
            at += 1;
            if !self.tokens_are(at, &["::"]) {
                break;
            }
            at += 1;
        }
        paths.push(CodePath { line, segments: prefix.clone(), in_test });
        prefix.truncate(depth);
        at
    }

    fn take_group(&self, mut at: usize, prefix: &mut Vec<String>, paths: &mut Vec<CodePath>) -> usize {
        while let Some(token) = self.tokens.get(at) {
            match token.text.as_str() {
                "}" => return at + 1,
                "as" => at += 2,
                name if is_name(name) || name == "*" => at = self.take_tree(at, prefix, paths).max(at + 1),
                _ => at += 1,
            }
        }
        at
    }
}

/// A file that is compiled for tests only, by our convention on names.
fn is_test_file(path: &str) -> bool {
    let stem = path.rsplit('/').next().unwrap_or(path).trim_end_matches(".rs");
    stem == "tests" || stem.ends_with("_tests") || path.contains("/tests/") || path.starts_with("tests/")
}

fn is_name(text: &str) -> bool {
    text.starts_with(|first: char| first.is_alphabetic() || first == '_')
}

/// Marks the items under `#[cfg(test)]`, or everything.
fn mark_tests(tokens: &mut [Token], everything: bool) {
    let text = |tokens: &[Token], at: usize| tokens.get(at).map_or(String::new(), |token| token.text.clone());
    let mut at = 0;
    while at < tokens.len() {
        let is_attribute = text(tokens, at) == "#" && text(tokens, at + 1) == "[" && text(tokens, at + 2) == "cfg";
        if !is_attribute || text(tokens, at + 4) != "test" {
            tokens[at].in_test |= everything;
            at += 1;
            continue;
        }
        let (mut depth, mut past_attribute) = (0_usize, false);
        while let Some(token) = tokens.get_mut(at) {
            token.in_test = true;
            at += 1;
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            let ends = depth == 0 && past_attribute && matches!(token.text.as_str(), ";" | "}");
            if ends {
                break;
            }
            past_attribute |= depth == 0 && token.text == "]";
        }
    }
}

struct Lexer<'a> {
    rest: &'a str,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer<'_> {
    fn run(mut self) -> Vec<Token> {
        while let Some(first) = self.rest.chars().next() {
            let rest = self.rest;
            if rest.starts_with("//") {
                self.skip(rest.find('\n').unwrap_or(rest.len()));
            } else if rest.starts_with("/*") {
                self.skip(block_comment_len(rest));
            } else if let Some(len) = literal_len(rest) {
                self.skip(len);
            } else if rest.starts_with("::") {
                self.push(2);
            } else if first.is_alphanumeric() || first == '_' {
                self.push(rest.find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(rest.len()));
            } else if first.is_whitespace() {
                self.skip(first.len_utf8());
            } else {
                self.push(first.len_utf8());
            }
        }
        self.tokens
    }

    fn skip(&mut self, len: usize) {
        let (skipped, rest) = self.rest.split_at(len);
        self.line += skipped.matches('\n').count();
        self.rest = rest;
    }

    fn push(&mut self, len: usize) {
        self.tokens.push(Token { line: self.line, text: self.rest[..len].to_owned(), in_test: false });
        self.skip(len);
    }
}

fn block_comment_len(text: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < text.len() {
        let rest = &text[at..];
        if rest.starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += rest.chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// Length of the string, raw string, character or lifetime that `text` starts with.
fn literal_len(text: &str) -> Option<usize> {
    let prefix = text.find(|next: char| !matches!(next, 'b' | 'c' | 'r')).unwrap_or(text.len());
    let body = &text[prefix..];
    if prefix <= 2 && text[..prefix].ends_with('r') {
        let hashes = body.len() - body.trim_start_matches('#').len();
        if body[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let opened = prefix + hashes + 1;
            return Some(text[opened..].find(&end).map_or(text.len(), |at| opened + at + end.len()));
        }
    }
    if prefix <= 1 && body.starts_with('"') {
        return Some(prefix + quoted_len(body, '"'));
    }
    if prefix <= 1 && body.starts_with('\'') {
        let mut chars = body.chars().skip(1);
        let (first, second) = (chars.next()?, chars.next());
        let is_lifetime = first != '\\' && second != Some('\'');
        let name_len = body[1..].find(|next: char| !next.is_alphanumeric() && next != '_').unwrap_or(body.len() - 1);
        return Some(prefix + if is_lifetime { 1 + name_len } else { quoted_len(body, '\'') });
    }
    None
}

/// Length of `text` up to and including the closing quote, backslash escapes respected.
fn quoted_len(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, next) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if next == '\\' {
            escaped = true;
        } else if next == quote {
            return at + 1;
        }
    }
    text.len()
}

#[test]
fn comments_strings_and_lifetimes_are_not_code() {
    let text = r####"
        // a::line
        /* a /* nested */ comment::s */
        fn f<'life>(x: &'life str) -> char { let _ = ("s::t \" u", r#"raw " v::w"#, b'\'', '"', '\\'); 'c' }
    "####;
    let names: Vec<_> = Source::new("src/x.rs", text).tokens.into_iter().map(|token| token.text).collect();
    let code = "fn f < > ( x : & str ) - > char { let _ = ( , , , , ) ; }";
    assert_eq!(names.join(" "), code);
}

#[test]
fn groups_are_taken_apart() {
    let text = "use std::{fs, net::{TcpStream as T, *}};\nfn f() { ::tokio::spawn(crate::queue::x()); a.b::<u8>() }";
    let paths: Vec<_> =
        Source::new("src/x.rs", text).paths().iter().map(|path| (path.line, path.segments.join("::"))).collect();
    let expected =
        [(1, "std::fs"), (1, "std::net::TcpStream"), (1, "std::net::*"), (2, "tokio::spawn"), (2, "crate::queue::x")];
    assert_eq!(paths, expected.map(|(line, path)| (line, path.to_owned())));
}

#[test]
fn test_items_are_told_from_code() {
    let text =
        "fn a() {}\n#[cfg(test)]\n#[path = \"x\"]\nmod t { fn b() { [1; 2]; } }\n#[cfg(test)]\nuse c::d;\nfn e() {}";
    let code: Vec<_> = Source::new("src/x.rs", text)
        .tokens
        .into_iter()
        .filter(|token| !token.in_test && is_name(&token.text))
        .map(|token| token.text)
        .collect();
    assert_eq!(code, ["fn", "a", "fn", "e"]);
    let declaring =
        Source::new("src/x/mod.rs", "mod a;\n#[cfg(test)]\nmod samples;\n#[cfg(test)]\nmod t { fn f() {} }");
    assert_eq!(declaring.test_modules(), ["src/x/samples/"]);
    assert!(Source::new("src/x/parser_tests.rs", "fn a() {}").tokens.iter().all(|token| token.in_test));
}

//! What the pages of `docs/` list by name is what the code has: bounds, invariants, metrics.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// Words of capitals in backquotes.
fn names_in(page: &str) -> BTreeSet<String> {
    let words = page.split('`').skip(1).step_by(2).filter(|word| is_constant(word));
    words.map(str::to_owned).collect()
}

fn is_constant(word: &str) -> bool {
    word.len() > 3 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

/// Constants in the sources under these directories, those of tests left out.
fn constants(directories: &[&str]) -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    let mut waiting: Vec<PathBuf> = directories.iter().map(|directory| root.join(directory)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if directories.contains(&"tests") || !is_test(path.strip_prefix(root).unwrap()) {
            let text = fs::read_to_string(&path).unwrap_or_default();
            names.extend(text.lines().filter_map(constant).map(str::to_owned));
        }
    }
    names
}

fn is_test(path: &Path) -> bool {
    path.to_string_lossy().contains("test")
}

fn constant(line: &str) -> Option<&str> {
    let (before, rest) = line.split_once("const ")?;
    let is_declared = matches!(before.trim(), "" | "pub" | "pub(super)" | "pub(crate)");
    let (name, _) = rest.split_once(':')?;
    (is_declared && is_constant(name)).then_some(name)
}

#[test]
fn every_bound_is_listed_in_the_architecture_with_what_happens_when_it_is_full() {
    let page = names_in(&read("docs/ARCHITECTURE.md"));
    let bounds = constants(&["src", "queue-format/src"]);
    let unlisted: Vec<_> = bounds.iter().filter(|name| name.ends_with("_MAX") && !page.contains(*name)).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}: add a row under \"Bounds\" in docs/ARCHITECTURE.md");
}

#[test]
fn every_constant_of_the_architecture_exists() {
    let page = names_in(&read("docs/ARCHITECTURE.md"));
    let known = constants(&["src", "queue-format/src", "tests"]);
    let gone: Vec<_> = page.difference(&known).collect();
    assert!(gone.is_empty(), "{gone:?}: docs/ARCHITECTURE.md names what is no longer there");
}

/// The names in the `nth` table of invariants.
fn invariants_of(page: &str, nth: usize) -> BTreeSet<&str> {
    let table = page.split("## Invariants").nth(nth).unwrap();
    let rows = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    rows.filter(|name| is_constant(name)).collect()
}

#[test]
fn the_invariants_of_the_queue_are_those_of_its_page() {
    let code = read("src/queue/invariants.rs");
    let checked: BTreeSet<&str> =
        code.split('"').skip(1).step_by(2).filter_map(|text| text.split_once(": ")).map(|(name, _)| name).collect();
    let checked: BTreeSet<&str> = checked.into_iter().filter(|name| is_constant(name)).collect();
    assert_eq!(checked, invariants_of(&read("docs/QUEUE.md"), 1));
}

#[test]
fn the_invariants_of_the_simulation_are_those_of_the_page() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/simulation");
    let files = fs::read_dir(directory).unwrap().map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
    let code: String = files.collect();
    let texts = code.split('"').filter_map(|text| text.split_once(": ")).map(|(name, _)| name);
    let checked: BTreeSet<&str> = texts.filter(|name| is_constant(name)).collect();
    assert_eq!(checked, invariants_of(&read("docs/QUEUE.md"), 2));
}

#[test]
fn every_metric_is_listed_for_the_administrator() {
    let code = read("src/events/metric.rs");
    let named: BTreeSet<&str> = code.split('"').filter(|text| text.starts_with("posthaste_")).collect();
    let page = read("docs/OPERATIONS.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `posthaste_")?.split('`').next());
    let listed: BTreeSet<String> = rows.map(|name| format!("posthaste_{name}")).collect();
    assert_eq!(named, listed.iter().map(String::as_str).collect());
}

//! House rules that the compiler does not know: who may import whom, who may name which crate, what pure code must not
//! touch, and how a file looks. The tables below are the rules; docs/ARCHITECTURE.md tells their reasons.
//!
//! Tests inside `src/` (under `#[cfg(test)]`, in modules declared so, or in files named `tests.rs` or `*_tests.rs`) may
//! import what they like.

mod source;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use source::Source;

/// No source file may be longer.
const FILE_LINES_MAX: usize = 600;

/// Each module and the modules that it may import. `daemon` and `cli` wire everything together.
const MODULES: &[(&str, &[&str])] = &[
    ("types", &[]),
    ("tables", &["types"]),
    ("smtp", &["types"]),
    ("message", &["types"]),
    ("policy", &["types", "tables"]),
    ("events", &["types"]),
    ("queue", &["types", "events"]),
    ("net", &["types"]),
    ("admission", &["types", "message", "policy", "events", "queue"]),
    ("scheduler", &["types", "message", "policy", "events", "queue"]),
    ("feedback", &["types", "message", "policy", "events", "queue"]),
    ("reception", &["types", "smtp", "message", "policy", "events", "queue", "net", "admission", "feedback"]),
    ("delivery", &["types", "smtp", "policy", "events", "queue", "net", "scheduler"]),
    ("simulator", &["types", "smtp", "message", "net"]),
    ("daemon", EVERY_MODULE),
    ("cli", EVERY_MODULE),
];

const EVERY_MODULE: &[&str] = &[
    "types",
    "tables",
    "smtp",
    "message",
    "policy",
    "events",
    "queue",
    "net",
    "admission",
    "scheduler",
    "feedback",
    "reception",
    "delivery",
    "simulator",
    "daemon",
    "cli",
];

/// Single names that a module may import against the table: module, path behind `crate::`, reason.
const IMPORTS_EXCEPTED: &[(&str, &[&str], &str)] = &[
    (
        "queue",
        &["net", "BoxFuture"],
        "the ports of all modules use one future type, and it lives with the first of them",
    ),
    ("admission", &["net", "BoxFuture"], "as the queue"),
    ("net", &["events", "metric"], "the names of all metrics stand in one file"),
];

/// Modules without sockets, disk, clock and randomness: bytes and time go in, decisions come out.
const PURE: &[&str] = &["types", "tables", "smtp", "message", "policy"];

/// What of `std` pure modules must not name.
const IMPURE_STD: &[&[&str]] =
    &[&["std", "fs"], &["std", "process"], &["std", "thread"], &["std", "os"], &["std", "env"], &["std", "net", "*"]];

/// The same by type, however it was imported.
const IMPURE_NAMES: &[&str] = &["TcpStream", "TcpListener", "UdpSocket", "UnixStream", "UnixListener"];

/// Where a crate may be named.
enum Where {
    /// Everywhere.
    Any,
    /// Everywhere but in [`PURE`] modules.
    Impure,
    /// In these files or directories.
    In(&'static [&'static str]),
}

/// Every dependency and who may name it. One boundary, one place: so that a crate can be replaced there.
const CRATES: &[(&str, Where)] = &[
    ("queue-format", Where::In(&["src/queue/"])),
    ("tokio", Where::Impure),
    ("tokio-util", Where::Impure),
    ("mail-send", Where::In(&["src/delivery/", "src/simulator/post.rs", "src/cli/demo.rs"])),
    (
        "mail-auth",
        Where::In(&["src/message/", "src/net/spf.rs", "src/cli/doctor/", "src/feedback/report/aggregate.rs"]),
    ),
    ("mail-builder", Where::In(&["src/message/", "src/simulator/report.rs", "src/cli/demo.rs"])),
    ("mail-parser", Where::In(&["src/message/", "src/feedback/report/decode.rs"])),
    ("flate2", Where::In(&["src/feedback/report/unpack.rs"])),
    ("zip", Where::In(&["src/feedback/report/unpack.rs"])),
    ("hickory-resolver", Where::In(&["src/net/"])),
    ("tokio-socks", Where::In(&["src/net/"])),
    ("ppp", Where::In(&["src/net/"])),
    ("rustls", Where::In(&["src/net/", "src/reception/", "src/simulator/", "src/daemon/", "src/cli/"])),
    ("tokio-rustls", Where::In(&["src/net/", "src/reception/", "src/simulator/"])),
    ("rustls-pki-types", Where::In(&["src/net/", "src/reception/", "src/simulator/", "src/message/dkim/"])),
    (
        "aws-lc-rs",
        Where::In(&[
            "src/admission/authenticate.rs",
            "src/queue/suppression.rs",
            "src/queue/lanes.rs",
            "src/queue/reports.rs",
            "src/queue/history.rs",
            "src/message/dkim/",
            "src/policy/token.rs",
            "src/policy/token/",
            "src/cli/dkim.rs",
        ]),
    ),
    ("data-encoding", Where::In(&["src/policy/token.rs", "src/policy/token/"])),
    ("base64ct", Where::In(&["src/smtp/base64.rs", "src/cli/dkim.rs", "src/message/dkim/record.rs"])),
    ("psl", Where::In(&["src/cli/doctor/"])),
    ("argon2", Where::In(&["src/admission/password.rs"])),
    ("zeroize", Where::Any),
    ("webpki-roots", Where::In(&["src/net/"])),
    ("rocksdb", Where::In(&["src/queue/"])),
    ("crc32c", Where::In(&["src/queue/"])),
    ("csv-core", Where::In(&["src/cli/suppression/"])),
    ("governor", Where::In(&["src/reception/", "src/admission/", "src/daemon/"])),
    ("crossbeam", Where::In(&["src/queue/", "src/events/", "src/daemon/"])),
    ("metrics", Where::Impure),
    ("metrics-exporter-prometheus", Where::In(&["src/daemon/"])),
    ("clap", Where::In(&["src/cli/", "src/main.rs"])),
    ("serde", Where::Any),
    ("serde_json", Where::Any),
    // The config and the files of rules are read by one reader, in `tables`; rules are data of `policy`, which asks it, too.
    ("toml", Where::In(&["src/tables/", "src/daemon/"])),
    ("tracing", Where::Any),
    ("tracing-subscriber", Where::In(&["src/daemon/", "src/cli/"])),
    ("thiserror", Where::Any),
    ("memchr", Where::Any),
    ("bytes", Where::Any),
    ("axum", Where::In(&["src/daemon/"])),
    ("hyper", Where::In(&["src/daemon/", "src/cli/"])),
    ("hyper-util", Where::In(&["src/daemon/", "src/cli/"])),
    ("http-body-util", Where::In(&["src/daemon/", "src/cli/"])),
    ("ahash", Where::In(&["src/scheduler/"])),
    ("arc-swap", Where::Impure),
    ("jiff", Where::Any),
    ("ipnet", Where::Any),
    ("idna", Where::Any),
    ("socket2", Where::In(&["src/net/", "src/reception/", "src/daemon/"])),
    ("rustix", Where::Impure),
    ("sd-notify", Where::In(&["src/daemon/"])),
    ("tempfile", Where::In(&["src/cli/", "src/simulator/"])),
    ("rcgen", Where::In(&["src/cli/", "src/simulator/"])),
    ("rand", Where::Impure),
];

/// Violations of one rule, each as `file:line: what: what to do`.
type Findings = BTreeSet<String>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn expect_none(sources: &[Source], check: impl Fn(&Source) -> Findings) {
    assert!(!sources.is_empty(), "no sources under {}", root().display());
    let findings: Findings = sources.iter().flat_map(check).collect();
    assert!(findings.is_empty(), "\n{}\n", findings.into_iter().collect::<Vec<_>>().join("\n"));
}

fn package() -> Vec<Source> {
    Source::load_all(root(), "src")
}

fn everything() -> Vec<Source> {
    let directories = ["src", "queue-format", "tests", "benches", "fuzz", "xtask"];
    directories.iter().flat_map(|directory| Source::load_all(root(), directory)).collect()
}

#[test]
fn modules_import_in_one_direction() {
    expect_none(&package(), imports_against_direction);
}

fn imports_against_direction(source: &Source) -> Findings {
    let mut findings = Findings::new();
    let module_path = source.module_path();
    let Some(module) = module_path.first().copied() else { return findings };
    let Some((_, allowed)) = MODULES.iter().find(|(name, _)| *name == module) else { return findings };
    for path in source.paths().iter().filter(|path| !path.in_test) {
        let supers = path.segments.iter().take_while(|segment| *segment == "super").count();
        let inside: Vec<&str> = match path.segments[0].as_str() {
            "crate" => path.segments[1..].iter().map(String::as_str).collect(),
            "super" if supers >= module_path.len() => path.segments[supers..].iter().map(String::as_str).collect(),
            _ => continue,
        };
        let Some(target) = inside.first().copied() else { continue };
        let excepted = IMPORTS_EXCEPTED.iter().any(|(name, path, _)| *name == module && inside.starts_with(path));
        if target != module && !allowed.contains(&target) && !excepted {
            findings.insert(format!(
                "{}:{}: `{module}` names `crate::{}`: it may import only {allowed:?}; pass the value in, or move the \
                 type to a module that both may import",
                source.path,
                path.line,
                inside.join("::"),
            ));
        }
    }
    findings
}

#[test]
fn the_table_of_modules_is_complete_and_has_no_circle() {
    let present: BTreeSet<String> =
        package().iter().filter_map(|source| source.module_path().first().map(|module| (*module).to_owned())).collect();
    let listed: BTreeSet<String> = MODULES.iter().map(|(name, _)| (*name).to_owned()).collect();
    let unlisted: Vec<_> = present.difference(&listed).collect();
    assert!(unlisted.is_empty(), "{unlisted:?}: say in MODULES (tests/it/tidy.rs) what these may import");
    for (position, (name, allowed)) in MODULES.iter().enumerate().filter(|(_, (_, allowed))| *allowed != EVERY_MODULE) {
        let before: Vec<_> = MODULES[..position].iter().map(|(name, _)| *name).collect();
        let late: Vec<_> = allowed.iter().filter(|allowed| !before.contains(allowed)).collect();
        assert!(
            late.is_empty(),
            "`{name}` may import {late:?}, which stand after it in MODULES: a circle could follow"
        );
    }
}

#[test]
fn only_cli_is_known_to_main() {
    let sources: Vec<_> = package().into_iter().filter(|source| source.path == "src/main.rs").collect();
    expect_none(&sources, |source| {
        let paths = source.paths();
        let others = paths.iter().filter(|path| path.segments[0] == "posthaste" && path.segments[1] != "cli");
        others.map(|path| format!("src/main.rs:{}: main calls only `posthaste::cli`", path.line)).collect()
    });
}

#[test]
fn each_crate_is_named_only_where_it_may_be() {
    expect_none(&package(), crates_out_of_place);
}

fn crates_out_of_place(source: &Source) -> Findings {
    let mut findings = Findings::new();
    let module = source.module_path().first().copied().unwrap_or("");
    let paths = source.paths();
    let local = source.local_names(&paths);
    for path in paths.iter().filter(|path| !path.in_test && !local.contains(&path.segments[0])) {
        let Some((name, place)) = CRATES.iter().find(|(name, _)| name.replace('-', "_") == path.segments[0]) else {
            continue;
        };
        let advice = match place {
            Where::Any => continue,
            Where::Impure if !PURE.contains(&module) => continue,
            Where::In(places) if places.iter().any(|place| source.path.starts_with(place)) => continue,
            Where::Impure => format!("{PURE:?} are pure: take what it gives as an argument"),
            Where::In(places) => format!("only {places:?} may: use what they offer, or change CRATES with a reason"),
        };
        findings.insert(format!("{}:{}: names the crate `{name}`: {advice}", source.path, path.line));
    }
    findings
}

#[test]
fn the_table_of_crates_matches_the_dependencies() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let section = manifest.split("\n[dependencies]\n").nth(1).unwrap().split("\n[").next().unwrap();
    let dependencies: BTreeSet<&str> = section
        .lines()
        .filter(|line| line.starts_with(|first: char| first.is_ascii_alphabetic()))
        .filter_map(|line| line.split(['=', '.', ' ']).next())
        .collect();
    let listed: BTreeSet<&str> = CRATES.iter().map(|(name, _)| *name).collect();
    let missing: Vec<_> = dependencies.difference(&listed).collect();
    assert!(missing.is_empty(), "{missing:?}: say in CRATES (tests/it/tidy.rs) who may name these dependencies");
    let gone: Vec<_> = listed.difference(&dependencies).collect();
    assert!(gone.is_empty(), "{gone:?}: no longer dependencies; drop them from CRATES (tests/it/tidy.rs)");
}

#[test]
fn pure_modules_touch_no_socket_disk_or_thread() {
    expect_none(&package(), impurities);
}

fn impurities(source: &Source) -> Findings {
    let module = source.module_path().first().copied().unwrap_or("");
    if !PURE.contains(&module) {
        return Findings::new();
    }
    let say = |line: usize, what: &str| {
        format!(
            "{}:{line}: `{module}` names `{what}`: pure modules get bytes, time and chance as arguments",
            source.path
        )
    };
    let paths = source.paths();
    let by_path = paths
        .iter()
        .filter(|path| !path.in_test)
        .filter(|path| {
            IMPURE_STD
                .iter()
                .any(|impure| path.segments.iter().map(String::as_str).take(impure.len()).eq(impure.iter().copied()))
        })
        .map(|path| say(path.line, &path.segments.join("::")));
    let by_name = source
        .tokens
        .iter()
        .filter(|token| !token.in_test && IMPURE_NAMES.contains(&token.text.as_str()))
        .map(|token| say(token.line, &token.text));
    by_path.chain(by_name).collect()
}

#[test]
fn each_file_opens_with_its_manual_page() {
    expect_none(&everything(), |source| {
        let opens =
            source.text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"));
        let finding = format!("{}:1: starts without `//!`: say what it is for, promises, does not do", source.path);
        (!opens).then_some(finding).into_iter().collect()
    });
}

#[test]
fn each_file_tells_one_story() {
    expect_none(&everything(), |source| {
        let lines = source.text.lines().count();
        let finding =
            format!("{}:{lines}: {lines} lines, at most {FILE_LINES_MAX}: cut it where its story turns", source.path);
        (lines > FILE_LINES_MAX).then_some(finding).into_iter().collect()
    });
}

#[test]
fn nothing_is_left_unfinished_ignored_or_unwrapped() {
    expect_none(&everything(), debris);
}

fn debris(source: &Source) -> Findings {
    let mut findings = Findings::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let macro_call = source.tokens_are(at + 1, &["!"]);
        let finding = match token.text.as_str() {
            "todo" | "unimplemented" | "dbg" if macro_call => format!("`{}!`: finish it", token.text),
            "#" if source.tokens_are(at, &["#", "[", "ignore"]) => {
                "`#[ignore]`: a test that does not run proves nothing; make it run, or a command of xtask".to_owned()
            }
            "unwrap" if source.tokens_are(at, &["unwrap", "(", ")"]) && !token.in_test => {
                "`.unwrap()`: return the error, or `expect` with the invariant that rules it out".to_owned()
            }
            _ => continue,
        };
        findings.insert(format!("{}:{}: {finding}", source.path, token.line));
    }
    findings
}

/// The rules themselves: each finds what it is for.
mod rules {
    use super::*;

    fn check(rule: impl Fn(&Source) -> Findings, path: &str, text: &str, expected: &[&str]) {
        let findings: Vec<_> = rule(&Source::new(path, text)).into_iter().collect();
        assert_eq!(findings.len(), expected.len(), "{path}: {text}: {findings:?}");
        for (finding, expected) in findings.iter().zip(expected) {
            assert!(finding.starts_with(expected), "{finding}\ndoes not start with\n{expected}");
        }
    }

    #[test]
    fn an_import_against_the_direction_is_found_however_it_is_written() {
        let rule = imports_against_direction;
        check(rule, "src/smtp/mod.rs", "use crate::types::Domain;", &[]);
        check(
            rule,
            "src/smtp/mod.rs",
            "\nuse crate::queue::Intake;",
            &["src/smtp/mod.rs:2: `smtp` names `crate::queue::Intake`"],
        );
        check(
            rule,
            "src/smtp/mod.rs",
            "use crate::{types, queue::x};",
            &["src/smtp/mod.rs:1: `smtp` names `crate::queue::x`"],
        );
        check(
            rule,
            "src/smtp/mod.rs",
            "fn f() { crate::queue::x() }",
            &["src/smtp/mod.rs:1: `smtp` names `crate::queue::x`"],
        );
        check(
            rule,
            "src/smtp/a/b.rs",
            "use super::super::super::queue;",
            &["src/smtp/a/b.rs:1: `smtp` names `crate::queue`"],
        );
        check(rule, "src/smtp/a/b.rs", "use super::super::queue;", &[]);
        check(rule, "src/smtp/mod.rs", "// crate::queue\n#[cfg(test)]\nmod tests { use crate::queue::x; }", &[]);
    }

    #[test]
    fn an_exception_covers_its_one_name_only() {
        let rule = imports_against_direction;
        check(rule, "src/queue/a.rs", "use crate::net::BoxFuture;", &[]);
        check(
            rule,
            "src/queue/a.rs",
            "use crate::net::{BoxFuture, Dialer};",
            &["src/queue/a.rs:1: `queue` names `crate::net::Dialer`"],
        );
    }

    #[test]
    fn a_crate_out_of_place_is_found() {
        let rule = crates_out_of_place;
        check(rule, "src/queue/store.rs", "use rocksdb::DB;", &[]);
        check(rule, "src/delivery/a.rs", "use rocksdb::DB;", &["src/delivery/a.rs:1: names the crate `rocksdb`: only"]);
        check(rule, "src/smtp/a.rs", "#[tokio::main] fn f() {}", &["src/smtp/a.rs:1: names the crate `tokio`: "]);
        check(rule, "src/daemon/a.rs", "mod axum_like; use sd_notify::notify;", &[]);
        check(rule, "src/queue/a.rs", "use crate::queue::toml; fn f() { toml::x() }", &[]);
    }

    #[test]
    fn a_socket_in_a_pure_module_is_found() {
        let rule = impurities;
        check(rule, "src/policy/a.rs", "use std::net::IpAddr;", &[]);
        check(rule, "src/policy/a.rs", "use std::{fs, time};", &["src/policy/a.rs:1: `policy` names `std::fs`"]);
        check(
            rule,
            "src/policy/a.rs",
            "use std::net; fn f(s: net::TcpStream) {}",
            &["src/policy/a.rs:1: `policy` names `TcpStream`"],
        );
        check(rule, "src/net/a.rs", "use std::net::TcpStream;", &[]);
    }

    #[test]
    fn debris_is_found() {
        check(debris, "src/a.rs", "fn f() { x.unwrap() }", &["src/a.rs:1: `.unwrap()`"]);
        check(debris, "src/a.rs", "fn f() { x.unwrap_or(1); todo() }", &[]);
        check(
            debris,
            "src/a.rs",
            "#[cfg(test)]\nmod t {\n#[ignore]\nfn f() { x.unwrap() } }",
            &["src/a.rs:3: `#[ignore]`"],
        );
        check(debris, "tests/it/a.rs", "fn f() { x.unwrap(); dbg!(x) }", &["tests/it/a.rs:1: `dbg!`"]);
    }
}

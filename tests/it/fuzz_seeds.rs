//! Every fuzz target's body on its seeds, and on mutations of them that need no fuzzer: so that a parser that breaks a
//! promise on a small input fails here, in every run, and not only under cargo-fuzz (fuzz/README.md).

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[allow(unreachable_pub, missing_docs, reason = "the library of another package, which has its own lints")]
#[path = "../../fuzz/src/lib.rs"]
mod bodies;

use bodies::{BODIES, Body};

/// Mutations of one seed; a longer seed is changed at fewer places.
const MUTATIONS_MAX: usize = 400;
/// What is put in place of an octet: ends of lines and texts, and what parsers look for.
const OCTETS: [u8; 12] = [0, b'\r', b'\n', b' ', b'.', b'-', b'"', b':', b'9', 0x80, 0xc3, 0xff];

fn seeds(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
    let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
}

#[track_caller]
fn run(body: Body, input: &[u8], what: &dyn std::fmt::Display) {
    if catch_unwind(AssertUnwindSafe(|| body(input))).is_err() {
        panic!("{what}: see the panic above; the input is {:?}", String::from_utf8_lossy(input));
    }
}

#[test]
fn every_target_holds_its_promises_on_its_seeds() {
    for (target, body) in BODIES {
        let seeds = seeds(target);
        assert!(!seeds.is_empty(), "fuzz/seeds/{target} is empty");
        for (path, seed) in &seeds {
            run(*body, seed, &path.display());
        }
    }
}

#[test]
fn every_target_holds_its_promises_on_seeds_that_were_cut_and_changed() {
    for (target, body) in BODIES {
        run(*body, b"", target);
        for (path, seed) in seeds(target) {
            let step = (seed.len() / MUTATIONS_MAX).max(1);
            for at in (0..seed.len()).step_by(step) {
                run(*body, &seed[..at], &format_args!("{} cut at {at}", path.display()));
                let mut changed = seed.clone();
                changed[at] = OCTETS[at % OCTETS.len()];
                run(*body, &changed, &format_args!("{} changed at {at}", path.display()));
                changed.splice(at..=at, [b'\r', b'\n', seed[at], seed[at]]);
                run(*body, &changed, &format_args!("{} with more at {at}", path.display()));
            }
        }
    }
}

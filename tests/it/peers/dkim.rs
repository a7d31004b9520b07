//! What others say of our DKIM signatures: dkimpy, OpenDKIM, and Perl's Mail::DKIM.
//!
//! Debian 12's Mail::DKIM knows no Ed25519 (RFC 8463): of it, only RSA signatures are asked about.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::tools::{program, python, run, script};

/// TXT records by name, without the last dot.
pub(crate) type Records = BTreeMap<String, String>;

/// A key of `tests/data/dkim`, and what it publishes.
#[derive(Clone, Copy)]
pub(crate) enum TestKey {
    Rsa,
    Ed25519,
}

impl TestKey {
    fn name(self) -> &'static str {
        match self {
            TestKey::Rsa => "rsa2048",
            TestKey::Ed25519 => "ed25519",
        }
    }

    fn file(self, extension: &str) -> String {
        let path = format!("{}/tests/data/dkim/{}.{extension}", env!("CARGO_MANIFEST_DIR"), self.name());
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The record that publishes it.
    pub(crate) fn record(self) -> String {
        self.file("txt").trim().to_owned()
    }

    /// A copy for the daemon alone.
    pub(crate) fn write(self, dir: &Path) -> PathBuf {
        let path = dir.join(format!("{}.pem", self.name()));
        std::fs::write(&path, self.file("pem")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, mode).unwrap();
        path
    }

    /// A `[[dkim]]` table.
    pub(crate) fn table(self, dir: &Path, domain: &str, selector: &str) -> String {
        let path = self.write(dir);
        format!("[[dkim]]\ndomain = \"{domain}\"\nselector = \"{selector}\"\nkey_file = {path:?}\n")
    }
}

/// What each program says of each signature of each message, in order: `1` is good.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Verdicts {
    pub(crate) dkimpy: Vec<String>,
    pub(crate) opendkim: Vec<String>,
    /// Of RSA signatures only.
    pub(crate) mail_dkim: Vec<String>,
}

/// Asks all three.
#[track_caller]
pub(crate) fn verdicts(records: &Records, messages: &[Vec<u8>]) -> Verdicts {
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<PathBuf> = messages
        .iter()
        .enumerate()
        .map(|(number, message)| {
            let file = dir.path().join(format!("{number}.eml"));
            std::fs::write(&file, message).unwrap();
            file
        })
        .collect();
    let map = dir.path().join("records.json");
    std::fs::write(&map, serde_json::to_vec(records).unwrap()).unwrap();
    let lines =
        |text: &str| text.lines().filter(|line| line.chars().all(|c| "01".contains(c))).map(str::to_owned).collect();
    let dkimpy = run(python().arg(script("verify_dkim.py")).arg(&map).args(&files), b"");
    let mut perl = Command::new(program("perl"));
    let mail_dkim = run(perl.arg(script("verify_dkim.pl")).arg(&map).args(&files), b"");
    Verdicts {
        dkimpy: lines(&dkimpy),
        opendkim: files.iter().map(|file| opendkim(&dir, records, file)).collect(),
        mail_dkim: lines(&mail_dkim),
    }
}

fn opendkim(dir: &TempDir, records: &Records, file: &Path) -> String {
    let (keys, config) = (dir.path().join("keys"), dir.path().join("opendkim.conf"));
    let lines: String = records.iter().map(|(name, text)| format!("{name} {text}\n")).collect();
    std::fs::write(&keys, lines).unwrap();
    let text = format!(
        "Mode v\nTestPublicKeys {}\nSyslog no\nAlwaysAddARHeader yes\nAuthservID test\nBackground no\nMaximumSignaturesToVerify 10\n",
        keys.display()
    );
    std::fs::write(&config, text).unwrap();
    let printed = run(Command::new(program("opendkim")).arg("-x").arg(&config).arg("-vv").arg("-t").arg(file), b"");
    // The verdicts stand in the field that it would add.
    let verdicts = printed.split("dkim=").skip(1).filter_map(|rest| rest.split_whitespace().next());
    verdicts.map(|verdict| if verdict == "pass" { '1' } else { '0' }).collect()
}

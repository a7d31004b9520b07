//! Looks at the files and directories that a config names: what `parse` leaves to the disk.
//!
//! Findings stand at the key that names the path. Nothing is made or changed here, and a directory that is missing is
//! fine, since the daemon makes it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zeroize::Zeroizing;

use super::findings::{Findings, NamedPath, PathKind, Problem};
use crate::message::dkim::Key;

/// `TMPFS_MAGIC` and `RAMFS_MAGIC` of statfs(2).
const MEMORY_FILE_SYSTEMS: [u64; 2] = [0x0102_1994, 0x8584_58f6];

/// A certificate chain or a key is a few kilobytes; reading stops here.
const SECRET_BYTES_MAX: u64 = 1 << 20;

pub(super) fn check(findings: &mut Findings) {
    for named in std::mem::take(&mut findings.paths) {
        match named.kind {
            PathKind::Certificate | PathKind::PrivateKey | PathKind::Password | PathKind::SigningKey => {
                check_file(findings, &named);
            }
            PathKind::DataDirectory | PathKind::Directory => check_directory(findings, &named),
            PathKind::Socket => check_socket(findings, &named),
            // Whoever loads the rules has read them by now.
            PathKind::ReplyRules | PathKind::ProviderRules => {}
        }
    }
}

fn check_file(findings: &mut Findings, named: &NamedPath) {
    let contents = match read(&named.path) {
        Ok(contents) => contents,
        Err(error) => {
            let problem = format!("{} cannot be read: {error}", named.path.display());
            let remedy = "name an existing file that the user posthaste can read";
            return findings.error(&named.span, &named.key, Problem::new(problem, remedy));
        }
    };
    let shown = named.path.display();
    let (fits, problem, remedy) = match named.kind {
        PathKind::Certificate => (
            contents.contains("-----BEGIN CERTIFICATE-----"),
            format!("{shown} holds no certificate"),
            "name a PEM file with the chain, leaf first",
        ),
        PathKind::PrivateKey => (
            contents.lines().any(|line| line.starts_with("-----BEGIN ") && line.ends_with("PRIVATE KEY-----")),
            format!("{shown} holds no private key"),
            "name a PEM file with an unencrypted key",
        ),
        PathKind::SigningKey => {
            let key = Key::from_pem(contents.as_bytes());
            let problem = key.as_ref().err().map(|error| format!("{shown}: {error}")).unwrap_or_default();
            (key.is_ok(), problem, "make one with `posthaste dkim generate`")
        }
        _ => (
            contents.lines().next().is_some_and(|line| !line.trim().is_empty()),
            format!("{shown} has no password in its first line"),
            "write the password there",
        ),
    };
    if !fits {
        findings.error(&named.span, &named.key, Problem::new(problem, remedy));
    }
    if named.kind != PathKind::Certificate {
        check_secrecy(findings, named);
    }
}

fn read(path: &Path) -> std::io::Result<Zeroizing<String>> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(SECRET_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

fn check_secrecy(findings: &mut Findings, named: &NamedPath) {
    let Ok(metadata) = fs::metadata(&named.path) else {
        return;
    };
    let (mode, path) = (metadata.permissions().mode(), named.path.display());
    if named.kind == PathKind::SigningKey && mode & 0o077 != 0 {
        let remedy = format!("let the user of the daemon own it, and run: chmod go= {path}");
        return findings.warn(
            &named.span,
            &named.key,
            Problem::new(format!("others than its owner can read {path}"), remedy),
        );
    }
    if mode & 0o007 != 0 {
        let remedy = format!("run: chmod o= {path}");
        findings.error(&named.span, &named.key, Problem::new(format!("every user can read {path}"), remedy));
    }
}

fn check_directory(findings: &mut Findings, named: &NamedPath) {
    let existing = named.path.ancestors().find(|ancestor| ancestor.exists());
    let Some(existing) = existing else {
        return;
    };
    if !existing.is_dir() {
        let problem = format!("{} is not a directory", existing.display());
        return findings.error(&named.span, &named.key, Problem::new(problem, "name a directory"));
    }
    let file_system = rustix::fs::statfs(existing).map(|status| u64::try_from(status.f_type).unwrap_or_default());
    let in_memory = file_system.is_ok_and(|kind| MEMORY_FILE_SYSTEMS.contains(&kind));
    if named.kind == PathKind::DataDirectory && in_memory {
        let problem = format!("{} is in memory: a power cut loses accepted mail", existing.display());
        findings.warn(&named.span, &named.key, Problem::new(problem, "name a directory on a disk"));
    }
}

fn check_socket(findings: &mut Findings, named: &NamedPath) {
    use std::os::unix::fs::FileTypeExt;
    let taken = fs::symlink_metadata(&named.path).is_ok_and(|metadata| !metadata.file_type().is_socket());
    if taken {
        let problem = format!("{} exists and is not a socket", named.path.display());
        findings.error(&named.span, &named.key, Problem::new(problem, "name another path, or remove that file"));
    }
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    #[test]
    fn load_looks_at_the_files_it_names() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, mode: u32| {
            let path = directory.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path.display().to_string()
        };
        let certificate = file("cert.pem", "-----BEGIN CERTIFICATE-----\n", 0o644);
        let key = file("key.pem", "-----BEGIN PRIVATE KEY-----\n", 0o600);
        let open_key = file("open.pem", "-----BEGIN EC PRIVATE KEY-----\n", 0o644);
        let empty = file("empty", "\n", 0o600);
        let gone = directory.path().join("gone").display().to_string();
        let text = |certificate: &str, key: &str, rest: &str| {
            let listener = "[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:25\"\ntls = \"implicit\"\n";
            format!("hostname = \"a.test\"\n{listener}certificate = \"{certificate}\"\nkey = \"{key}\"\n{rest}")
        };
        let path = directory.path().join("config.toml");
        let errors = |text: String| {
            fs::write(&path, text).unwrap();
            let config = Config::load(&path);
            let errors = config.map_or_else(|errors| errors.errors, |_| Vec::new());
            errors.iter().map(|error| (error.key.clone(), error.problem.clone())).collect::<Vec<_>>()
        };
        assert_eq!(errors(text(&certificate, &key, "")), []);
        let rest = format!(
            "[[route]]\ndomains = [\"*\"]\nhost = \"127.0.0.1\"\nuser = \"u\"\npassword_file = \"{empty}\"\n\
             [events]\ndirectory = \"{certificate}\"\n[admin]\nsocket = \"{certificate}\"\n"
        );
        let found = errors(text(&gone, &open_key, &rest));
        let expected = [
            ("listener.certificate", format!("{gone} cannot be read: No such file or directory (os error 2)")),
            ("listener.key", format!("every user can read {open_key}")),
            ("route.password_file", format!("{empty} has no password in its first line")),
            ("events.directory", format!("{certificate} is not a directory")),
            ("admin.socket", format!("{certificate} exists and is not a socket")),
        ];
        assert_eq!(found, expected.map(|(key, problem)| (key.to_owned(), problem)));
        let found = errors(text(&key, &certificate, ""));
        assert_eq!(found[0].1, format!("{key} holds no certificate"));
        assert_eq!(found[1].1, format!("{certificate} holds no private key"));
    }

    #[test]
    fn a_config_that_is_not_there_or_no_text_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        let shown = path.display().to_string();
        let error = Config::load(&path).unwrap_err().to_string();
        let expected =
            "cannot be read: No such file or directory (os error 2); name an existing readable file with --config";
        assert_eq!(error, format!("{shown}: {expected}"));
        fs::write(&path, b"hostname = \"\xff\"").unwrap();
        assert_eq!(
            Config::load(&path).unwrap_err().to_string(),
            format!("{shown}: byte 12 is not UTF-8; save the file as UTF-8")
        );
        fs::write(&path, vec![b'#'; 17 << 20]).unwrap();
        assert!(Config::load(&path).unwrap_err().to_string().contains("larger than 16 MiB"));
    }
}

//! `posthaste dkim`: new keys for signatures, and the DNS records of keys. Asks no daemon and no network.
//!
//! Promises: a key goes into a new file that only its owner can read, and nowhere else; no file is ever overwritten.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::{rsa, signature};
use base64ct::{Base64, Encoding};
use clap::ValueEnum;
use zeroize::Zeroizing;

use super::{Failure, zone};
use crate::message::dkim::Key;
use crate::types::{Clock, Domain, SystemClock, Timestamp};

/// Octets that are read of a key file. A longer one is cut, and then is no PEM.
const KEY_FILE_BYTES_MAX: u64 = 1 << 20;
/// Characters of Base64 in a line of PEM (RFC 7468 §2).
const PEM_LINE_CHARS: usize = 64;
/// Where keys are kept.
const DIRECTORY: &str = "/etc/posthaste/dkim";

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Make a key, and print its DNS record and its lines for the config.
    Generate(GenerateArgs),
    /// Print the DNS record of a key that is there.
    Record(RecordArgs),
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// Domain that signs: that of the From addresses.
    #[arg(long, value_parser = domain)]
    domain: Domain,
    /// Name of the key below _domainkey. Default: ph, the date, and r for RSA or e for Ed25519, such as ph20261122r.
    #[arg(long, value_parser = domain)]
    selector: Option<Domain>,
    /// What every receiver verifies is rsa; ed25519 is short and fast, and best beside an RSA key.
    #[arg(long, value_enum, default_value_t = Kind::Rsa)]
    algorithm: Kind,
    /// Length of an RSA key: 2048, 3072 or 4096. Longer than 2048 is slower, and some DNS services take no such records.
    #[arg(long, default_value_t = 2048, value_parser = bits)]
    bits: u32,
    /// File to make. Default: /etc/posthaste/dkim/DOMAIN.SELECTOR.pem.
    #[arg(long, value_name = "PATH")]
    out: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct RecordArgs {
    /// PEM file with the private key.
    #[arg(long, value_name = "PATH")]
    key_file: PathBuf,
    /// Domain that signs.
    #[arg(long, value_parser = domain)]
    domain: Domain,
    /// Name of the key below _domainkey.
    #[arg(long, value_parser = domain)]
    selector: Domain,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Rsa,
    Ed25519,
}

fn domain(text: &str) -> Result<Domain, String> {
    Domain::parse(text).map_err(|error| error.to_string())
}

fn bits(text: &str) -> Result<u32, String> {
    match text {
        "2048" => Ok(2_048),
        "3072" => Ok(3_072),
        "4096" => Ok(4_096),
        _ => Err("write 2048, 3072 or 4096".to_owned()),
    }
}

pub(super) fn run(args: &Args, out: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        Command::Generate(args) => generate(args, SystemClock.now(), out),
        Command::Record(args) => record(args, out),
    }
}

fn generate(args: &GenerateArgs, now: Timestamp, out: &mut dyn Write) -> Result<(), Failure> {
    let selector = args.selector.clone().unwrap_or_else(|| default_selector(args.algorithm, now));
    let default_path = || Path::new(DIRECTORY).join(format!("{}.{selector}.pem", args.domain));
    let path = args.out.clone().unwrap_or_else(default_path);
    // As the config wants it, which is read elsewhere.
    let path = std::path::absolute(&path).map_err(|error| Failure::Failed(format!("{}: {error}", path.display())))?;
    let pem = new_key(args.algorithm, args.bits)?;
    let key = Key::from_pem(pem.as_bytes()).map_err(|error| Failure::Failed(format!("the new key: {error}")))?;
    write_new(&path, pem.as_bytes())?;
    writeln!(
        out,
        "# Made {}: {}, {} bits. The daemon's user must own it:",
        path.display(),
        key.algorithm().name(),
        key.bits()
    )?;
    writeln!(out, "#   chown posthaste: {}", path.display())?;
    writeln!(out, "# For the zone of {}:", args.domain)?;
    writeln!(out, "{}", record_line(&args.domain, &selector, &key))?;
    writeln!(out, "# For config.toml; with another key of this kind in force, add: state = \"next\"")?;
    writeln!(out, "[[dkim]]")?;
    for (name, value) in [("domain", args.domain.as_str()), ("selector", selector.as_str())] {
        writeln!(out, "{name} = {}", quoted(value))?;
    }
    Ok(writeln!(out, "key_file = {}", quoted(&path.to_string_lossy()))?)
}

fn record(args: &RecordArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let shown = args.key_file.display();
    let mut pem = Zeroizing::new(Vec::new());
    let read = File::open(&args.key_file).and_then(|file| file.take(KEY_FILE_BYTES_MAX).read_to_end(&mut pem));
    read.map_err(|error| Failure::Failed(format!("{shown} cannot be read: {error}")))?;
    let key = Key::from_pem(&pem).map_err(|error| Failure::Failed(format!("{shown}: {error}")))?;
    Ok(writeln!(out, "{}", record_line(&args.domain, &args.selector, &key))?)
}

fn record_line(domain: &Domain, selector: &Domain, key: &Key) -> String {
    zone::txt(&format!("{selector}._domainkey.{domain}"), &key.record())
}

/// A basic string of TOML, as JSON would write it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// `ph20261122r`: keys of two kinds and of different days can stand beside each other.
fn default_selector(kind: Kind, now: Timestamp) -> Domain {
    let date: String = now.to_iso8601().chars().take(10).filter(char::is_ascii_digit).collect();
    let letter = match kind {
        Kind::Rsa => 'r',
        Kind::Ed25519 => 'e',
    };
    Domain::parse(&format!("ph{date}{letter}")).expect("letters and digits are a label")
}

/// PKCS#8 in PEM, version 1, as every tool reads it.
fn new_key(kind: Kind, bits: u32) -> Result<Zeroizing<String>, Failure> {
    let failed = |_| Failure::Failed("the key cannot be made: the system gives no random numbers".to_owned());
    let der: Pkcs8V1Der<'_> = match kind {
        Kind::Rsa => {
            let size = match bits {
                4_096 => KeySize::Rsa4096,
                3_072 => KeySize::Rsa3072,
                _ => KeySize::Rsa2048,
            };
            rsa::KeyPair::generate(size).and_then(|pair| pair.as_der()).map_err(failed)?
        }
        Kind::Ed25519 => signature::Ed25519KeyPair::generate().and_then(|pair| pair.as_der()).map_err(failed)?,
    };
    let text = Zeroizing::new(Base64::encode_string(der.as_ref()));
    let mut pem = Zeroizing::new(String::with_capacity(text.len() + text.len() / PEM_LINE_CHARS + 64));
    pem.push_str("-----BEGIN PRIVATE KEY-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % PEM_LINE_CHARS == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str("\n-----END PRIVATE KEY-----\n");
    Ok(pem)
}

fn write_new(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let shown = path.display();
    let file = File::options().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => {
            Failure::Failed(format!("{shown} exists, and is not overwritten: name another --selector or --out"))
        }
        _ => Failure::Failed(format!(
            "{shown} cannot be made: {error}; name a file with --out, or make its directory first"
        )),
    })?;
    let written = file.write_all(contents).and_then(|()| file.sync_all());
    written.map_err(|error| Failure::Failed(format!("{shown} cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::message::dkim::Algorithm;

    const NOW: Timestamp = Timestamp::from_millis(1_795_305_600_000);

    fn made(kind: Kind, bits: u32, out: &Path) -> Result<String, String> {
        let args = GenerateArgs {
            domain: domain("shop.test").unwrap(),
            selector: None,
            algorithm: kind,
            bits,
            out: Some(out.to_owned()),
        };
        let mut text = Vec::new();
        generate(&args, NOW, &mut text).map_err(|failure| failure.text().unwrap_or_default().to_owned())?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn a_new_key_can_sign_is_private_and_comes_with_its_record() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, bits, algorithm, key_bits, selector) in [
            (Kind::Rsa, 2_048, Algorithm::Rsa, 2_048, "ph20261122r"),
            (Kind::Rsa, 3_072, Algorithm::Rsa, 3_072, "ph20261122r"),
            (Kind::Ed25519, 2_048, Algorithm::Ed25519, 256, "ph20261122e"),
        ] {
            let path = dir.path().join(format!("{selector}.{bits}.pem"));
            let text = made(kind, bits, &path).unwrap();
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let key = Key::from_pem(&std::fs::read(&path).unwrap()).unwrap();
            assert_eq!((key.algorithm(), key.bits()), (algorithm, key_bits));
            let line = text.lines().find(|line| line.starts_with(selector)).unwrap();
            let joined: String = line.split('"').skip(1).step_by(2).collect();
            assert_eq!(joined, key.record());
            assert!(line.starts_with(&format!("{selector}._domainkey.shop.test. IN TXT \"v=DKIM1; k=")), "{line}");
            let config = text.split_once("[[dkim]]\n").unwrap().1;
            let expected =
                format!("domain = \"shop.test\"\nselector = \"{selector}\"\nkey_file = \"{}\"\n", path.display());
            assert_eq!(config, expected);
            let pem = std::fs::read_to_string(&path).unwrap();
            assert!(!text.contains(pem.lines().nth(1).unwrap()), "the private key is printed");
            let args = RecordArgs {
                key_file: path,
                domain: domain("shop.test").unwrap(),
                selector: domain(selector).unwrap(),
            };
            let mut again = Vec::new();
            record(&args, &mut again).unwrap();
            assert_eq!(String::from_utf8(again).unwrap().trim_end(), line);
        }
    }

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "precious").unwrap();
        let error = made(Kind::Ed25519, 2_048, &path).unwrap_err();
        assert!(error.contains("key.pem exists, and is not overwritten"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        let error = made(Kind::Ed25519, 2_048, &dir.path().join("no/key.pem")).unwrap_err();
        assert!(error.contains("make its directory first"), "{error}");
    }

    #[test]
    fn what_is_no_key_has_no_record() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "hello").unwrap();
        let args = RecordArgs { key_file: path, domain: domain("a.test").unwrap(), selector: domain("s").unwrap() };
        let error = record(&args, &mut Vec::new()).unwrap_err();
        assert!(error.text().unwrap().contains("no private key"), "{error:?}");
        assert!(bits("1024").is_err());
    }
}

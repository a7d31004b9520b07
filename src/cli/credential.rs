//! `posthaste credential`: hashes of secrets, and new credentials, for the config. Asks no daemon and changes nothing.
//!
//! A secret is read from standard input or twice from the terminal, without echo: never from the command line, where `ps`
//! and the shell's history would show it. It is printed once, where it was made here, and stored nowhere.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal, Read, Write};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use super::Failure;
use crate::admission::directory::LOCAL_TENANT;
use crate::admission::password;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Hash a secret: one line of standard input, or typed twice on the terminal.
    Hash(HashArgs),
    /// Make a user name and a secret; the secret is shown this once.
    Generate(GenerateArgs),
}

#[derive(Debug, clap::Args)]
struct HashArgs {
    /// User name in the lines for the config.
    #[arg(long, value_name = "NAME", default_value = "app")]
    user: String,
    /// Tenant in the lines for the config.
    #[arg(long, value_name = "NAME", default_value = LOCAL_TENANT)]
    tenant: String,
    /// Print the hash alone.
    #[arg(long)]
    bare: bool,
}

#[derive(Debug, clap::Args)]
struct GenerateArgs {
    /// User name, in place of a new one.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Tenant in the lines for the config.
    #[arg(long, value_name = "NAME", default_value = LOCAL_TENANT)]
    tenant: String,
}

pub(super) fn run(args: &Args, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), Failure> {
    match &args.command {
        Command::Hash(args) if io::stdin().is_terminal() => hash(args, &typed(err)?, out),
        Command::Hash(args) => hash(args, &first_line(&mut io::stdin().lock())?, out),
        Command::Generate(args) => generate(args, out),
    }
}

fn hash(args: &HashArgs, secret: &[u8], out: &mut dyn Write) -> Result<(), Failure> {
    if secret.is_empty() {
        return Err(Failure::Failed("the secret is empty; write it to standard input, or type it".to_owned()));
    }
    if secret.len() > password::SECRET_BYTES_MAX || secret.contains(&0) {
        let problem = format!("a secret has at most {} octets and no NUL", password::SECRET_BYTES_MAX);
        return Err(Failure::Failed(problem));
    }
    let hash = password::hash(secret);
    if args.bare {
        return Ok(writeln!(out, "{hash}")?);
    }
    Ok(print_block(&args.user, &args.tenant, &hash, out)?)
}

fn generate(args: &GenerateArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let (made, secret) = password::generate();
    let secret = Zeroizing::new(secret);
    let user = args.user.as_deref().unwrap_or(&made);
    writeln!(out, "# For the application, shown only now:")?;
    writeln!(out, "#   user    {user}")?;
    writeln!(out, "#   secret  {}", *secret)?;
    writeln!(out, "# For config.toml, then reload:")?;
    Ok(print_block(user, &args.tenant, &password::hash(secret.as_bytes()), out)?)
}

fn print_block(user: &str, tenant: &str, hash: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "[[credential]]")?;
    writeln!(out, "user = {}", quoted(user))?;
    writeln!(out, "tenant = {}", quoted(tenant))?;
    writeln!(out, "secrets = [{}]", quoted(hash))
}

/// A basic string of TOML, as JSON would write it.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// The first line of what comes, without its end. Whatever is behind it is not looked at.
fn first_line(input: &mut dyn BufRead) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let limit = u64::try_from(password::SECRET_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(3);
    // All the room at once: a buffer that grew would leave copies behind.
    let mut line = Zeroizing::new(Vec::with_capacity(password::SECRET_BYTES_MAX + 3));
    let read = input.take(limit).read_until(b'\n', &mut line);
    read.map_err(|error| Failure::Failed(format!("cannot read the secret: {error}")))?;
    while line.last().is_some_and(|octet| matches!(octet, b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// The secret as typed twice on the terminal, without echo.
fn typed(err: &mut dyn Write) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("cannot read from the terminal: {error}"));
    let terminal = File::options().read(true).write(true).open("/dev/tty").map_err(failed)?;
    let quiet = Quiet::begin(&terminal).map_err(failed)?;
    let mut input = BufReader::new(&terminal);
    let mut ask = |prompt: &str| {
        write!(err, "{prompt}: ")?;
        err.flush()?;
        let line = first_line(&mut input)?;
        writeln!(err)?;
        Ok::<_, Failure>(line)
    };
    let (first, second) = (ask("Secret")?, ask("The same again")?);
    drop(quiet);
    if first != second {
        return Err(Failure::Failed("the two secrets differ; nothing was hashed".to_owned()));
    }
    Ok(first)
}

/// A terminal without echo, until this is dropped.
struct Quiet<'a> {
    terminal: &'a File,
    before: Termios,
}

impl<'a> Quiet<'a> {
    fn begin(terminal: &'a File) -> io::Result<Self> {
        let before = tcgetattr(terminal)?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(terminal, OptionalActions::Flush, &quiet)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Quiet<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no echo.
        let _ = tcsetattr(self.terminal, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(secret: &str, bare: bool) -> Result<String, String> {
        let args = HashArgs { user: "shop".to_owned(), tenant: "web".to_owned(), bare };
        let mut out = Vec::new();
        let line = first_line(&mut secret.as_bytes()).map_err(|failure| format!("{failure:?}"))?;
        hash(&args, &line, &mut out).map_err(|failure| failure.text().unwrap_or_default().to_owned())?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn value<'a>(text: &'a str, key: &str) -> &'a str {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("{key} = "))).unwrap();
        line.trim_matches(['[', ']', '"'])
    }

    #[test]
    fn a_hash_is_of_the_first_line_and_comes_with_the_lines_for_the_config() {
        let text = hashed("correct horse\r\nand more\n", false).unwrap();
        assert!(password::verify(value(&text, "secrets"), b"correct horse"), "{text}");
        assert!(
            text.starts_with("[[credential]]\nuser = \"shop\"\ntenant = \"web\"\nsecrets = [\"$argon2id$"),
            "{text}"
        );
        assert!(!text.contains("horse"));
        let bare = hashed("correct horse", true).unwrap();
        assert!(password::verify(bare.trim_end(), b"correct horse"), "{bare}");
    }

    #[test]
    fn secrets_that_cannot_be_used_are_refused() {
        assert!(hashed("", true).unwrap_err().contains("empty"));
        assert!(hashed("\n", true).unwrap_err().contains("empty"));
        assert!(hashed("a\0b", true).unwrap_err().contains("NUL"));
        assert!(hashed(&"a".repeat(1_024), true).is_ok());
        assert!(hashed(&"a".repeat(1_025), true).unwrap_err().contains("at most 1024 octets"));
    }

    #[test]
    fn a_generated_secret_is_shown_once_and_fits_its_hash() {
        let mut out = Vec::new();
        generate(&GenerateArgs { user: None, tenant: LOCAL_TENANT.to_owned() }, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        let secret = text.lines().find_map(|line| line.strip_prefix("#   secret  ")).unwrap();
        assert_eq!(text.matches(secret).count(), 1);
        assert!(password::verify(value(&text, "secrets"), secret.as_bytes()));
        let user = text.lines().find_map(|line| line.strip_prefix("#   user    ")).unwrap();
        assert_eq!(value(&text, "user"), user);
    }
}

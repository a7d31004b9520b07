//! Mail that is signed twice: by the author's domain and by the operator's.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use posthaste::message::dkim::{BodyHasher, Key, Signer, sign};
use posthaste::types::{Domain, Timestamp};

use crate::failure::{Context, Failure, Result};
use crate::options::Work;
use crate::usage;

/// Of the load's messages, and of the operator.
const DOMAINS: [&str; 2] = ["load.bench.test", "mta.bench.test"];
/// Messages that are signed to learn what that costs.
const SAMPLES: u32 = 3_000;

/// The private key of the tests for this work.
fn pem(work: Work) -> Result<&'static [u8]> {
    match work {
        Work::SignedRsa => Ok(include_bytes!("../../tests/data/dkim/rsa2048.pem")),
        Work::SignedEd25519 => Ok(include_bytes!("../../tests/data/dkim/ed25519.pem")),
        _ => Err(Failure::new("this work signs nothing")),
    }
}

/// Keys for both domains.
pub(crate) fn config(directory: &Path, work: Work) -> Result<String> {
    let file = directory.join("dkim.pem");
    fs::write(&file, pem(work)?).context(|| format!("{}", file.display()))?;
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).context(|| format!("{}", file.display()))?;
    let mut text = format!("\n[signing]\noperator_domain = \"{}\"\n", DOMAINS[1]);
    for domain in DOMAINS {
        // Writing to a String does not fail.
        let _ = write!(text, "[[dkim]]\ndomain = \"{domain}\"\nselector = \"b1\"\nkey_file = \"{}\"\n", file.display());
    }
    Ok(text)
}

/// CPU seconds that both signatures of 1,000 messages of this size cost, body hash included, in this process. All cores are busy
/// with it, as they are in the run: a core that shares its units with another one is slower then.
pub(crate) fn cost(work: Work, size: usize) -> Result<f64> {
    let key = Key::from_pem(pem(work)?).context(|| "key".to_owned())?;
    let key = Arc::new(key);
    let domain = |text: &str| Domain::parse(text).context(|| text.to_owned());
    let signer =
        |name: &str| Ok(Arc::new(Signer { domain: domain(name)?, selector: domain("b1")?, key: Arc::clone(&key) }));
    let signers = DOMAINS.iter().map(|name| signer(name)).collect::<Result<Vec<_>>>()?;
    let header = b"Received: from app ([127.0.0.1])\r\n\tby mta.bench.test with ESMTP\r\n\tid 0101;\r\n\tSat, 21 Nov 2026 12:00:00 +0000\r\n\
        From: <sender@load.bench.test>\r\nTo: <r1@one.bench.test>\r\nSubject: message 1\r\nDate: Sat, 21 Nov 2026 12:00:00 +0000\r\n\
        Message-ID: <1@load.bench.test>\r\n\r\n";
    let body = "0123456789abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 01234567\r\n".repeat(size / 74 + 1);
    let one = || {
        for _ in 0..SAMPLES {
            let mut hasher = BodyHasher::default();
            hasher.push(body.as_bytes());
            let signed = sign(&[header], hasher.finish(), Timestamp::from_millis(1_700_000_000_000), &signers);
            std::hint::black_box(signed).context(|| "signature".to_owned())?;
        }
        Ok(())
    };
    let threads = u32::try_from(thread::available_parallelism().map_or(1, usize::from)).unwrap_or(1);
    let before = usage::cpu_seconds_own();
    thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(one)).collect();
        running.into_iter().try_for_each(|thread| thread.join().map_err(|_| Failure::new("a signature panicked"))?)
    })?;
    Ok((usage::cpu_seconds_own() - before) * 1_000.0 / f64::from(SAMPLES * threads))
}

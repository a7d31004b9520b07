//! Signs messages, and makes their bodies portable before, beside the threads that serve sessions where that pays.
//!
//! An RSA signature takes a quarter of a millisecond, in which a session's thread would serve nobody else: such jobs run on
//! tokio's blocking threads, at most one a core; others wait their turn, each holding one message, as bounded as the sessions
//! are. A few Ed25519 signatures take less than handing them over twice: they are made at once.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Semaphore;

use crate::events::metric;
use crate::message::dkim::{self, Algorithm, BodyHash, BodyHasher, SignError, Signer};
use crate::message::mime::{Plan, Rewriter};
use crate::types::Timestamp;

/// A signature field is about so long; by RSA of 2048 bits.
const SIGNATURE_BYTES: usize = 1_024;
/// Ed25519 signatures that are made at once, on the session's thread.
const INLINE_SIGNATURES_MAX: usize = 8;
/// Bodies in the spool that are written anew at the same time, each with some 2.5 MiB of memory that is in no session's budget. More
/// wait their turn.
const REWRITES_MAX: usize = 16;
/// Bodies up to so many octets are hashed there: some 50 microseconds.
const INLINE_BODY_BYTES_MAX: usize = 64 * 1024;

/// One for the process.
#[derive(Debug)]
pub struct Signing {
    cores: Arc<Semaphore>,
    /// Bodies in the spool that are written anew.
    rewrites: Semaphore,
    /// Everything at once: a simulation must not depend on threads.
    is_inline: bool,
}

/// What is to be signed.
pub(super) struct Job {
    /// The header block as it will be sent, with its empty line.
    pub(super) header: Bytes,
    /// Fields that each recipient has for itself; empty: the header is the same for all.
    pub(super) own_fields: Vec<Bytes>,
    pub(super) body: JobBody,
    pub(super) at: Timestamp,
    pub(super) signers: Vec<Arc<Signer>>,
}

/// The body, or its hash.
pub(super) enum JobBody {
    Octets(Bytes),
    /// To be made portable first, by this plan; the header as it came.
    Rewrite {
        header: Bytes,
        body: Bytes,
        plan: Box<Plan>,
    },
    Hash(BodyHash),
    /// It began to arrive when there was no key at all: it goes out unsigned, as others did a moment ago.
    Unknown,
}

/// What goes in front of the header block.
pub(super) struct Signed {
    /// For all recipients.
    pub(super) prefix: Vec<u8>,
    /// For each recipient its own, in order; or none at all.
    pub(super) own: Vec<Bytes>,
    /// The body, where it was rewritten.
    pub(super) body: Option<Bytes>,
}

impl Signing {
    /// Signs on so many threads at once.
    pub fn new(cores: usize) -> Self {
        Self { cores: Arc::new(Semaphore::new(cores)), rewrites: Semaphore::new(REWRITES_MAX), is_inline: false }
    }

    /// Signs on the thread that asks.
    pub fn inline() -> Self {
        Self { is_inline: true, ..Self::new(1) }
    }

    /// Signs. Waits for a core where others have them all.
    pub(super) async fn sign(&self, job: Job) -> Result<Signed, SignError> {
        if self.is_inline || job.is_light() {
            return job.run();
        }
        let turn = Arc::clone(&self.cores).acquire_owned().await.expect("the semaphore is never closed");
        let signs = move || {
            // The core is taken until the work is done, whether somebody still waits for it or not.
            let _turn = turn;
            job.run()
        };
        match tokio::task::spawn_blocking(signs).await {
            Ok(signed) => signed,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }

    /// A turn at writing a body in the spool anew; to be held meanwhile.
    pub(super) async fn rewrite_turn(&self) -> impl Drop {
        self.rewrites.acquire().await.expect("the semaphore is never closed")
    }
}

impl Job {
    /// About how many octets the header blocks of single recipients will take: known before they are signed.
    pub(super) fn own_bytes(&self) -> usize {
        let fields: usize = self.own_fields.iter().map(Bytes::len).sum();
        fields + self.own_fields.len() * self.signers.len() * SIGNATURE_BYTES
    }

    fn is_light(&self) -> bool {
        let body_bytes = match &self.body {
            JobBody::Rewrite { body, .. } => body.len(),
            JobBody::Octets(octets) if !self.signers.is_empty() => octets.len(),
            JobBody::Octets(_) | JobBody::Hash(_) | JobBody::Unknown => 0,
        };
        let signatures = self.signers.len() * self.own_fields.len().max(1);
        body_bytes <= INLINE_BODY_BYTES_MAX
            && signatures <= INLINE_SIGNATURES_MAX
            && self.signers.iter().all(|signer| signer.key.algorithm() == Algorithm::Ed25519)
    }

    fn run(self) -> Result<Signed, SignError> {
        let rewritten = self.rewrite();
        if self.signers.is_empty() || matches!(self.body, JobBody::Unknown) {
            return Ok(Signed { prefix: Vec::new(), own: self.own_fields, body: rewritten });
        }
        let body = match (&self.body, &rewritten) {
            (JobBody::Hash(hash), _) => *hash,
            (JobBody::Octets(octets), _) => hash(octets),
            (_, rewritten) => hash(rewritten.as_deref().unwrap_or_default()),
        };
        let signed = if self.own_fields.is_empty() {
            let prefix = dkim::sign(&[&self.header], body, self.at, &self.signers)?;
            Signed { prefix, own: Vec::new(), body: rewritten }
        } else {
            let own = self.own_fields.iter().map(|fields| {
                let mut out = dkim::sign(&[fields, &self.header], body, self.at, &self.signers)?;
                out.extend_from_slice(fields);
                Ok(Bytes::from(out))
            });
            Signed { prefix: Vec::new(), own: own.collect::<Result<_, SignError>>()?, body: rewritten }
        };
        let count = u64::try_from(self.own_fields.len().max(1)).unwrap_or(u64::MAX);
        for signer in &self.signers {
            let algorithm = signer.key.algorithm().name();
            metrics::counter!(metric::DKIM_SIGNATURES, "algorithm" => algorithm).increment(count);
        }
        Ok(signed)
    }

    /// The body made portable, where that is to be done.
    fn rewrite(&self) -> Option<Bytes> {
        let JobBody::Rewrite { header, body, plan } = &self.body else { return None };
        let mut out = Vec::with_capacity(body.len() + body.len() / 2);
        let mut rewriter = Rewriter::new(header, plan);
        rewriter.push(body, &mut out);
        rewriter.finish(&mut out);
        Some(Bytes::from(out))
    }
}

fn hash(body: &[u8]) -> BodyHash {
    let mut hasher = BodyHasher::default();
    hasher.push(body);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::dkim::Key;
    use crate::types::Domain;

    #[test]
    fn what_the_blocks_of_recipients_will_take_is_known_before_they_are_signed() {
        let domain = |text| Domain::parse(text).unwrap();
        let signer = |name: &str| {
            let path = format!("{}/tests/data/dkim/{name}.pem", env!("CARGO_MANIFEST_DIR"));
            let key = Arc::new(Key::from_pem(&std::fs::read(path).unwrap()).unwrap());
            Arc::new(Signer { domain: domain("shop.test"), selector: domain("s1"), key })
        };
        let fields = Bytes::from_static(b"List-Unsubscribe: <https://u.test/x>\r\n");
        let job = Job {
            header: Bytes::from_static(b"From: a@shop.test\r\nTo: b@b.test\r\n\r\n"),
            own_fields: vec![fields; 3],
            body: JobBody::Octets(Bytes::from_static(b"x\r\n")),
            at: Timestamp::from_millis(1),
            signers: vec![signer("rsa2048"), signer("rsa2048")],
        };
        let estimate = job.own_bytes();
        let bytes: usize = job.run().unwrap().own.iter().map(Bytes::len).sum();
        assert!(bytes <= estimate && estimate < 2 * bytes, "{estimate} for {bytes}");
    }
}

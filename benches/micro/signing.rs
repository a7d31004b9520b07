//! What a signature costs: the hash of the body by its size, and each kind of key.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, Throughput};
use posthaste::message::dkim::{BodyHasher, Key, Signer, sign};
use posthaste::types::{Domain, Timestamp};

const HEADER: &[u8] = b"Received: from app.example.com (app.example.com [192.0.2.10])\r\n\tby mail.example.com with ESMTP\r\n\
    From: News <news@example.com>\r\nTo: Ann <ann@example.org>\r\nSubject: Spring is here\r\n\
    Date: Sat, 21 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@example.com>\r\nMIME-Version: 1.0\r\nContent-Type: text/plain\r\n\
    List-Unsubscribe: <https://example.com/u/1>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n\r\n";

fn body(bytes: usize) -> Vec<u8> {
    let line = b"A line of text as people write it, with some  blanks at its end. \t\r\n";
    line.iter().copied().cycle().take(bytes).collect()
}

fn hashed(body: &[u8]) -> BodyHasher {
    let mut hasher = BodyHasher::default();
    hasher.push(body);
    hasher
}

/// All of it.
pub(crate) fn signing(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("dkim");
    for bytes in [10_240, 1 << 20, 40 << 20] {
        let body = body(bytes);
        group.throughput(Throughput::Bytes(u64::try_from(bytes).unwrap_or(u64::MAX)));
        group.sample_size(if bytes > 1 << 20 { 10 } else { 50 });
        let id = BenchmarkId::new("body", bytes);
        group.bench_function(id, |bencher| bencher.iter(|| black_box(hashed(&body).finish())));
    }
    group.throughput(Throughput::Elements(1));
    group.sample_size(50);
    let body = body(10_240);
    for (name, pem) in [
        ("rsa2048", &include_bytes!("../../tests/data/dkim/rsa2048.pem")[..]),
        ("ed25519", include_bytes!("../../tests/data/dkim/ed25519.pem")),
    ] {
        let key = Arc::new(Key::from_pem(pem).expect("a key of the tests"));
        let domain = |text| Domain::parse(text).expect("a domain");
        let signer = |name| Arc::new(Signer { domain: domain(name), selector: domain("s1"), key: Arc::clone(&key) });
        let at = Timestamp::from_millis(1_700_000_000_000);
        let both = [signer("example.com"), signer("operator.example")];
        for (count, signers) in [("one", &both[..1]), ("two", &both[..])] {
            let id = BenchmarkId::new(name, count);
            group.bench_function(id, |bencher| {
                bencher.iter(|| black_box(sign(&[HEADER], hashed(&body).finish(), at, signers)));
            });
        }
    }
    group.finish();
}

//! Bodies made 7-bit: what the look at every message costs, and the rewriting of those that need it.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput};
use posthaste::message::mime::{EightBitBodies, Plan, Rewriter, Scanner};

/// Octets of a read.
const READ_BYTES: usize = 64 << 10;
const PLAIN: &[u8] = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n";
const MIXED: &[u8] = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=\"=_0123456789\"\r\n\r\n";

/// A scan of 10 KB and 1 MB that need nothing, as one part and as a multipart; a rewrite of 1 MB of German text.
pub(crate) fn bodies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("mime_scan_clean");
    for bytes in [10 << 10, 1 << 20] {
        let text = lines("All work and no play makes Jack a dull boy, and so on to the end of the line.", bytes);
        let parts = multipart(&text);
        group.throughput(Throughput::Bytes(u64::try_from(bytes).expect("a small number")));
        for (name, header, body) in [("plain", PLAIN, &text), ("multipart", MIXED, &parts)] {
            assert!(scan(header, body).is_clean());
            group.bench_function(BenchmarkId::new(name, bytes), |bencher| {
                bencher.iter(|| scan(header, black_box(body)))
            });
        }
    }
    group.finish();
    let text = lines("Die Größe des Übels läßt sich an den Füßen der Mäuse nicht immer prüfen, heißt es.", 1 << 20);
    let plan = scan(PLAIN, &text);
    assert!(!plan.is_clean());
    let mut group = criterion.benchmark_group("mime_8bit_text");
    group.throughput(Throughput::Bytes(u64::try_from(text.len()).expect("a small number")));
    group.bench_function("scan", |bencher| bencher.iter(|| scan(PLAIN, black_box(&text))));
    let mut out = Vec::with_capacity(2 * text.len());
    group.bench_function("rewrite", |bencher| {
        bencher.iter(|| {
            out.clear();
            let mut rewriter = Rewriter::new(PLAIN, &plan);
            text.chunks(READ_BYTES).for_each(|piece| rewriter.push(piece, &mut out));
            rewriter.finish(&mut out);
            out.len()
        });
    });
    group.finish();
}

fn scan(header: &[u8], body: &[u8]) -> Plan {
    let mut scanner = Scanner::new(header, EightBitBodies::Encode);
    body.chunks(READ_BYTES).for_each(|piece| scanner.push(piece));
    scanner.finish()
}

fn lines(line: &str, bytes: usize) -> Vec<u8> {
    format!("{line}\r\n").repeat(bytes / (line.len() + 2)).into_bytes()
}

/// Text, and an attachment of base64 lines.
fn multipart(text: &[u8]) -> Vec<u8> {
    let half = lines(&"QUJD".repeat(19), text.len() / 2);
    let (head, _) = text.split_at(text.len() - half.len());
    let head_end = head.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    [
        b"--=_0123456789\r\nContent-Type: text/plain\r\n\r\n".as_slice(),
        head.get(..head_end).unwrap_or_default(),
        b"--=_0123456789\r\nContent-Type: application/pdf\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        &half,
        b"--=_0123456789--\r\n",
    ]
    .concat()
}

//! What octets that leave the code under test must look like.

/// Octets of a line of a message, CRLF included (RFC 5322 §2.1.1).
pub(crate) const LINE_BYTES_MAX: usize = 1_000;

/// Panics where there is a NUL, or a CR or LF that is not part of a CRLF.
pub(crate) fn assert_clean(octets: &[u8]) {
    let mut before = 0;
    for (at, octet) in octets.iter().copied().enumerate() {
        assert_ne!(octet, 0, "NUL at {at}");
        assert_eq!(octet == b'\n', before == b'\r', "bare CR or LF at {at}");
        before = octet;
    }
    assert_ne!(before, b'\r', "bare CR at the end");
}

/// Panics where a line, its CRLF included, is longer than `limit`.
pub(crate) fn assert_short_lines(octets: &[u8], limit: usize) {
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        assert!(line.len() <= limit, "a line of {} octets: {:?}", line.len(), String::from_utf8_lossy(line));
    }
}

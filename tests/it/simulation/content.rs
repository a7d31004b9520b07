//! Messages as applications write them, and how a host knows that it got the whole of one.

/// Header, with these fields too, and body of a message; the body is `bytes` long at least.
pub(super) fn message(marker: &str, from: &str, fields: &str, bytes: usize) -> Vec<u8> {
    let header = format!("From: <{from}>\r\nSubject: {marker}\r\n{fields}X-Body: {bytes} {marker}\r\n\r\n");
    let mut octets = header.into_bytes();
    octets.extend_from_slice(&body(marker, bytes));
    octets
}

/// Lines that name their place; some begin with dots.
fn body(marker: &str, bytes: usize) -> Vec<u8> {
    let mut body = Vec::with_capacity(bytes + 80);
    let mut number = 0_usize;
    while body.len() < bytes {
        let dots = ["", ".", "", "..", ""][number % 5];
        body.extend_from_slice(format!("{dots}{marker} line {number}\r\n").as_bytes());
        number += 1;
        if number.is_multiple_of(7) {
            body.extend(std::iter::repeat_n(b'x', (bytes / 20).clamp(1, 900)));
            body.extend_from_slice(b"\r\n");
        }
    }
    body
}

/// As it goes over the wire between DATA and the final dot, without the latter.
pub(super) fn stuff(octets: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(octets.len() + octets.len() / 50);
    for line in octets.split_inclusive(|octet| *octet == b'\n') {
        if line.first() == Some(&b'.') {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}

/// Whether a host got the very body that its header block announces. `octets` are dot-stuffed, without the last CRLF.
pub(super) fn is_whole(octets: &[u8]) -> bool {
    let Some(announced) = header(octets, "X-Body") else { return false };
    let Some((bytes, marker)) = announced.split_once(' ') else { return false };
    let Ok(bytes) = bytes.parse() else { return false };
    let expected = stuff(&body(marker, bytes));
    let end = octets.windows(4).position(|window| window == b"\r\n\r\n");
    let got = end.map(|end| &octets[end + 4..]);
    got == expected.get(..expected.len() - 2)
}

/// The id in `Message-ID`, up to the `@`.
pub(super) fn message_id(octets: &[u8]) -> String {
    let id = header(octets, "Message-ID").unwrap_or_default();
    let id = id.trim_start_matches('<');
    id.split_once('@').map_or(id, |(id, _)| id).to_owned()
}

fn header(octets: &[u8], name: &str) -> Option<String> {
    for line in octets.split(|octet| *octet == b'\n').take_while(|line| *line != b"\r") {
        let line = String::from_utf8_lossy(line);
        if let Some((found, value)) = line.split_once(':')
            && found.eq_ignore_ascii_case(name)
        {
            return Some(value.trim().to_owned());
        }
    }
    None
}

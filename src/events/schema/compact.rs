//! The `mail` object cut down to what a Bounce or Complaint that comes days later has to show, and made whole again.
//!
//! What goes: the header fields (up to 10 KB), and the time and the id, which stand in the key of whatever keeps the rest. What stays
//! is copied octet for octet: source, destinations, common headers, tags. Where that is more than [`COMPACT_BYTES_MAX`], all
//! destinations go but the recipient's own that it is kept for; and where it is still too much, the common headers but for the return
//! path. Tags always stay, since they are what an application knows its messages by.
//!
//! Nothing is parsed. [`super::render_mail`] wrote the object, and it escapes each quote within a text: so a name of ours between a comma
//! and a colon is found by its octets, and the first such place is the member itself, since no name before it is foreign.

use std::io::Write;

use bytes::Bytes;
use memchr::memmem;

use crate::events::json::push_string;
use crate::types::MessageId;

/// Octets of the kept object but for its tags. Above: other destinations are left out, and then the common headers.
pub const COMPACT_BYTES_MAX: usize = 4_096;

const SOURCE: &[u8] = b"\"source\":";
const SOURCE_IP: &[u8] = b",\"sourceIp\":";
const CALLER: &[u8] = b",\"callerIdentity\":";
const DESTINATION: &[u8] = b",\"destination\":[";
const DESTINATION_END: &[u8] = b"],\"headersTruncated\":";
const COMMON: &[u8] = b",\"commonHeaders\":{";
const TAGS: &[u8] = b"},\"tags\":{";
/// What a kept object has to say of the headers.
const NO_HEADERS: &[u8] = b",\"headersTruncated\":true,\"headers\":[]";

/// The parts of a `mail` object that are kept; between them stand the names above.
struct Parts<'a> {
    /// Source, client and caller.
    from: &'a [u8],
    destinations: &'a [u8],
    common: &'a [u8],
    /// To the end of the object.
    tags: &'a [u8],
}

impl<'a> Parts<'a> {
    fn of(json: &'a [u8]) -> Option<Self> {
        let (_, from) = split(json, b",\"source\":")?;
        let (from, rest) = split(from, DESTINATION)?;
        let (destinations, rest) = split(rest, DESTINATION_END)?;
        let (_, rest) = split(rest, COMMON)?;
        let (common, tags) = split(rest, TAGS)?;
        Some(Self { from, destinations, common, tags })
    }

    fn len(&self) -> usize {
        self.from.len() + self.destinations.len() + self.common.len()
    }

    /// The envelope sender as it stands in the object, with its quotes.
    fn sender(&self) -> &'a [u8] {
        let end = split(self.from, SOURCE_IP).or_else(|| split(self.from, CALLER));
        end.map_or(b"\"\"", |(sender, _)| sender)
    }
}

/// What stands before and behind the first place of these octets.
fn split<'a>(text: &'a [u8], at: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let (before, rest) = text.split_at_checked(memmem::find(text, at)?)?;
    Some((before, rest.get(at.len()..)?))
}

/// Puts what is kept of a `mail` object for one of its recipients in place of what `out` holds. An object that is not one of ours is kept
/// as it is where it is short, and else not at all.
pub fn compact_mail(json: &[u8], recipient: &str, out: &mut Vec<u8>) {
    out.clear();
    let Some(parts) = Parts::of(json) else {
        return out.extend_from_slice(if json.len() <= COMPACT_BYTES_MAX { json } else { b"{}" });
    };
    out.extend_from_slice(SOURCE);
    out.extend_from_slice(parts.from);
    out.extend_from_slice(DESTINATION);
    if parts.len() <= COMPACT_BYTES_MAX {
        out.extend_from_slice(parts.destinations);
    } else {
        push_string(out, recipient);
    }
    out.push(b']');
    out.extend_from_slice(COMMON);
    if parts.len() - parts.destinations.len() + recipient.len() <= COMPACT_BYTES_MAX {
        out.extend_from_slice(parts.common);
    } else {
        out.extend_from_slice(b"\"returnPath\":");
        out.extend_from_slice(parts.sender());
    }
    out.extend_from_slice(TAGS);
    out.extend_from_slice(parts.tags);
}

/// The `mail` object of a message of which [`compact_mail`] kept this: valid in every event, without header fields.
pub fn whole_mail(id: MessageId, compact: &[u8]) -> Bytes {
    let Some((before, behind)) = split(compact, COMMON).filter(|_| compact.starts_with(SOURCE)) else {
        return Bytes::copy_from_slice(compact);
    };
    let mut out = Vec::with_capacity(compact.len() + 192);
    write!(out, "{{\"timestamp\":\"{}\",\"messageId\":\"{id}\",", id.accepted_at())
        .expect("writing to a Vec does not fail");
    out.extend_from_slice(before);
    out.extend_from_slice(NO_HEADERS);
    out.extend_from_slice(COMMON);
    out.extend_from_slice(behind);
    out.into()
}

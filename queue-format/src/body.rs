//! A body, or one part of a spooled one: the frame, then the octets as they are. No copy on reading.

use crate::error::{FormatError, RecordKind};
use crate::frame::{self, FRAME_BYTES};

/// A body record is this many bytes longer than its body.
pub const BODY_OVERHEAD_BYTES: usize = FRAME_BYTES;

/// Appends the record of `body`, which may be any octets.
pub fn encode_body(body: &[u8], out: &mut Vec<u8>) {
    out.reserve(FRAME_BYTES + body.len());
    frame::write(RecordKind::Body, out, |out| out.extend_from_slice(body));
}

/// The octets in a body record.
pub fn decode_body(bytes: &[u8]) -> Result<&[u8], FormatError> {
    frame::open(RecordKind::Body, bytes)
}

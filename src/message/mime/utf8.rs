//! Whether octets that come in pieces are UTF-8 (RFC 3629).

/// What was seen so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Utf8 {
    /// The start of a character whose rest has not come.
    held: [u8; 4],
    held_bytes: usize,
    is_invalid: bool,
}

impl Utf8 {
    pub(super) fn push(&mut self, piece: &[u8]) {
        let mut rest = piece;
        while let Some((byte, tail)) = rest.split_first().filter(|_| self.held_bytes > 0 && !self.is_invalid) {
            rest = tail;
            if let Some(place) = self.held.get_mut(self.held_bytes) {
                *place = *byte;
            }
            self.held_bytes += 1;
            let held = self.held.get(..self.held_bytes).unwrap_or_default();
            match std::str::from_utf8(held) {
                Ok(_) => self.held_bytes = 0,
                Err(error) => self.is_invalid = error.error_len().is_some() || self.held_bytes >= self.held.len(),
            }
        }
        if self.is_invalid || rest.is_ascii() {
            return;
        }
        if let Err(error) = std::str::from_utf8(rest) {
            let tail = rest.get(error.valid_up_to()..).unwrap_or_default();
            self.is_invalid = error.error_len().is_some();
            for (place, byte) in self.held.iter_mut().zip(tail) {
                *place = *byte;
            }
            self.held_bytes = tail.len().min(self.held.len());
        }
    }

    /// All characters so far were whole and right.
    pub(super) fn is_valid(&self) -> bool {
        !self.is_invalid && self.held_bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn pieces_are_judged_as_the_whole(
            text in "[a-zü€😀]{0,20}",
            noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
            step in 1_usize..5,
        ) {
            let mut octets = text.into_bytes();
            for (at, byte) in noise {
                let at = at.index(octets.len() + 1);
                octets.insert(at, byte);
            }
            let mut utf8 = Utf8::default();
            octets.chunks(step).for_each(|piece| utf8.push(piece));
            prop_assert_eq!(utf8.is_valid(), std::str::from_utf8(&octets).is_ok());
        }
    }
}

//! Blocks of `Name: value` fields: headers, and the groups of delivery-status and feedback-report parts (RFC 3464 §2.1).
//!
//! Promises: linear, bounded by the constants below; values are unfolded text, names in lower case. Tolerates what the wild has:
//! folds without white space, groups without an empty line between them, bare LF, raw octets above 127.

use super::decode;

/// Fields of a block. Above: the others are not read.
const FIELDS_MAX: usize = 500;
/// Octets of a value. Above: the rest is not read.
const VALUE_BYTES_MAX: usize = 8 << 10;
/// Octets of a name; no known one is near.
const NAME_BYTES_MAX: usize = 80;
/// Groups of a report, that of the message included. Above: the others are not read.
const GROUPS_MAX: usize = 1 + super::RECIPIENTS_MAX;

/// Fields in their order.
#[derive(Clone, Debug, Default)]
pub(super) struct Block(Vec<(String, String)>);

impl Block {
    /// The first field of this name, in lower case.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|field| field.0 == name).map(|field| field.1.as_str())
    }

    /// All of this name, in lower case.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |field| field.0 == name).map(|field| field.1.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// The first field of one of these names with its encoded words decoded, or nothing.
    pub(super) fn text(&self, name: &str) -> String {
        self.get(name).map(|value| decode::words(value).into_owned()).unwrap_or_default()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, name: &[u8], value: &[u8]) {
        if self.0.len() < FIELDS_MAX {
            let name = String::from_utf8_lossy(name).to_ascii_lowercase();
            self.0.push((name, bounded_text(value)));
        }
    }

    /// A line that belongs to the field before.
    fn fold(&mut self, line: &[u8]) {
        if let Some((_, value)) = self.0.last_mut()
            && value.len() < VALUE_BYTES_MAX
        {
            if !value.is_empty() {
                value.push(' ');
            }
            value.push_str(&bounded_text(line));
        }
    }
}

fn bounded_text(value: &[u8]) -> String {
    let value = value.get(..VALUE_BYTES_MAX).unwrap_or(value);
    decode::text(None, value.trim_ascii()).replace('\0', " ")
}

/// The fields of a header block.
pub(super) fn header(bytes: &[u8]) -> Block {
    let mut block = Block::default();
    for line in lines(bytes) {
        match field(line) {
            Some((name, value)) => block.push(name, value),
            None if line.first().is_some_and(u8::is_ascii_whitespace) => block.fold(line),
            None => {}
        }
    }
    block
}

/// The groups of a status part.
pub(super) fn groups(bytes: &[u8]) -> Vec<Block> {
    let mut groups = Vec::new();
    let mut group = Block::default();
    for line in lines(bytes) {
        if line.trim_ascii().is_empty() {
            if !group.is_empty() {
                groups.push(std::mem::take(&mut group));
            }
        } else if let Some((name, value)) = field(line) {
            if begins_another(&group, name) {
                groups.push(std::mem::take(&mut group));
            }
            group.push(name, value);
        } else {
            group.fold(line);
        }
        if groups.len() >= GROUPS_MAX {
            return groups;
        }
    }
    if !group.is_empty() {
        groups.push(group);
    }
    groups
}

/// A recipient begins, and the group has one.
fn begins_another(group: &Block, name: &[u8]) -> bool {
    let is_final = name.eq_ignore_ascii_case(b"Final-Recipient");
    let is_original = name.eq_ignore_ascii_case(b"Original-Recipient");
    is_final && group.has("final-recipient")
        || is_original && (group.has("original-recipient") || group.has("final-recipient") && group.has("status"))
}

/// Lines without their ends.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line))
}

fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let head = line.get(..NAME_BYTES_MAX.min(line.len()))?;
    let at = head.iter().position(|byte| *byte == b':')?;
    let (name, value) = line.split_at_checked(at)?;
    let name = name.trim_ascii_end();
    let is_name = !name.is_empty() && name.iter().all(|byte| (33..=126).contains(byte));
    is_name.then_some((name, value.get(1..)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_told_apart_even_without_an_empty_line() {
        let text = b"Reporting-MTA: dns; a\r\n\r\n\r\nFinal-Recipient: rfc822; b@c.test\r\nACTION : failed\r\nDiagnostic-Code: smtp;\r\n 550 no\r\nsuch user\r\nFinal-Recipient: rfc822; d@c.test\r\n";
        let groups = groups(text);
        assert_eq!(groups.len(), 3);
        assert_eq!(groups[1].get("action"), Some("failed"));
        assert_eq!(groups[1].get("diagnostic-code"), Some("smtp; 550 no such user"));
        assert_eq!(groups[2].get("final-recipient"), Some("rfc822; d@c.test"));
    }

    #[test]
    fn giants_are_cut() {
        let many = "A: b\n".repeat(10_000);
        assert_eq!(header(many.as_bytes()).iter().count(), FIELDS_MAX);
        let long = format!("A: {}\n {}\n", "x".repeat(100_000), "y".repeat(100_000));
        assert!(header(long.as_bytes()).get("a").unwrap().len() <= 2 * VALUE_BYTES_MAX);
        assert_eq!(super::groups("Final-Recipient: rfc822; a@b.test\n\n".repeat(10_000).as_bytes()).len(), GROUPS_MAX);
    }
}

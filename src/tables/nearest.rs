//! The known word that a misspelt one most likely stands for.

/// The closest of `known` by edit distance, if it is close enough to be a slip: a third of its letters, at least one.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let close_enough = |candidate: &str| (candidate.len() / 3).max(1);
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        .filter(|(distance, candidate)| *distance <= close_enough(candidate))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Least number of letters to insert, delete, replace, or swap with their neighbour (restricted Damerau-Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let from: Vec<char> = from.chars().take(WORD_CHARS_MAX).collect();
    let to: Vec<char> = to.chars().take(WORD_CHARS_MAX).collect();
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=to.len()).collect();
    for (row, letter) in from.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, other) in to.iter().enumerate() {
            let at = |line: &[usize], index: usize| line.get(index).copied().unwrap_or(usize::MAX / 2);
            let replaced = at(&last, column) + usize::from(letter != other);
            let mut best = replaced.min(at(&last, column + 1) + 1).min(at(&current, column) + 1);
            let swapped =
                row > 0 && column > 0 && from.get(row - 1) == Some(other) && to.get(column - 1) == Some(letter);
            if swapped {
                best = best.min(at(&before_last, column - 1) + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last.last().copied().unwrap_or_default()
}

/// Keys are shorter; what is longer is compared by its start, so that a hostile key costs little.
const WORD_CHARS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_word_and_other_words_find_none() {
        let known = ["port", "sources", "tls", "connections_max", "connections_per_site_max"];
        let check = |word: &str, expected: Option<&str>| assert_eq!(nearest(word, &known), expected, "{word}");
        check("prot", Some("port"));
        check("source", Some("sources"));
        check("max_connections", None);
        check("connection-max", Some("connections_max"));
        check("conections_per_site_max", Some("connections_per_site_max"));
        check("tsl", Some("tls"));
        check("banana", None);
        check("", None);
    }

    #[test]
    fn distance_counts_edits() {
        assert_eq!(distance("", ""), 0);
        assert_eq!(distance("abc", ""), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
    }
}

//! What is kept of a message, refused or repaired.

use proptest::prelude::*;

use crate::smtp::server::content::{Content, ContentLimits, Fault, Hygiene, LongLines};

const LIMITS: ContentLimits = ContentLimits {
    message_bytes_max: 20_000,
    header_bytes_max: 3_000,
    long_lines: LongLines::Encode,
    hygiene: Hygiene::Refuse,
};

#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<Vec<u8>, Fault>,
    header_bytes: Option<usize>,
}

fn run(input: &[u8], hygiene: Hygiene, step: usize) -> Outcome {
    run_within(input, ContentLimits { hygiene, ..LIMITS }, step)
}

fn run_within(input: &[u8], limits: ContentLimits, step: usize) -> Outcome {
    let mut content = Content::new(limits, 0);
    input.chunks(step).for_each(|chunk| content.push(chunk));
    match content.finish() {
        Some(fault) => Outcome { result: Err(fault), header_bytes: None },
        None => Outcome { header_bytes: content.header_bytes(), result: Ok(content.take_all()) },
    }
}

/// What came, what becomes of it where it is refused, and where it is repaired.
type Case = (&'static [u8], Result<&'static [u8], Fault>, &'static [u8]);

#[test]
fn bare_line_ends_and_nul_are_refused_or_repaired() {
    let table: [Case; 12] = [
        (b"a: b\r\n\r\nc\r\n", Ok(b"a: b\r\n\r\nc\r\n"), b"a: b\r\n\r\nc\r\n"),
        (b"a\nb\r\n", Err(Fault::BareLf), b"a\r\nb\r\n"),
        (b"a\rb\r\n", Err(Fault::BareCr), b"a\r\nb\r\n"),
        (b"a\n.\nb\r\n", Err(Fault::BareLf), b"a\r\n.\r\nb\r\n"),
        (b"a\r\n.\nb\r\n", Err(Fault::BareLf), b"a\r\n.\r\nb\r\n"),
        (b"a\n.\r\nb\r\n", Err(Fault::BareLf), b"a\r\n.\r\nb\r\n"),
        (b"a\r.\r\nb\r\n", Err(Fault::BareCr), b"a\r\n.\r\nb\r\n"),
        (b"a\r\r\nb\r\n", Err(Fault::BareCr), b"a\r\n\r\nb\r\n"),
        (b"a\0b\r\n", Err(Fault::Nul), b"ab\r\n"),
        (b"a\r\0\nb\r\n", Err(Fault::BareCr), b"a\r\nb\r\n"),
        (b"a\r", Err(Fault::BareCr), b"a\r\n"),
        (b"a\n\r\n", Err(Fault::BareLf), b"a\r\n\r\n"),
    ];
    for (input, refused, repaired) in table {
        for step in [1, 2, 3, 100] {
            let refused = refused.clone().map(<[u8]>::to_vec);
            assert_eq!(run(input, Hygiene::Refuse, step).result, refused, "{input:?} by {step}");
            assert_eq!(run(input, Hygiene::Repair, step).result, Ok(repaired.to_vec()), "{input:?} by {step}");
        }
    }
}

#[test]
fn the_header_block_ends_with_the_first_empty_line() {
    let header = |input: &[u8]| run(input, Hygiene::Repair, 4).header_bytes;
    assert_eq!(header(b"a: b\r\n\r\nc\r\n\r\n"), Some(8));
    assert_eq!(header(b"\r\nc\r\n"), Some(2));
    assert_eq!(header(b"a: b\n\nc\n"), Some(8));
    assert_eq!(header(b"a: b\r\n"), None);
    assert_eq!(header(b""), None);
}

#[test]
fn a_message_without_a_line_end_at_its_end_gets_one() {
    assert_eq!(run(b"a: b\r\n\r\nc", Hygiene::Refuse, 3).result, Ok(b"a: b\r\n\r\nc\r\n".to_vec()));
}

#[test]
fn eight_bit_octets_are_kept_as_they_came() {
    for input in ["a: b\r\n\r\nc\r\n", "a: ü\r\n\r\nc\r\n", "a: b\r\n\r\nü\r\n", "ü: b\r\n\r\nü\r\n"] {
        for step in [1, 1_000] {
            assert_eq!(run(input.as_bytes(), Hygiene::Refuse, step).result, Ok(input.as_bytes().to_vec()));
        }
    }
}

#[test]
fn long_lines_are_taken_or_refused() {
    let refuse = ContentLimits { long_lines: LongLines::Refuse, ..LIMITS };
    let fits = format!("s: {}\r\n\r\n{}\r\n", "x".repeat(995), "y".repeat(998));
    let long_body = format!("\r\n{}\r\n", "y".repeat(999));
    let long_header = format!("s: {}\r\n\r\n", "x".repeat(996));
    for step in [1, 7, 10_000] {
        let taken = run_within(fits.as_bytes(), refuse, step);
        assert_eq!(taken.result, Ok(fits.clone().into_bytes()));
        for long in [&long_body, &long_header] {
            let taken = run(long.as_bytes(), Hygiene::Refuse, step);
            assert_eq!(taken.result, Ok(long.clone().into_bytes()));
            for hygiene in [Hygiene::Refuse, Hygiene::Repair] {
                let refused = run_within(long.as_bytes(), ContentLimits { hygiene, ..refuse }, step);
                assert_eq!(refused.result, Err(Fault::LineTooLong));
            }
        }
    }
}

#[test]
fn repair_folds_long_lines_of_the_header_and_leaves_those_of_the_body() {
    let check = |input: String, expected: String| {
        for step in [1, 10, 10_000] {
            let repaired = run(input.as_bytes(), Hygiene::Repair, step).result.unwrap();
            assert_eq!(String::from_utf8_lossy(&repaired), expected, "{step}");
        }
    };
    let y = |count| "y".repeat(count);
    check(format!("\r\n{}\r\n", y(2_000)), format!("\r\n{}\r\n", y(2_000)));
    check(format!("s: {} {}\r\n\r\n", y(600), y(600)), format!("s: {}\r\n {}\r\n\r\n", y(600), y(600)));
    check(format!("s: {}\r\n\r\n", y(1_200)), format!("s: {}\r\n {}\r\n\r\n", y(995), y(205)));
}

#[test]
fn a_header_line_without_an_end_is_no_way_around_the_limit_of_the_header() {
    for step in [1, 100, 10_000] {
        for hygiene in [Hygiene::Refuse, Hygiene::Repair] {
            let endless = "x".repeat(10_000);
            assert_eq!(run(endless.as_bytes(), hygiene, step).result, Err(Fault::HeaderTooLong));
        }
    }
}

#[test]
fn sizes_are_limited_and_counted_to_the_end() {
    let long_header = "a: b\r\n".repeat(501);
    assert_eq!(run(long_header.as_bytes(), Hygiene::Refuse, 50).result, Err(Fault::HeaderTooLong));
    let exact = format!("\r\n{}", "1234567\r\n".repeat(2_221));
    assert_eq!(exact.len(), 19_991);
    assert!(run(exact.as_bytes(), Hygiene::Refuse, 50).result.is_ok());
    let long = format!("{exact}\n{}", "\r\n".repeat(5));
    assert_eq!(run(long.as_bytes(), Hygiene::Refuse, 50).result, Err(Fault::TooLong));
}

#[test]
fn parts_can_be_taken_while_the_rest_arrives() {
    let mut content = Content::new(LIMITS, 0);
    content.push(b"a: b\r\n\r\nbody");
    content.replace_header(b"x: y\r\na: b\r\n\r\n");
    assert_eq!(content.kept(), b"x: y\r\na: b\r\n\r\nbody");
    assert_eq!(content.take_front(16), b"x: y\r\na: b\r\n\r\nbo");
    content.push(b" goes on\r\n\r\n");
    assert_eq!(content.finish(), None);
    assert_eq!(content.take_all(), b"dy goes on\r\n\r\n");
}

proptest! {
    #[test]
    fn any_chunking_gives_the_same_clean_content(
        input in proptest::collection::vec(
            prop_oneof![
                Just(b"\r".to_vec()), Just(b"\n".to_vec()), Just(b"\r\n".to_vec()), Just(b"\0".to_vec()),
                Just(b".".to_vec()), Just(b" x".to_vec()), Just("ü€".as_bytes().to_vec()),
                (1_usize..1_500).prop_map(|count| vec![b'a'; count]),
            ],
            0..60,
        ),
        step in 1_usize..40,
    ) {
        let input = input.concat();
        let choices = [(Hygiene::Refuse, LongLines::Encode), (Hygiene::Repair, LongLines::Encode), (Hygiene::Repair, LongLines::Refuse)];
        for (hygiene, long_lines) in choices {
            let limits = ContentLimits { hygiene, long_lines, ..LIMITS };
            let whole = run_within(&input, limits, input.len().max(1));
            prop_assert_eq!(&whole, &run_within(&input, limits, step));
            if let Ok(kept) = whole.result {
                let text = String::from_utf8_lossy(&kept).replace("\r\n", "");
                prop_assert!(!text.contains(['\r', '\n', '\0']));
                let body_at = if hygiene == Hygiene::Repair { whole.header_bytes.unwrap_or(kept.len()) } else { 0 };
                let is_long = |octets: &[u8]| octets.split(|byte| *byte == b'\n').any(|line| line.len() > 999);
                prop_assert!(!is_long(&kept[..body_at]));
                prop_assert!(kept.is_empty() || kept.ends_with(b"\r\n"));
            }
        }
    }
}

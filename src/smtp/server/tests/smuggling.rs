//! Spellings of an end of data that some server takes for one (CVE-2023-51764, 51765, 51766). None may end a message.

use super::driver::{Driver, LIMITS};
use crate::smtp::server::{Hygiene, TlsState};

const ENDS: &[&[u8]] = &[
    b"\n.\n",
    b"\n.\r\n",
    b"\r\n.\n",
    b"\r.\r",
    b"\r.\r\n",
    b"\r\n.\r",
    b"\r\r\n.\r\r\n",
    b"\n.\r",
    b"\r.\n",
    b"\r\n\0.\r\n",
    b"\r\n.\0\r\n",
    b"\0\r\n.\n",
    b"\n\n.\r\n",
    b"\r\n.\n\r\n",
    b"\r\n. \r\n",
    b"\r\n\xe2\x80\x8b.\r\n",
];

const EVIL: &[u8] = b"MAIL FROM:<evil@a.test>\r\nRCPT TO:<victim@b.test>\r\nDATA\r\nevil: yes\r\n\r\n";

fn smuggle(end: &[u8], hygiene: Hygiene, step: usize) -> (String, Driver) {
    let mut limits = LIMITS;
    limits.content.hygiene = hygiene;
    let mut driver = Driver::new(limits, TlsState::Unavailable);
    driver.send(b"EHLO c.test\r\nMAIL FROM:<a@a.test>\r\nRCPT TO:<b@b.test>\r\nDATA\r\n");
    let data = [b"subject: x\r\n\r\nbody", end, EVIL, b"\r\n.\r\nNOOP\r\n"].concat();
    let replies = data.chunks(step).map(|chunk| driver.send(chunk)).collect();
    (replies, driver)
}

#[test]
fn no_odd_line_end_splits_a_message() {
    for end in ENDS {
        for step in [1, 2, 3, 4_096] {
            for hygiene in [Hygiene::Refuse, Hygiene::Repair] {
                let (replies, driver) = smuggle(end, hygiene, step);
                let lines = replies.lines().filter(|line| !line.starts_with('[')).count();
                assert_eq!(lines, 2, "{end:?} {hygiene:?} {step}: {replies}");
                assert!(replies.ends_with("250 2.0.0 Ok\r\n"), "{replies}");
                assert!(driver.taken.len() <= 1);
            }
        }
    }
}

#[test]
fn what_is_kept_has_no_odd_line_end() {
    for end in ENDS {
        let (replies, driver) = smuggle(end, Hygiene::Repair, 5);
        let taken = driver.taken.last().unwrap_or_else(|| panic!("{end:?}: {replies}"));
        let text = String::from_utf8_lossy(&taken.content).replace("\r\n", "|");
        assert!(!text.contains(['\r', '\n', '\0']), "{end:?}: {text}");
        assert!(text.contains("evil: yes"), "{end:?}: {text}");
    }
}

#[test]
fn bare_line_ends_and_nul_are_refused_with_5_6_11() {
    for end in ENDS.iter().filter(|end| !end.ends_with(b". \r\n") && !end.contains(&0xe2)) {
        let (replies, driver) = smuggle(end, Hygiene::Refuse, 4_096);
        assert!(driver.taken.is_empty(), "{end:?}");
        assert!(replies.starts_with("550 5.6.11 "), "{end:?}: {replies}");
    }
}

//! What must hold for any octets and any order of commands.

use proptest::prelude::*;

use super::driver::{Driver, LIMITS, Taken};
use crate::smtp::server::machine::State;
use crate::smtp::server::{Hygiene, Limits, LoginOffer, TlsState};

/// Enough for random sessions not to end early.
fn patient(hygiene: Hygiene) -> Limits {
    let mut limits = Limits { errors_max: 50, transactions_max: 50, idle_commands_max: 50, ..LIMITS };
    limits.content.hygiene = hygiene;
    limits
}

const PIECES: &[&str] = &[
    "EHLO c.test\r\n",
    "HELO c.test\r\n",
    "MAIL FROM:<a@a.test>\r\n",
    "MAIL FROM:<> BODY=8BITMIME SIZE=9\r\n",
    "MAIL FROM:<a@a.test> SIZE=9999999\r\n",
    "RCPT TO:<b@b.test>\r\n",
    "RCPT TO:<c@b.test> NOTIFY=NEVER\r\n",
    "RCPT TO:c\r\n",
    "DATA\r\n",
    "subject: x\r\n\r\n..body\r\n.\r\n",
    "\r\n.\r\n",
    "BDAT 4\r\nab\r\n",
    "BDAT 4 LAST\r\nab\r\n",
    "BDAT 0 LAST\r\n",
    "BDAT 7\r\n",
    "RSET\r\n",
    "NOOP\r\n",
    "STARTTLS\r\n",
    "AUTH PLAIN\r\n",
    "AUTH LOGIN\r\n",
    "AUTH PLAIN AGFwcAByaWdodA==\r\n",
    "AUTH LOGIN YXBw\r\n",
    "cmlnaHQ=\r\n",
    "AGFwcAB3cm9uZw==\r\n",
    "*\r\n",
    "VRFY x\r\n",
    "FOO\r\n",
    "a\nb\rc\0\r\n",
    "QUIT\r\n",
];

fn session(input: &[u8], hygiene: Hygiene, step: usize) -> (String, Vec<Taken>) {
    // STARTTLS is not offered: what stands behind it depends on the reads by nature.
    let mut driver = Driver::with_login(patient(hygiene), TlsState::Unavailable, LoginOffer::Always);
    let replies = input.chunks(step).map(|chunk| driver.send(chunk)).collect();
    (replies, driver.taken)
}

/// The order in which replies to a correct session may come, judged from outside.
fn check_order(pieces: &[&str]) {
    let mut driver = Driver::with_login(patient(Hygiene::Refuse), TlsState::Unavailable, LoginOffer::Always);
    let (mut greeted, mut sender, mut recipients) = (false, false, 0_usize);
    driver.replies();
    for piece in pieces {
        let in_data = driver.machine.is_in_data();
        let in_exchange = matches!(driver.machine.state, State::Exchange(_));
        let taken = driver.taken.len();
        let replies = driver.send(piece.as_bytes());
        if driver.taken.len() > taken {
            assert!(greeted && sender && recipients > 0, "{pieces:?}");
        }
        if replies.contains("354 ") {
            assert!(greeted && sender && recipients > 0 && !in_data, "{pieces:?}");
        }
        assert_eq!(driver.machine.is_logged_in, driver.logins > 0, "{pieces:?}");
        assert_eq!(driver.machine.protocol(true).ends_with('A'), driver.logins > 0, "{pieces:?}");
        assert!(!(in_data && replies.contains("[login")), "{pieces:?}");
        let ok = replies.starts_with("250");
        match *piece {
            _ if in_data || in_exchange => {}
            piece if piece.starts_with("EHLO") || piece.starts_with("HELO") => {
                (greeted, sender, recipients) = (true, false, 0);
            }
            piece if piece.starts_with("MAIL") && ok => {
                assert!(greeted && !sender, "{pieces:?}");
                (sender, recipients) = (true, 0);
            }
            piece if piece.starts_with("RCPT") && ok => recipients += 1,
            piece if piece.starts_with("RSET") => (sender, recipients) = (false, 0),
            _ => {}
        }
        let over = replies.contains("[abandoned]") || driver.taken.len() > taken;
        if over && !driver.machine.is_in_data() {
            (sender, recipients) = (false, 0);
        }
    }
}

proptest! {
    #[test]
    fn any_chunking_of_the_same_octets_gives_the_same_actions(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..30),
        step in 1_usize..50,
    ) {
        let input = format!("EHLO c.test\r\n{}", pieces.concat());
        for hygiene in [Hygiene::Refuse, Hygiene::Repair] {
            let whole = session(input.as_bytes(), hygiene, input.len());
            prop_assert_eq!(&whole, &session(input.as_bytes(), hygiene, step));
        }
    }

    #[test]
    fn random_octets_never_panic_and_are_never_accepted(input in proptest::collection::vec(any::<u8>(), 0..3_000)) {
        let (replies, taken) = session(&input, Hygiene::Repair, 1_000);
        prop_assert!(taken.is_empty());
        prop_assert!(replies.is_ascii());
    }

    #[test]
    fn nothing_is_accepted_out_of_order(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..12),
    ) {
        check_order(&pieces);
    }
}

#[test]
fn all_sequences_of_three_commands_keep_the_order() {
    for first in PIECES {
        for second in PIECES {
            for third in PIECES {
                check_order(&["EHLO c.test\r\n", first, second, third]);
                check_order(&[
                    "EHLO c.test\r\n",
                    "MAIL FROM:<a@a.test>\r\n",
                    "RCPT TO:<b@b.test>\r\n",
                    first,
                    second,
                    third,
                ]);
            }
        }
    }
}

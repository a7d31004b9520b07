//! What each mailbox does, by the first word of its local part; `+label` may follow.

/// An answer to RCPT: code, enhanced status and text.
pub(super) type Answer = (u16, &'static str, &'static str);

/// Decides on a recipient that is asked for the `visit`th time.
///
/// | mailbox | does |
/// |---|---|
/// | `bounce` | 550 5.1.1: no such user |
/// | `full` | 552 5.2.2: mailbox full, for good |
/// | `greylist` | 450 4.7.1 at the first visit, then takes the message |
/// | `blocked` | 554 5.7.1: policy |
/// | `unavailable` | 451 4.3.0 always |
/// | any other | takes the message |
pub(super) fn answer(local_part: &str, visit: u32) -> Answer {
    let name = local_part.split(['+', '-']).next().unwrap_or_default().to_ascii_lowercase();
    match name.as_str() {
        "bounce" => (550, "5.1.1", "User unknown; there is no mailbox of that name here"),
        "full" => (552, "5.2.2", "Mailbox full"),
        "greylist" if visit == 1 => (450, "4.7.1", "Greylisted, please try again in a moment"),
        "blocked" => (554, "5.7.1", "Message refused by policy"),
        "unavailable" => (451, "4.3.0", "Mailbox store is down, try again later"),
        _ => (250, "2.1.5", "Ok"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mailboxes_do_what_their_names_say() {
        let code = |local_part, visit| answer(local_part, visit).0;
        assert_eq!([code("bounce", 1), code("BOUNCE+x", 2), code("full", 1), code("success", 1)], [550, 550, 552, 250]);
        assert_eq!([code("greylist+a", 1), code("greylist+a", 2), code("unavailable", 9)], [450, 250, 451]);
    }
}

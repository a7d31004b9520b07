//! Runs `dialogues/*.txt`. `C: line` is sent with CRLF, `C> text` as it stands (escapes `\r \n \0 \\`, and `*N` at the
//! end repeats it N times); consecutive client lines go in one piece. `S: line` is what must come, `[close]`,
//! `[abandoned]`, `[tls]` and `[login MECHANISM user secret]` are steps. `! option` sets up the session; `#` begins a comment. `M: text` is the content
//! of the message taken over last, with the escapes.

use super::driver::{Driver, LIMITS};
use crate::smtp::server::{Farewell, Hygiene, LoginOffer, TlsState};

const DIALOGUES: &[(&str, &str)] = &[
    ("basics", include_str!("dialogues/basics.txt")),
    ("pipelining", include_str!("dialogues/pipelining.txt")),
    ("order", include_str!("dialogues/order.txt")),
    ("parameters", include_str!("dialogues/parameters.txt")),
    ("addresses", include_str!("dialogues/addresses.txt")),
    ("bdat", include_str!("dialogues/bdat.txt")),
    ("bdat-close", include_str!("dialogues/bdat-close.txt")),
    ("starttls", include_str!("dialogues/starttls.txt")),
    ("starttls-injection", include_str!("dialogues/starttls-injection.txt")),
    ("auth", include_str!("dialogues/auth.txt")),
    ("auth-lines", include_str!("dialogues/auth-lines.txt")),
    ("auth-failures", include_str!("dialogues/auth-failures.txt")),
    ("auth-tls", include_str!("dialogues/auth-tls.txt")),
    ("auth-never", include_str!("dialogues/auth-never.txt")),
    ("client-phpmailer", include_str!("dialogues/client-phpmailer.txt")),
    ("client-jakarta-mail", include_str!("dialogues/client-jakarta-mail.txt")),
    ("limits", include_str!("dialogues/limits.txt")),
    ("recipients", include_str!("dialogues/recipients.txt")),
    ("errors", include_str!("dialogues/errors.txt")),
    ("idle", include_str!("dialogues/idle.txt")),
    ("transactions", include_str!("dialogues/transactions.txt")),
    ("gate", include_str!("dialogues/gate.txt")),
    ("denied", include_str!("dialogues/denied.txt")),
    ("http", include_str!("dialogues/http.txt")),
    ("repair", include_str!("dialogues/repair.txt")),
    ("timeout", include_str!("dialogues/timeout.txt")),
    ("shutdown", include_str!("dialogues/shutdown.txt")),
];

#[test]
fn every_dialogue_goes_as_written() {
    for (name, script) in DIALOGUES {
        // Whole, and octet by octet: the replies may not depend on it. Injection depends on it by nature.
        play(name, script, usize::MAX);
        if !script.contains("! whole") {
            play(name, script, 1);
        }
    }
}

fn play(name: &str, script: &str, step: usize) {
    let mut driver = set_up(script);
    let mut received = driver.replies();
    let mut to_send = Vec::new();
    for (number, line) in script.lines().enumerate() {
        let place = format!("{name}.txt:{} by {step}", number + 1);
        match line.split_at_checked(3) {
            Some(("C: ", text)) => to_send.extend_from_slice(&[text.as_bytes(), b"\r\n"].concat()),
            Some(("C> ", text)) => to_send.extend(unescape(text)),
            Some(("S: ", text)) => {
                received += &flush(&mut driver, &mut to_send, step);
                let (first, rest) = received.split_once("\r\n").unwrap_or_else(|| panic!("{place}: no reply"));
                assert_eq!(first, text, "{place}");
                received = rest.to_owned();
            }
            Some(("M: ", text)) => {
                let taken = driver.taken.pop().unwrap_or_else(|| panic!("{place}: no message"));
                let content = String::from_utf8_lossy(&taken.content).into_owned();
                assert_eq!(content.as_bytes(), unescape(text), "{place}");
            }
            _ if line == "! timeout" => driver.machine.farewell(Farewell::Timeout),
            _ if line == "! shutdown" => driver.machine.farewell(Farewell::Shutdown),
            _ => assert!(line.is_empty() || line.starts_with(['#', '!']), "{place}: {line}"),
        }
    }
    received += &flush(&mut driver, &mut to_send, step);
    assert_eq!(received, "", "{name}.txt: more than expected");
    assert!(driver.taken.is_empty(), "{name}.txt: a message that the script does not name");
}

fn set_up(script: &str) -> Driver {
    let mut limits = LIMITS;
    if script.contains("! repair") {
        limits.content.hygiene = Hygiene::Repair;
    }
    if script.contains("! patient") {
        limits.errors_max = 1_000;
        limits.idle_commands_max = 1_000;
        limits.transactions_max = 1_000;
    }
    let tls = if script.contains("! tls") { TlsState::Offered } else { TlsState::Unavailable };
    let offer = match () {
        () if script.contains("! auth always") => LoginOffer::Always,
        () if script.contains("! auth tls") => LoginOffer::UnderTls,
        () => LoginOffer::Never,
    };
    let mut driver = Driver::with_login(limits, tls, offer);
    driver.denied = script.contains("! denied");
    if script.contains("! gate") {
        driver.machine.gate_recipients();
    }
    driver
}

fn flush(driver: &mut Driver, to_send: &mut Vec<u8>, step: usize) -> String {
    let sent = std::mem::take(to_send);
    if sent.is_empty() {
        return driver.send(b"");
    }
    sent.chunks(step).map(|chunk| driver.send(chunk)).collect()
}

fn unescape(text: &str) -> Vec<u8> {
    let (text, count) = match text.rsplit_once('*') {
        Some((text, count)) if count.parse::<usize>().is_ok() => (text, count.parse().unwrap()),
        _ => (text, 1),
    };
    let text = text.replace("\\r", "\r").replace("\\n", "\n").replace("\\0", "\0");
    text.repeat(count).into_bytes()
}

//! Keys of logins: where AUTH is offered, hashes, the audit stream.

use super::rejection_test::{refused, taken, warned};
use crate::reception::settings::ListenerAuth;

/// A hash with these parameters; that it is of nothing, nobody sees.
fn credential(memory_kib: u32, passes: u32) -> String {
    format!(
        "[[credential]]\nuser = \"app\"\ntenant = \"local\"\n\
         secrets = [\"$argon2id$v=19$m={memory_kib},t={passes},p=1$c29tZXNhbHQ$bm90IGEgcmVhbCBoYXNoIGF0IGFsbCwgbm8gbm8gbm8\"]\n"
    )
}

#[test]
fn passwords_in_clear_are_taken_on_loopback_addresses_only() {
    let parse = |address: &str, auth: &str| {
        let text =
            format!("hostname = \"a.test\"\n[[listener]]\nname = \"a\"\naddress = \"{address}\"\nauth = \"{auth}\"\n");
        super::Config::parse(&text, "c.toml")
            .map(|config| config.listeners[0].auth)
            .map_err(|errors| errors.to_string())
    };
    for (word, auth) in [("tls", ListenerAuth::Tls), ("clear", ListenerAuth::Clear), ("never", ListenerAuth::Never)] {
        assert_eq!(parse("127.0.0.1:25", word), Ok(auth));
        assert_eq!(parse("[::1]:25", word), Ok(auth));
    }
    assert_eq!(parse("0.0.0.0:25", "tls"), Ok(ListenerAuth::Tls));
    for address in ["0.0.0.0:25", "[::]:25", "192.0.2.1:25", "[2001:db8::1]:25"] {
        let error = "c.toml:5:8: listener.auth: sends passwords in clear over a network; \
                     write auth = \"tls\", or a loopback address";
        assert_eq!(parse(address, "clear"), Err(error.to_owned()), "{address}");
    }
}

#[test]
fn hashes_that_are_too_weak_are_warned_of_and_too_costly_ones_refused() {
    warned(&credential(19_456, 2), &[]);
    let weak = "c.toml:6:11: credential.secrets: a hash is faster to guess than OWASP's minimum; \
                make one with `posthaste credential hash`";
    warned(&credential(64, 1), &[weak]);
    let costly = "c.toml:6:12: credential.secrets: a hash asks for more than 256 MiB, 16 passes or 8 lanes; \
                  make one with `posthaste credential hash`";
    refused(&credential(4_000_000, 2), &[costly]);
}

#[test]
fn the_audit_stream_has_a_name_of_its_own() {
    let clash = "c.toml:4:8: audit.name: \"events\" is the name of an event file; give the audit stream its own name";
    refused("[audit]\nname = \"events\"\n", &[clash]);
    assert!(!taken("[audit]\nenabled = false\nname = \"events\"\n").audit.enabled);
    assert!(taken("").audit.enabled);
}

//! Scenario 20 with a host that greylists as most do: by address, sender and recipient. `peers/greylist` shows it with postgrey.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::{A, B, C, FROM, config_with, source, source_name};
use crate::harness::*;

const RECIPIENTS: usize = 40;
/// How long the host wants to be waited for.
const DELAY: Duration = Duration::from_millis(500);

/// Takes a recipient from an address that asked for it some time ago.
fn greylisting(lab: &Lab) -> Mx {
    lab.domain("example.test", &[2]);
    let mut first: HashMap<(IpAddr, String), Instant> = HashMap::new();
    lab.mx_scripted(2, move |ask| match ask.stage {
        Stage::Rcpt => {
            let asked_at = *first.entry((ask.peer.ip(), ask.recipient.to_owned())).or_insert_with(now);
            let is_late = asked_at.elapsed() >= DELAY;
            if is_late { Answer::Usual } else { Answer::say("450 4.2.0 Greylisted, come again later") }
        }
        _ => Answer::Usual,
    })
}

fn send_all(lab: &Lab, daemon: &Daemon) {
    let mut client = lab.client(daemon);
    for number in 0..RECIPIENTS {
        client.send_simple(FROM, &[&format!("r{number}@example.test")], "greylisted");
    }
}

#[test]
fn greylisted_mail_comes_again_from_where_it_came() {
    let lab = Lab::new();
    let mx = greylisting(&lab);
    let daemon = lab.daemon_with(config_with(&lab, &[A, B, C]).set("retry.steps", "[\"1s\"]"));
    send_all(&lab, &daemon);
    let all = mx.wait_accepted(RECIPIENTS);
    daemon.wait_empty();
    for number in 0..RECIPIENTS {
        // From another source the second time would have been a first time again.
        assert_eq!(mx.asked(&format!("r{number}@example.test")), 2);
    }
    let sources: BTreeMap<IpAddr, usize> = super::by_source(&all);
    assert_eq!(sources.len(), 3, "all three are used: {sources:?}");
}

#[test]
fn greylisted_mail_of_a_source_that_a_reload_takes_away_goes_by_another() {
    let lab = Lab::new();
    let mx = greylisting(&lab);
    let config = config_with(&lab, &[A, B]).set("retry.steps", "[\"10m\"]");
    let mut daemon = lab.daemon_with(config);
    send_all(&lab, &daemon);
    for number in 0..RECIPIENTS {
        mx.wait_asked(&format!("r{number}@example.test"), 1);
    }
    daemon.wait_queue("not all are greylisted", |queue| queue.iter().all(|message| message["state"] == "deferred"));
    daemon.reload(|config| config.without_tables("source").table(&source(&lab, B)));
    let connections = mx.peers().len();
    // An operator need not wait ten minutes.
    let look = || {
        daemon.signal(Signal::USR2);
        daemon.queue().is_empty().then_some(())
    };
    poll(look, || format!("{:#?}", daemon.queue()));
    let all = mx.wait_accepted(RECIPIENTS);
    let later = &mx.peers()[connections..];
    assert!(later.iter().all(|peer| *peer == lab.ip(B)), "{} is gone: {later:?}", source_name(A));
    assert!(all.iter().all(|one| one.peer.ip() == lab.ip(B)));
}

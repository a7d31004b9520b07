//! What was answered 250 is kept: across SIGKILL, in the order of system calls, and while the disk is nearly full.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use crate::harness::*;

/// Rounds of the crash test, unless POSTHASTE_CRASH_ROUNDS says otherwise.
const CRASH_ROUNDS: u64 = 5;

#[test]
fn killed_at_random_points_under_load_nothing_accepted_is_lost_and_doubles_are_marked() {
    let rounds = std::env::var("POSTHASTE_CRASH_ROUNDS").map_or(CRASH_ROUNDS, |rounds| rounds.parse().unwrap());
    let lab = Lab::new();
    let hosts = lab.one_and_two_greylisting();
    let mut daemon = lab.daemon();
    let mut accepted = BTreeMap::new();
    for round in 0..rounds {
        let load = Load::start(daemon.smtp_addr(), 4, &["one.test", "two.test"]);
        load.wait_accepted(kill_after(round));
        daemon.kill();
        accepted.extend(load.join().accepted);
        daemon.start_again();
    }
    assert_all_ends_well(&daemon, &accepted, &hosts);
}

/// From 10 to 200 messages, another number each round and each run.
fn kill_after(round: u64) -> usize {
    let hash = rand::random::<u64>() ^ round;
    10 + usize::try_from(hash % 191).unwrap()
}

#[test]
fn a_delivery_that_a_kill_cut_off_after_the_final_dot_is_repeated_and_marked() {
    let lab = Lab::new();
    let gate = Watched::new(false);
    let shut = gate.clone();
    let mx = lab.mx_scripted(2, move |ask| {
        let holds = ask.stage == Stage::Dot && ask.connection == 1;
        if holds { Answer::Hold(shut.clone(), Box::new(Answer::Usual)) } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "cut");
    mx.wait_transactions(1);
    daemon.kill();
    gate.change(|open| *open = true);
    daemon.start_again();
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["ambiguous"], true, "{delivery:#}");
    assert_eq!(mx.accepted().len(), 2);
    daemon.wait_empty();
}

#[test]
fn a_host_that_drops_the_connection_after_the_final_dot_gets_the_mail_again_and_the_event_says_so() {
    let lab = Lab::new();
    let mx = lab.mx_scripted(2, |ask| {
        let drops = ask.stage == Stage::Dot && ask.connection == 1;
        if drops { Answer::Close } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "dropped");
    mx.wait_transactions(1);
    daemon.wait_queue("the message waits", |queue| queue.len() == 1 && queue[0]["attempts"] == 1);
    daemon.signal(Signal::USR2);
    let delivery = daemon.events().wait_kind("Delivery", &id, "you@example.test");
    assert_eq!(delivery["posthaste"]["ambiguous"], true, "{delivery:#}");
    assert_eq!(delivery["posthaste"]["attempt"], 2, "{delivery:#}");
    assert_eq!(mx.transactions().len(), 2);
}

#[test]
fn the_write_ahead_log_is_synced_between_the_final_dot_and_the_250() {
    assert!(
        std::process::Command::new("strace").arg("-V").output().is_ok(),
        "strace is needed for this test and was not found: run `scripts/setup test` (Debian: apt-get install strace)"
    );
    let lab = Lab::new();
    // Nobody there: delivery is not what is looked at.
    lab.domain("example.test", &[2]);
    let trace = lab.dir().join("trace");
    let calls = "trace=fsync,fdatasync,sync_file_range,msync,read,recvfrom,write,pwrite64,sendto,sendmsg,writev";
    let output = trace.to_str().unwrap();
    let wrapper = ["strace", "-D", "-f", "-y", "-ttt", "-s", "4096", "-e", calls, "-o", output];
    let daemon = Daemon::start_under(lab.dir(), lab.config(), &wrapper);
    let mut client = lab.client(&daemon);
    for number in 0..5 {
        client.send_simple("app@sender.example", &["you@example.test"], &format!("traced {number}"));
    }
    daemon.kill();
    let calls = read_trace(&trace);
    let dots = positions(&calls, |call| call.is_input() && call.text.contains(r#"\r\n.\r\n""#) || call.is_lone_dot());
    let replies = positions(&calls, |call| call.is_output() && call.text.contains("\"250 2.0.0 Ok"));
    assert_eq!((dots.len(), replies.len()), (5, 5), "of {} calls", calls.len());
    for (dot, reply) in dots.into_iter().zip(replies) {
        let dot = &calls[dot];
        let reply = &calls[reply];
        let written = calls.iter().find(|call| call.is_wal_write() && call.begin > dot.end);
        let written = written.expect("the write-ahead log is written after the final dot");
        let synced = calls.iter().find(|call| call.is_wal_sync() && call.begin > written.begin);
        let synced = synced.expect("the write-ahead log is synced after that");
        assert!(
            written.end < synced.begin && synced.end < reply.begin,
            "in order: {}\n{}\n{}\n{}",
            dot.text,
            written.text,
            synced.text,
            reply.text
        );
    }
}

/// A system call: the lines of the trace at which it began and returned.
#[derive(Debug)]
struct Call {
    begin: usize,
    end: usize,
    text: String,
}

impl Call {
    fn name(&self) -> &str {
        self.text.split('(').next().unwrap_or_default()
    }

    fn is_input(&self) -> bool {
        matches!(self.name(), "read" | "recvfrom")
    }

    /// The dot came in a segment of its own.
    fn is_lone_dot(&self) -> bool {
        self.is_input() && self.text.contains(r#", ".\r\n""#)
    }

    fn is_output(&self) -> bool {
        matches!(self.name(), "write" | "sendto" | "writev" | "sendmsg")
    }

    fn is_on_wal(&self) -> bool {
        self.text.split(['<', '>']).nth(1).is_some_and(|path| path.contains("/queue/") && path.ends_with(".log"))
    }

    fn is_wal_write(&self) -> bool {
        matches!(self.name(), "write" | "pwrite64" | "writev") && self.is_on_wal()
    }

    fn is_wal_sync(&self) -> bool {
        matches!(self.name(), "fsync" | "fdatasync") && self.is_on_wal() && self.text.ends_with("= 0")
    }
}

fn positions(calls: &[Call], is_wanted: impl Fn(&Call) -> bool) -> Vec<usize> {
    (0..).zip(calls).filter(|(_, call)| is_wanted(call)).map(|(at, _)| at).collect()
}

/// Joins the two halves of calls that another thread interrupted. In order of return.
fn read_trace(path: &Path) -> Vec<Call> {
    let trace = String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned();
    let mut begun: HashMap<String, (usize, String)> = HashMap::new();
    let mut calls = Vec::new();
    for (at, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let Some((_time, text)) = rest.trim_start().split_once(' ') else { continue };
        if let Some(start) = text.strip_suffix(" <unfinished ...>") {
            begun.insert(thread.to_owned(), (at, start.to_owned()));
        } else if let Some((_, rest)) = text.split_once(" resumed>").filter(|_| text.starts_with("<... ")) {
            if let Some((begin, start)) = begun.remove(thread) {
                calls.push(Call { begin, end: at, text: format!("{start}{rest}") });
            }
        } else {
            calls.push(Call { begin: at, end: at, text: text.to_owned() });
        }
    }
    calls
}

#[test]
fn below_the_free_space_reserve_mail_is_refused_with_452_while_delivery_goes_on() {
    let lab = Lab::new();
    let accepts = Watched::new(false);
    let gate = accepts.clone();
    let mx = lab.mx_scripted(2, move |ask| {
        let defers = ask.stage == Stage::Rcpt && !*gate.lock();
        if defers { Answer::say("450 4.2.0 Not now") } else { Answer::Usual }
    });
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon();
    let id = lab.client(&daemon).send_simple("app@sender.example", &["you@example.test"], "before");
    mx.wait_asked("you@example.test", 1);
    daemon.reload(|config| config.set("queue.free_space_reserve", "\"1000GiB\""));
    let refusal = offer_until(&lab, &daemon, |reply| reply.code != 250);
    assert_eq!(refusal.code, 452, "{refusal:?}");
    assert!(refusal.text.starts_with("4.3.1 "), "{refusal:?}");
    accepts.change(|accepts| *accepts = true);
    daemon.events().wait_kind("Delivery", &id, "you@example.test");
    daemon.reload(|config| config.set("queue.free_space_reserve", "\"16MiB\""));
    offer_until(&lab, &daemon, |reply| reply.code == 250);
}

/// Hands in messages until one is answered as wanted: with the first reply that is not good, or that to the final dot.
fn offer_until(lab: &Lab, daemon: &Daemon, is_wanted: impl Fn(&Reply) -> bool) -> Reply {
    let look = || Some(offer(&mut lab.client(daemon))).filter(&is_wanted);
    poll(look, || format!("still no such reply\n{:#}", daemon.status()))
}

fn offer(client: &mut Client) -> Reply {
    for command in ["MAIL FROM:<app@sender.example>", "RCPT TO:<other@example.test>", "DATA"] {
        let reply = client.command(command).unwrap();
        if reply.code >= 400 {
            return reply;
        }
    }
    client.body(simple("offer").as_bytes()).unwrap()
}

//! SIGHUP: a good config counts as soon as the log says so, a broken one changes nothing, and nobody is cut off.

use crate::harness::*;

/// How many recipients a message may have: the number accepted before the first refusal, at most 20.
fn recipients_taken(client: &mut Client) -> usize {
    client.command("MAIL FROM:<app@sender.example>").unwrap();
    let taken = (0..20).take_while(|n| client.command(&format!("RCPT TO:<r{n}@example.test>")).unwrap().code == 250);
    let taken = taken.count();
    client.command("RSET").unwrap();
    taken
}

#[test]
fn under_load_a_broken_config_changes_nothing_and_a_good_one_counts_at_once() {
    let lab = Lab::new();
    let mx = lab.mx(2);
    lab.domain("example.test", &[2]);
    let mut daemon = lab.daemon_with(lab.config().set("reception.recipients_max", "5"));
    let load = Load::start(daemon.smtp_addr(), 2, &["example.test"]);
    load.wait_accepted(20);
    let mut waiting = lab.client(&daemon);
    assert_eq!(recipients_taken(&mut waiting), 5);

    daemon.edit_config(|config| config.set("reception.recipients_max", "\"many\""));
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    let error = daemon.wait_log_from(mark, "config not reloaded");
    let text = std::fs::read_to_string(daemon.config_path()).unwrap();
    let line = 1 + text.lines().position(|line| line.starts_with("recipients_max")).unwrap();
    assert!(error.contains(&format!("config.toml:{line}")), "{error}");
    assert!(error.contains("recipients_max"), "{error}");
    assert_eq!(recipients_taken(&mut lab.client(&daemon)), 5);
    let errors = daemon.log_from(mark).into_iter().filter(|line| line.contains("ERROR")).count();
    assert_eq!(errors, 1, "{}", daemon.log_tail());

    let before = load.accepted();
    daemon.reload(|config| config.set("reception.recipients_max", "3"));
    assert_eq!(recipients_taken(&mut lab.client(&daemon)), 3);
    // The connections of before live on, and so does the load.
    assert_eq!(waiting.command("NOOP").unwrap().code, 250);
    load.wait_accepted(before + 20);
    let sent = load.stop();
    assert!(sent.errors.is_empty(), "{:?}", sent.errors);
    daemon.wait_empty();
    daemon.stop();
    assert_nothing_lost_or_doubled(&sent.accepted, &Events::read_all(&daemon.events_path()), &[&mx]);
}

#[test]
fn a_new_certificate_is_shown_to_new_connections_and_old_ones_live_on() {
    let lab = Lab::new();
    let (old, new) = (Certificate::for_name("sender.example"), Certificate::for_name("sender.example"));
    let (certificate, key) = old.write(lab.dir());
    let listener = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\ncertificate = {certificate:?}\nkey = {key:?}\n"
    );
    let mut daemon = lab.daemon_with(lab.config().table(&listener));
    let address = daemon.listener_addr("tls");
    let mut before = Client::hello_tls(address, &old).unwrap();
    assert!(Client::hello_tls(address, &new).is_err());
    new.write(lab.dir());
    daemon.reload(|config| config);
    assert!(Client::hello_tls(address, &new).is_ok());
    assert!(Client::hello_tls(address, &old).is_err());
    assert_eq!(before.command("NOOP").unwrap().code, 250);
}

#[test]
fn a_key_that_does_not_fit_its_certificate_is_refused_and_the_old_pair_stays() {
    let lab = Lab::new();
    let (good, other) = (Certificate::for_name("sender.example"), Certificate::for_name("sender.example"));
    let (certificate, key) = good.write(lab.dir());
    let listener = format!(
        "[[listener]]\nname = \"tls\"\naddress = \"127.0.0.1:0\"\ntls = \"implicit\"\ncertificate = {certificate:?}\nkey = {key:?}\n"
    );
    let daemon = lab.daemon_with(lab.config().table(&listener));
    let address = daemon.listener_addr("tls");
    other.write(lab.dir());
    good.write_certificate_only(lab.dir());
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    let error = daemon.wait_log_from(mark, "config not reloaded");
    assert!(error.contains("key.pem"), "{error}");
    assert!(Client::hello_tls(address, &good).is_ok());
}

#[test]
fn a_new_listener_opens_and_one_that_is_gone_closes_without_cutting_its_sessions() {
    let lab = Lab::new();
    let second = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\n";
    let mut daemon = lab.daemon();
    daemon.reload(|config| config.table(second));
    let address = daemon.listener_addr("second");
    let mut session = Client::hello(address);
    let mark = daemon.log_len();
    daemon.reload(|config| {
        config.without_tables("listener").table("[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\n")
    });
    daemon.wait_log_from(mark, "closed listener=\"second\"");
    assert!(Client::connect(address).is_err());
    assert_eq!(session.command("NOOP").unwrap().code, 250);
    assert_eq!(Client::hello(daemon.smtp_addr()).command("NOOP").unwrap().code, 250);
}

#[test]
fn keys_that_need_a_restart_are_named() {
    let lab = Lab::new();
    let mut daemon = lab.daemon();
    let mark = daemon.log_len();
    daemon.edit_config(|config| config.set("queue.memtable", "\"16MiB\""));
    daemon.signal(Signal::HUP);
    let warning = daemon.wait_log_from(mark, "take effect at the next start");
    assert!(warning.contains("queue.memtable"), "{warning}");
    daemon.wait_log_from(mark, "config reloaded");
}

#[test]
fn a_broken_file_of_rules_is_refused_with_its_line_and_taken_once_it_is_mended() {
    let lab = Lab::new();
    let file = lab.dir().join("replies.toml");
    let named = file.display().to_string();
    let rule = |class: &str| format!("[[rule]]\nname = \"own\"\ncodes = [550]\nclass = \"{class}\"\n");
    std::fs::write(&file, rule("spam")).unwrap();
    let mut daemon = lab.daemon_with(lab.config().set("rules.replies", &format!("\"{named}\"")));
    std::fs::write(&file, rule("spamm")).unwrap();
    let mark = daemon.log_len();
    daemon.signal(Signal::HUP);
    let error = daemon.wait_log_from(mark, "config not reloaded");
    assert!(error.contains(&format!("{named}:4:9: rule.class: ")) && error.contains("is not known"), "{error}");
    std::fs::write(&file, rule("virus")).unwrap();
    daemon.reload(|config| config);
    daemon.stop();
}

//! What is refused, with the exact words and places of the errors, and what is taken.

use proptest::prelude::*;

use super::*;
use crate::delivery::settings::{DomainPattern, NextHop, TlsMode};
use crate::reception::settings::Hygiene;

pub(super) const HEAD: &str =
    "hostname = \"mail.example.com\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:25\" }]\n";

pub(super) fn parse(text: &str) -> Result<Config, ConfigErrors> {
    Config::parse(text, "c.toml")
}

/// `text` comes on line 3, after a good hostname and listener.
#[track_caller]
pub(super) fn refused(text: &str, expected: &[&str]) {
    let errors = parse(&format!("{HEAD}{text}")).map(|_| ()).unwrap_err();
    let lines: Vec<String> = errors.errors.iter().map(Finding::to_string).collect();
    assert_eq!(lines, expected, "{text}");
}

#[track_caller]
pub(super) fn taken(text: &str) -> Config {
    parse(&format!("{HEAD}{text}")).unwrap_or_else(|errors| panic!("{errors}"))
}

#[track_caller]
pub(super) fn warned(text: &str, expected: &[&str]) {
    let lines: Vec<String> = taken(text).warnings.iter().map(Finding::to_string).collect();
    assert_eq!(lines, expected, "{text}");
}

#[test]
fn an_empty_file_lacks_a_hostname_and_a_listener() {
    let errors = parse("").unwrap_err();
    assert_eq!(
        errors.to_string(),
        "c.toml:1:1: hostname: is missing; write hostname = \"mail.example.com\", the name that your sending address \
         resolves to\nc.toml:1:1: listener: there is no listener, so no mail can come in; add [[listener]] with name = \
         \"local\" and address = \"127.0.0.1:25\""
    );
}

#[test]
fn broken_toml_is_refused_with_its_line() {
    let errors = parse("hostname = \"a.test\"\n[relay\nx = 1\n").unwrap_err();
    assert!(errors.to_string().starts_with("c.toml:2:"), "{errors}");
    assert!(errors.to_string().contains("not TOML: "), "{errors}");
    let errors = parse("hostname = \"a.test\"\nhostname = \"b.test\"\n").unwrap_err();
    assert_eq!(errors.to_string(), "c.toml:2:1: not TOML: duplicate key; see config.toml.example for the form");
}

#[test]
fn all_errors_come_at_once_in_the_order_of_the_file() {
    refused(
        "[reception]\nconnections_max = \"many\"\ncommand_timeout = \"5 min\"\n[delivery]\nport = 70000\n[dns]\nprot = 1\n",
        &[
            "c.toml:4:19: reception.connections_max: expected a whole number, found a text; \
             write a whole number from 1 to 1000000",
            "c.toml:5:19: reception.command_timeout: \"5 min\" is not a duration; \
             write one such as \"90s\", \"5m\", \"1h30m\" or \"4d\"",
            "c.toml:7:8: delivery.port: 70000 is out of range; write a whole number from 1 to 65535",
            "c.toml:9:1: dns.prot: unknown key; remove it; known here are: attempts, cache_entries_max, negative_ttl, \
             servers, stale_max, timeout, ttl_max, ttl_min",
        ],
    );
}

#[test]
fn misspelt_and_misplaced_keys_are_sent_to_their_place() {
    refused(
        "[delivery]\nconections_max = 5\n",
        &["c.toml:4:1: delivery.conections_max: unknown key; write connections_max"],
    );
    refused(
        "[retry]\nlifetime = \"1d\"\n",
        &["c.toml:4:1: retry.lifetime: unknown key here; move lifetime to [queue]"],
    );
    refused("[recepton]\n", &["c.toml:3:2: recepton: unknown key; write reception"]);
    refused(
        "[queue]\ndata_dir = \"/x\"\n",
        &[
            "c.toml:4:1: queue.data_dir: unknown key here; move data_dir to the top of the file, above the first [section]",
        ],
    );
}

#[test]
fn values_of_the_wrong_type_are_refused() {
    refused(
        "relay = 5\n",
        &["c.toml:3:9: relay: expected a table, found the number 5; \
        write [relay] on a line of its own and its keys below"],
    );
    refused("[listener2]\n", &["c.toml:3:2: listener2: unknown key; write listener"]);
    refused(
        "[route]\nhost = \"a.test\"\n",
        &["c.toml:3:1: route: expected an array of tables; \
        write [[route]] on a line of its own and its keys below, once for each"],
    );
    refused(
        "[reception]\nreceived_shows_client = \"yes\"\n",
        &["c.toml:4:25: reception.received_shows_client: \
        expected true or false, found a text; true or false without quotes"],
    );
    refused(
        "[reception]\ndata_timeout = 300\n",
        &["c.toml:4:16: reception.data_timeout: 300 has no unit; \
        write \"300s\" if seconds were meant"],
    );
    refused(
        "[reception]\nmessage_size_max = 40000000\n",
        &["c.toml:4:20: reception.message_size_max: \
        40000000 has no unit; write \"40000000B\" if bytes were meant"],
    );
    refused(
        "[reception]\nerrors_max = -1\n",
        &["c.toml:4:14: reception.errors_max: -1 is out of range; \
        write a whole number from 1 to 10000"],
    );
    refused(
        "[reception]\nerrors_max = 1.5\n",
        &["c.toml:4:14: reception.errors_max: expected a whole number, \
        found the number 1.5; write a whole number from 1 to 10000"],
    );
    refused(
        "[relay]\nnetworks = \"10.0.0.0/8\"\n",
        &["c.toml:4:12: relay.networks: expected a list, found a text; \
        write [\"127.0.0.0/8\", \"10.0.0.0/8\"]"],
    );
}

#[test]
fn values_out_of_range_are_refused_with_the_range() {
    refused(
        "[reception]\ncommand_timeout = \"2h\"\n",
        &["c.toml:4:19: reception.command_timeout: \"2h\" is out of \
        range; write one from \"1s\" to \"1h\""],
    );
    refused(
        "[reception]\nmessage_size_max = \"1KB\"\n",
        &["c.toml:4:20: reception.message_size_max: \"1KB\" is out of \
        range; write one from \"64KiB\" to \"1GiB\""],
    );
    refused(
        "[reception]\nhops_max = 99999999999999999999\n",
        &["c.toml:4:12: reception.hops_max: \
        99999999999999999999 is out of range; write a whole number from 1 to 1000"],
    );
    refused(
        "[reception]\nhygiene = \"repare\"\n",
        &["c.toml:4:11: reception.hygiene: \"repare\" is not known; \
        write \"repair\""],
    );
    refused(
        "[log]\nlevel = \"loud\"\n",
        &["c.toml:4:9: log.level: \"loud\" is not known; \
        write \"error\" or \"warn\" or \"info\" or \"debug\" or \"trace\""],
    );
    refused(
        "[reception]\nheader_size_max = \"1MB\"\nmessage_size_max = \"64KiB\"\n",
        &["c.toml:4:19: \
        reception.header_size_max: is larger than message_size_max; write a size up to message_size_max"],
    );
}

#[test]
fn hostnames_are_fully_qualified() {
    let check = |name: &str, expected: &str| {
        let text = format!("hostname = \"{name}\"\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:25\"\n");
        let errors = parse(&text).unwrap_err();
        assert_eq!(
            errors.to_string(),
            format!("c.toml:1:12: hostname: {expected}; write a full name such as \"mail.example.com\"")
        );
    };
    check("mail", "\"mail\" is not a fully qualified host name");
    check("192.0.2.1", "\"192.0.2.1\" is not a fully qualified host name");
    check("a_b.test", "\"a_b.test\" is not a fully qualified host name");
    check("", "\"\": domain is empty");
    check("a b.test", "\"a b.test\": domain has a character that is not allowed");
    let text = "hostname = \"localhost\"\n[[listener]]\nname = \"a\"\naddress = \"127.0.0.1:0\"\n";
    assert_eq!(parse(text).unwrap().warnings.len(), 1);
}

#[test]
fn listeners_have_their_own_names_and_addresses() {
    let head = "hostname = \"a.test\"\n[[listener]]\nname = \"a\"\naddress = \"0.0.0.0:25\"\n[[listener]]\n";
    let check = |text: &str, expected: &str| {
        let errors = parse(&format!("{head}{text}")).unwrap_err();
        assert_eq!(errors.to_string(), expected);
    };
    check(
        "name = \"a\"\naddress = \"127.0.0.1:25\"\n",
        "c.toml:6:8: listener.name: \"a\" is the name of an earlier listener; give each listener its own name\n\
         c.toml:7:11: listener.address: 127.0.0.1:25 is taken by the listener \"a\" (0.0.0.0:25); \
         give each listener its own address and port",
    );
    check(
        "name = \"b\"\naddress = \"127.0.0.1\"\n",
        "c.toml:7:11: listener.address: \"127.0.0.1\" is not an address with a port; add the port: \"127.0.0.1:25\"",
    );
    check(
        "name = \"b c\"\naddress = \"[::]:25\"\n",
        "c.toml:6:8: listener.name: \"b c\" cannot be a name; write 1 to 32 letters, digits, - or _",
    );
    check(
        "name = \"b\"\naddress = \"[::]:25\"\ntls = \"starttls\"\ncertificate = \"cert.pem\"\n",
        "c.toml:5:1: listener.key: is missing, and TLS needs it; write key = \"/etc/posthaste/key.pem\"\n\
         c.toml:9:15: listener.certificate: \"cert.pem\" is not an absolute path; write the whole path, from / on",
    );
    check(
        "name = \"b\"\naddress = \"[::]:25\"\ncertificate = \"/c.pem\"\n",
        "c.toml:8:15: listener.certificate: has no effect without TLS; \
         write tls = \"starttls\" or \"implicit\", or remove it",
    );
    assert!(parse(&format!("{head}name = \"b\"\naddress = \"[::]:25\"\n")).is_ok());
}

#[test]
fn an_open_relay_is_refused_however_it_is_written() {
    let everybody = "c.toml:4:12: relay.networks: lets everybody in the world relay; list only the networks of your own \
        applications; an open relay is found and abused within hours";
    refused("[relay]\nnetworks = [\"0.0.0.0/0\"]\n", &[everybody]);
    refused("[relay]\nnetworks = [\"::/0\"]\n", &[everybody]);
    refused("[relay]\nnetworks = [\"0.0.0.0/1\", \"128.0.0.0/1\"]\n", &[everybody]);
    refused(
        "[relay]\nnetworks = [\"10.1.2.3/8\", \"x\"]\n",
        &[
            "c.toml:4:13: relay.networks: \"10.1.2.3/8\" has bits behind its prefix; write \"10.0.0.0/8\" or \"10.1.2.3\"",
            "c.toml:4:27: relay.networks: \"x\" is not a network; write one such as \"10.0.0.0/8\" or \"2001:db8::/32\"",
        ],
    );
    warned(
        "[relay]\nnetworks = [\"8.0.0.0/7\"]\n",
        &["c.toml:4:12: relay.networks: 8.0.0.0/7 lets many hosts relay \
        that are hardly all yours; list only the networks of your own applications"],
    );
    warned("[relay]\nnetworks = [\"10.0.0.0/8\", \"192.0.2.1\", \"fd00::/8\", \"2001:db8::/32\"]\n", &[]);
}

#[test]
fn retry_steps_rise_and_end_before_the_lifetime() {
    refused(
        "[retry]\nsteps = [\"5m\", \"1m\", \"x\"]\n",
        &[
            "c.toml:4:9: retry.steps: 1m comes after 5m; put them in rising order",
            "c.toml:4:22: retry.steps: \"x\" is not a duration; write one such as \"90s\", \"5m\", \"1h30m\" or \"4d\"",
        ],
    );
    refused("[retry]\nsteps = []\n", &["c.toml:4:9: retry.steps: has no step; write at least one, such as [\"15m\"]"]);
    refused(
        "[queue]\nlifetime = \"5m\"\n[retry]\nsteps = [\"10m\"]\ndelay_notices = []\n",
        &["c.toml:6:9: retry.steps: \
        messages expire after 5m before a second attempt; shorten the first step, or lengthen lifetime in [queue]"],
    );
    warned(
        "[retry]\ndelay_notices = [\"1h\", \"5d\"]\n",
        &["c.toml:4:17: retry.delay_notices: 5d is never reached: \
        messages expire before; remove it, or lengthen lifetime in [queue]"],
    );
}

#[test]
fn routes_are_read_in_order_and_unreachable_ones_refused() {
    let config = taken(
        "[[route]]\ndomains = [\"A.test\", \".b.test\"]\nhost = \"[2001:db8::1]\"\nport = 2525\ntls = \"none\"\n\
         [[route]]\ndomains = [\"*\"]\nhost = \"Smart.test\"\n",
    );
    let [first, second] = &config.delivery.routes[..] else { panic!("{:?}", config.delivery.routes) };
    let domain = |text| Domain::parse(text).unwrap();
    assert_eq!(first.domains, DomainPattern::Listed { exact: vec![domain("a.test")], parents: vec![domain("b.test")] });
    assert_eq!((first.port, first.tls), (2525, TlsMode::None));
    assert_eq!(first.host, NextHop::Address("2001:db8::1".parse().unwrap()));
    assert_eq!(second.domains, DomainPattern::All);
    assert_eq!(second.host, NextHop::Host(domain("smart.test")));
    refused(
        "[[route]]\ndomains = [\"*\"]\nhost = \"a.test\"\n[[route]]\ndomains = [\"b.test\"]\nhost = \"b.test\"\n",
        &["c.toml:7:11: route.domains: is never reached: an earlier route takes all domains; \
         put it above the route with domains = [\"*\"]"],
    );
    refused(
        "[[route]]\ndomains = [\"*.b.test\"]\nhost = \"b.test:25\"\nuser = \"u\"\n",
        &[
            "c.toml:3:1: route.password_file: is missing, and user needs it; \
         write password_file = \"/etc/posthaste/smarthost.password\", a file whose first line is it",
            "c.toml:4:11: route.domains: names no domain; write [\"example.com\", \".example.com\"], or [\"*\"] for all",
            "c.toml:4:12: route.domains: \"*.b.test\" is not a domain; write \".b.test\" for the subdomains of b.test",
            "c.toml:5:8: route.host: \"b.test:25\": domain has a character that is not allowed; \
         write a host name or an IP address; the port has a key of its own",
        ],
    );
    warned(
        "[[route]]\ndomains = [\"*\"]\nhost = \"a.test\"\nuser = \"u\"\npassword_file = \"/p\"\n",
        &["c.toml:3:1: \
        route.tls: lets the password travel unencrypted, or to an impostor; write tls = \"require\""],
    );
}

#[test]
fn delivery_and_dns_are_checked() {
    refused(
        "[delivery]\nconnections_max = 5\n",
        &["c.toml:3:1: delivery.connections_per_site_max: is above \
        connections_max; write a number up to delivery.connections_max"],
    );
    refused(
        "[dns]\nttl_min = \"1h\"\nttl_max = \"1m\"\nservers = [\"resolver.test\"]\n",
        &[
            "c.toml:4:11: dns.ttl_min: is longer than ttl_max; write a shorter one",
            "c.toml:6:12: dns.servers: \"resolver.test\" is not an address; write an IP address, with a port where it is \
         not 53: \"127.0.0.1:5353\", \"[::1]:5353\"",
        ],
    );
    let config = taken("[dns]\nservers = [\"127.0.0.1\", \"::1\", \"[::1]:5353\"]\n");
    let servers: Vec<String> = config.dns.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["127.0.0.1:53", "[::1]:53", "[::1]:5353"]);
    warned(
        "[delivery.timeouts]\nfinal_dot = \"1m\"\n",
        &["c.toml:4:13: delivery.timeouts.final_dot: below 5m, messages \
        that a slow host did accept are sent again; write \"10m\" (RFC 5321 §4.5.3.2.6) outside a lab"],
    );
}

#[test]
fn event_files_are_checked_and_decide_about_bounces() {
    refused(
        "[[events.file]]\nname = \"Events.jsonl\"\ntypes = [\"Bounced\"]\n",
        &[
            "c.toml:4:8: events.file.name: \"Events.jsonl\" cannot be a name; write \"events\"; the file gets .jsonl by itself",
            "c.toml:5:9: events.file.types: takes no event; list some, or remove types to take all",
            "c.toml:5:10: events.file.types: \"Bounced\" is not known; write \"Bounce\"",
        ],
    );
    refused(
        "[[events.file]]\n[[events.file]]\n",
        &["c.toml:4:1: events.file.name: \"events\" is the name of an earlier \
        event file; give each its own name"],
    );
    let config = taken("[[events.file]]\nname = \"ok\"\ntypes = [\"Delivery\", \"Send\"]\n");
    assert_eq!(config.events.files[0].types, [EventKind::Send, EventKind::Delivery]);
    let mailed = |text: &str| {
        let config = taken(text);
        (config.mailed_bounces().mails("", ""), config.mailed_complaints().mails("", ""))
    };
    assert_eq!(mailed("[[events.file]]\ntypes = [\"Delivery\", \"Bounce\"]\n"), (false, true));
    assert_eq!(mailed("[events]\nfile = []\n"), (true, true));
    assert_eq!(mailed("[events]\nfile = []\n[dsn]\nbounce_messages = \"never\"\n"), (false, true));
    assert_eq!(mailed("[dsn]\nbounce_messages = \"always\"\n"), (true, false));
    assert_eq!(mailed("[dsn]\ncomplaint_messages = \"always\"\n"), (false, true));
}

#[test]
fn the_daemons_own_settings_are_checked() {
    warned(
        "[metrics]\naddress = \"0.0.0.0:9625\"\n",
        &["c.toml:4:11: metrics.address: 0.0.0.0:9625 shows the metrics to \
        everybody who can reach it; write a loopback address, or guard it with a firewall"],
    );
    refused(
        "[admin]\ngroup = \"a:b\"\nmode = \"0666\"\n",
        &[
            "c.toml:4:9: admin.group: expected a group, found a text; write a name of /etc/group, or a number",
            "c.toml:5:8: admin.mode: \"0666\" is not known; write \"0660\"",
        ],
    );
    refused(
        "[admin]\ngroup = \"adm\"\nmode = \"0600\"\n",
        &["c.toml:4:9: admin.group: has no effect with mode 0600; \
        write mode = \"0660\", or remove group"],
    );
    refused(
        &format!("[admin]\nsocket = \"/{}\"\n", "x".repeat(107)),
        &["c.toml:4:10: admin.socket: is longer than 107 \
        octets; write a shorter path"],
    );
    refused(
        "[shutdown]\ndeadline = \"0s\"\n",
        &["c.toml:4:12: shutdown.deadline: \"0s\" is out of range; \
        write one from \"1s\" to \"1h\""],
    );
}

#[test]
fn every_way_of_writing_a_value_is_taken() {
    let config = taken(
        "[reception]\nconnections_max = 1_000\nhops_max = 0x10\nmessage_size_max = \"40mb\"\nhygiene = \"repair\"\n\
         command_timeout = \"1m30s\"\n",
    );
    assert_eq!((config.reception.connections_max, config.reception.hops_max), (1_000, 16));
    assert_eq!(config.reception.message_bytes_max, 40_000_000);
    assert_eq!(config.reception.hygiene, Hygiene::Repair);
    assert_eq!(config.reception.command_timeout.as_secs(), 90);
}

#[test]
fn columns_count_characters() {
    let errors = parse("hostname = \"ü\" # é\nlistener = [{ name = \"é\", adress = \"x\" }]\n").unwrap_err();
    let places: Vec<_> = errors.errors.iter().filter_map(|error| error.place).collect();
    assert_eq!(places, [(1, 12), (2, 13), (2, 22), (2, 27)], "{errors}");
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text: String) {
        let _ = parse(&text);
    }

    #[test]
    fn no_value_makes_the_reader_panic(
        section in prop::sample::select(vec!["reception", "relay", "queue", "retry", "delivery", "dns", "admin", "log"]),
        key in prop::sample::select(vec![
            "connections_max", "message_size_max", "networks", "lifetime", "steps", "sources", "servers", "group", "level",
        ]),
        value in prop::sample::select(vec![
            "-9223372036854775808", "nan", "\"\"", "[[]]", "{}", "1979-05-27", "\"é\"", "0x7fffffffffffffff",
            "\"99999999999d\"", "[\"0s\", 0]", "true",
        ]),
    ) {
        let _ = parse(&format!("{HEAD}[{section}]\n{key} = {value}\n"));
    }
}

//! DMARC and TLS reports of receivers come home by SMTP: each row is one line of the report stream, once, whatever happens.

use std::io::{Cursor, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::GzEncoder;
use posthaste::types::{Clock, SystemClock, Timestamp};
use serde_json::Value;

use crate::harness::*;

const DMARC: &str = "dmarc@op.test";
const TLS: &str = "tls@op.test";

/// A daemon that takes reports.
struct Home {
    lab: Lab,
    daemon: Daemon,
    metrics: SocketAddr,
}

impl Home {
    fn new() -> Self {
        Self::under(|_| Vec::new())
    }

    fn under(wrapper: impl FnOnce(&Lab) -> Vec<String>) -> Self {
        let lab = Lab::new();
        // Free a moment ago; the daemon does not say which port it got.
        let metrics = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = lab
            .config()
            .set("feedback.dmarc_reports", &format!("[\"{DMARC}\"]"))
            .set("feedback.tls_reports", &format!("[\"{TLS}\"]"))
            .set("metrics.address", &format!("\"{metrics}\""))
            .table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n")
            .table("[[identity]]\nname = \"sender.test\"\ntenant = \"shop\"\n")
            .table("[[tenant]]\nname = \"shop\"\n");
        let wrapper = wrapper(&lab);
        let daemon = Daemon::start_under(lab.dir(), config, &wrapper);
        Self { lab, daemon, metrics }
    }

    fn client(&self) -> Client {
        Client::hello(self.daemon.listener_addr("home"))
    }

    fn bring(&self, to: &str, mail: &str) -> String {
        self.client().send("noreply@receiver.test", &[to], mail)
    }

    fn stream(&self) -> PathBuf {
        self.lab.dir().join("events/reports.jsonl")
    }

    /// All lines so far, as soon as there are so many.
    fn wait_rows(&self, count: usize) -> Vec<Value> {
        Events::open(&self.stream()).wait_until(|seen| (seen.len() >= count).then(|| seen.to_vec()))
    }

    /// The value of a metric with exactly these labels; 0 where there is none.
    fn metric(&self, name: &str) -> u64 {
        let mut stream = TcpStream::connect(self.metrics).unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut page = String::new();
        stream.read_to_string(&mut page).unwrap();
        let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.map_or(0, |value| value.trim().parse().unwrap())
    }

    fn kept(&self) -> usize {
        std::fs::read_dir(self.lab.dir().join("queue/feedback")).map_or(0, Iterator::count)
    }
}

/// Seconds of the end of yesterday, more or less: a report about a time long ago is kept for the operator.
fn yesterday() -> u64 {
    SystemClock.now().seconds() - 86_400
}

fn record(ip: &str, count: u32, dkim: &str, spf: &str, disposition: &str) -> String {
    format!(
        "<record><row><source_ip>{ip}</source_ip><count>{count}</count><policy_evaluated>\
         <disposition>{disposition}</disposition><dkim>{dkim}</dkim><spf>{spf}</spf></policy_evaluated></row>\
         <identifiers><envelope_from>bounces.sender.test</envelope_from><header_from>sender.test</header_from></identifiers>\
         <auth_results><dkim><domain>sender.test</domain><selector>s1</selector><result>{dkim}</result></dkim>\
         <spf><domain>bounces.sender.test</domain><result>{spf}</result></spf></auth_results></record>"
    )
}

fn dmarc_xml(id: &str, domain: &str, ends_at: u64, records: &str) -> String {
    format!(
        "<?xml version=\"1.0\"?><feedback><report_metadata><org_name>receiver.test</org_name>\
         <email>dmarc@receiver.test</email><report_id>{id}</report_id>\
         <date_range><begin>{}</begin><end>{ends_at}</end></date_range></report_metadata>\
         <policy_published><domain>{domain}</domain><adkim>r</adkim><aspf>s</aspf><p>reject</p><sp>none</sp><pct>100</pct>\
         </policy_published>{records}</feedback>",
        ends_at - 86_400
    )
}

fn two_records() -> String {
    record("203.0.113.5", 12, "pass", "fail", "none") + &record("2001:db8::7", 3, "fail", "fail", "reject")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zipped(name: &str, content: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
    writer.write_all(content).unwrap();
    writer.finish().unwrap().into_inner()
}

/// As receivers attach reports.
fn mail(kind: &str, name: &str, content: &[u8]) -> String {
    let digits = data_encoding::BASE64.encode(content);
    let lines: Vec<&str> = digits.as_bytes().chunks(76).map(|line| std::str::from_utf8(line).unwrap()).collect();
    format!(
        "From: noreply@receiver.test\r\nTo: {DMARC}\r\nSubject: Report Domain: sender.test\r\nMIME-Version: 1.0\r\n\
         Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nA report.\r\n\
         --b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{}\r\n--b--\r\n",
        lines.join("\r\n")
    )
}

fn dmarc_mail(xml: &str) -> String {
    mail("application/gzip", "receiver.test!sender.test!1!2.xml.gz", &gzip(xml.as_bytes()))
}

fn iso(seconds: u64) -> String {
    Timestamp::from_millis(seconds * 1_000).to_iso8601()
}

#[test]
fn a_dmarc_report_is_one_line_a_row_and_totals_by_domain_once_through_kill_9() {
    let mut home = Home::new();
    let end = yesterday();
    let report = dmarc_mail(&dmarc_xml("4711", "sender.test", end, &two_records()));
    let id = home.bring(DMARC, &report);
    let rows = home.wait_rows(2);
    let head = &rows[0]["report"];
    for (name, expected) in [
        ("type", "dmarc"),
        ("messageId", &id),
        ("clientIp", "127.0.0.1"),
        ("envelopeSender", "noreply@receiver.test"),
        ("organization", "receiver.test"),
        ("contact", "dmarc@receiver.test"),
        ("reportId", "4711"),
        ("begin", &iso(end - 86_400)),
        ("end", &iso(end)),
        ("domain", "sender.test"),
    ] {
        assert_eq!(head[name], expected, "{name}: {head:#}");
    }
    assert_eq!((&head["row"], &head["rows"], &head["verified"]), (&1.into(), &2.into(), &false.into()));
    let expected = serde_json::json!({
        "policy": {"p": "reject", "sp": "none", "pct": 100, "adkim": "r", "aspf": "s"},
        "sourceIp": "203.0.113.5", "count": 12, "disposition": "none", "dkim": "pass", "spf": "fail", "result": "pass",
        "headerFrom": "sender.test", "envelopeFrom": "bounces.sender.test",
        "dkimResults": [{"domain": "sender.test", "selector": "s1", "result": "pass"}],
        "spfResults": [{"domain": "bounces.sender.test", "result": "fail"}],
    });
    assert_eq!(rows[0]["dmarc"], expected);
    assert_eq!((&rows[1]["dmarc"]["sourceIp"], &rows[1]["dmarc"]["result"]), (&"2001:db8::7".into(), &"fail".into()));
    let passed = "posthaste_dmarc_messages_total{domain=\"sender.test\",result=\"pass\",disposition=\"none\"}";
    let failed = "posthaste_dmarc_messages_total{domain=\"sender.test\",result=\"fail\",disposition=\"reject\"}";
    assert_eq!((home.metric(passed), home.metric(failed)), (12, 3));
    // Once more, and after a crash, from another host, in another packing.
    home.bring(DMARC, &report);
    home.daemon.kill();
    home.daemon.start_again();
    let xml = dmarc_xml("4711", "sender.test", end, &two_records());
    home.bring(TLS, &mail("application/zip", "r.zip", &zipped("r.xml", xml.as_bytes())));
    assert_eq!(home.metric("posthaste_reports_total{report=\"dmarc\",effect=\"duplicate\"}"), 1);
    assert_eq!(home.metric(passed), 0, "what was told before is not told again");
    // The next day, in zip.
    let xml = dmarc_xml("4712", "sender.test", end + 3_600, &two_records());
    home.bring(DMARC, &mail("application/zip", "r.zip", &zipped("r.xml", xml.as_bytes())));
    let rows = home.wait_rows(4);
    let ids: Vec<&str> = rows.iter().map(|row| row["report"]["reportId"].as_str().unwrap()).collect();
    assert_eq!(ids, ["4711", "4711", "4712", "4712"]);
    assert_eq!((home.metric(passed), home.kept()), (12, 0));
    home.daemon.stop();
    assert_eq!(Events::read_all(&home.stream()).len(), 4);
    assert_eq!(Events::read_all(&home.daemon.events_path()).len(), 0, "who reads of messages does not meet reports");
}

#[test]
fn a_tls_report_is_one_line_for_each_policy_and_failure() {
    let home = Home::new();
    let end = yesterday();
    let json = format!(
        r#"{{"organization-name":"receiver.test","contact-info":"tls@receiver.test","report-id":"t1",
        "date-range":{{"start-datetime":"{}","end-datetime":"{}"}},
        "policies":[{{"policy":{{"policy-type":"sts","policy-string":["version: STSv1","mode: enforce"],"policy-domain":"op.test","mx-host":["mx.op.test"]}},
        "summary":{{"total-successful-session-count":5326,"total-failure-session-count":303}},
        "failure-details":[{{"result-type":"certificate-expired","sending-mta-ip":"2001:db8::1","receiving-mx-hostname":"mx.op.test","failed-session-count":300}}]}},
        {{"policy":{{"policy-type":"no-policy-found","policy-domain":"stranger.example"}},"summary":{{"total-successful-session-count":7,"total-failure-session-count":0}}}}]}}"#,
        iso(end - 86_400),
        iso(end),
    );
    let report = mail("application/tlsrpt+gzip", "receiver.test!op.test!1!2.json.gz", &gzip(json.as_bytes()));
    home.bring(TLS, &report);
    home.bring(TLS, &report);
    let rows = home.wait_rows(3);
    let expected = serde_json::json!({
        "row": "summary", "policyType": "sts", "policyStrings": ["version: STSv1", "mode: enforce"],
        "mxHosts": ["mx.op.test"], "successfulSessions": 5_326, "failedSessions": 303,
    });
    assert_eq!((&rows[0]["tls"], &rows[0]["report"]["domain"]), (&expected, &"op.test".into()));
    let expected = serde_json::json!({
        "row": "failure", "policyType": "sts", "resultType": "certificate-expired", "failedSessions": 300,
        "sendingMtaIp": "2001:db8::1", "receivingMxHostname": "mx.op.test",
    });
    assert_eq!((&rows[1]["tls"], &rows[1]["report"]["row"]), (&expected, &2.into()));
    assert_eq!((&rows[2]["tls"]["policyType"], &rows[2]["report"]["type"]), (&"no-policy-found".into(), &"tls".into()));
    let sessions = |domain: &str, result: &str| {
        home.metric(&format!("posthaste_tls_sessions_total{{domain=\"{domain}\",result=\"{result}\"}}"))
    };
    assert_eq!((sessions("op.test", "success"), sessions("op.test", "certificate-expired")), (5_326, 300));
    assert_eq!(sessions("op.test", "unsaid"), 3, "the policy sums up more than its rows tell of");
    assert_eq!((sessions("other", "success"), sessions("stranger.example", "success")), (7, 0));
    home.daemon.stop();
    assert_eq!(Events::read_all(&home.stream()).len(), 3);
}

#[test]
fn a_report_that_a_crash_cut_in_two_is_written_to_its_end_when_it_comes_again() {
    let mut shim = None;
    let mut home = Home::under(|lab| shim.insert(Shim::new(lab.dir())).wrapper());
    let shim = shim.unwrap();
    let records: String = (0..1_600).map(|row| record("203.0.113.5", row + 1, "pass", "pass", "none")).collect();
    let report = dmarc_mail(&dmarc_xml("4711", "sender.test", yesterday(), &records));
    for (round, rule) in ["wal fsync 2 kill-before", "wal fsync 1 kill-after"].iter().enumerate() {
        shim.set(rule);
        let mut client = home.client();
        client.envelope("noreply@receiver.test", &[DMARC]).unwrap();
        assert!(client.body(report.as_bytes()).is_err(), "no 250 before all of it is on the disk");
        assert_eq!(home.daemon.wait_exit(PATIENCE).signal(), Some(9), "{}", shim.fired());
        shim.clear();
        home.daemon.start_again();
        let rows = home.wait_rows(500);
        assert!(rows.len() < 1_600, "round {round}: it was not cut");
    }
    home.bring(DMARC, &report);
    let rows = home.wait_rows(1_600);
    let mut numbers: Vec<u64> = rows.iter().map(|row| row["report"]["row"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=1_600).collect::<Vec<u64>>());
    home.daemon.stop();
    assert_eq!(Events::read_all(&home.stream()).len(), 1_600);
}

#[test]
fn the_largest_report_is_taken_whole_and_one_row_more_is_kept() {
    let home = Home::new();
    let records = |count: u32| -> String {
        (0..count).map(|row| record(&format!("2001:db8::{row:x}"), 1, "pass", "pass", "none")).collect()
    };
    home.bring(DMARC, &dmarc_mail(&dmarc_xml("4711", "sender.test", yesterday(), &records(20_000))));
    assert_eq!(home.metric("posthaste_reports_total{report=\"dmarc\",effect=\"taken\"}"), 1);
    let passed = "posthaste_dmarc_messages_total{domain=\"sender.test\",result=\"pass\",disposition=\"none\"}";
    assert_eq!((home.metric(passed), home.kept()), (20_000, 0));
    home.bring(DMARC, &dmarc_mail(&dmarc_xml("4712", "sender.test", yesterday(), &records(20_001))));
    assert_eq!((home.metric(passed), home.kept()), (20_000, 1));
    home.daemon.stop();
    let text = std::fs::read_to_string(home.stream()).unwrap();
    assert_eq!(text.lines().filter(|line| line.contains("\"rows\":20000")).count(), 20_000);
}

#[test]
fn what_is_no_report_is_kept_and_what_strangers_write_names_no_metric() {
    let home = Home::new();
    let mut stranger = home.client();
    assert_eq!(stranger.command("MAIL FROM:<>").unwrap().code, 250);
    for (address, code) in [("reports@op.test", 550), ("dmarc@sender.test", 550), ("DMARC@op.test", 250), (TLS, 250)] {
        assert_eq!(stranger.command(&format!("RCPT TO:<{address}>")).unwrap().code, code, "{address}");
    }
    drop(stranger);
    let end = yesterday();
    let bomb = gzip(&vec![b' '; 64 << 20]);
    let zip_bomb = zipped("r.xml", &vec![b' '; 64 << 20]);
    let entities = "<!DOCTYPE f [<!ENTITY a \"aaaa\"><!ENTITY b \"&a;&a;\">]><feedback><report_metadata>&b;</report_metadata></feedback>";
    let long_ago = dmarc_xml("1", "sender.test", end - 40 * 86_400, &two_records());
    let puzzling = [
        mail("application/gzip", "r.xml.gz", &bomb),
        mail("application/zip", "r.zip", &zip_bomb),
        mail("application/gzip", "r.xml.gz", b"\x1f\x8bnonsense"),
        mail("text/xml", "r.xml", entities.as_bytes()),
        dmarc_mail(&long_ago),
        "From: a@b.test\r\nSubject: question\r\n\r\nWho reads this?\r\n".to_owned(),
    ];
    for (number, mail) in puzzling.iter().enumerate() {
        home.bring(DMARC, mail);
        assert_eq!(home.kept(), number + 1);
    }
    assert_eq!(home.metric("posthaste_reports_total{report=\"dmarc\",effect=\"misdated\"}"), 1);
    assert_eq!(home.metric("posthaste_feedback_messages_total{report=\"not-understood\"}"), 5);
    // Well made, about somebody else, and with texts that would be lines of their own.
    let hostile = "x\"},\"posthaste\":{\"eventId\":1}}&#10;{\"eventType\":\"Report\",&#8232;";
    let xml = dmarc_xml("2", "stranger.example", end, &two_records()).replace("receiver.test", hostile);
    home.bring(DMARC, &dmarc_mail(&xml));
    let rows = home.wait_rows(2);
    assert!(rows[0]["report"]["organization"].as_str().unwrap().contains("\"eventId\":1}}"), "{:#}", rows[0]);
    let stranger = "posthaste_dmarc_messages_total{domain=\"stranger.example\",result=\"pass\",disposition=\"none\"}";
    let other = "posthaste_dmarc_messages_total{domain=\"other\",result=\"pass\",disposition=\"none\"}";
    assert_eq!((home.metric(stranger), home.metric(other)), (0, 12));
    assert_eq!((home.metric("posthaste_healthy"), home.kept()), (1, puzzling.len()));
    home.daemon.stop();
}

#[test]
fn a_stream_that_names_the_kind_takes_the_rows_and_an_address_can_come_by_a_reload() {
    let lab = Lab::new();
    let mut daemon = lab.daemon_with(
        lab.config().table("[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:0\"\ntakes = \"feedback\"\n"),
    );
    let reports = lab.dir().join("events/reports.jsonl");
    assert!(!reports.exists(), "nobody asked for it");
    daemon.reload(|config| config.set("feedback.dmarc_reports", &format!("[\"{DMARC}\"]")));
    let bring = |daemon: &Daemon, id: &str| {
        let report = dmarc_mail(&dmarc_xml(id, "sender.test", yesterday(), &two_records()));
        Client::hello(daemon.listener_addr("home")).send("", &[DMARC], &report)
    };
    bring(&daemon, "1");
    Events::open(&reports).wait_until(|seen| (seen.len() == 2).then_some(()));
    daemon.edit_config(|config| {
        config
            .table("[[events.file]]\nname = \"events\"\n")
            .table("[[events.file]]\nname = \"dmarc\"\ntypes = [\"Report\"]\n")
    });
    daemon.restart();
    bring(&daemon, "2");
    Events::open(&lab.dir().join("events/dmarc.jsonl")).wait_until(|seen| (seen.len() == 2).then_some(()));
    daemon.stop();
    assert_eq!(Events::read_all(&reports).len(), 2, "the named stream has taken its place");
}

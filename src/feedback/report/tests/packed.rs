//! Aggregate reports: every packing that receivers use, and every one that attackers would.

use std::io::{Cursor, Write};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::super::unpack::{RATIO_MAX, UNPACKED_BYTES_MAX, unpack};
use super::super::*;

const XML: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<!-- from a receiver -->
<feedback xmlns="urn:ietf:params:xml:ns:dmarc-2.0">
  <version>1.0</version>
  <report_metadata>
    <org_name>google.com</org_name>
    <email>noreply-dmarc-support@google.com</email>
    <extra_contact_info>https://support.google.com/a/answer/2466580</extra_contact_info>
    <report_id>123456789</report_id>
    <date_range><begin>1683244800</begin><end>1683331199</end></date_range>
  </report_metadata>
  <policy_published>
    <domain>sender.example</domain><adkim>r</adkim><aspf>s</aspf><p>quarantine</p><sp>reject</sp><pct>100</pct>
  </policy_published>
  <record>
    <row>
      <source_ip>198.51.100.7</source_ip><count>12</count>
      <policy_evaluated><disposition>none</disposition><dkim>pass</dkim><spf>fail</spf>
        <reason><type>mailing_list</type><comment>a &amp; b</comment></reason></policy_evaluated>
    </row>
    <identifiers><envelope_from>bounce.sender.example</envelope_from><header_from>sender.example</header_from></identifiers>
    <auth_results>
      <dkim><domain>sender.example</domain><selector>s1</selector><result>pass</result></dkim>
      <spf><domain>bounce.sender.example</domain><result>pass</result></spf>
    </auth_results>
  </record>
  <record>
    <row><source_ip>2001:db8::1</source_ip><count>1</count>
      <policy_evaluated><disposition>quarantine</disposition><dkim>fail</dkim><spf>fail</spf></policy_evaluated></row>
    <identifiers><header_from>sender.example</header_from></identifiers>
    <auth_results><spf><domain>forger.example</domain><result>softfail</result></spf></auth_results>
  </record>
</feedback>"#;

const JSON: &str = r#"{"organization-name":"Company-X","date-range":{"start-datetime":"2016-04-01T00:00:00Z","end-datetime":"2016-04-01T23:59:59Z"},
"contact-info":"sts-reporting@company-x.example","report-id":"5065427c-23d3-47ca-b6e0-946ea0e8c4be",
"policies":[{"policy":{"policy-type":"sts","policy-string":["version: STSv1","mode: testing"],"policy-domain":"company-y.example","mx-host":["*.mail.company-y.example"]},
"summary":{"total-successful-session-count":5326,"total-failure-session-count":303},
"failure-details":[{"result-type":"certificate-expired","sending-mta-ip":"2001:db8:abcd:0012::1","receiving-mx-hostname":"mx1.mail.company-y.example","failed-session-count":100},
{"result-type":"starttls-not-supported","sending-mta-ip":"2001:db8:abcd:0013::1","receiving-mx-hostname":"mx2.mail.company-y.example","receiving-ip":"203.0.113.56","failed-session-count":200,"additional-information":"https://reports.company-x.example/"}]}]}"#;

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn zipped(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in files {
        writer.start_file(*name, zip::write::SimpleFileOptions::default()).unwrap();
        writer.write_all(content).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

fn mail(kind: &str, name: &str, content: &[u8]) -> Vec<u8> {
    let digits = data_encoding::BASE64_MIME.encode(content);
    format!(
        "From: noreply@rcv.example\r\nSubject: Report Domain: sender.example\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: text/plain\r\n\r\nA report.\r\n--b\r\nContent-Type: {kind}\r\nContent-Disposition: attachment; filename=\"{name}\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{digits}\r\n--b--\r\n"
    )
    .into_bytes()
}

fn read_at(addressed: Addressed, message: &[u8]) -> Report {
    read(message, &Context { is_null_sender: false, addressed, rules: &Rules::built_in() })
}

#[test]
fn a_dmarc_report_is_read_from_every_packing() {
    let xml = XML.as_bytes();
    let mut with_mark = b"\xef\xbb\xbf".to_vec();
    with_mark.extend_from_slice(xml);
    for (kind, name, content) in [
        ("application/gzip", "google.com!sender.example!1683244800!1683331199.xml.gz", gzip(xml)),
        ("application/x-gzip", "r.gz", gzip(xml)),
        ("application/octet-stream", "r.xml.gz", gzip(xml)),
        ("application/zip", "r.zip", zipped(&[("r.xml", xml)])),
        ("application/x-zip-compressed", "r.xml.zip", zipped(&[("__MACOSX/x", b"x"), ("r.xml", xml)])),
        ("application/gzip", "wrong-name.zip", zipped(&[("r.xml", xml)])),
        ("text/xml", "r.xml", xml.to_vec()),
        ("application/xml", "r.xml", with_mark),
    ] {
        let Report::DmarcAggregate(report) = read_at(Addressed::Dmarc, &mail(kind, name, &content)) else {
            panic!("{kind} {name}: {:?}", read_at(Addressed::Dmarc, &mail(kind, name, &content)))
        };
        assert_eq!((report.organization.as_str(), report.report_id.as_str()), ("google.com", "123456789"));
        assert_eq!(
            (report.domain.as_str(), report.policy, report.subdomain_policy),
            ("sender.example", "quarantine", "reject")
        );
        assert_eq!((report.dkim_alignment, report.spf_alignment), ("r", "s"));
        assert_eq!((report.percent, report.missing_policy, report.is_testing), (Some(100), "", false));
        assert_eq!(report.begins_at.to_iso8601(), "2023-05-05T00:00:00.000Z");
        assert_eq!(report.rows.len(), 2);
        let row = &report.rows[0];
        assert_eq!((row.count, row.disposition, row.dkim_aligned, row.spf_aligned), (12, "none", "pass", "fail"));
        assert_eq!(row.source_ip.unwrap().to_string(), "198.51.100.7");
        // mail-auth drops blanks beside an entity.
        assert_eq!(row.overrides, [("mailing_list", "a&b".to_owned())]);
        assert_eq!(row.dkim, [DkimRow { domain: "sender.example".into(), selector: "s1".into(), result: "pass" }]);
        let spf = &report.rows[1].spf[0];
        assert_eq!((spf.domain.as_str(), spf.scope, spf.result), ("forger.example", "", "softfail"));
    }
}

#[test]
fn control_characters_of_strangers_are_blanks_and_a_percentage_is_one() {
    let read = |xml: &str| match read_at(Addressed::Dmarc, &mail("text/xml", "r.xml", xml.as_bytes())) {
        Report::DmarcAggregate(report) => report,
        other => panic!("{other:?}"),
    };
    let report = read(&XML.replace("google.com<", "goo\u{1b}gle&#10;x<"));
    assert_eq!(report.organization, "goo gle x");
    let percent = |text: &str| read(&XML.replace("<pct>100</pct>", text)).percent;
    let texts = ["<pct> 7 </pct>", "<pct>101</pct>", "<pct>-1</pct>", "<pct></pct>", ""];
    assert_eq!(texts.map(percent), [Some(7), None, None, None, None]);
}

#[test]
fn a_tls_report_is_read_from_every_packing() {
    for (kind, name, content) in [
        ("application/tlsrpt+gzip", "r.json.gz", gzip(JSON.as_bytes())),
        ("application/tlsrpt+json", "r.json", JSON.as_bytes().to_vec()),
        ("application/gzip", "r.gz", gzip(JSON.as_bytes())),
        ("application/octet-stream", "r.json.zip", zipped(&[("r.json", JSON.as_bytes())])),
    ] {
        // People point both at one mailbox.
        for addressed in [Addressed::TlsRpt, Addressed::Dmarc] {
            let Report::TlsReport(report) = read_at(addressed, &mail(kind, name, &content)) else {
                panic!("{kind} {name}")
            };
            assert_eq!(report.organization, "Company-X");
            assert_eq!(report.begins_at.to_iso8601(), "2016-04-01T00:00:00.000Z");
            let policy = &report.policies[0];
            assert_eq!((policy.policy_type.as_str(), policy.domain.as_str()), ("sts", "company-y.example"));
            assert_eq!((policy.successes, policy.failures), (5_326, 303));
            assert_eq!(policy.policy_strings, ["version: STSv1", "mode: testing"]);
            assert_eq!(policy.details[1].information.as_deref(), Some("https://reports.company-x.example/"));
            assert_eq!(policy.details[0].result, "certificate-expired");
            assert_eq!((policy.details[1].sessions, policy.details[1].receiving_ip.is_some()), (200, true));
        }
    }
}

fn refusal(kind: &str, name: &str, content: &[u8]) -> AggregateError {
    match read_at(Addressed::Dmarc, &mail(kind, name, content)) {
        Report::NotUnderstood(NotUnderstood::Aggregate(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn bombs_are_refused_by_size_and_by_ratio() {
    let zeros = vec![b' '; UNPACKED_BYTES_MAX + (1 << 20)];
    let bomb = gzip(&zeros);
    assert!(bomb.len() < 100_000);
    assert_eq!(unpack(&bomb), Err(UnpackError::TooLarge));
    assert_eq!(unpack(&zipped(&[("r.xml", &zeros)])), Err(UnpackError::TooLarge));
    // By ratio, long before the size.
    let few = gzip(&vec![b' '; 2 << 20]);
    assert!((2 << 20) / few.len() > RATIO_MAX);
    assert_eq!(unpack(&few), Err(UnpackError::TooLarge));
    // A bomb within a bomb is not opened twice.
    assert_eq!(refusal("application/gzip", "r.xml.gz", &bomb), AggregateError::Unpack(UnpackError::TooLarge));
    let nested = gzip(&gzip(XML.as_bytes()));
    assert!(matches!(refusal("application/gzip", "r.xml.gz", &nested), AggregateError::Malformed(_)));
    // Many members are one content.
    let members = gzip(&vec![b' '; 200 << 10]).repeat(2_000);
    assert_eq!(unpack(&members), Err(UnpackError::TooLarge));
    let many: Vec<(String, &[u8])> = (0..50).map(|n| (format!("{n}.xml"), XML.as_bytes())).collect();
    let many: Vec<(&str, &[u8])> = many.iter().map(|(name, content)| (name.as_str(), *content)).collect();
    assert_eq!(unpack(&zipped(&many)), Err(UnpackError::Damaged));
}

#[test]
fn sizes_that_an_archive_claims_are_not_believed() {
    let archive = zipped(&[("r.xml", XML.as_bytes())]);
    for at in 0..archive.len() {
        for octet in [0, 0xff, archive[at] ^ 1] {
            let mut changed = archive.clone();
            changed[at] = octet;
            if let Ok(content) = unpack(&changed) {
                assert!(content.len() <= UNPACKED_BYTES_MAX);
            }
        }
        assert!(unpack(&archive[..at]).is_err() || at < 4);
    }
}

#[test]
fn entities_of_a_document_type_give_an_error_and_no_text() {
    let laughs = r#"<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>"#;
    for entity in ["&b;", "&c;"] {
        let xml = XML.replacen("<feedback", &format!("{laughs}<feedback"), 1).replacen("google.com", entity, 1);
        match read_at(Addressed::Dmarc, &mail("text/xml", "r.xml", xml.as_bytes())) {
            Report::NotUnderstood(NotUnderstood::Aggregate(AggregateError::Malformed(_))) => {}
            Report::DmarcAggregate(report) => {
                assert!(!report.organization.contains("ha") && !report.organization.contains("root"), "{report:?}")
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn too_many_rows_are_refused_before_they_are_parsed() {
    let rows = "<record></record>".repeat(ROWS_MAX + 1);
    let xml = XML.replacen("</feedback>", &format!("{rows}</feedback>"), 1);
    assert_eq!(refusal("text/xml", "r.xml", xml.as_bytes()), AggregateError::TooManyRows);
    let json = format!("{{\"policies\":[{}{{}}]}}", "{},".repeat(3 * ROWS_MAX));
    assert_eq!(refusal("application/json", "r.json", json.as_bytes()), AggregateError::TooManyRows);
}

#[test]
fn what_is_no_report_says_why() {
    assert!(matches!(refusal("text/xml", "r.xml", b"<html></html>"), AggregateError::Malformed(_)));
    assert!(matches!(refusal("text/xml", "r.xml", b""), AggregateError::Malformed(_)));
    assert!(matches!(refusal("application/json", "r.json", b"{}"), AggregateError::Malformed(_)));
    assert_eq!(
        refusal("application/gzip", "r.xml.gz", &gzip(XML.as_bytes())[..50]),
        AggregateError::Unpack(UnpackError::Damaged)
    );
    let deep = "<feedback>".repeat(100_000);
    assert!(matches!(refusal("text/xml", "r.xml", deep.as_bytes()), AggregateError::Malformed(_)));
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(matches!(refusal("application/json", "r.json", deep.as_bytes()), AggregateError::Malformed(_)));
}

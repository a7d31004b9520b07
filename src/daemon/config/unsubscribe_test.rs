//! `[unsubscribe]`, and what of it is for configuration sets.

use super::rejection_test::{parse, refused, taken, warned};

const BULK: &str = "[[configuration_set]]\nname = \"news\"\nbulk = true\n";
const URL: &str = "[unsubscribe]\nurl = \"https://u.test/\"\n";

#[test]
fn bulk_sets_without_a_link_of_their_own_get_the_one_for_all() {
    let own = "[[configuration_set]]\nname = \"own\"\nbulk = true\nunsubscribe_url = \"https://own.test/\"\n";
    let config = taken(&format!("{URL}{BULK}{own}[[configuration_set]]\nname = \"receipts\"\n"));
    let url = |set: &str| config.admission.set(set).unwrap().unsubscribe_url.as_deref().map(str::to_owned);
    assert_eq!(url("news").as_deref(), Some("https://u.test/"));
    assert_eq!(url("own").as_deref(), Some("https://own.test/"));
    assert_eq!(url("receipts"), None);
    assert!(!config.admission.unsubscribes_by_mail, "nobody takes such mail");
    let by_mail = |rest: &str| {
        let home =
            "hostname = \"a.test\"\n[[listener]]\nname = \"home\"\naddress = \"127.0.0.1:26\"\ntakes = \"feedback\"\n";
        parse(&format!("{home}{rest}")).unwrap().admission.unsubscribes_by_mail
    };
    assert!(by_mail("") && !by_mail("[unsubscribe]\nmail = false\n"));
}

#[test]
fn what_cannot_be_is_refused_with_what_to_write() {
    refused(
        "[unsubscribe]\nurl = \"http://u.test/\"\naddress = \"u.test:443\"\n",
        &[
            "c.toml:4:7: unsubscribe.url: \"http://u.test/\" is no HTTPS URL of at most 256 octets without < > \" and #; write one such as \"https://mail.example.com/unsubscribe/\"; a token is put behind it",
            "c.toml:5:11: unsubscribe.address: \"u.test:443\" is not an address with a port; write an IP address and a port, such as \"127.0.0.1:443\" or \"[::1]:443\"",
        ],
    );
    refused(
        "[unsubscribe]\ncertificate = \"/c.pem\"\n",
        &[
            "c.toml:4:15: unsubscribe.certificate: means nothing without key; write key = \"/etc/posthaste/key.pem\"",
            "c.toml:4:15: unsubscribe.certificate: has no effect where no address takes requests; write address = \"0.0.0.0:443\", or remove it",
        ],
    );
    refused(
        "[unsubscribe]\nurl = \"https://u.test/off\"\npage = \"https://u.test\"\naddress = \"127.0.0.1:1\"\n",
        &[
            "c.toml:4:7: unsubscribe.url: \"https://u.test/off\" ends within a word, or has no path; write one such as \"https://mail.example.com/unsubscribe/\"; a token is put behind it",
            "c.toml:5:8: unsubscribe.page: \"https://u.test\" ends within a word, or has no path; write one such as \"https://mail.example.com/unsubscribe/\"; a token is put behind it",
        ],
    );
    refused(
        &format!("{URL}page = \"https://u.test/\"\naddress = \"127.0.0.1:1\"\n"),
        &[
            "c.toml:5:8: unsubscribe.page: is the link itself: whoever opens it would be sent round and round; name a page of your own, or remove it",
        ],
    );
    refused(
        "[unsubscribe]\naddress = \"127.0.0.1:1\"\nkey = \"/k.pem\"\n",
        &[
            "c.toml:5:7: unsubscribe.key: means nothing without certificate; write certificate = \"/etc/posthaste/certificate.pem\"",
        ],
    );
}

#[test]
fn an_address_that_no_link_leads_to_and_links_that_end_too_soon_are_warned_of() {
    warned(
        "[unsubscribe]\naddress = \"127.0.0.1:1\"\n",
        &[
            "c.toml:3:1: unsubscribe: no message has a link; write url = \"https://mail.example.com/unsubscribe/\", and bulk = true in a [[configuration_set]]",
        ],
    );
    let short = "c.toml:5:1: unsubscribe: recipients can unsubscribe only as long as both sent_retention in [feedback] and \
                 token_lifetime in [return_path], less than 30 days; write \"30d\" or longer for both";
    warned(&format!("[feedback]\nsent_retention = \"7d\"\n{URL}address = \"127.0.0.1:1\"\n{BULK}"), &[short]);
    warned(&format!("[return_path]\ntoken_lifetime = \"7d\"\n{URL}address = \"127.0.0.1:1\"\n{BULK}"), &[short]);
    warned(
        &format!("{URL}address = \"0.0.0.0:443\"\n{BULK}[[tenant]]\nname = \"shop\"\n"),
        &[
            "c.toml:3:1: unsubscribe: everybody can reach the address, and it speaks no TLS, which links of HTTPS need; write certificate and key, or a loopback address and let a proxy speak TLS",
            "c.toml:3:1: unsubscribe: several tenants may use a bulk set: who unsubscribes from it gets no more of it from any of them; give each tenant a bulk set of its own with tenants = [\"NAME\"]",
        ],
    );
}

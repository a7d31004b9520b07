//! Where mail goes is said by a zone file that Knot DNS serves.

use std::net::{IpAddr, SocketAddr};

use super::aiosmtpd::Aiosmtpd;
use super::knot::Knot;
use crate::harness::Lab;

#[test]
fn mail_goes_where_a_real_zone_says() {
    let lab = Lab::new();
    let address = |host: u8| SocketAddr::new(IpAddr::V4(lab.ip(host)), lab.port());
    let zone = format!(
        "$ORIGIN receiver.test.\n$TTL 300\n\
         @      IN SOA   ns hostmaster 1 3600 600 86400 60\n\
         @      IN NS    ns\n\
         ns     IN A     127.0.0.1\n\
         @      IN MX    10 dead\n\
         @      IN MX    20 mx\n\
         dead   IN A     {}\n\
         mx     IN A     {living}\n\
         bare   IN A     {living}\n\
         alias  IN CNAME receiver.test.\n\
         null   IN MX    0 .\n",
        lab.ip(3),
        living = lab.ip(2),
    );
    let _knot = Knot::start(address(53), "receiver.test", &zone);
    let receiver = Aiosmtpd::start(address(2), &[]);
    let daemon = lab.daemon_with(lab.config().set("dns.servers", &format!("[\"{}\"]", address(53))));
    let mut client = lab.client(&daemon);
    let mut events = daemon.events();

    let taken = ["a@receiver.test", "b@bare.receiver.test", "c@alias.receiver.test"];
    for recipient in taken {
        let id = client.send_simple("app@sender.example", &[recipient], "real-names");
        let delivery = events.wait_kind("Delivery", &id, recipient);
        assert_eq!(delivery["delivery"]["remoteMtaIp"], lab.ip(2).to_string(), "{recipient}");
    }
    let mut arrived: Vec<String> = receiver.wait(3).into_iter().flat_map(|message| message.recipients).collect();
    arrived.sort();
    assert_eq!(arrived, taken);

    let id = client.send_simple("app@sender.example", &["d@null.receiver.test"], "real-names");
    let bounce = events.wait_kind("Bounce", &id, "d@null.receiver.test");
    assert_eq!(bounce["bounce"]["bouncedRecipients"][0]["status"], "5.1.10", "{bounce}");

    // A name that does not exist is looked up again, ten minutes later, before its mail bounces.
    let id = client.send_simple("app@sender.example", &["e@gone.receiver.test"], "real-names");
    let queue = daemon.wait_queue("the mail to no domain is deferred", |queue| {
        queue.iter().any(|message| message.to_string().contains("deferred"))
    });
    assert!(queue.len() == 1 && queue[0].to_string().contains(&id), "{queue:?}");
    assert!(queue[0].to_string().contains("gone.receiver.test"), "{queue:?}");
}

//! Prints the machine, each run and the ratios as Markdown, ready for docs/PERFORMANCE.md.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::options::{Options, Server, Work};
use crate::reports::BesideReports;
use crate::server::version;
use crate::work::Figures;

/// What a reader must know to compare.
pub(crate) fn machine(options: &Options, directory: &Path, sync: Option<Duration>) {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let values = |key: &str| cpu.lines().filter(|line| line.starts_with(key)).count();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or("unknown")
        .trim_matches([' ', '\t', ':']);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("machine: {} x {model}, {}", values("processor"), version(Path::new("uname"), &["-sr"]));
    println!("memory: {}", memory());
    println!("load before: {}", load.split(' ').take(3).collect::<Vec<_>>().join(" "));
    println!("Postfix: {}", version(Path::new("postconf"), &["-d", "mail_version"]));
    match sync {
        Some(sync) => {
            println!("disk: {}: a write of 4 KiB and fdatasync take {}", directory.display(), milliseconds(sync))
        }
        None => println!("disk: {}", directory.display()),
    }
    println!(
        "work: {} octets a message, {} sessions, {} messages on a submission connection, load by {:?}",
        options.size, options.sessions, options.messages_per_connection, options.load
    );
}

fn memory() -> String {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    text.lines().next().unwrap_or_default().trim_start_matches("MemTotal:").trim().to_owned()
}

/// Generator and sink alone.
pub(crate) fn baseline(figures: &Figures) {
    println!("generator to sink alone: {:.0} messages/s, {:.3} CPU s/1,000\n", figures.accept_rate, figures.cpu_ours);
}

/// The head of the table of runs.
pub(crate) fn head() {
    println!(
        "| work | server | messages | msg/s | accepted/s | CPU s/1,000 | memory MiB | processes | p50 | p99 | remarks |"
    );
    println!("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---|");
}

/// One run.
pub(crate) fn row(work: Work, server: Server, figures: &Figures) {
    let latency = |value: Option<Duration>| value.map_or("-".to_owned(), milliseconds);
    println!(
        "| {} | {} | {} | {:.0} | {:.0} | {:.3} | {:.0} | {} | {} | {} | {} |",
        name(work),
        server_name(server),
        figures.messages,
        figures.rate,
        figures.accept_rate,
        figures.cpu,
        figures.memory_mib,
        figures.processes,
        latency(figures.p50),
        latency(figures.p99),
        remarks(work, figures).join("; "),
    );
}

fn remarks(work: Work, figures: &Figures) -> Vec<String> {
    let mut remarks = vec![format!("generator (if own) and sink {:.3} CPU s/1,000", figures.cpu_ours)];
    if figures.received != figures.messages && work != Work::Dead {
        remarks.push(format!("INCOMPLETE: {} of {} arrived", figures.received, figures.messages));
    }
    if figures.repeated > 0 {
        remarks.push(format!("{} arrived twice", figures.repeated));
    }
    if figures.refused > 0 {
        remarks.push(format!("{} submissions put off by 4xx", figures.refused));
    }
    if work == Work::Dead {
        let (first, last) = figures.accept_rate_ends;
        remarks.push(format!("accepted/s in the first tenth {first:.0}, in the last {last:.0}"));
    }
    if let Some(restart) = figures.restart {
        remarks.push(format!("restart to first delivery {}", milliseconds(restart)));
    }
    if let Some(beside) = &figures.beside_hostile {
        remarks.push(format!(
            "with {} held connections {:.0}/s ({} of alone); with {:.0} handshakes/s besides {:.0}/s ({} of alone)",
            beside.held,
            beside.held_rate,
            ratio(beside.held_rate, figures.rate),
            beside.handshakes_per_second,
            beside.storm_rate,
            ratio(beside.storm_rate, figures.rate),
        ));
    }
    if let Some(logins) = &figures.logins {
        remarks.push(format!(
            "logged in on kept connections {:.0}/s at {:.3} CPU s/1,000 ({} of alone), on new ones {:.0}/s at {:.3} ({} of alone)",
            logins.kept_rate,
            logins.kept_cpu,
            ratio(logins.kept_rate, figures.rate),
            logins.new_rate,
            logins.new_cpu,
            ratio(logins.new_rate, figures.rate),
        ));
    }
    if let Some(beside) = &figures.beside_reports {
        remarks.extend(reports(beside));
    }
    if let Some(cpu) = figures.signatures_cpu {
        remarks.push(format!("the signatures alone {cpu:.3} CPU s/1,000"));
    }
    remarks.push(format!("stopped in {}", milliseconds(figures.stop)));
    remarks
}

fn reports(beside: &BesideReports) -> Vec<String> {
    let mut remarks = vec![
        format!("reports alone {:.0}/s at {:.3} CPU s/1,000", beside.storm_rate, beside.storm_cpu),
        format!("after them {:.0} msg/s at {:.3} CPU s/1,000", beside.alone_rate, beside.alone_cpu),
        format!(
            "beside {:.0} reports a minute {:.0} msg/s ({} of that) at {:.3} CPU s/1,000 ({})",
            beside.per_minute,
            beside.beside_rate,
            ratio(beside.beside_rate, beside.alone_rate),
            beside.beside_cpu,
            ratio(beside.beside_cpu, beside.alone_cpu),
        ),
        format!(
            "replies to these reports p50 {}, p99 {}",
            milliseconds(beside.reply(50)),
            milliseconds(beside.reply(99))
        ),
        format!("{} of {} reports gave an event", beside.events, beside.accepted),
    ];
    if beside.ran_out {
        remarks.push("TOO FEW REPORTS for the whole time: raise --reports".to_owned());
    }
    remarks
}

/// posthaste against Postfix for each work that both did.
pub(crate) fn ratios(results: &[(Work, Server, Figures)]) {
    let both = results.iter().filter(|(_, server, _)| *server == Server::Posthaste).filter_map(|(work, _, ours)| {
        let (_, _, theirs) = results.iter().find(|(other, server, _)| other == work && *server == Server::Postfix)?;
        Some((*work, ours, theirs))
    });
    println!("\n| work | msg/s | accepted/s | CPU s/1,000 | memory |\n|---|---:|---:|---:|---:|");
    for (work, ours, theirs) in both {
        println!(
            "| {}: posthaste / Postfix | {} | {} | {} | {} |",
            name(work),
            ratio(ours.rate, theirs.rate),
            ratio(ours.accept_rate, theirs.accept_rate),
            ratio(ours.cpu, theirs.cpu),
            ratio(ours.memory_mib, theirs.memory_mib),
        );
    }
}

/// What signing added to the CPU of unsigned messages at the same pace, against what the signatures alone cost.
pub(crate) fn signing(results: &[(Work, Server, Figures)]) {
    for (work, _, signed) in results {
        let (Some(bare), Some(alone)) = (signed.bare_cpu, signed.signatures_cpu) else { continue };
        let (added, name) = (signed.cpu - bare, name(*work));
        let (pace, ratio) = (signed.rate, ratio(added, alone));
        println!(
            "\n{name}: {added:.3} CPU s/1,000 more than unsigned at {pace:.0} msg/s; the signatures alone {alone:.3}: {ratio}"
        );
    }
}

fn ratio(ours: f64, theirs: f64) -> String {
    if theirs > 0.0 && ours > 0.0 { format!("{:.3}", ours / theirs) } else { "-".to_owned() }
}

fn milliseconds(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1_000.0)
}

fn name(work: Work) -> &'static str {
    match work {
        Work::One => "one",
        Work::Many => "many",
        Work::SlowMx => "slow-mx",
        Work::Large => "large",
        Work::Idle => "idle",
        Work::Half => "half",
        Work::Dead => "dead",
        Work::Hostile => "hostile",
        Work::Login => "login",
        Work::Reports => "reports",
        Work::SignedRsa => "signed-rsa",
        Work::SignedEd25519 => "signed-ed25519",
    }
}

fn server_name(server: Server) -> &'static str {
    match server {
        Server::Postfix => "Postfix",
        Server::Posthaste => "posthaste",
    }
}

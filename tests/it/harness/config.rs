//! A config file, built key by key.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::Path;

/// Keys by section, and tables of arrays as text. Writing it out needs no order of calls.
#[derive(Clone, Debug)]
pub(crate) struct ConfigText {
    /// Section ("" is the root), then key, then its value as TOML.
    sections: BTreeMap<String, BTreeMap<String, String>>,
    /// `[[…]]` parts, written last.
    tables: Vec<String>,
}

impl ConfigText {
    pub(crate) fn for_lab(dir: &Path, dns: SocketAddr, port: u16) -> Self {
        let text = |path: &Path| format!("{:?}", path.to_str().expect("a temporary directory has a plain name"));
        let empty = Self { sections: BTreeMap::new(), tables: Vec::new() };
        empty
            .set("hostname", "\"sender.example\"")
            .set("data_dir", &text(&dir.join("queue")))
            .set("queue.free_space_reserve", "\"16MiB\"")
            .set("queue.memtable", "\"8MiB\"")
            .set("queue.wal_max", "\"16MiB\"")
            .set("queue.body_cache", "\"8MiB\"")
            .set("retry.steps", "[\"1s\", \"2s\"]")
            .set("retry.jitter_percent", "0")
            .set("delivery.port", &port.to_string())
            .set("delivery.allow_private_addresses", "true")
            .set("dns.servers", &format!("[\"{dns}\"]"))
            .set("dns.timeout", "\"2s\"")
            .set("dns.attempts", "1")
            .set("dns.ttl_min", "\"0s\"")
            .set("dns.negative_ttl", "\"1s\"")
            .set("dns.stale_max", "\"0s\"")
            .set("events.directory", &text(&dir.join("events")))
            .set("admin.socket", &text(&dir.join("admin.sock")))
            .set("log.level", "\"debug\"")
            .table("[[listener]]\nname = \"smtp\"\naddress = \"127.0.0.1:0\"\n")
    }

    /// Sets `section.key`, or a key of the root; the last call wins. The value is TOML.
    #[must_use]
    pub(crate) fn set(mut self, key: &str, value: &str) -> Self {
        let (section, key) = key.rsplit_once('.').unwrap_or(("", key));
        self.sections.entry(section.to_owned()).or_default().insert(key.to_owned(), value.to_owned());
        self
    }

    /// Adds a `[[…]]` table.
    #[must_use]
    pub(crate) fn table(mut self, table: &str) -> Self {
        self.tables.push(table.to_owned());
        self
    }

    /// Drops all `[[name]]` tables.
    #[must_use]
    pub(crate) fn without_tables(mut self, name: &str) -> Self {
        self.tables.retain(|table| !table.starts_with(&format!("[[{name}]]")));
        self
    }

    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (section, keys) in &self.sections {
            if !section.is_empty() {
                writeln!(text, "[{section}]").unwrap();
            }
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").unwrap();
            }
        }
        for table in &self.tables {
            writeln!(text, "{table}").unwrap();
        }
        text
    }
}

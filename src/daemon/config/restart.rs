//! Which keys a reload cannot change: they shape what is built once, at start.

use super::Config;

impl Config {
    /// The keys that differ in `new` and only take effect at the next start. A reload keeps their old values and warns.
    /// `config.toml.example` marks the same keys with "Restart."; a test holds both together.
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let (old_queue, new_queue) = (&self.queue, &new.queue);
        let (old_admin, new_admin) = (&self.admin, &new.admin);
        let keys = [
            ("hostname", self.hostname != new.hostname),
            ("data_dir", old_queue.data_dir != new_queue.data_dir),
            ("queue.ready_max", old_queue.ready_max != new_queue.ready_max),
            ("queue.body_cache", old_queue.body_cache_bytes != new_queue.body_cache_bytes),
            ("queue.memtable", old_queue.memtable_bytes != new_queue.memtable_bytes),
            ("queue.wal_max", old_queue.wal_bytes_max != new_queue.wal_bytes_max),
            ("unsubscribe.address", self.unsubscribe.address != new.unsubscribe.address),
            ("metrics.address", self.metrics.address != new.metrics.address),
            ("admin.socket", old_admin.socket != new_admin.socket),
            ("admin.group", old_admin.group != new_admin.group),
            ("admin.mode", old_admin.mode != new_admin.mode),
            ("log.format", self.log.format != new.log.format),
        ];
        keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = "hostname = \"a.test\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:0\" }]\n";
    const NEW: &str = "hostname = \"b.test\"\ndata_dir = \"/b\"\nlistener = [{ name = \"b\", address = \"127.0.0.1:0\" }]\n\
        [queue]\nready_max = 1000\nbody_cache = \"1MiB\"\nmemtable = \"8MiB\"\nwal_max = \"16MiB\"\n\
        [unsubscribe]\naddress = \"127.0.0.1:1\"\n[metrics]\naddress = \"127.0.0.1:1\"\n[admin]\nsocket = \"/s\"\ngroup = \"g\"\n[log]\nformat = \"json\"\n";

    /// Keys whose comment in the example ends in "Restart.".
    fn marked() -> Vec<String> {
        let (mut section, mut comment, mut keys) = (String::new(), String::new(), Vec::new());
        for line in include_str!("../../../config.toml.example").lines() {
            let text = line.trim_start_matches('#');
            if line.starts_with('#') && (text.is_empty() || text.starts_with(' ')) {
                comment.push_str(text);
                continue;
            }
            if let Some(header) = text.strip_prefix('[') {
                section = format!("{}.", header.trim_matches(['[', ']']));
            } else if let Some((key, _)) = text.split_once(" = ").filter(|_| comment.ends_with("Restart.")) {
                keys.push(format!("{section}{key}"));
            }
            comment.clear();
        }
        keys
    }

    #[test]
    fn the_example_marks_exactly_the_keys_that_need_a_restart() {
        let parse = |text: &str| Config::parse(text, "c.toml").unwrap_or_else(|errors| panic!("{errors}"));
        let (old, new) = (parse(OLD), parse(NEW));
        assert_eq!(old.needs_restart(&old), [""; 0]);
        let mut changed = old.needs_restart(&new);
        // A group and mode 0600 exclude each other.
        changed.extend(old.needs_restart(&parse(&format!("{OLD}[admin]\nmode = \"0600\"\n"))));
        changed.sort_unstable();
        let mut marked = marked();
        marked.sort_unstable();
        assert_eq!(changed, marked);
    }
}

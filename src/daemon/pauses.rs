//! Who was paused or resumed by a reload, as lines of the audit stream.

use std::collections::BTreeMap;

use crate::admission::Directory;
use crate::admission::quota::Scope;
use crate::events::audit::AuditEntry;

/// A line for each scope that sends and did not, or the other way round. One that is new and paused is told of, too.
pub(super) fn changes(old: &Directory, new: &Directory) -> Vec<AuditEntry> {
    let before = sending(old);
    let changed =
        sending(new).into_iter().filter(|(scope, is_on)| before.get(scope).copied().unwrap_or(true) != *is_on);
    let line = |(scope, is_on): (Scope, bool)| {
        let (kind, name) = (scope.kind(), scope.name());
        AuditEntry::new("sending").text("scope", kind).text("name", name).flag("enabled", is_on)
    };
    changed.map(line).collect()
}

fn sending(directory: &Directory) -> BTreeMap<Scope, bool> {
    let tenants = directory.tenants().map(|tenant| (Scope::Tenant(tenant.name.clone()), tenant.sending));
    let sets = directory.sets().map(|set| (Scope::ConfigurationSet(set.name.clone()), set.sending));
    std::iter::once((Scope::Server, directory.sending)).chain(tenants).chain(sets).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::config::Config;

    fn directory(text: &str) -> Directory {
        let head = "hostname = \"a.test\"\nlistener = [{ name = \"a\", address = \"127.0.0.1:25\" }]\n";
        Config::parse(&format!("{head}{text}"), "c.toml").unwrap().admission
    }

    #[test]
    fn only_what_changed_is_told() {
        let old = directory("[[tenant]]\nname = \"a\"\nsending = false\n[[tenant]]\nname = \"b\"\n");
        let new = directory(
            "[sending]\nenabled = false\n[[tenant]]\nname = \"a\"\n[[tenant]]\nname = \"b\"\n\
             [[configuration_set]]\nname = \"s\"\nsending = false\n",
        );
        let line = |scope: &str, name: &str, is_on| {
            AuditEntry::new("sending").text("scope", scope).text("name", name).flag("enabled", is_on)
        };
        let expected = [line("configuration_set", "s", false), line("tenant", "a", true), line("server", "", false)];
        assert_eq!(changes(&old, &new), expected);
        assert_eq!(changes(&new, &new), []);
    }
}

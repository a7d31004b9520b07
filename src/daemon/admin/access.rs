//! Who may use the admin socket: root, the daemon's own user, and members of the socket's group.
//!
//! The mode of the socket is the first lock, this the second: a socket whose mode was loosened by mistake stays shut.
//! Membership is that of /etc/group, and what the kernel says of the peer's process where /proc is visible.

use std::fs;
use std::path::Path;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";
const ROOT_UID: u32 = 0;

/// The process at the other end, in the kernel's words (SO_PEERCRED of unix(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) pid: Option<i32>,
}

/// The rule of one socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// The daemon's own user.
    pub(super) own_uid: u32,
    /// The group of the socket; `None` where only users decide (mode 0600).
    pub(super) gid: Option<u32>,
}

impl Access {
    /// Asked once a connection. Reads small system files for peers that are members by a supplementary group.
    pub(super) fn allows(&self, peer: Peer) -> bool {
        if peer.uid == ROOT_UID || peer.uid == self.own_uid {
            return true;
        }
        let Some(gid) = self.gid else {
            return false;
        };
        if peer.gid == gid {
            return true;
        }
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let status = peer.pid.map(|pid| read(&format!("/proc/{pid}/status"))).unwrap_or_default();
        is_member(&read(PASSWD), &read(GROUP), peer.uid, gid) || process_has_group(&status, peer.uid, gid)
    }
}

/// The number of a group given as a name or a number.
pub(super) fn group_id(group: &str) -> Option<u32> {
    if let Ok(gid) = group.parse() {
        return Some(gid);
    }
    let text = fs::read_to_string(Path::new(GROUP)).unwrap_or_default();
    group_lines(&text).find(|line| line.name == group).map(|line| line.gid)
}

struct GroupLine<'a> {
    name: &'a str,
    gid: u32,
    members: &'a str,
}

/// group(5): `name:password:gid:member,member`.
fn group_lines(text: &str) -> impl Iterator<Item = GroupLine<'_>> {
    text.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?.parse().ok()?;
        Some(GroupLine { name, gid, members: fields.next().unwrap_or_default() })
    })
}

fn is_member(passwd: &str, group: &str, uid: u32, gid: u32) -> bool {
    let user = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    let Some(user) = user else {
        return false;
    };
    group_lines(group).filter(|line| line.gid == gid).any(|line| line.members.split(',').any(|member| member == user))
}

/// The `Uid:` and `Groups:` lines of proc_pid_status(5); the uid is compared since the process id may be reused.
fn process_has_group(status: &str, uid: u32, gid: u32) -> bool {
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().filter_map(|word| word.parse::<u32>().ok()).collect::<Vec<_>>()
    };
    // Real, effective, saved, file system: the kernel reports the effective one as the peer's.
    numbers("Uid:").get(1) == Some(&uid) && numbers("Groups:").contains(&gid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD_SAMPLE: &str = "root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\nbad line\n:::\n";
    const GROUP_SAMPLE: &str = "root:x:0:\nposthaste:x:990:bob,ann\nother:x:991:bob\nempty:x:992:\n";

    #[test]
    fn membership_is_read_from_passwd_and_group() {
        assert!(is_member(PASSWD_SAMPLE, GROUP_SAMPLE, 1000, 990));
        assert!(!is_member(PASSWD_SAMPLE, GROUP_SAMPLE, 1000, 991));
        assert!(!is_member(PASSWD_SAMPLE, GROUP_SAMPLE, 1000, 992));
        assert!(!is_member(PASSWD_SAMPLE, GROUP_SAMPLE, 1001, 990));
        assert!(!is_member("", "", 1000, 990));
    }

    #[test]
    fn membership_of_a_process_needs_its_user_too() {
        let status = "Name:\tsh\nUid:\t1000\t1000\t1000\t1000\nGroups:\t100 990 \n";
        assert!(process_has_group(status, 1000, 990));
        assert!(!process_has_group(status, 1000, 99));
        assert!(!process_has_group(status, 1001, 990));
        assert!(!process_has_group("", 1000, 990));
    }

    #[test]
    fn root_the_own_user_and_the_group_are_served_and_nobody_else() {
        let check = |gid: Option<u32>, peer: (u32, u32), expected: bool| {
            let access = Access { own_uid: 990, gid };
            assert_eq!(access.allows(Peer { uid: peer.0, gid: peer.1, pid: None }), expected, "{gid:?} {peer:?}");
        };
        check(None, (0, 0), true);
        check(None, (990, 7), true);
        check(None, (4_000_000_001, 990), false);
        check(Some(990), (4_000_000_001, 990), true);
        check(Some(990), (4_000_000_001, 991), false);
    }

    #[test]
    fn groups_are_names_or_numbers() {
        assert_eq!(group_id("990"), Some(990));
        assert_eq!(group_id("root"), Some(0));
        assert_eq!(group_id("no such group"), None);
    }
}

//! Flags and masks as words.

use crate::plan::step::Attributes;
use crate::spec::CapabilitySets;
use std::fmt::{self, Display, Formatter};

pub(super) struct ListOf<'a, T>(pub &'a [T], pub &'static str);

impl<T: Display> Display for ListOf<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (i, item) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(self.1)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

/// Writes `A|B`, then any unnamed bits as a number; `0` if no bit is set.
fn bits(f: &mut Formatter<'_>, mut value: u64, names: &[(u64, &str)]) -> fmt::Result {
    if value == 0 {
        return f.write_str("0");
    }
    let mut first = true;
    for (bit, name) in names {
        if value & bit == *bit {
            write!(f, "{}{name}", if first { "" } else { "|" })?;
            first = false;
            value &= !bit;
        }
    }
    match value {
        0 => Ok(()),
        rest => write!(f, "{}{rest:#x}", if first { "" } else { "|" }),
    }
}

/// MS_*.
pub(super) struct MountFlags(pub u64);

impl Display for MountFlags {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = [
            (libc::MS_RDONLY, "RDONLY"),
            (libc::MS_NOSUID, "NOSUID"),
            (libc::MS_NODEV, "NODEV"),
            (libc::MS_NOEXEC, "NOEXEC"),
            (libc::MS_SYNCHRONOUS, "SYNCHRONOUS"),
            (libc::MS_REMOUNT, "REMOUNT"),
            (libc::MS_MANDLOCK, "MANDLOCK"),
            (libc::MS_DIRSYNC, "DIRSYNC"),
            (libc::MS_NOATIME, "NOATIME"),
            (libc::MS_NODIRATIME, "NODIRATIME"),
            (libc::MS_RELATIME, "RELATIME"),
            (libc::MS_STRICTATIME, "STRICTATIME"),
            (libc::MS_BIND, "BIND"),
            (libc::MS_REC, "REC"),
            (libc::MS_SHARED, "SHARED"),
            (libc::MS_PRIVATE, "PRIVATE"),
            (libc::MS_SLAVE, "SLAVE"),
            (libc::MS_UNBINDABLE, "UNBINDABLE"),
        ];
        bits(f, self.0, &names)
    }
}

/// MOUNT_ATTR_*. The atime bits are an enumeration, whose default, relatime, is all bits unset.
pub(super) struct Attr(pub u64);

impl Display for Attr {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = [
            (libc::MOUNT_ATTR_RDONLY, "RDONLY"),
            (libc::MOUNT_ATTR_NOSUID, "NOSUID"),
            (libc::MOUNT_ATTR_NODEV, "NODEV"),
            (libc::MOUNT_ATTR_NOEXEC, "NOEXEC"),
            (libc::MOUNT_ATTR__ATIME, "ATIME"),
            (libc::MOUNT_ATTR_NOATIME, "NOATIME"),
            (libc::MOUNT_ATTR_STRICTATIME, "STRICTATIME"),
            (libc::MOUNT_ATTR_NODIRATIME, "NODIRATIME"),
            (libc::MOUNT_ATTR_NOSYMFOLLOW, "NOSYMFOLLOW"),
        ];
        bits(f, self.0, &names)
    }
}

/// Describes the changes: `, set A|B, clear C, …`.
pub(super) fn attribute_words(attributes: &Attributes) -> String {
    let parts = [
        ("set", attributes.set),
        ("clear", attributes.clear),
        ("set recursively", attributes.recursive_set),
        ("clear recursively", attributes.recursive_clear),
    ];
    parts
        .iter()
        .filter(|(_, bits)| *bits != 0)
        .map(|(verb, bits)| format!(", {verb} {}", Attr(*bits)))
        .collect()
}

/// CLONE_NEW*, as lsns(8) calls them.
pub(super) fn namespace_words(flags: u64) -> String {
    struct Words(u64);
    impl Display for Words {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            let names = [
                (libc::CLONE_NEWNS, "mnt"),
                (libc::CLONE_NEWCGROUP, "cgroup"),
                (libc::CLONE_NEWUTS, "uts"),
                (libc::CLONE_NEWIPC, "ipc"),
                (libc::CLONE_NEWUSER, "user"),
                (libc::CLONE_NEWPID, "pid"),
                (libc::CLONE_NEWNET, "net"),
                (libc::CLONE_NEWTIME, "time"),
            ];
            bits(f, self.0, &names.map(|(flag, name)| (flag as u64, name)))
        }
    }
    Words(flags).to_string()
}

/// `none`, or names without their prefix.
pub(super) struct Caps(pub u64);

impl Display for Caps {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("none");
        }
        let names: Vec<String> =
            CapabilitySets::names(self.0).map(|name| name.trim_start_matches("CAP_").to_owned()).collect();
        ListOf(&names, "+").fmt(f)
    }
}

//! `linux.sysctl`: only sysctls of a namespace, and only if the container does not share that namespace with the host.

use super::{json, Namespaces, Ns};
use crate::error::{invalid, Result};
use std::collections::BTreeMap;
use std::ffi::CString;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sysctl {
    /// As the spec writes it.
    pub key: String,
    /// Below /proc/sys, e.g. `net/ipv4/ip_forward`.
    pub path: CString,
    pub value: CString,
}

impl Sysctl {
    /// The namespace that it belongs to, by the spec's name.
    pub(crate) fn namespace(&self) -> &'static str {
        match self.path.to_bytes() {
            path if path.starts_with(b"net/") => "network",
            path if path.starts_with(b"user/") => "user",
            b"kernel/domainname" => "uts",
            _ => "ipc",
        }
    }
}

/// The sysctls of the IPC namespace, besides `fs.mqueue.*` (ipc_namespaces(7)).
const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

pub(super) fn check(map: BTreeMap<String, String>, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    map.into_iter()
        .map(|(key, value)| {
            let field = || format!("linux.sysctl[{key:?}]");
            let path = path(&key).ok_or_else(|| invalid(format!("{}: not the name of a sysctl", field())))?;
            if let Err(reason) = allowed(&path.replace('.', "\u{1}").replace('/', "."), namespaces) {
                return Err(invalid(format!("{}: {reason}", field())));
            }
            let path = json::c_string(field, &path)?;
            let value = json::c_string(field, &value)?;
            Ok(Sysctl { key, path, value })
        })
        .collect()
}

/// Parses a name as sysctl(8) does: the first separator decides; if it is a dot, slashes stand for dots.
fn path(key: &str) -> Option<String> {
    let path = match key.find(['.', '/']) {
        Some(at) if key.as_bytes()[at] == b'.' => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        Some(_) => key.to_owned(),
        None => return None,
    };
    let clean = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
    clean.then_some(path)
}

/// `name` has dots between its components.
fn allowed(name: &str, namespaces: &Namespaces) -> Result<(), &'static str> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        return match namespaces.ipc {
            Ns::Host => Err("not allowed in the host's ipc namespace"),
            _ => Ok(()),
        };
    }
    if name.starts_with("net.") {
        return match namespaces.net {
            Ns::Host => Err("not allowed in the host's network namespace"),
            _ => Ok(()),
        };
    }
    if name.starts_with("user.") {
        return match namespaces.user {
            Ns::Host => Err("not allowed in the host's user namespace"),
            _ => Ok(()),
        };
    }
    match name {
        "kernel.domainname" if namespaces.uts != Ns::Host => Ok(()),
        "kernel.hostname" if namespaces.uts != Ns::Host => Err("set the field hostname instead"),
        _ => Err("not in a namespace of its own, it would change the host"),
    }
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn names_are_read_as_sysctl_does() {
        assert_eq!(path("net.ipv4.ip_forward").as_deref(), Some("net/ipv4/ip_forward"));
        assert_eq!(
            path("net.ipv4.conf.eth0/100.rp_filter").as_deref(),
            Some("net/ipv4/conf/eth0.100/rp_filter")
        );
        assert_eq!(
            path("net/ipv4/conf/eth0.100/rp_filter").as_deref(),
            Some("net/ipv4/conf/eth0.100/rp_filter")
        );
    }

    #[test]
    fn names_stay_below_proc_sys() {
        for key in
            ["net/../kernel/core_pattern", "net.//.kernel", "net", "", "net..ipv4", "net/./x", "/net/x"]
        {
            assert_eq!(path(key), None, "{key}");
        }
    }
}

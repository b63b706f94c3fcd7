//! `linux.namespaces`: which are new, which are joined, and which are the host's.

use super::unsupported;
use crate::error::{invalid, Result};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType};
use std::path::PathBuf;

/// The origin of a container's namespace of one kind. "Host" is the shim's own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ns {
    #[default]
    Host,
    New,
    Join(PathBuf),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Namespaces {
    pub pid: Ns,
    pub mount: Ns,
    pub net: Ns,
    pub ipc: Ns,
    pub uts: Ns,
    pub cgroup: Ns,
    pub user: Ns,
    pub time: Ns,
    /// Those, of the ones given by a path, of which the container's sandbox has its own: they cannot be the host's.
    pub in_pod: Vec<&'static str>,
}

impl Namespaces {
    pub(super) fn check(list: &[LinuxNamespace]) -> Result<Self> {
        let mut all = Namespaces::default();
        for (i, entry) in list.iter().enumerate() {
            let (name, slot) = match entry.typ() {
                LinuxNamespaceType::Pid => ("pid", &mut all.pid),
                LinuxNamespaceType::Mount => ("mount", &mut all.mount),
                LinuxNamespaceType::Network => ("network", &mut all.net),
                LinuxNamespaceType::Ipc => ("ipc", &mut all.ipc),
                LinuxNamespaceType::Uts => ("uts", &mut all.uts),
                LinuxNamespaceType::Cgroup => ("cgroup", &mut all.cgroup),
                LinuxNamespaceType::User => ("user", &mut all.user),
                LinuxNamespaceType::Time => ("time", &mut all.time),
            };
            if *slot != Ns::Host {
                return Err(invalid(format!("linux.namespaces[{i}]: a second {name} namespace")));
            }
            *slot = match entry.path() {
                Some(path) if path.is_absolute() => Ns::Join(path.clone()),
                Some(path) if !path.as_os_str().is_empty() => {
                    return Err(invalid(format!("linux.namespaces[{i}].path: {path:?} is not absolute")));
                }
                _ => Ns::New,
            };
        }
        if all.mount == Ns::Host {
            // The container's mounts would be the host's.
            return Err(unsupported("linux.namespaces: a container in the host's mount namespace"));
        }
        Ok(all)
    }
}

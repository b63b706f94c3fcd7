//! config.json as types that cannot be invalid: parsed by serde, then checked field by field. No I/O.
//!
//! Source: the OCI runtime specification 1.2 (config.md, config-linux.md); where it leaves a choice, runc's behaviour.
//! Every error begins with the JSON path of the field, e.g. `mounts[7].options[2]`. Anything in a spec that shoal does
//! not support is refused by name (`Kind::Unsupported`), never dropped; what runc only warns about is in `warnings`.

pub(crate) mod annotation;
pub(crate) mod capability;
mod device;
pub(crate) mod hook;
mod index_list;
mod intel_rdt;
mod json;
pub(crate) mod mapping;
pub(crate) mod memory_policy;
pub mod mount;
pub(crate) mod namespace;
mod net_device;
pub(crate) mod process;
mod raw;
pub mod resources;
pub(crate) mod seccomp;
mod sysctl;
mod time;

pub(crate) use capability::CapabilitySets;
pub(crate) use device::Device;
pub use hook::Hook;
pub(crate) use hook::Hooks;
pub(crate) use index_list::IndexList;
pub(crate) use intel_rdt::IntelRdt;
pub(crate) use json::parse as parse_json;
pub use mapping::{IdRange, Mappings};
pub(crate) use memory_policy::MemoryPolicy;
pub(crate) use mount::Mount;
pub use namespace::{Namespaces, Ns};
pub(crate) use net_device::NetDevice;
pub use process::Process;
pub(crate) use process::{Affinity, Rlimit, SchedAttr};
pub(crate) use sysctl::Sysctl;

use crate::error::{invalid, Error, Kind, Result};
use mount::Propagation;
use oci_spec::runtime::LinuxIdMapping;
use resources::Resources;
use seccomp::Seccomp;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::path::PathBuf;

/// The container's root filesystem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: PathBuf,
    pub readonly: bool,
}

/// A container's config.json.
#[derive(Clone, Debug)]
pub struct Spec {
    pub version: String,
    pub root: Root,
    pub mounts: Vec<Mount>,
    pub process: Process,
    pub hostname: Option<CString>,
    pub domainname: Option<CString>,
    pub hooks: Hooks,
    pub annotations: BTreeMap<String, String>,
    pub namespaces: Namespaces,
    pub net_devices: Vec<NetDevice>,
    /// The lines for /proc/PID/timens_offsets.
    pub time_offsets: Option<CString>,
    /// Of the user namespace: complete for a new one; for a joined one, whatever the spec says.
    pub mappings: Mappings,
    pub sysctls: Vec<Sysctl>,
    /// As written: a path, or `slice:prefix:name`.
    pub cgroups_path: Option<String>,
    pub resources: Resources,
    pub devices: Vec<Device>,
    pub seccomp: Option<Seccomp>,
    pub rootfs_propagation: Option<Propagation>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub mount_label: Option<CString>,
    pub personality: Option<u64>,
    pub memory_policy: Option<MemoryPolicy>,
    pub intel_rdt: Option<IntelRdt>,
    /// Warnings for the log: an unknown capability, …
    pub warnings: Vec<String>,
}

/// The name of the spec's file in a bundle.
pub(crate) const CONFIG: &str = "config.json";
/// The largest spec that is read: containerd takes none above 16 MiB from its clients.
pub(crate) const CONFIG_MAX: u64 = 64 << 20;

impl Spec {
    pub fn parse(json: &[u8]) -> Result<Spec> {
        let raw: raw::Spec = json::parse(json, CONFIG)?;
        check_version(&raw.oci_version)?;
        let mut warnings = Vec::new();
        let linux = raw.linux.unwrap_or_default();

        let root = raw.root.ok_or_else(|| invalid("root: missing"))?;
        if root.path.as_os_str().is_empty() {
            return Err(invalid("root.path: must not be empty"));
        }
        let process = raw.process.ok_or_else(|| invalid("process: missing"))?;
        let process = Process::check(process, "process.")?;
        let namespaces = Namespaces::check(&linux.namespaces.unwrap_or_default())?;
        let mappings = mappings(linux.uid_mappings.as_ref(), linux.gid_mappings.as_ref(), &namespaces)?;
        let hostname = private_uts("hostname", raw.hostname, &namespaces)?;
        let domainname = private_uts("domainname", raw.domainname, &namespaces)?;
        let resources = match &linux.resources {
            Some(raw) => Resources::parse(raw, "linux.resources")?,
            None => Resources::default(),
        };
        let mounts = mount::check(raw.mounts.unwrap_or_default(), &namespaces, &mut warnings)?;

        Ok(Spec {
            version: raw.oci_version,
            root: Root { path: root.path, readonly: root.readonly.unwrap_or(false) },
            mounts,
            hostname,
            domainname,
            hooks: Hooks::check(raw.hooks.unwrap_or_default())?,
            annotations: raw.annotations.unwrap_or_default(),
            sysctls: sysctl::check(linux.sysctl.unwrap_or_default(), &namespaces)?,
            net_devices: net_device::check(linux.net_devices.unwrap_or_default())?,
            time_offsets: time::check(linux.time_offsets.unwrap_or_default(), &namespaces)?,
            namespaces,
            mappings,
            cgroups_path: linux.cgroups_path.filter(|path| !path.is_empty()),
            devices: device::check(linux.devices.unwrap_or_default())?,
            seccomp: linux.seccomp.as_ref().map(Seccomp::check).transpose()?,
            rootfs_propagation: rootfs_propagation(linux.rootfs_propagation.as_deref())?,
            masked_paths: paths("linux.maskedPaths", linux.masked_paths)?,
            readonly_paths: paths("linux.readonlyPaths", linux.readonly_paths)?,
            mount_label: json::text("linux.mountLabel", linux.mount_label)?,
            intel_rdt: linux.intel_rdt.map(|rdt| intel_rdt::check(rdt, &mut warnings)).transpose()?,
            memory_policy: linux.memory_policy.map(memory_policy::check).transpose()?,
            personality: linux.personality.map(|p| personality(p, &mut warnings)).transpose()?,
            warnings: [warnings, process.warnings.clone(), resources.warnings.clone()].concat(),
            process,
            resources,
        })
    }
}

/// Checks sysctls for a pod with these namespaces, by the rules for a container's.
pub fn sysctls(map: BTreeMap<String, String>, namespaces: &Namespaces) -> Result<Vec<Sysctl>> {
    sysctl::check(map, namespaces)
}

/// Accepts any 1.x, the only versions in use.
fn check_version(version: &str) -> Result<()> {
    match version.split('.').next() {
        Some("1" | "") => Ok(()),
        _ => Err(Error::new(Kind::Unsupported, format!("ociVersion: {version:?} is not a version 1"))),
    }
}

pub(crate) fn unsupported(field: &str) -> Error {
    Error::new(Kind::Unsupported, format!("{field}: not supported"))
}

/// A new user namespace needs maps, which must include a root that can set it up; without a user namespace there is
/// nothing to map.
fn mappings(
    uids: Option<&Vec<LinuxIdMapping>>,
    gids: Option<&Vec<LinuxIdMapping>>,
    namespaces: &Namespaces,
) -> Result<Mappings> {
    let check = |field: &str, raw: Option<&Vec<LinuxIdMapping>>| {
        let ranges = mapping::check(raw, field)?;
        match namespaces.user {
            Ns::Host if !ranges.is_empty() => {
                Err(invalid(format!("{field}: there is no user namespace to map ids for")))
            }
            Ns::New if ranges.is_empty() => {
                Err(invalid(format!("{field}: missing, a new user namespace needs it")))
            }
            Ns::New if ranges.iter().all(|range| range.inside != 0) => {
                Err(invalid(format!("{field}: id 0 of the container is not mapped")))
            }
            _ => Ok(ranges),
        }
    };
    Ok(Mappings { uids: check("linux.uidMappings", uids)?, gids: check("linux.gidMappings", gids)? })
}

/// sethostname(2) in a shared namespace would rename everyone who shares it.
fn private_uts(field: &str, name: Option<String>, namespaces: &Namespaces) -> Result<Option<CString>> {
    let name = json::text(field, name)?;
    if name.is_some() && namespaces.uts == Ns::Host {
        return Err(invalid(format!("{field}: cannot be set without a private uts namespace")));
    }
    Ok(name)
}

fn rootfs_propagation(word: Option<&str>) -> Result<Option<Propagation>> {
    match word {
        None | Some("") => Ok(None),
        Some(word) => match Propagation::parse(word) {
            Some(propagation) => Ok(Some(propagation)),
            None => Err(invalid(format!("linux.rootfsPropagation: {word:?} is not a propagation type"))),
        },
    }
}

fn paths(field: &str, paths: Option<Vec<String>>) -> Result<Vec<String>> {
    let paths = paths.unwrap_or_default();
    for (i, path) in paths.iter().enumerate() {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(invalid(format!("{field}[{i}]: {path:?} is not an absolute path")));
        }
    }
    Ok(paths)
}

/// The argument of personality(2): linux/personality.h. As in runc, flags are ignored with a warning.
fn personality(raw: raw::Personality, warnings: &mut Vec<String>) -> Result<u64> {
    if raw.flags.is_some_and(|flags| !flags.is_empty()) {
        warnings.push("linux.personality.flags: ignored, no flag is supported".into());
    }
    match raw.domain.as_str() {
        "LINUX" => Ok(0),
        "LINUX32" => Ok(8),
        other => Err(invalid(format!("linux.personality.domain: {other:?} is neither LINUX nor LINUX32"))),
    }
}

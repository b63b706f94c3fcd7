//! Membership of a container in a pod: how it is recognized and how its specification is adapted.
//!
//! CRI refers to the pod's namespaces as `/proc/<the sandbox's pid>/ns/*`, clients that know no pid write `/proc/1/ns/*`,
//! and `ctr run --sandbox` does not mention them. A container joins the namespaces that the shim holds: a path with a
//! pid in it may lead to another process by now, or to the host.

use super::files::{records, SHM};
use super::namespaces::Held;
use super::request::PodPid;
use super::Pod;
use crate::cgroup;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::launch::Leash;
use crate::paths::Paths;
use crate::sandbox::container::Records;
use crate::sandbox::{record, Create, World};
use crate::spec::mount::{Attributes, Mount, Source};
use crate::spec::{annotation, Ns, Spec};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Of an id, in bytes.
const ID_MAX: u64 = 4096;

/// Keeps what the specification now refers to alive until the container is created.
pub(in crate::sandbox) struct Membership {
    /// Where the container's record is: in the pod's bundle, since containerd removes a container's own before it has
    /// `delete` called for a pod whose shim is gone.
    records: PathBuf,
    /// The pod's cgroup.
    pod_cgroup: cgroup::Record,
    _held: Arc<Held>,
}

impl Membership {
    pub fn records(&self, bundle: &Path) -> Records {
        Records::Own {
            folder: self.records.clone(),
            bundle: bundle.to_owned(),
            pod_cgroup: self.pod_cgroup.clone(),
        }
    }
}

/// Makes a container one of the members of this shim's pod.
pub(in crate::sandbox) async fn join(
    pod: &Pod,
    world: &World,
    request: &Create,
    spec: &mut Spec,
    leash: &Leash,
) -> Result<Membership> {
    let named = sandbox_of(&world.paths, &request.bundle, spec, leash.deadline);
    // Whoever creates a container in the shim of a pod need not say of which.
    if let Some(of) = leash.unless_killed(named).await?
        && of != pod.id
    {
        let what = format!("container {} is of sandbox {of}, and this is the shim of {}", request.id, pod.id);
        return Err(invalid(what));
    }
    let held = pod.for_member()?;
    namespaces(pod, &held, spec)?;
    files(pod, spec);
    cgroup(world, pod, request, spec);
    let records = records(&pod.bundle).join(&request.id);
    std::fs::create_dir_all(&records).context(|| format!("mkdir({records:?})"))?;
    // For a `delete` of the container alone.
    if let Err(error) = record::link(&request.bundle, &records) {
        let _ = std::fs::remove_dir(&records);
        return Err(error);
    }
    Ok(Membership { records, pod_cgroup: pod.cgroup.pod_record(), _held: held })
}

/// The bundle's `sandbox` file, which containerd writes; else CRI's annotation.
async fn sandbox_of(paths: &Paths, bundle: &Path, spec: &Spec, deadline: Instant) -> Result<Option<String>> {
    match paths.read(&bundle.join("sandbox"), ID_MAX, deadline).await {
        Ok(id) => Ok(Some(String::from_utf8_lossy(&id).trim().to_owned())),
        Err(e) if e.errno() == Some(libc::ENOENT) => {
            Ok(spec.annotations.get(annotation::SANDBOX_ID).cloned())
        }
        Err(e) => Err(e),
    }
}

fn namespaces(pod: &Pod, held: &Held, spec: &mut Spec) -> Result<()> {
    // CRI specifies the path of each namespace; other clients know nothing about the pod's.
    let silent = !spec.annotations.contains_key(annotation::CONTAINER_TYPE);
    let shared_pid = pod.config.pid == PodPid::Pod;
    let ns = &mut spec.namespaces;
    for (kind, name, place, shared) in [
        ("network", "net", &mut ns.net, true),
        ("ipc", "ipc", &mut ns.ipc, true),
        ("uts", "uts", &mut ns.uts, true),
        ("pid", "pid", &mut ns.pid, shared_pid),
        ("user", "user", &mut ns.user, true),
    ] {
        let pods = match place {
            Ns::Join(path) => stands_for(path, name, held.pid),
            Ns::New => silent && shared,
            Ns::Host => false,
        };
        if pods && name == "pid" && pod.config.pid == PodPid::Container {
            return Err(invalid(
                "linux.namespaces: the sandbox has no pid namespace that its containers share",
            ));
        }
        let of_pod = held.path(name);
        let own = of_pod.is_some() || name == "pid" && pod.config.pid == PodPid::Container;
        if pods {
            *place = of_pod.map_or(Ns::Host, Ns::Join);
        } else if own && matches!(place, Ns::Join(_)) {
            ns.in_pod.push(kind);
        }
    }
    let host = |ns: &Ns| *ns == Ns::Host;
    if host(&ns.uts) && (spec.hostname.is_some() || spec.domainname.is_some()) {
        return Err(invalid("hostname: the sandbox has the host's uts namespace"));
    }
    for sysctl in &spec.sysctls {
        let place = match sysctl.namespace() {
            "network" => &ns.net,
            "uts" => &ns.uts,
            _ => &ns.ipc,
        };
        if host(place) {
            let what = format!("the sandbox has the host's {} namespace", sysctl.namespace());
            return Err(Error::new(Kind::Invalid, format!("linux.sysctl[{:?}]: {what}", sysctl.key)));
        }
    }
    Ok(())
}

/// Whether the path means the pod's namespace: by the pid that its sandbox has told, or by one that means nothing here.
fn stands_for(path: &Path, name: &str, pid: u32) -> bool {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    let parts: Vec<&str> = parts.iter().map(|part| &**part).collect();
    let (of, kind) = match parts.as_slice() {
        ["/", "proc", of, "ns", kind] | ["/", "proc", of, "task", _, "ns", kind] => (of, kind),
        _ => return false,
    };
    *kind == name && of.parse().is_ok_and(|of: u32| [pid, 0, 1].contains(&of))
}

/// Replaces the mounts of files that CRI 1.7 takes from a directory of its own, and a default /dev/shm, with the pod's
/// files; mounts by the client itself (such as the kubelet's /etc/hosts) stay.
fn files(pod: &Pod, spec: &mut Spec) {
    let folder = format!("/sandboxes/{}/", pod.id);
    for (destination, source) in pod.files.iter() {
        let own_ipc = destination == SHM && spec.namespaces.ipc == Ns::New;
        if own_ipc {
            continue;
        }
        let mount = spec.mounts.iter_mut().find(|mount| same(&mount.destination, destination));
        match mount {
            None => spec.mounts.push(bind(destination, source, spec.root.readonly && destination != SHM)),
            Some(mount) => {
                let replaced = match &mount.source {
                    Source::Bind { path, .. } => path.to_string_lossy().contains(&folder),
                    Source::Filesystem { fstype, source, .. } => {
                        destination == SHM && fstype.as_c_str() == c"tmpfs" && source.as_c_str() == c"shm"
                    }
                    Source::Remount => false,
                };
                if replaced {
                    let attributes = match &mount.source {
                        Source::Bind { .. } => mount.attributes,
                        _ => Attributes::default(),
                    };
                    *mount = Mount { attributes, ..bind(destination, source, false) };
                }
            }
        }
    }
}

fn same(destination: &str, other: &str) -> bool {
    destination
        .split('/')
        .filter(|part| !matches!(*part, "" | "."))
        .eq(other.split('/').filter(|part| !part.is_empty()))
}

fn bind(destination: &str, source: &Path, readonly: bool) -> Mount {
    let set = if readonly { libc::MOUNT_ATTR_RDONLY } else { 0 };
    Mount {
        destination: destination.to_owned(),
        source: Source::Bind { path: source.to_owned(), recursive: false },
        attributes: Attributes { set, ..Attributes::default() },
        propagation: None,
        copy_up: false,
        idmap: None,
    }
}

/// Moves the container's cgroup below the pod's. Without a `cgroup_parent` clients put each container outside the pod's
/// cgroup, beside the others, where they cannot be frozen or measured as one. A path that somebody has chosen stays.
fn cgroup(world: &World, pod: &Pod, request: &Create, spec: &mut Spec) {
    let Some(below) = pod.members_below.as_ref().filter(|_| !request.options.systemd_cgroup) else { return };
    let (namespace, id) = (&world.namespace, &request.id);
    let chosen = spec.cgroups_path.as_deref().unwrap_or_default();
    if ["".into(), format!("/{namespace}/{id}"), format!("/{id}"), id.clone()]
        .iter()
        .any(|path| path == chosen)
    {
        spec.cgroups_path = Some(format!("/{}/{id}", below.display()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_namespace_is_meant_by_its_pid_and_by_those_that_mean_nothing() {
        let stands = |path: &str| stands_for(Path::new(path), "net", 7);
        for path in [
            "/proc/7/ns/net",
            "/proc/0/ns/net",
            "/proc/1/ns/net",
            "/proc//7/./ns/net",
            "/proc/7/task/9/ns/net",
        ] {
            assert!(stands(path), "{path}");
        }
        for path in [
            "/proc/8/ns/net",
            "/proc/7/ns/ipc",
            "/proc/self/ns/net",
            "/run/netns/x",
            "proc/7/ns/net",
            "/proc/7/ns",
        ] {
            assert!(!stands(path), "{path}");
        }
    }
}

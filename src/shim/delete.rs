//! `delete`: removes what is left of a container, without its server.
//!
//! containerd runs it after each container for which it launched a shim, and when it has lost a shim. Everything may
//! have been removed already, so nothing here fails if something is missing. What cannot be undone is reported on
//! standard error, which containerd logs, and the rest is done all the same: containerd removes the bundle next,
//! including whatever is still mounted in it.

use super::arguments::Arguments;
use super::{socket, start};
use crate::cgroup;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{CloneLauncher, ExitStatus, Reaper, Strangers, KILLED};
use crate::mountinfo::mounts;
use crate::resctrl;
use crate::sandbox::record::{self, Record};
use crate::sandbox::{member_records, poststop_of};
use crate::service::convert;
use crate::sys::{mount, wait};
use crate::tasks::block_on;
use protobuf::Message;
use std::ffi::CString;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// How long a killed process may take to exit: containerd gives this verb five seconds.
const GONE: Duration = Duration::from_secs(2);
/// How long the poststop hooks may take, out of the same five seconds.
const HOOKS: Duration = Duration::from_secs(2);

pub(super) fn delete(arguments: &Arguments) -> Result<()> {
    let bundle = if arguments.bundle == Path::new("") {
        std::env::current_dir().context(|| "getcwd()")?
    } else {
        arguments.bundle.clone()
    };
    let record = record::read(&bundle).unwrap_or_else(|error| {
        complain(&error);
        None
    });
    let (mut pid, mut code, mut at) = (0, KILLED, SystemTime::now());
    let all: Vec<Record> = members(&bundle).into_iter().chain(record.clone()).collect();
    // Kill first: the processes then die as soon as they are thawed, and cannot do anything before.
    all.iter().for_each(kill);
    all.iter().filter_map(|record| record.pod_cgroup.as_ref()).for_each(thaw);
    all.iter().for_each(end);
    all.iter().for_each(|record| record::hide(record.root.as_deref()));
    if let Some(record) = &record {
        pid = record.pid;
        // The server may have recorded the exit until the very end.
        let last = record::read(&bundle).ok().flatten();
        if let Some(exit) = last.and_then(|record| record.exit) {
            (code, at) = (exit.code, exit.at());
        }
    }
    for done in [unmount_below(&bundle), remove_socket(&bundle)] {
        done.unwrap_or_else(|error| complain(&error));
    }
    // A pod has no hooks.
    if let Some(record) = record.as_ref().filter(|record| record.parent.is_none()) {
        // Still pending, since the server runs them before it removes the record.
        let launcher = || CloneLauncher::new(Reaper::start(Strangers::Reap)?);
        let hooks = poststop_of(launcher, &record.id, &bundle, HOOKS);
        block_on(hooks).unwrap_or_else(|error| complain(&error));
    }
    record::remove(&bundle);
    let response = convert::deleted(pid, ExitStatus { code, at });
    let response = response.write_to_bytes();
    let response = response.map_err(|e| Error::caused_by(Kind::Bug, "encode DeleteResponse", e))?;
    std::io::stdout().write_all(&response).context(|| "write the answer")
}

fn complain(error: &Error) {
    eprintln!("{}: delete: {error}", super::NAME);
}

/// The records of a pod's containers: containerd calls `delete` only for the pod if it has lost its shim.
fn members(bundle: &Path) -> Vec<Record> {
    let folders = std::fs::read_dir(member_records(bundle)).into_iter().flatten().flatten();
    let read = |folder: std::fs::DirEntry| match record::read(&folder.path()) {
        // None: the container was just being created.
        Ok(record) => record,
        Err(error) => {
            complain(&error);
            None
        }
    };
    folders.filter_map(read).collect()
}

/// Thaws a pod that was paused when its shim was lost.
fn thaw(pod_cgroup: &cgroup::Record) {
    match open_cgroup(Some(pod_cgroup)).map(|cgroup| cgroup.thaw()) {
        // The hierarchy or its cgroup is missing: nothing is frozen there.
        Some(Err(e)) if e.kind() != Kind::Unsupported && e.kind() != Kind::NotFound => complain(&e),
        _ => {}
    }
}

fn open_cgroup(record: Option<&cgroup::Record>) -> Option<Box<dyn cgroup::Cgroup>> {
    cgroup::open(&cgroup::Host::default(), record?).unwrap_or_else(|error| {
        complain(&error);
        None
    })
}

fn kill(record: &Record) {
    if let Some(criu) = record.criu {
        kill_process(criu.pid, criu.start_time).unwrap_or_else(|error| complain(&error));
    }
    if let Some(cgroup) = open_cgroup(record.cgroup.as_ref()) {
        cgroup.kill().unwrap_or_else(|error| complain(&error));
    }
}

/// Kills every process of the container (or of the pod) and removes its cgroup.
fn end(record: &Record) {
    let cgroup = open_cgroup(record.cgroup.as_ref());
    // Needed if the process has left its cgroup, or shares it with others.
    kill_process(record.pid, record.start_time).unwrap_or_else(|error| complain(&error));
    for cgroup in cgroup.iter().chain(&open_cgroup(record.parent.as_ref())) {
        // Try both: the removal may work even if the kill fails.
        for done in [cgroup.kill(), block_on(cgroup.remove())] {
            done.unwrap_or_else(|error| complain(&error));
        }
    }
    resctrl::remove(&record.resctrl).unwrap_or_else(|error| complain(&error));
}

/// Kills the recorded process, if the pid has not been reused, and waits until it is gone: its mounts go with it.
fn kill_process(pid: u32, start_time: u64) -> Result<()> {
    if pid == 0 {
        return Ok(());
    }
    // Open the pidfd before checking the start time, so that the check covers the process that will be signalled.
    let pidfd = match wait::open_pidfd(pid) {
        Ok(pidfd) => pidfd,
        Err(nix::errno::Errno::ESRCH) => return Ok(()),
        Err(errno) => return Err(errno).context(|| format!("pidfd_open({pid})")),
    };
    if record::start_time(pid) != Some(start_time) {
        return Ok(());
    }
    match wait::signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => return Err(errno).context(|| format!("pidfd_send_signal({pid}, SIGKILL)")),
    }
    let end = Instant::now() + GONE;
    // A zombie has released its mounts; its new parent reaps it.
    while record::start_time(pid) == Some(start_time) && !ended(pid) {
        if Instant::now() > end {
            return Err(Error::new(
                Kind::Deadline,
                format!("process {pid} is still there, {GONE:?} after SIGKILL"),
            ));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// Whether the process is a zombie or gone: field 3 of proc_pid_stat(5).
fn ended(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

/// Detaches every mount in the bundle, last one first.
fn unmount_below(bundle: &Path) -> Result<()> {
    let Ok(bundle) = std::fs::canonicalize(bundle) else { return Ok(()) };
    let mountinfo = std::fs::read("/proc/self/mountinfo").context(|| "read(\"/proc/self/mountinfo\")")?;
    let mut failed = Ok(());
    for point in points_below(&mountinfo, &bundle) {
        let what = || format!("umount2({point:?}, MNT_DETACH)");
        let text = CString::new(point.as_os_str().as_bytes());
        let text = text.map_err(|e| Error::caused_by(Kind::Bug, what(), e))?;
        match mount::unmount(&text, libc::MNT_DETACH | libc::UMOUNT_NOFOLLOW) {
            // Already unmounted together with the one it was on.
            Ok(()) | Err(nix::errno::Errno::EINVAL | nix::errno::Errno::ENOENT) => {}
            // Go on with the others: containerd removes the directory next, including whatever is mounted in it.
            Err(errno) => failed = failed.and(Err(errno).context(what)),
        }
    }
    failed
}

/// The mount points below (not at) `folder`, in an order in which they can be unmounted.
fn points_below(mountinfo: &[u8], folder: &Path) -> Vec<PathBuf> {
    let points = mounts(mountinfo).map(|mount| mount.point());
    let mut points: Vec<PathBuf> =
        points.filter(|point| point.starts_with(folder) && point != folder).collect();
    points.reverse();
    points
}

/// Unlinks the socket named by the bundle's `address`, unless a server answers there: it has other containers.
fn remove_socket(bundle: &Path) -> Result<()> {
    let Ok(address) = std::fs::read_to_string(bundle.join(start::ADDRESS)) else { return Ok(()) };
    let Some(path) = address.trim().strip_prefix("unix://").map(Path::new) else { return Ok(()) };
    socket::remove_stale(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_below_a_folder_come_last_first() {
        let info = b"30 24 0:26 / /run/b rw - tmpfs tmpfs rw\n\
            31 30 0:27 / /run/b/rootfs rw - overlay overlay rw\n\
            32 31 0:28 / /run/b/rootfs/a\\040b rw - tmpfs tmpfs rw\n\
            33 24 0:29 / /run/bb/rootfs rw - overlay overlay rw\n";
        let points = points_below(info, Path::new("/run/b"));
        assert_eq!(points, ["/run/b/rootfs/a b", "/run/b/rootfs"].map(PathBuf::from));
    }

    #[test]
    fn groups_that_were_made_in_resctrl_are_removed() {
        let root = tempfile::tempdir().unwrap();
        let groups = ["c1", "c1/mon_groups"].map(|name| root.path().join(name));
        groups.iter().for_each(|group| std::fs::create_dir(group).unwrap());
        let record = serde_json::json!({
            "id": "c1", "pid": 0, "start_time": 0, "cgroup": null, "exit": null, "resctrl": groups,
        });
        end(&serde_json::from_value(record).unwrap());
        assert!(!groups[0].exists());
    }

    #[test]
    fn a_process_is_killed_only_while_its_pid_is_its_own() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id();
        let started = record::start_time(pid).unwrap();
        kill_process(pid, started + 1).unwrap();
        assert!(!ended(pid), "a process with another start time was killed");
        kill_process(pid, started).unwrap();
        assert!(ended(pid));
        child.wait().unwrap();
        kill_process(pid, started).unwrap();
        kill_process(0, 0).unwrap();
    }
}

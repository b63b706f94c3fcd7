//! What a restored process may be.
//!
//! The images say what a process was, and CRIU, as root of the host, makes that again. They may be anybody's; so before
//! the processes go on, all of them are measured by the specification, as a created process would be.

use super::checkpoint::{read, unless_ended};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::{Namespaces, Ns, Process, Spec};
use crate::sys::{wait, Errno};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

const CAP_SETGID: u64 = 1 << 6;
const CAP_SETUID: u64 = 1 << 7;
const CAP_SYS_ADMIN: u64 = 1 << 21;
const CAP_SYS_RESOURCE: u64 = 1 << 24;

/// The kinds that exist before hooks run, and those that exist at the end.
pub(super) const EARLY: &[&str] = &["pid", "net", "user"];
pub(super) const ALL: &[&str] = &["pid", "net", "ipc", "uts", "user", "mnt", "cgroup"];

/// What a restored process is compared with.
pub(super) struct Measure<'a> {
    pub spec: &'a Spec,
    /// Joined namespaces, by kind: what a link to one says.
    pub joined: BTreeMap<&'static str, String>,
    /// A process that is in none of the container's namespaces, but in a mount namespace of its own.
    pub stand_in: u32,
    /// /proc/PID/cgroup of a process in the container's cgroup.
    pub cgroup: Vec<u8>,
}

fn refused(what: impl std::fmt::Display) -> Error {
    invalid(format!("checkpoint: the image has {what}"))
}

fn namespace(pid: &str, kind: &str) -> Result<String> {
    let path = format!("/proc/{pid}/ns/{kind}");
    match std::fs::read_link(&path) {
        Ok(link) => Ok(link.to_string_lossy().into_owned()),
        // Not every kernel has them all.
        Err(e) if pid == "self" && e.raw_os_error() == Some(libc::ENOENT) => Ok(String::new()),
        Err(e) => Err(e).context(|| format!("readlink({path:?})")),
    }
}

fn of_kind<'a>(namespaces: &'a Namespaces, kind: &str) -> &'a Ns {
    match kind {
        "pid" => &namespaces.pid,
        "net" => &namespaces.net,
        "ipc" => &namespaces.ipc,
        "uts" => &namespaces.uts,
        "user" => &namespaces.user,
        "mnt" => &namespaces.mount,
        _ => &namespaces.cgroup,
    }
}

impl Measure<'_> {
    /// The first process is in the namespaces that the specification says.
    pub fn namespaces(&self, pid: u32, kinds: &[&'static str]) -> Result<()> {
        for kind in kinds.iter().copied() {
            let hosts = namespace("self", kind)?;
            if hosts.is_empty() {
                continue;
            }
            let its = namespace(&pid.to_string(), kind)?;
            let right = match of_kind(&self.spec.namespaces, kind) {
                Ns::Host => its == hosts,
                Ns::New => its != hosts && its != namespace(&self.stand_in.to_string(), kind)?,
                Ns::Join(_) => self.joined.get(kind) == Some(&its),
            };
            if !right {
                return Err(refused(format!("another {kind} namespace than linux.namespaces says")));
            }
        }
        Ok(())
    }

    /// All processes, which stand still, have no more than the specification gives. Returns their pids.
    pub fn processes(&self, first: u32) -> Result<Vec<u32>> {
        self.namespaces(first, ALL)?;
        let all = tree(first)?;
        for pid in &all {
            self.process(*pid, first).context(|| format!("process {pid}"))?;
        }
        Ok(all)
    }

    fn process(&self, pid: u32, first: u32) -> Result<()> {
        let process = &self.spec.process;
        let given = given(process);
        let adjusted = read(&format!("/proc/{pid}/oom_score_adj"))?;
        let adjusted = String::from_utf8_lossy(&adjusted).trim().parse::<i32>().unwrap_or(i32::MIN);
        if given & CAP_SYS_RESOURCE == 0 && process.oom_score_adj.is_some_and(|least| adjusted < least) {
            return Err(refused("a process with a lower process.oomScoreAdj"));
        }
        for kind in ALL {
            let its = namespace(&pid.to_string(), kind)?;
            let same = its == namespace(&first.to_string(), kind)?;
            // A process with CAP_SYS_ADMIN may have made one of its own.
            let own = given & CAP_SYS_ADMIN != 0
                && its != namespace("self", kind)?
                && its != namespace(&self.stand_in.to_string(), kind)?;
            if !same && !own {
                return Err(refused(format!("a process in another {kind} namespace")));
            }
        }
        for thread in list(&format!("/proc/{pid}/task"))? {
            // On v1 each thread is in a cgroup of its own.
            let cgroup = read(&format!("/proc/{pid}/task/{thread}/cgroup"))?;
            if !within(&cgroup, &self.cgroup) {
                return Err(refused("a thread outside of the container's cgroup"));
            }
            let status = read(&format!("/proc/{pid}/task/{thread}/status"))?;
            rights(&String::from_utf8_lossy(&status), process, self.spec.seccomp.is_some())?;
            self.label(pid, &thread)?;
        }
        Ok(())
    }

    fn label(&self, pid: u32, thread: &str) -> Result<()> {
        let Process { apparmor_profile, selinux_label, .. } = &self.spec.process;
        let Some(wanted) = apparmor_profile.as_ref().or(selinux_label.as_ref()) else { return Ok(()) };
        let attr = format!("/proc/{pid}/task/{thread}/attr");
        let own = format!("{attr}/apparmor/current");
        let file = match apparmor_profile {
            Some(_) if Path::new(&own).exists() => own,
            _ => format!("{attr}/current"),
        };
        let label = read(&file)?;
        // AppArmor says the mode behind the name.
        let label = label.split(|byte| matches!(byte, b' ' | b'\n' | 0)).next().unwrap_or_default();
        if label != wanted.to_bytes() {
            return Err(refused(format!("a process whose label is not {wanted:?}")));
        }
        Ok(())
    }
}

/// What a process may have come to have: an execve(2) can give what the bounding set has.
fn given(process: &Process) -> u64 {
    let sets = process.capabilities.unwrap_or_default();
    sets.bounding | sets.permitted | sets.inheritable
}

/// Whether without CAP_SYS_ADMIN, and so without a mount that it has made itself.
pub(super) fn mounts_nothing(spec: &Spec) -> bool {
    given(&spec.process) & CAP_SYS_ADMIN == 0
}

/// `status` is that of a thread: proc_pid_status(5).
fn rights(status: &str, process: &Process, filtered: bool) -> Result<()> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.ok_or_else(|| Error::new(Kind::System, format!("/proc/PID/status has no {name}")))
    };
    if field("State")?.trim().starts_with(['Z', 'X']) {
        return Ok(());
    }
    let given = given(process);
    let bounding = process.capabilities.unwrap_or_default().bounding;
    for (name, allowed) in
        [("CapBnd", bounding), ("CapPrm", given), ("CapEff", given), ("CapInh", given), ("CapAmb", given)]
    {
        let has = u64::from_str_radix(field(name)?.trim(), 16).unwrap_or(u64::MAX);
        if has & !allowed != 0 {
            return Err(refused(format!("{name} {has:#x}, more than process.capabilities")));
        }
    }
    if process.no_new_privileges && field("NoNewPrivs")?.trim() != "1" {
        return Err(refused("a process without process.noNewPrivileges"));
    }
    if filtered && field("Seccomp")?.trim() != "2" {
        return Err(refused("a process without the filter of linux.seccomp"));
    }
    // Nothing that it can do changes its ids.
    let user = &process.user;
    let ids = |name: &str, known: &dyn Fn(u32) -> bool| {
        let mut ids = field(name)?.split_ascii_whitespace().map(|id| id.parse().ok());
        if ids.all(|id| id.is_some_and(known)) {
            Ok(())
        } else {
            Err(refused(format!("a process with another {name} than process.user")))
        }
    };
    if process.no_new_privileges && given & CAP_SETUID == 0 {
        ids("Uid", &|id| id == user.uid)?;
    }
    if process.no_new_privileges && given & CAP_SETGID == 0 {
        ids("Gid", &|id| id == user.gid)?;
        ids("Groups", &|id| id == user.gid || user.additional_gids.contains(&id))?;
    }
    Ok(())
}

/// Whether each line of /proc/PID/cgroup names a cgroup that is the other one's, or below it.
fn within(its: &[u8], other: &[u8]) -> bool {
    let parse = |line: &'_ [u8]| -> Option<(Vec<u8>, Vec<u8>)> {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        Some((fields.next()?.to_vec(), fields.next()?.to_vec()))
    };
    let lines =
        |text: &[u8]| -> BTreeMap<_, _> { text.split(|byte| *byte == b'\n').filter_map(parse).collect() };
    let (its, other) = (lines(its), lines(other));
    let below = |(names, path): (&Vec<u8>, &Vec<u8>)| {
        let parent = other.get(names).map(Vec::as_slice);
        let rest = parent.and_then(|parent| path.strip_prefix(parent.strip_suffix(b"/").unwrap_or(parent)));
        rest.is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
    };
    !its.is_empty() && its.iter().all(below)
}

fn list(path: &str) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(path).context(|| format!("open({path:?})"))?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// A process and all that descend from it. They stand still, and so the tree does.
fn tree(first: u32) -> Result<Vec<u32>> {
    let (mut all, mut next) = (vec![first], 0);
    while let Some(pid) = all.get(next).copied() {
        next += 1;
        for thread in list(&format!("/proc/{pid}/task"))? {
            let path = format!("/proc/{pid}/task/{thread}/children");
            let children = match std::fs::read_to_string(&path) {
                Err(e) if e.raw_os_error() == Some(Errno::ENOENT as i32) => {
                    let what = "checkpoint: a kernel without CONFIG_PROC_CHILDREN";
                    return Err(Error::new(Kind::Unsupported, what));
                }
                children => children.context(|| format!("read({path:?})"))?,
            };
            all.extend(children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
        }
    }
    Ok(all)
}

/// A restored container's first process, which CRIU has made as a child of the shim.
pub(super) struct First {
    pub pid: u32,
    pidfd: OwnedFd,
}

impl First {
    pub fn new(pid: u32) -> Result<Self> {
        let pidfd = wait::open_pidfd(pid).context(|| format!("pidfd_open({pid})"))?;
        if !wait::is_child_of(pidfd.as_fd()) {
            return Err(Error::new(Kind::System, format!("criu: {pid} is no child of the shim")));
        }
        Ok(First { pid, pidfd })
    }

    /// For a look at it by its number.
    pub async fn alive(&self) -> Result<u32> {
        unless_ended(self.pidfd.as_fd()).await?;
        Ok(self.pid)
    }

    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// CRIU means this one.
    pub fn check(&self, pid: u32) -> Result<()> {
        if self.pid == pid {
            Ok(())
        } else {
            Err(Error::new(Kind::System, format!("criu: {pid} is not the first process")))
        }
    }

    /// Ends it, and all that descend from it: the last ones first, so that nobody adopts them.
    pub async fn kill(&self) {
        let others = match self.alive().await {
            Ok(pid) => tree(pid).unwrap_or_default(),
            Err(_) => Vec::new(),
        };
        for pid in others.into_iter().skip(1).rev() {
            let _ = wait::open_pidfd(pid).and_then(|pidfd| wait::signal(pidfd.as_fd(), libc::SIGKILL));
        }
        let _ = wait::signal(self.pidfd(), libc::SIGKILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::CapabilitySets;

    const STATUS: &str =
        "Name:\tsh\nState:\tt (tracing stop)\nUid:\t1\t1\t1\t1\nGid:\t2\t2\t2\t2\nGroups:\t2 3 \n\
        CapInh:\t0\nCapPrm:\t20\nCapEff:\t20\nCapBnd:\t20\nCapAmb:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n";

    fn process() -> Process {
        let json = br#"{"args":["sh"],"cwd":"/","user":{"uid":1,"gid":2,"additionalGids":[3]},"noNewPrivileges":true}"#;
        let sets = CapabilitySets { bounding: 0x20, permitted: 0x20, effective: 0x20, ..Default::default() };
        Process { capabilities: Some(sets), ..Process::parse(json).unwrap() }
    }

    #[test]
    fn a_process_with_more_than_its_specification_gives_is_refused() {
        rights(STATUS, &process(), true).unwrap();
        for (from, to, word) in [
            ("CapInh:\t0", "CapInh:\t1", "CapInh"),
            ("CapPrm:\t20", "CapPrm:\t60", "CapPrm"),
            ("CapEff:\t20", "CapEff:\t21", "CapEff"),
            ("CapBnd:\t20", "CapBnd:\t1ffffffffff", "CapBnd"),
            ("CapAmb:\t0", "CapAmb:\t80", "CapAmb"),
            ("CapAmb:\t0", "CapAmb:\tx", "CapAmb"),
            ("NoNewPrivs:\t1", "NoNewPrivs:\t0", "noNewPrivileges"),
            ("Seccomp:\t2", "Seccomp:\t0", "seccomp"),
            ("Uid:\t1\t1", "Uid:\t1\t0", "Uid"),
            ("Gid:\t2\t2", "Gid:\t2\t0", "Gid"),
            ("Groups:\t2 3", "Groups:\t2 0", "Groups"),
            ("Seccomp:\t2\n", "", "Seccomp"),
        ] {
            let status = STATUS.replace(from, to);
            assert_ne!(status, STATUS);
            let error = rights(&status, &process(), true).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
        rights(&STATUS.replace("Seccomp:\t2", "Seccomp:\t0"), &process(), false).unwrap();
        // A zombie has no rights that it could use.
        rights("State:\tZ (zombie)\n", &process(), true).unwrap();
    }

    #[test]
    fn ids_are_compared_only_if_nothing_can_change_them() {
        let root = STATUS.replace("Uid:\t1\t1\t1\t1", "Uid:\t0\t0\t0\t0");
        let changing = CapabilitySets { bounding: 0x20 | CAP_SETUID, ..process().capabilities.unwrap() };
        rights(&root, &Process { capabilities: Some(changing), ..process() }, true).unwrap();
        rights(&root, &Process { no_new_privileges: false, ..process() }, true).unwrap();
        rights(&root, &process(), true).unwrap_err();
    }

    #[test]
    fn a_cgroup_is_within_another_one_in_every_hierarchy() {
        let own = b"2:cpu,cpuacct:/a/c1\n1:name=systemd:/a/c1\n0::/\n";
        for (its, right) in [
            ("2:cpu,cpuacct:/a/c1\n1:name=systemd:/a/c1/sub\n0::/\n", true),
            ("2:cpu,cpuacct:/a/c1\n1:name=systemd:/a/c1\n0::/x\n", true),
            ("2:cpu,cpuacct:/a/c12\n1:name=systemd:/a/c1\n0::/\n", false),
            ("2:cpu,cpuacct:/a\n1:name=systemd:/a/c1\n0::/\n", false),
            ("3:memory:/a/c1\n", false),
            ("", false),
        ] {
            assert_eq!(within(its.as_bytes(), own), right, "{its}");
        }
    }

    #[test]
    fn a_tree_has_its_own_process() {
        assert!(tree(std::process::id()).unwrap().contains(&std::process::id()));
    }
}

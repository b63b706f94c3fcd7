//! What a container's first process does between its clone and its `execve`, as data.
//!
//! A [`Plan`](super::Plan) is compiled in the shim, where allocation, JSON and look-ups are allowed; the child
//! only walks its steps (`init`), which are system calls and nothing else. A step can say what it is
//! (`Display`), so the child's report of eight bytes (step number, errno) becomes a sentence again in the shim.
//!
//! What a step needs from outside the container it names by a [`Slot`]. What follows a path of the host is opened by
//! the child, by a step that fills a slot: the path can lead to a filesystem that never answers, and a child has a time
//! limit, and can be killed. The shim itself makes before the clone what can make nobody wait: the plan's [`Open`]s.
//! Paths inside the container are [`RootPath`]s, resolved by the child below the root's descriptor.

use std::ffi::{CStr, CString};

pub(crate) use crate::spec::mount::{Attributes, FsOption, Propagation};
pub(crate) use crate::spec::{CapabilitySets, IndexList, Mappings, MemoryPolicy, SchedAttr};
use crate::sys::keyring::Search;
use crate::sys::seccomp::Filter;

/// Where a descriptor is that one step has opened and another one uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Index into `Plan::opens`; the launcher lends the child one descriptor for each.
    Lent(u16),
    /// What a step before has opened.
    Opened(u16),
}

/// A path inside the container's root: normalised, relative (`.` is the root itself), no `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RootPath(CString);

impl RootPath {
    /// Takes a path as a spec writes it; `..` stops at the root. `None` where there is a NUL inside.
    pub(crate) fn new(path: &str) -> Option<Self> {
        let mut parts: Vec<&str> = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part),
            }
        }
        let joined = if parts.is_empty() { ".".into() } else { parts.join("/") };
        CString::new(joined).ok().map(RootPath)
    }

    pub(crate) fn as_c_str(&self) -> &CStr {
        &self.0
    }
}

/// Something that the shim opens before the clone and lends to the child.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Open {
    /// A new user namespace with these maps: made by a process that ends at once.
    UserNamespace(Mappings),
    /// A descriptor of the shim's own, by its path below /proc/self/fd: the child's would be another one.
    Descriptor(CString),
    /// The pidfd of the container's first process, for an exec.
    Init,
}

/// The order of the phases is the order of the steps in every plan; where there is a [`Step::Sibling`], of the steps
/// up to it, and of those after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Into the cgroup and the namespaces.
    Isolate,
    /// The root filesystem is put together.
    Root,
    /// The root becomes `/`.
    Enter,
    /// Session, terminal, stdio, limits.
    Session,
    /// Ids and capabilities are given up.
    Privileges,
    /// The program is looked up, the gate is passed, the program runs.
    Run,
}

/// The options of mount(2): MS_*, and the filesystem's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub flags: u64,
    pub data: CString,
}

/// One act of the child. Steps share registers: the root, a private procfs, the console, HOME (see `init`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    // Isolate
    /// Opens a namespace file, e.g. `/proc/1/ns/net`, into `slot` (what has been lent is there already); checks that it is
    /// on nsfs and of type `kind` (a CLONE_NEW* flag). With `apart` it must not be the host's own: that is what would
    /// change it, in words.
    OpenNamespace {
        slot: Slot,
        path: CString,
        kind: u64,
        apart: Option<&'static str>,
    },
    /// Opens the user namespace that owns the one in `of`, opened from `path`, into `slot`: ioctl_ns(2). It must not be the
    /// host's.
    OpenOwner {
        slot: Slot,
        of: Slot,
        path: CString,
    },
    /// Writes `0` to every `cgroup.procs` that the launcher prepared (none where CLONE_INTO_CGROUP did it).
    EnterCgroup,
    /// sched_setaffinity(2): these, or all that the cgroup's cpuset has. What the shim has is its unit's, and since Linux
    /// 6.2 a cpuset does not take that back. `initial`: those for the way into the cgroup.
    Affinity {
        cpus: Option<IndexList>,
        initial: bool,
    },
    /// Own oom_score_adj, through the host's procfs, before any namespace is left.
    OomScoreAdj(i32),
    /// /proc/thread-self/attr/`file` (`apparmor/exec`, `exec`) is opened now, on the host's procfs, and
    /// written by `ExecLabel` before the execve.
    OpenExecLabel {
        file: CString,
    },
    /// setns(2) to the namespace file in `slot`, or to several namespaces of the process behind its pidfd.
    SetNs {
        slot: Slot,
        flags: u64,
    },
    /// setgroups(2) to none, while that is allowed: a user namespace may forbid it, and what the shim has must not stay.
    LeaveGroups,
    /// The launcher's ends (fifos, pipes and files) are given to `uid` of the host: whoever is in a user namespace cannot
    /// do it any more.
    GiveStreams {
        uid: u32,
    },
    /// The hard limit becomes at least `hard`: in a user namespace it can only be lowered.
    RaiseLimit {
        resource: u32,
        hard: u64,
    },
    /// The container's cgroup (of v2) and the files of it that delegation is about (cgroups(7)) are given to `uid` of the
    /// host: it may make cgroups below.
    GiveCgroup {
        uid: u32,
    },
    /// unshare(2): the cgroup namespace, whose root is the cgroup that the child has entered.
    Unshare {
        flags: u64,
    },
    /// The lines for /proc/self/timens_offsets: of the time namespace that the process's children will be in.
    TimeOffsets(CString),
    /// setns(2) to that namespace, so that the process is in it itself.
    EnterTime,
    /// Brings up `lo` in a new network namespace.
    LoopbackUp,

    // Root
    /// A detached copy of a mount tree: open_tree(2) with OPEN_TREE_CLONE. With `plain` no magic link is followed on the
    /// way: those of /proc/self are of this process, and lead to what is the shim's, or to anything by a number.
    OpenTree {
        slot: Slot,
        path: CString,
        recursive: bool,
        plain: bool,
    },
    /// A tree as above of one device node of the host's, which must be this device: for where mknod(2) is refused.
    OpenDevice {
        slot: Slot,
        path: CString,
        kind: u32,
        major: u32,
        minor: u32,
    },
    /// A loop device with this file behind it, which goes with the mount.
    OpenLoop {
        slot: Slot,
        path: CString,
        readonly: bool,
        direct: bool,
    },
    /// mount_setattr(2) with MOUNT_ATTR_IDMAP and the user namespace in `namespace`, of the top of the tree in `slot` or of
    /// all of it.
    MapTree {
        slot: Slot,
        namespace: Slot,
        recursive: bool,
    },
    /// `/` becomes a slave, recursively: no mount of ours reaches the host.
    MakeSlave,
    /// The mount namespace becomes a copy of itself that the user namespace in `user` owns. What is mounted by now has its
    /// flags (`ro`, `nosuid`, `nodev`, `noexec`) locked in there, and so has what is cloned of it: no capability of that
    /// user namespace takes them back (mount_namespaces(7)). The process itself stays root of the host, who finds every
    /// path.
    LockMounts {
        user: Slot,
    },
    /// What is at `path` (of the host, in the child's own mount namespace) is covered by a copy of itself whose owners
    /// are mapped by the user namespace in `namespace`.
    Idmap {
        namespace: Slot,
        path: CString,
    },
    /// mount(2) of a rootfs mount of the request, at `target`: a path of the host that only the shim can write
    /// (below the bundle), in the child's own mount namespace. `chdir` is entered first (the common prefix of
    /// an overlay's layers, where the options would not fit a page). As in containerd's Go code, up to three
    /// calls: without the propagation bits of `flags`, then with these (and MS_REC) alone, then, for a read-only
    /// bind, the remount that makes it so. Where there is a `device` ([`Step::OpenLoop`]), it is the source.
    MountRootfs {
        fstype: CString,
        source: CString,
        device: Option<Slot>,
        target: CString,
        flags: u64,
        data: CString,
        chdir: Option<CString>,
    },
    /// `target` becomes a mount of its own: a recursive bind of it on itself.
    BindRoot {
        target: CString,
    },
    /// setgid(2), setuid(2) to 0 of the user namespace. What came before was done as nobody of it, who is still
    /// the owner of what root of the host owns. Then unshare(2) of what belongs to whoever makes it: the message queues
    /// of an IPC namespace.
    BecomeRoot {
        unshare: u64,
    },
    /// Opens the root; everything below is found from this descriptor. `private` makes its mount so
    /// (pivot_root(2) refuses a shared one); an exec must not change the container's.
    OpenRoot {
        target: CString,
        private: bool,
    },
    /// A detached procfs, for the writes below /proc/sys; of the pid namespace in `pids`, else of the child's own.
    OpenProc {
        pids: Option<Slot>,
    },
    /// Writes /proc/sys/`name` (with slashes) through the private procfs.
    Sysctl {
        name: CString,
        value: CString,
    },
    /// fsopen(2), fsmount(2), move_mount(2) to `target`, which is created as a directory where it is missing.
    MountFs {
        fstype: CString,
        source: CString,
        options: Vec<FsOption>,
        /// In the place of `options`, where these are too long for fsconfig(2): by mount(2) at the root's own path, from
        /// where it is copied.
        whole: Option<Whole>,
        /// MOUNT_ATTR_* of fsmount(2).
        attributes: u64,
        target: RootPath,
        propagation: Option<Propagation>,
        /// A tmpfs without a `mode` of its own takes that of the directory it covers, if there was one.
        inherit_mode: bool,
        /// The image's files at `target` are copied into the new tmpfs (`tmpcopyup`).
        copy_up: bool,
        /// The pid namespace that a procfs shows, where that is not the child's own.
        pids: Option<Slot>,
    },
    /// move_mount(2) of the tree in `slot` to `target`, created as a directory or a file as the source is.
    Attach {
        slot: Slot,
        target: RootPath,
        attributes: Attributes,
        /// In this order: a tree of the host's shared mounts is cut off before a word that is not recursive.
        propagation: Vec<Propagation>,
    },
    /// mount_setattr(2) of what is mounted at `target` (an OCI mount with `remount`).
    Remount {
        target: RootPath,
        attributes: Attributes,
    },
    /// mkdir -p.
    Mkdir {
        path: RootPath,
        mode: u32,
    },
    /// What is there already stays.
    Symlink {
        path: RootPath,
        target: CString,
    },
    /// A device node; `mode` has the type (S_IFCHR, S_IFBLK, S_IFIFO) and exactly these permission bits. A node
    /// that exists must be the same device. Missing directories above it are made.
    Mknod {
        path: RootPath,
        mode: u32,
        major: u32,
        minor: u32,
        uid: u32,
        gid: u32,
    },
    /// A terminal from the container's own devpts (`dev/pts/ptmx`, checked to be one), bound on /dev/console
    /// for the first process (`bind`); the master goes to the shim at once. Its group stays
    /// what the devpts says.
    Console {
        rows: u16,
        columns: u16,
        uid: u32,
        bind: bool,
    },
    /// Hides a file behind /dev/null, or a directory behind an empty read-only tmpfs; skips what is missing.
    Mask {
        path: RootPath,
    },
    /// Recursive read-only bind of `path` on itself; skips what is missing.
    ReadonlyPath {
        path: RootPath,
    },
    /// The root's own mount becomes read-only.
    ReadonlyRoot,
    /// prestart, createRuntime and createContainer hooks run now: tells the shim, and waits for its go.
    Hooks,

    // Enter
    /// pivot_root(".", ".") into the root; the old root is detached.
    Pivot,
    /// Detaches a full procfs or sysfs of the host, or covers it where that is not allowed: while one is in the mount
    /// namespace, the kernel lets a user namespace in the container mount another one without masks.
    Detach {
        target: CString,
    },
    /// MS_MOVE of the root to `/`, and chroot(2) (NoPivotRoot: for an initramfs).
    MoveRoot,
    /// Propagation of the new `/`.
    RootPropagation(Propagation),
    /// setns(2) to the user namespace in `slot`, after everything that the host's root has to do. With `apart` nothing
    /// where it is that already, and else without the host's groups.
    JoinUser {
        slot: Slot,
        apart: bool,
    },
    Hostname(CString),
    Domainname(CString),

    // Dress
    /// The slave of `Console` becomes descriptors 0, 1 and 2.
    Terminal,
    /// The launcher's ends become descriptors 0, 1 and 2; fifos, pipes and files are given to `uid`.
    Stdio {
        uid: u32,
    },
    /// keyctl(2) JOIN_SESSION_KEYRING of this name, and who may search it.
    Keyring {
        name: CString,
        search: Option<Search>,
    },
    /// prlimit(2); `resource` is RLIMIT_*.
    Rlimit {
        resource: u32,
        soft: u64,
        hard: u64,
    },
    Umask(u32),
    Personality(u64),
    /// sched_setattr(2).
    Scheduler(SchedAttr),
    /// set_mempolicy(2).
    MemoryPolicy(MemoryPolicy),
    /// ioprio_set(2): class << 13 | level.
    IoPriority(u32),
    /// HOME from the container's own /etc/passwd for `uid` (else `/`): the spec sets none.
    Home {
        uid: u32,
    },
    /// The label for the next execve, into the file of `OpenExecLabel`.
    ExecLabel {
        value: CString,
    },

    // Privileges
    /// setns(2) to the pid namespace in `slot`, which concerns the children only.
    Aim {
        slot: Slot,
    },
    NoNewPrivs,
    /// CAP_SYS_ADMIN becomes effective again, which the change of user id has taken back.
    Regain,
    /// The filter while CAP_SYS_ADMIN is still there: the spec does not set noNewPrivileges.
    SeccompEarly(Filter),
    /// Drops what `keep` lacks, up to `last` (/proc/sys/kernel/cap_last_cap), from the bounding set.
    BoundingSet {
        keep: u64,
        last: u8,
    },
    SetGroups(Vec<u32>),
    /// setgid(2), setuid(2), with capabilities kept until `Capabilities`.
    SetIds {
        uid: u32,
        gid: u32,
    },
    /// chdir(2); getcwd(2) then proves that it is inside the root (CVE-2024-21626). With `retry`, as root, EACCES
    /// is left for a second step of this kind, as the user: one that does nothing where the first one succeeded.
    Workdir {
        path: CString,
        retry: bool,
    },
    /// capset(2) and the ambient set.
    Capabilities(CapabilitySets),

    // Run
    /// clone3(2) with CLONE_PARENT: the rest of the plan is for the process that is born now, a child of the shim's, in
    /// new namespaces that the user namespace owns; the one that has come so far ends.
    Sibling {
        flags: u64,
    },
    /// The first candidate that the user may execute is what `Exec` runs. `name` is `argv[0]`.
    FindProgram {
        name: CString,
        candidates: Vec<CString>,
    },
    /// Gives up all descriptors but 0, 1, 2 and the gate, and all memory but what the steps after it need.
    Bare,
    /// clone(2) with CLONE_PARENT into the pid namespace of `Aim` or `SetNs`: the rest of the plan is for the process that is born
    /// now, a child of the shim's that the container can see; the one that has come so far ends.
    Birth,
    SetSid,
    /// Descriptor 0 becomes the controlling terminal.
    ControlTerminal,
    /// Reports that all is ready, and waits for start. What fails after it fails the start.
    Gate,
    /// The first process of a pod, for as long as there is one: no descriptor, its children's exits go to nobody.
    Reap,
    /// With noNewPrivileges the filter comes last: the fewest calls need its leave. What comes after it has the launch's
    /// key where the filter would refuse it.
    Seccomp(Filter),
    /// execve(2).
    Exec {
        argv: Vec<CString>,
        envp: Vec<CString>,
    },
}

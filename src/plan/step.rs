//! What a container's first process does between its clone and its `execve`, as data.
//!
//! A [`Plan`](super::Plan) is compiled in the shim, where allocation, JSON and look-ups are allowed; the child only
//! walks its steps (`init`), which are system calls and nothing else. A step can print itself (`Display`), so the shim
//! turns the child's eight-byte report (step number, errno) back into a sentence.
//!
//! A step refers to anything from outside the container by a [`Slot`]. The child itself opens paths of the host, in
//! steps that fill a slot: such a path can lead to a filesystem that never answers, and a child has a time limit and
//! can be killed. Before the clone, the shim opens only what cannot block: the plan's [`Open`]s. Paths inside the
//! container are [`RootPath`]s, which the child resolves below the root's descriptor.

use std::ffi::{CStr, CString};

pub(crate) use crate::spec::mount::{Attributes, FsOption, Propagation};
pub(crate) use crate::spec::{CapabilitySets, IndexList, Mappings, MemoryPolicy, SchedAttr};
use crate::sys::keyring::Search;
use crate::sys::seccomp::Filter;

/// The place of a descriptor that one step uses and another, or the shim, has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Index into `Plan::opens`; the launcher lends the child one descriptor for each.
    Lent(u16),
    /// Opened by an earlier step.
    Opened(u16),
}

/// A path inside the container's root: normalised, relative (`.` is the root itself), no `..`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RootPath(CString);

impl RootPath {
    /// Takes a path as a spec writes it; `..` stops at the root. Returns `None` if it contains a NUL byte.
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
    /// A new user namespace with these maps, created by a process that exits at once.
    UserNamespace(Mappings),
    /// A descriptor of the shim's own, by its path below /proc/self/fd, which would name another file in the child.
    Descriptor(CString),
    /// The pidfd of the container's first process, for an exec.
    Init,
    /// A socket for rtnetlink(7) of the host's network namespace.
    HostNetwork,
}

/// The stages of a plan. Steps come in phase order; with a [`Step::Sibling`], the steps up to it do, and so do those
/// after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Enter the cgroup and the namespaces.
    Isolate,
    /// Assemble the root filesystem.
    Root,
    /// Make the root `/`.
    Enter,
    /// Set session, terminal, stdio and limits.
    Session,
    /// Drop ids and capabilities.
    Privileges,
    /// Look up the program, pass the gate, run the program.
    Run,
}

/// The options of mount(2): MS_*, and the filesystem's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whole {
    pub flags: u64,
    pub data: CString,
}

/// One action of the child. Steps share registers: the root, a private procfs, the console, HOME (see `init`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    // Isolate
    /// Opens a namespace file, e.g. `/proc/1/ns/net`, into `slot` (a lent one is open already); checks that it is on
    /// nsfs and of type `kind` (a CLONE_NEW* flag). With `private_for`, which says what would change it, it must not be
    /// the host's own.
    OpenNamespace {
        slot: Slot,
        path: CString,
        kind: u64,
        private_for: Option<&'static str>,
    },
    /// Opens the user namespace that owns the namespace in `of`, opened from `path`, into `slot`: ioctl_ns(2). It must
    /// not be the host's.
    OpenOwner {
        slot: Slot,
        of: Slot,
        path: CString,
    },
    /// Writes `0` to every `cgroup.procs` that the launcher prepared (none if CLONE_INTO_CGROUP did it).
    EnterCgroup,
    /// sched_setaffinity(2): these CPUs, or all of the cgroup's cpuset. The affinity that the shim inherits is its
    /// unit's, and since Linux 6.2 entering a cpuset does not reset it. `initial`: the CPUs to use while it enters the
    /// cgroup.
    Affinity {
        cpus: Option<IndexList>,
        initial: bool,
    },
    /// Writes `0`, the process itself, to the `tasks` file of a resctrl group.
    EnterResctrl {
        tasks: CString,
        unless_gone: bool,
    },
    /// Sets its own oom_score_adj, through the host's procfs, before it leaves any namespace.
    OomScoreAdj(i32),
    /// Opens /proc/thread-self/attr/`file` (`apparmor/exec`, `exec`) on the host's procfs, for `ExecLabel` to write
    /// before the execve.
    OpenExecLabel {
        file: CString,
    },
    /// Opens /proc/thread-self/attr/keycreate for `Keyring`.
    OpenKeyLabel,
    /// setns(2) to the namespace file in `slot`, or to several namespaces of the process behind its pidfd.
    SetNs {
        slot: Slot,
        flags: u64,
    },
    /// setgroups(2) to none, while that is still allowed: a user namespace may forbid it, and the shim's groups must
    /// not stay.
    LeaveGroups,
    /// Changes the owner of the launcher's ends (FIFOs, pipes and files) to the host's `uid`: from inside a user
    /// namespace that is no longer possible.
    GiveStreams {
        uid: u32,
    },
    /// Raises the hard limit to at least `hard`: in a user namespace it can only be lowered.
    RaiseLimit {
        resource: u32,
        hard: u64,
    },
    /// Changes the owner of the container's cgroup (v2), and of those of its files that delegation covers (cgroups(7)),
    /// to the host's `uid`, which may then create cgroups below it.
    GiveCgroup {
        uid: u32,
    },
    /// unshare(2). The root of a cgroup namespace is the cgroup that the child has entered.
    Unshare {
        flags: u64,
    },
    /// Writes these lines to /proc/self/timens_offsets, for the time namespace that the process's children will be in.
    TimeOffsets(CString),
    /// setns(2) to that namespace, so that the process itself is in it.
    EnterTime,
    /// setns(2) to a new network namespace that the user namespace in `user` owns, while the process is still root on
    /// the host, which alone may move the host's devices.
    OwnNetwork {
        user: Slot,
    },
    /// Checks that `NetDevice` will find the device, and its new name free. All of these come before the first move.
    FindNetDevice {
        host: Slot,
        from: CString,
        to: CString,
    },
    /// Moves a network device from the namespace of the socket in `host` into the process's own, renamed to `to`. There
    /// it gets back its permanent global addresses and is set up.
    NetDevice {
        host: Slot,
        from: CString,
        to: CString,
    },
    /// Brings up `lo` in a new network namespace.
    LoopbackUp,

    // Root
    /// Makes a detached copy of a mount tree: open_tree(2) with OPEN_TREE_CLONE. `plain` follows no magic links: those
    /// of /proc/self are this process's own, and lead to the shim's files, or anywhere by a descriptor's number.
    OpenTree {
        slot: Slot,
        path: CString,
        recursive: bool,
        plain: bool,
    },
    /// Makes such a copy of one device node of the host's, which must be this device: for cases in which mknod(2) is
    /// refused.
    OpenDevice {
        slot: Slot,
        path: CString,
        kind: u32,
        major: u32,
        minor: u32,
    },
    /// Sets up a loop device backed by this file; it goes away with the mount.
    OpenLoop {
        slot: Slot,
        path: CString,
        readonly: bool,
        direct: bool,
    },
    /// mount_setattr(2) with MOUNT_ATTR_IDMAP and the user namespace in `namespace`, for the top mount of the tree in
    /// `slot` or for all of it.
    MapTree {
        slot: Slot,
        namespace: Slot,
        recursive: bool,
    },
    /// Makes `/` a slave, recursively: no mount of ours reaches the host.
    MakeSlave,
    /// Replaces the mount namespace by a copy of itself that the user namespace in `user` owns. In it, existing mounts
    /// and their clones have their flags (`ro`, `nosuid`, `nodev`, `noexec`) locked: no capability in that user
    /// namespace can clear them (mount_namespaces(7)). The process itself stays root on the host, which can reach every
    /// path.
    LockMounts {
        user: Slot,
    },
    /// Covers `path` (of the host, in the child's own mount namespace) with a copy of itself whose owners are mapped by
    /// the user namespace in `namespace`.
    Idmap {
        namespace: Slot,
        path: CString,
    },
    /// mount(2) of a rootfs mount of the request at `target`: a path of the host that only the shim can write (below
    /// the bundle), in the child's own mount namespace. It enters `chdir` first (the common prefix of an overlay's
    /// layers, if the options would not fit into a page). As in containerd's Go code, it makes up to three calls:
    /// without the propagation bits of `flags`, then with these (and MS_REC) alone, then, for a read-only bind, the
    /// remount that makes it read-only. If there is a `device` ([`Step::OpenLoop`]), it is the source.
    MountRootfs {
        fstype: CString,
        source: CString,
        device: Option<Slot>,
        target: CString,
        flags: u64,
        data: CString,
        chdir: Option<CString>,
    },
    /// Moves what is mounted at `target` to the directory `below` in what it covers; no link leads out of that. If there
    /// is a `namespace`, it maps the owners.
    MoveBelow {
        target: CString,
        below: RootPath,
        namespace: Option<Slot>,
    },
    /// Makes `target` a mount of its own: a recursive bind of it onto itself.
    BindRoot {
        target: CString,
    },
    /// setgid(2) and setuid(2) to 0 of the user namespace. Earlier steps ran as an id unmapped in it, which still owns
    /// what root on the host owns. Then unshare(2) of the namespaces with objects that belong to their creator: the
    /// message queues of an IPC namespace.
    BecomeRoot {
        unshare: u64,
    },
    /// Opens the root; everything below is looked up from this descriptor. `private` makes its mount private
    /// (pivot_root(2) refuses a shared one); an exec must not change the container's.
    OpenRoot {
        target: CString,
        private: bool,
    },
    /// Makes a detached procfs for writes below /proc/sys, of the pid namespace in `pids`, or of the child's own.
    OpenProc {
        pids: Option<Slot>,
    },
    /// Writes /proc/sys/`name` (with slashes) through the private procfs.
    Sysctl {
        name: CString,
        value: CString,
    },
    /// fsopen(2), fsmount(2), move_mount(2) to `target`, which is created as a directory if it is missing.
    MountFs {
        fstype: CString,
        source: CString,
        options: Vec<FsOption>,
        /// Replaces `options` that are too long for fsconfig(2): mount(2) takes them, at the root's own path, and the
        /// mount is copied from there.
        whole: Option<Whole>,
        /// MOUNT_ATTR_* of fsmount(2).
        attributes: u64,
        target: RootPath,
        propagation: Option<Propagation>,
        /// A tmpfs without a `mode` of its own takes that of the directory it covers, if there was one.
        inherit_mode: bool,
        /// Copy the image's files at `target` into the new tmpfs (`tmpcopyup`).
        copy_up: bool,
        /// The pid namespace that a procfs shows, if it is not the child's own.
        pids: Option<Slot>,
    },
    /// move_mount(2) of the tree in `slot` to `target`, which is created as a directory or a file to match the source.
    Attach {
        slot: Slot,
        target: RootPath,
        attributes: Attributes,
        /// Applied in this order: a tree that comes from the host's shared mounts is detached from them before a
        /// non-recursive option applies.
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
    /// Makes a directory or a file, if it is missing, for the tree in `slot` to be mounted on.
    MountPoint {
        slot: Slot,
        path: RootPath,
    },
    /// symlink(2); an existing file stays.
    Symlink {
        path: RootPath,
        target: CString,
    },
    /// Creates a device node; `mode` has the type (S_IFCHR, S_IFBLK, S_IFIFO) and the exact permission bits. A node
    /// that exists must be the same device. Missing parent directories are created.
    Mknod {
        path: RootPath,
        mode: u32,
        major: u32,
        minor: u32,
        uid: u32,
        gid: u32,
    },
    /// Opens a terminal from the container's own devpts (`dev/pts/ptmx`, checked to be one) and, with `bind`, binds it
    /// on /dev/console for the first process; the master goes to the shim at once. Its group stays as the devpts sets
    /// it.
    Console {
        rows: u16,
        columns: u16,
        uid: u32,
        bind: bool,
    },
    /// Hides a file behind /dev/null, or a directory behind an empty read-only tmpfs; skips a missing path.
    Mask {
        path: RootPath,
    },
    /// Binds `path` recursively and read-only onto itself; skips a missing path.
    ReadonlyPath {
        path: RootPath,
    },
    /// Makes the root's own mount read-only.
    ReadonlyRoot,
    /// The point at which prestart, createRuntime and createContainer hooks run: tells the shim, and waits for its
    /// go-ahead.
    Hooks,

    // Enter
    /// pivot_root(".", ".") into the root, then detaches the old root.
    Pivot,
    /// Detaches a full procfs or sysfs of the host, or covers it if that is not allowed: while one is in the mount
    /// namespace, the kernel lets a user namespace in the container mount another one without masks.
    Detach {
        target: CString,
    },
    /// MS_MOVE of the root to `/`, then chroot(2) (NoPivotRoot: for an initramfs).
    MoveRoot,
    /// Sets the propagation of the new `/`.
    RootPropagation(Propagation),
    /// setns(2) to the user namespace in `slot`, after everything that needs root on the host. With `unless_own` it does
    /// nothing if the process is in it already, and otherwise drops the host's groups.
    JoinUser {
        slot: Slot,
        unless_own: bool,
    },
    Hostname(CString),
    Domainname(CString),

    // Session
    /// Makes the slave of `Console` descriptors 0, 1 and 2.
    Terminal,
    /// Makes the launcher's ends descriptors 0, 1 and 2, and changes the owner of FIFOs, pipes and files to `uid`.
    Stdio {
        uid: u32,
    },
    /// keyctl(2) JOIN_SESSION_KEYRING with this name, and who may search it. With the shim's SELinux label instead of
    /// `label`, the container could not use its keys.
    Keyring {
        name: CString,
        search: Option<Search>,
        label: Option<CString>,
    },
    /// Restores the soft limit of descriptors that the shim was started with.
    Descriptors,
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
    /// Sets HOME from the container's own /etc/passwd for `uid` (`/` if it has none): the spec sets no HOME.
    Home {
        uid: u32,
    },
    /// Writes the label for the next execve to the file of `OpenExecLabel`.
    ExecLabel {
        value: CString,
    },

    // Privileges
    /// setns(2) to the pid namespace in `slot`, which affects only the children.
    Aim {
        slot: Slot,
    },
    NoNewPrivs,
    /// Makes CAP_SYS_ADMIN effective again, which the change of user id has cleared.
    Regain,
    /// Installs the filter while CAP_SYS_ADMIN is still there: the spec does not set noNewPrivileges. The shim takes its
    /// listener, if it has one.
    SeccompEarly(Filter),
    /// Drops everything not in `keep`, up to `last` (/proc/sys/kernel/cap_last_cap), from the bounding set.
    BoundingSet {
        keep: u64,
        last: u8,
    },
    SetGroups(Vec<u32>),
    /// setgid(2) and setuid(2), with capabilities kept until `Capabilities`.
    SetIds {
        uid: u32,
        gid: u32,
    },
    /// chdir(2); getcwd(2) then proves that the directory is inside the root (CVE-2024-21626). With `retry`, as root,
    /// EACCES is left to a second step of this kind, which runs as the user and does nothing if the first one
    /// succeeded.
    Workdir {
        path: CString,
        retry: bool,
    },
    /// capset(2) and the ambient set.
    Capabilities(CapabilitySets),

    // Run
    /// clone3(2) with CLONE_PARENT: the rest of the plan is for the new process, a child of the shim in new namespaces
    /// that the user namespace owns; the current process ends.
    Sibling {
        flags: u64,
    },
    /// Finds the program for `Exec`: the first candidate that the user may execute. `name` is `argv[0]`.
    FindProgram {
        name: CString,
        candidates: Vec<CString>,
    },
    /// Gives up all descriptors but 0, 1, 2 and the gate, and all memory but what the later steps need.
    Bare,
    /// clone(2) with CLONE_PARENT into the pid namespace of `Aim` or `SetNs`: the rest of the plan is for the new
    /// process, a child of the shim that the container can see; the current process ends.
    Birth,
    SetSid,
    /// Makes descriptor 0 the controlling terminal.
    ControlTerminal,
    /// Reports that all is ready, and waits for Start. A later failure fails Start. If the filter has a listener, execs
    /// and hooks wait here too, until the agent has it.
    Gate,
    /// Waits at its gate, like [`Step::Gate`], until a process that this plan has not made replaces it; then it ends.
    StandIn,
    /// The first process of a pod, for the pod's lifetime: it has no descriptors and reaps its children without
    /// reporting their exits.
    Reap,
    /// Installs the filter. With noNewPrivileges it comes late: the fewest calls need its permission. Later calls use
    /// the launch's key if the filter would refuse them.
    Seccomp(Filter),
    /// execve(2).
    Exec {
        argv: Vec<CString>,
        envp: Vec<CString>,
    },
}

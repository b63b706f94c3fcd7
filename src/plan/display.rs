//! A step as a sentence that reads like its system call.

mod flag_names;
mod plan;

use super::step::{FsOption, Open, RootPath, Slot, Step, Whole};
use crate::spec::mapping::IdRange;
use crate::spec::Rlimit;
use crate::sys::keyring::Search;
use flag_names::{attribute_words, namespace_words, Attr, Caps, ListOf, MountFlags};
use std::ffi::CStr;
use std::fmt::{self, Display, Formatter};

/// A C string in quotes.
struct Q<'a>(&'a CStr);

impl Display for Q<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self.0.to_bytes()))
    }
}

/// The type of a node.
fn kind_word(mode: u32) -> &'static str {
    match mode & libc::S_IFMT {
        libc::S_IFBLK => "S_IFBLK",
        libc::S_IFIFO => "S_IFIFO",
        _ => "S_IFCHR",
    }
}

/// As the container sees it: absolute, in quotes.
impl Display for RootPath {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.as_c_str().to_bytes() {
            b"." => f.write_str("\"/\""),
            path => write!(f, "{:?}", format!("/{}", String::from_utf8_lossy(path))),
        }
    }
}

impl Display for Slot {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Slot::Lent(number) => write!(f, "${number}"),
            Slot::Opened(number) => write!(f, "@{number}"),
        }
    }
}

impl Display for FsOption {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            FsOption::Flag(key) => f.write_str(&key.to_string_lossy()),
            FsOption::Value(key, value) => write!(f, "{}={}", key.to_string_lossy(), value.to_string_lossy()),
        }
    }
}

impl Display for Open {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Open::UserNamespace(mappings) => {
                let ranges = |ranges: &[IdRange]| {
                    let words =
                        |range: &IdRange| format!("{}:{}:{}", range.inside, range.outside, range.count);
                    ranges.iter().map(words).collect::<Vec<_>>().join(", ")
                };
                let (uids, gids) = (ranges(&mappings.uids), ranges(&mappings.gids));
                write!(f, "clone3(user), uid_map [{uids}], gid_map [{gids}]")
            }
            Open::Descriptor(path) => write!(f, "open({})", Q(path)),
            Open::HostNetwork => f.write_str("socket(AF_NETLINK, NETLINK_ROUTE) of the host"),
            Open::Init => f.write_str("pidfd of the container's first process"),
        }
    }
}

impl Display for Step {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Step::OpenNamespace { slot, path, kind, private_for } => {
                match slot {
                    Slot::Opened(_) => write!(f, "{slot} = open({})", Q(path))?,
                    Slot::Lent(_) => write!(f, "{slot}")?,
                }
                write!(f, ", a {} namespace", namespace_words(*kind))?;
                f.write_str(if private_for.is_some() { ", not the host's" } else { "" })
            }
            Step::OpenOwner { slot, of, .. } => {
                write!(f, "{slot} = ioctl({of}, NS_GET_USERNS), not the host's")
            }
            Step::EnterCgroup => f.write_str("write(cgroup.procs, \"0\")"),
            Step::Affinity { cpus: None, .. } => f.write_str("sched_setaffinity(all of the cpuset)"),
            Step::Affinity { cpus: Some(cpus), .. } => write!(f, "sched_setaffinity({})", cpus.list),
            Step::EnterResctrl { tasks, unless_gone } => {
                write!(
                    f,
                    "write({}, \"0\"){}",
                    Q(tasks),
                    if *unless_gone { ", unless it is gone" } else { "" }
                )
            }
            Step::OomScoreAdj(adj) => write!(f, "write(\"/proc/self/oom_score_adj\", \"{adj}\")"),
            Step::OpenExecLabel { file } => {
                write!(f, "open(\"/proc/thread-self/attr/{}\", O_WRONLY)", file.to_string_lossy())
            }
            Step::SetNs { slot, flags } => write!(f, "setns({slot}, {})", namespace_words(*flags)),
            Step::LeaveGroups => f.write_str("setgroups([])"),
            Step::GiveStreams { uid } => write!(f, "fchown(0, 1, 2), owner {uid} of the host"),
            Step::RaiseLimit { resource, hard } => {
                write!(f, "setrlimit({}, hard limit of at least {hard})", Rlimit::name(*resource))
            }
            Step::GiveCgroup { uid } => write!(f, "fchown(cgroup), owner {uid} of the host"),
            Step::Unshare { flags } => write!(f, "unshare({})", namespace_words(*flags)),
            Step::TimeOffsets(lines) => write!(f, "write(\"/proc/self/timens_offsets\", {})", Q(lines)),
            Step::EnterTime => f.write_str("setns(\"/proc/self/ns/time_for_children\", time)"),
            Step::OwnNetwork { user } => {
                write!(f, "setns(net), to a new one that the user namespace in {user} owns")
            }
            Step::FindNetDevice { host, from, to } => {
                write!(f, "RTM_GETLINK by {host}, {} is there, and no {} here", Q(from), Q(to))
            }
            Step::NetDevice { host, from, to } => {
                write!(f, "RTM_NEWLINK by {host}, {} becomes {} here, with its addresses, up", Q(from), Q(to))
            }
            Step::LoopbackUp => f.write_str("ioctl(SIOCSIFFLAGS, \"lo\", IFF_UP)"),
            Step::OpenTree { slot, path, recursive, plain } => {
                let recursive = if *recursive { "|RECURSIVE" } else { "" };
                write!(f, "{slot} = open_tree({}, CLONE{recursive})", Q(path))?;
                f.write_str(if *plain { ", no magic links" } else { "" })
            }
            Step::OpenDevice { slot, path, kind, major, minor } => {
                let kind = kind_word(*kind);
                write!(f, "{slot} = open_tree({}, CLONE), {kind} of makedev({major}, {minor})", Q(path))
            }
            Step::OpenLoop { slot, path, readonly, direct } => {
                write!(f, "{slot} = loop device of {}", Q(path))?;
                f.write_str(if *readonly { ", read-only" } else { "" })?;
                f.write_str(if *direct { ", direct I/O" } else { "" })
            }
            Step::MapTree { slot, namespace, recursive } => {
                let recursive = if *recursive { ", RECURSIVE" } else { "" };
                write!(f, "mount_setattr({slot}{recursive}), ids by {namespace}")
            }
            Step::LockMounts { user } => {
                write!(f, "setns(mnt), to a copy that the user namespace in {user} owns")
            }
            Step::MakeSlave => f.write_str("mount(\"\", \"/\", \"\", SLAVE|REC)"),

            Step::MountRootfs { fstype, source, device, target, flags, data, chdir } => {
                if let Some(chdir) = chdir {
                    write!(f, "chdir({}), ", Q(chdir))?;
                }
                let flags = MountFlags(*flags);
                match device {
                    Some(slot) => write!(f, "mount({slot}")?,
                    None => write!(f, "mount({}", Q(source))?,
                }
                write!(f, ", {}, {}, {flags}, {})", Q(target), Q(fstype), Q(data))
            }
            Step::MoveBelow { target, below, namespace } => {
                write!(f, "move_mount({}, {below} in what it covers)", Q(target))?;
                namespace.map_or(Ok(()), |namespace| write!(f, ", ids by {namespace}"))
            }
            Step::Idmap { namespace, path } => write!(f, "mount({0}, {0}), ids by {namespace}", Q(path)),
            Step::BecomeRoot { unshare } => {
                f.write_str("setgid(0), setuid(0)")?;
                match unshare {
                    0 => Ok(()),
                    flags => write!(f, ", unshare({})", namespace_words(*flags)),
                }
            }
            Step::BindRoot { target } => write!(f, "mount({0}, {0}, \"\", BIND|REC)", Q(target)),
            Step::OpenRoot { target, private: true } => {
                write!(f, "open({}) as the root, made private", Q(target))
            }
            Step::OpenRoot { target, private: false } => write!(f, "open({}) as the root", Q(target)),
            Step::OpenProc { pids: None } => f.write_str("fsmount(\"proc\"), detached"),
            Step::OpenProc { pids: Some(slot) } => {
                write!(f, "fsmount(\"proc\") of the pid namespace in {slot}, detached")
            }
            Step::Sysctl { name, value } => {
                write!(f, "write(\"/proc/sys/{}\", {})", name.to_string_lossy(), Q(value))
            }
            Step::MountFs {
                fstype,
                source,
                options,
                whole,
                attributes,
                target,
                propagation,
                inherit_mode,
                copy_up,
                pids,
            } => {
                write!(f, "mount({}, {target}, {}, {}", Q(source), Q(fstype), Attr(*attributes))?;
                if !options.is_empty() {
                    write!(f, ", \"{}\"", ListOf(options, ","))?;
                }
                f.write_str(")")?;
                if let Some(Whole { flags, data }) = whole {
                    write!(f, ", {} and {} by mount(2)", MountFlags(*flags), Q(data))?;
                }
                if let Some(propagation) = propagation {
                    write!(f, ", {}", propagation.word())?;
                }
                f.write_str(if *inherit_mode { ", mode of the directory" } else { "" })?;
                f.write_str(if *copy_up { ", with a copy of its files" } else { "" })?;
                match pids {
                    Some(slot) => write!(f, ", of the pid namespace in {slot}"),
                    None => Ok(()),
                }
            }
            Step::Attach { slot, target, attributes, propagation } => {
                write!(f, "move_mount({slot}, {target}){}", attribute_words(attributes))?;
                propagation.iter().try_for_each(|p| write!(f, ", {}", p.word()))
            }
            Step::Remount { target, attributes } => {
                write!(f, "mount_setattr({target}){}", attribute_words(attributes))
            }
            Step::MountPoint { slot, path } => write!(f, "mountpoint({path}) for {slot}"),
            Step::Mkdir { path, mode } => write!(f, "mkdir({path}, 0{mode:o})"),
            Step::Symlink { path, target } => write!(f, "symlink({}, {path})", Q(target)),
            Step::Mknod { path, mode, major, minor, uid, gid } => {
                let kind = kind_word(*mode);
                let permissions = mode & !libc::S_IFMT;
                write!(
                    f,
                    "mknod({path}, {kind}|0{permissions:o}, makedev({major}, {minor})), owner {uid}:{gid}"
                )
            }
            Step::Console { rows, columns, uid, bind } => {
                write!(f, "open(\"/dev/pts/ptmx\"), {columns}x{rows}, owner {uid}")?;
                f.write_str(if *bind { ", bound on \"/dev/console\"" } else { "" })
            }
            Step::Mask { path } => write!(f, "mask({path})"),
            Step::ReadonlyPath { path } => {
                write!(f, "mount({path}, {path}, \"\", BIND|REC), recursive RDONLY")
            }
            Step::ReadonlyRoot => f.write_str("mount_setattr(\"/\"), RDONLY"),
            Step::Hooks => f.write_str("hooks"),

            Step::Pivot => f.write_str("pivot_root(\".\", \".\")"),
            Step::Detach { target } => write!(f, "umount2({}, DETACH), or covered", Q(target)),
            Step::MoveRoot => f.write_str("mount(\".\", \"/\", \"\", MOVE), chroot(\".\")"),
            Step::RootPropagation(propagation) => write!(f, "mount(\"\", \"/\"), {}", propagation.word()),
            Step::JoinUser { slot, unless_own: false } => write!(f, "setns({slot}, user)"),
            Step::JoinUser { slot, unless_own: true } => {
                write!(f, "setns({slot}, user) if it is another one")
            }
            Step::Hostname(name) => write!(f, "sethostname({})", Q(name)),
            Step::Domainname(name) => write!(f, "setdomainname({})", Q(name)),

            Step::Terminal => f.write_str("dup2 to 0, 1, 2"),
            Step::Stdio { uid } => write!(f, "dup2 to 0, 1, 2, owner {uid}"),
            Step::OpenKeyLabel => f.write_str("open(\"/proc/thread-self/attr/keycreate\", O_WRONLY)"),
            Step::Keyring { name, search, label } => {
                if let Some(label) = label {
                    write!(f, "write(attr/keycreate, {}), ", Q(label))?;
                }
                write!(f, "keyctl(JOIN_SESSION_KEYRING, {})", Q(name))?;
                f.write_str(match search {
                    Some(Search::User) => "",
                    Some(Search::Other) => ", for others to search",
                    None => ", as it is",
                })
            }
            Step::Descriptors => f.write_str("setrlimit(RLIMIT_NOFILE, as inherited)"),
            Step::Rlimit { resource, soft, hard } => {
                write!(f, "setrlimit({}, {soft}, {hard})", Rlimit::name(*resource))
            }
            Step::Umask(mask) => write!(f, "umask(0{mask:o})"),
            Step::Personality(persona) => write!(f, "personality({persona:#x})"),
            Step::MemoryPolicy(policy) => {
                write!(f, "set_mempolicy({:#x}", policy.mode)?;
                match policy.nodes.list.as_str() {
                    "" => f.write_str(")"),
                    nodes => write!(f, ", nodes {nodes})"),
                }
            }
            Step::Scheduler(attr) => {
                write!(f, "sched_setattr({}", attr.policy_name())?;
                let (nice, priority) = (i64::from(attr.nice), i64::from(attr.priority));
                for (name, value) in [("nice", nice), ("priority", priority)] {
                    if value != 0 {
                        write!(f, ", {name} {value}")?;
                    }
                }
                let deadline =
                    [("runtime", attr.runtime), ("deadline", attr.deadline), ("period", attr.period)];
                for (name, value) in deadline {
                    if value != 0 {
                        write!(f, ", {name} {value}")?;
                    }
                }
                if attr.flags != 0 {
                    write!(f, ", flags {:#x}", attr.flags)?;
                }
                f.write_str(")")
            }
            Step::IoPriority(value) => {
                write!(f, "ioprio_set(class {}, level {})", value >> 13, value & 0x1fff)
            }
            Step::Home { uid } => write!(f, "HOME of {uid} from \"/etc/passwd\""),
            Step::ExecLabel { value } => write!(f, "write(attr/exec, {})", Q(value)),

            Step::Aim { slot } => write!(f, "setns({slot}, pid), for its children"),
            Step::NoNewPrivs => f.write_str("prctl(PR_SET_NO_NEW_PRIVS)"),
            Step::Regain => f.write_str("capset(effective SYS_ADMIN)"),
            Step::SeccompEarly(filter) | Step::Seccomp(filter) => {
                let (length, flags) = (filter.program.len(), filter.flags);
                write!(f, "seccomp(SET_MODE_FILTER, {flags:#x}, {length} instructions)")?;
                f.write_str(if filter.listens() { ", its listener to the shim" } else { "" })
            }
            Step::BoundingSet { keep, last } => {
                write!(f, "prctl(PR_CAPBSET_DROP), keep {} of 0-{last}", Caps(*keep))
            }
            Step::SetGroups(groups) => write!(f, "setgroups([{}])", ListOf(groups, ", ")),
            Step::SetIds { uid, gid } => write!(f, "setgid({gid}), setuid({uid})"),
            Step::Workdir { path, retry } => {
                write!(f, "chdir({}){}", Q(path), if *retry { " or again as the user" } else { "" })
            }
            Step::Capabilities(sets) => write!(
                f,
                "capset(effective {}, permitted {}, inheritable {}, ambient {})",
                Caps(sets.effective),
                Caps(sets.permitted),
                Caps(sets.inheritable),
                Caps(sets.ambient)
            ),

            Step::Sibling { flags: 0 } => f.write_str("clone3(CLONE_PARENT)"),
            Step::Sibling { flags } => write!(f, "clone3(CLONE_PARENT), {}", namespace_words(*flags)),
            Step::FindProgram { name, candidates } => {
                let candidates: Vec<_> = candidates.iter().map(|path| Q(path)).collect();
                write!(f, "access({}, X_OK) in [{}]", Q(name), ListOf(&candidates, ", "))
            }
            Step::Bare => f.write_str("close_range, munmap: all but the streams, the gate and what follows"),
            Step::Birth => f.write_str("clone(CLONE_PARENT) into the pid namespace"),
            Step::SetSid => f.write_str("setsid()"),
            Step::ControlTerminal => f.write_str("ioctl(0, TIOCSCTTY)"),
            Step::Gate => f.write_str("wait for the start"),
            Step::StandIn => f.write_str("stand in for who is restored"),
            Step::Reap => f.write_str("reap until the end of the pod"),
            Step::Exec { argv, envp } => {
                let argv: Vec<_> = argv.iter().map(|arg| Q(arg)).collect();
                write!(f, "execve([{}], {} variables)", ListOf(&argv, ", "), envp.len())
            }
        }
    }
}

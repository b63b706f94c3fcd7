//! Performs one step.

use super::state::State;
use super::{
    console, device, enter, home, host_paths, masks, mounts, nodes, owned, privileges, program, sibling, Lent,
};
use crate::plan::step::Step;
use crate::sys::child::console::WindowSize;
use crate::sys::child::fd::{self, AsFd};
use crate::sys::child::walk::Missing;
use crate::sys::child::{self as sys, root, Errno, Result};
use ::core::matches;
use ::core::prelude::rust_2021::*;
use ::libc;

pub(super) fn perform<'a>(step: &'a Step, number: u32, lent: &Lent<'a>, state: &mut State<'a>) -> Result<()> {
    if !matches!(step, Step::Mknod { .. } | Step::Symlink { .. }) {
        state.forget_parent();
    }
    let forked = state.forked;
    match step {
        Step::OpenNamespace { slot, path, kind, private_for } => {
            host_paths::namespace(lent, *slot, path, *kind, private_for.is_some())
        }
        Step::OpenOwner { slot, of, .. } => host_paths::owner(lent, *slot, lent.slot(*of)?),
        Step::EnterCgroup => {
            for procs in lent.cgroups {
                sys::fd::write(*procs, b"0")?;
            }
            Ok(())
        }
        Step::Affinity { cpus: None, .. } => {
            // As in runc, a failure here is not an error.
            let _ = sys::limits::reset_affinity();
            Ok(())
        }
        Step::Affinity { cpus: Some(cpus), .. } => sys::limits::set_affinity(&cpus.mask),
        Step::EnterResctrl { tasks, unless_gone } => match enter::resctrl(tasks) {
            Err(Errno::ENOENT | Errno::ENODEV) if *unless_gone => Ok(()),
            answer => answer,
        },
        Step::OomScoreAdj(score) => enter::oom_score_adj(*score),
        Step::OpenExecLabel { file } => {
            state.label = Some(enter::open_label(file)?);
            Ok(())
        }
        Step::OpenKeyLabel => {
            state.key_label = enter::open_key_label()?;
            Ok(())
        }
        Step::SetNs { slot, flags } => {
            sys::namespace::join(lent.slot(*slot)?, *flags)?;
            // Joining a user namespace with another owner sets this to fs.suid_dumpable.
            sys::identity::undumpable()
        }
        Step::LeaveGroups => sys::identity::set_groups(forked, &[]),
        Step::GiveStreams { uid } => console::give_all(lent, *uid),
        Step::RaiseLimit { resource, hard } => sys::limits::raise_hard_limit(forked, *resource, *hard),
        Step::GiveCgroup { uid } => lent.cgroup.map_or(Ok(()), |cgroup| enter::give_cgroup(cgroup, *uid)),
        Step::Unshare { flags } => sys::namespace::unshare(*flags),
        Step::TimeOffsets(lines) => enter::time_offsets(lines),
        Step::EnterTime => enter::time(),
        Step::OwnNetwork { user } => owned::network(lent.slot(*user)?),
        Step::FindNetDevice { host, from, to } => device::find(lent.slot(*host)?, from, to).map(drop),
        Step::NetDevice { host, from, to } => device::bring(lent.slot(*host)?, from, to),
        Step::LoopbackUp => sys::network::loopback_up(),
        Step::OpenTree { slot, path, recursive, plain: false } => {
            lent.fill(*slot, sys::mount::clone_tree(path, *recursive)?)
        }
        Step::OpenTree { slot, path, recursive, plain: true } => {
            let source = root::open_without_magic(path)?;
            lent.fill(*slot, sys::mount::clone_tree_of(source.as_fd(), *recursive)?)
        }
        Step::OpenDevice { slot, path, kind, major, minor } => {
            lent.fill(*slot, host_paths::device(path, *kind, (*major, *minor))?)
        }
        Step::OpenLoop { slot, path, readonly, direct } => {
            let options = sys::loop_device::Options { readonly: *readonly, direct: *direct };
            lent.fill(*slot, host_paths::loop_device(path, options)?)
        }
        Step::MapTree { slot, namespace, recursive } => {
            sys::mount::map_ids(lent.slot(*slot)?, lent.slot(*namespace)?, *recursive)
        }
        Step::LockMounts { user } => owned::mounts(lent.slot(*user)?),
        Step::MakeSlave => sys::mount::mount(None, c"/", None, libc::MS_REC | libc::MS_SLAVE, None),

        Step::MountRootfs { fstype, source, device, target, flags, data, chdir } => {
            if let Some(directory) = chdir {
                sys::exec::chdir(forked, directory)?;
            }
            match device {
                Some(slot) => {
                    let mut room = [0; 64];
                    let device = enter::name_of(lent.slot(*slot)?, &mut room)?;
                    mounts::rootfs(fstype, device, target, *flags, data)?;
                }
                None => mounts::rootfs(fstype, source, target, *flags, data)?,
            }
            if chdir.is_some() {
                sys::exec::chdir(forked, c"/")?;
            }
            Ok(())
        }
        Step::MoveBelow { target, below, namespace } => {
            let namespace = namespace.map(|namespace| lent.slot(namespace)).transpose()?;
            mounts::move_below(target, below, namespace)
        }
        Step::Idmap { namespace, path } => mounts::map_ids(lent.slot(*namespace)?, path),
        Step::BecomeRoot { unshare } => {
            privileges::become_root(forked)?;
            match unshare {
                0 => Ok(()),
                flags => sys::namespace::unshare(*flags),
            }
        }
        Step::BindRoot { target } => {
            sys::mount::mount(Some(target), target, None, libc::MS_BIND | libc::MS_REC, None)
        }
        Step::OpenRoot { target, private } => {
            let root = fd::open(target, libc::O_PATH | libc::O_DIRECTORY, 0)?;
            if *private {
                let private = sys::mount::Change { propagation: libc::MS_PRIVATE, ..Default::default() };
                sys::mount::change(root.as_fd(), private, false)?;
            }
            state.set_root(root);
            state.root_path = Some(target);
            Ok(())
        }
        Step::OpenProc { pids } => {
            state.procfs = Some(mounts::private_procfs(lent, state, lent.namespace(*pids)?)?);
            Ok(())
        }
        Step::Sysctl { name, value } => mounts::sysctl(state, name, value),
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
            let pids = lent.namespace(*pids)?;
            let tree = match whole {
                Some(whole) => mounts::by_path(state, fstype, source, whole, *attributes)?,
                None => mounts::filesystem(lent, state, (fstype, pids), source, options, *attributes)?,
            };
            let covers = mounts::Covers { inherit_mode: *inherit_mode, copy_up: *copy_up };
            mounts::attach_filesystem(state.root()?, tree, target, *propagation, covers)
        }
        Step::Attach { slot, target, attributes, propagation } => {
            let tree = lent.slot(*slot)?;
            mounts::attach_tree(state.root()?, tree, target, *attributes, propagation)
        }
        Step::Remount { target, attributes } => mounts::remount(state.root()?, target, *attributes),
        Step::MountPoint { slot, path } => {
            mounts::mount_point(state.root()?, lent.slot(*slot)?, path).map(drop)
        }
        Step::Mkdir { path, mode } => {
            root::open_or_create(state.root()?, path.as_c_str(), Missing::Directory(*mode)).map(drop)
        }
        Step::Symlink { path, target } => nodes::symlink(state, path, target),
        Step::Mknod { path, mode, major, minor, uid, gid } => {
            nodes::node(state, path, *mode, (*major, *minor), (*uid, *gid))
        }
        Step::Console { rows, columns, uid, bind } => {
            let size = WindowSize { columns: *columns, rows: *rows };
            let master = console::open(state, size, *uid, *bind)?;
            let report = super::Report { step: number, errno: 0 };
            sys::socket::send(lent.gate, &report.to_bytes(), Some(master.as_fd()))
        }
        Step::Mask { path } => masks::mask(state, path),
        Step::ReadonlyPath { path } => masks::readonly(state.root()?, path),
        Step::ReadonlyRoot => {
            let readonly = sys::mount::Change { set: sys::mount::ATTR_RDONLY, ..Default::default() };
            sys::mount::change(state.root()?, readonly, false)
        }
        Step::Hooks => super::rendezvous(forked, lent, number),

        Step::Pivot => enter::pivot(forked, state.root()?),
        Step::Detach { target } => enter::detach(target),
        Step::MoveRoot => enter::move_root(forked, state.root()?),
        Step::RootPropagation(propagation) => {
            let flags = propagation.flag | if propagation.recursive { libc::MS_REC } else { 0 };
            sys::mount::mount(None, c"/", None, flags, None)
        }
        Step::JoinUser { slot, unless_own } => enter::user(forked, lent.slot(*slot)?, *unless_own),
        Step::Hostname(name) => sys::identity::set_hostname(name.to_bytes()),
        Step::Domainname(name) => sys::identity::set_domainname(name.to_bytes()),

        Step::Terminal => console::become_standard(state),
        Step::Stdio { uid } => console::streams(forked, lent, *uid),
        Step::Keyring { name, search, label } => enter::keyring(state, name, *search, label.as_deref()),
        Step::Descriptors => sys::limits::restore_descriptors(forked),
        Step::Rlimit { resource, soft, hard } => sys::limits::set_rlimit(forked, *resource, *soft, *hard),
        Step::Umask(mask) => {
            sys::limits::set_umask(forked, *mask);
            Ok(())
        }
        Step::Personality(persona) => sys::limits::set_personality(*persona),
        Step::Scheduler(attributes) => enter::schedule(attributes),
        Step::MemoryPolicy(policy) => sys::limits::set_memory_policy(policy.mode, &policy.nodes.mask),
        Step::IoPriority(value) => sys::limits::set_io_priority(*value),
        Step::Home { uid } => {
            state.home = Some(home::of(*uid));
            Ok(())
        }
        Step::ExecLabel { value } => {
            let file = state.label.as_ref().ok_or(Errno::EBADF)?;
            fd::write(file.as_fd(), value.to_bytes()).map(drop)
        }

        Step::Aim { slot } => sys::namespace::join(lent.slot(*slot)?, libc::CLONE_NEWPID as u64),
        Step::NoNewPrivs => sys::identity::no_new_privs(),
        Step::Regain => sys::identity::regain(forked, sys::identity::SYS_ADMIN),
        Step::SeccompEarly(filter) => match sys::seccomp::load(lent.filter.unwrap_or(filter))? {
            Some(listener) => sys::last::hand_over(forked, lent.key, lent.gate, number, listener),
            None => Ok(()),
        },
        Step::BoundingSet { keep, last } => privileges::bounding_set(forked, *keep, *last),
        Step::SetGroups(groups) => sys::identity::set_groups(forked, groups),
        Step::SetIds { uid, gid } => privileges::set_ids(forked, *uid, *gid),
        Step::Workdir { path, retry } => enter::workdir(state, path, *retry),
        Step::Capabilities(sets) => privileges::capabilities(forked, lent.key, sets),

        Step::Sibling { flags } => sibling::make(forked, lent, number, *flags),
        Step::FindProgram { candidates, .. } => {
            state.program = Some(program::find(lent.key, candidates)?);
            Ok(())
        }
        Step::Bare => {
            if lent.reaps {
                sys::signal::leave_children_to_the_kernel(forked)?;
            }
            let last = lent.last.ok_or(Errno::ENOEXEC)?;
            let home = state.home.as_ref().map(|home| home.as_c_str());
            match last.enter(forked, state.program, home)? {}
        }
        // In a pod of which only the namespaces are needed: no other process sees this one.
        Step::Gate | Step::StandIn => super::rendezvous(forked, lent, number),
        // After `Bare` they are acts of `sys::last`.
        Step::Seccomp(_)
        | Step::Birth
        | Step::SetSid
        | Step::ControlTerminal
        | Step::Reap
        | Step::Exec { .. } => Err(Errno::ENOEXEC),
    }
}

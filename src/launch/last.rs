//! Lowers a plan's steps after `Step::Bare` to acts of `sys::last`.

use crate::error::{Context, Error, Kind, Result};
use crate::plan::{Plan, Step};
use crate::seccomp;
use crate::sys::board::Board;
use crate::sys::fd::{AsFd, OwnedFd};
use crate::sys::last::{self, Act, Prepared};
use crate::sys::layout::Layout;
use crate::sys::seccomp::Filter;
use crate::sys::{fd, random, socket, Key};
use std::ffi::CString;

pub(super) struct Last {
    pub(super) prepared: Prepared,
    /// Includes the launch's key, if the plan's filter would refuse one of the acts.
    pub(super) filter: Option<Filter>,
    pub(super) key: Key,
}

/// For a procfs of a joined pid namespace: see `init::outpost`.
pub(super) struct Outpost {
    pub(super) prepared: Prepared,
    pub(super) board: Board,
    pub(super) answers: OwnedFd,
    pub(super) gate: OwnedFd,
}

pub(super) fn outpost(layout: &Layout) -> Result<Outpost> {
    let (answers, gate) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
    let move_up = |fd: OwnedFd| fd::above_standard(fd).context(|| "fcntl(F_DUPFD_CLOEXEC)");
    let (answers, gate) = (move_up(answers)?, move_up(gate)?);
    let board = Board::new().context(|| "mmap(MAP_SHARED)")?;
    let calls = [libc::SYS_clone, libc::SYS_fsopen, libc::SYS_sendmsg, libc::SYS_exit_group, libc::SYS_exit];
    let filter = seccomp::only(&calls)?;
    let wanted = last::Last {
        acts: &[(Act::Filter, 0), (Act::Birth, 0), (Act::Procfs, 0)],
        number: 0,
        gate: gate.as_fd(),
        key: Key::default(),
        filter: Some(&filter),
        argv: &[],
        envp: &[],
        candidates: &[],
        board: &board,
    };
    let prepared = last::prepare(&wanted, layout).context(|| "mmap(what a child keeps)")?;
    Ok(Outpost { prepared, board, answers, gate })
}

pub(super) fn prepare(plan: &Plan, gate: &OwnedFd, board: &Board, layout: &Layout) -> Result<Last> {
    let (mut acts, mut number, mut bare) = (Vec::new(), 0, false);
    let (mut argv, mut envp, mut candidates): (&[CString], &[CString], &[CString]) = (&[], &[], &[]);
    let mut filter = None;
    let born = plan.steps.iter().any(|(step, _)| matches!(step, Step::Birth));
    for (at, (step, _)) in (0..).zip(&plan.steps) {
        let act = match step {
            Step::FindProgram { candidates: places, .. } => {
                candidates = places;
                continue;
            }
            Step::SeccompEarly(early) => {
                filter = Some(early);
                continue;
            }
            Step::Bare => {
                (number, bare) = (at, true);
                continue;
            }
            _ if !bare => continue,
            Step::Seccomp(late) => {
                filter = Some(late);
                Act::Filter
            }
            Step::Birth => Act::Birth,
            Step::SetSid => Act::Session,
            Step::ControlTerminal => Act::Terminal,
            Step::Gate => {
                // Its parent's exit announces it already, and a container cannot delay that.
                if !born {
                    acts.push((Act::Announce, at));
                }
                Act::Await
            }
            Step::Reap => Act::Sleep,
            Step::Exec { argv: words, envp: variables } => {
                (argv, envp) = (words, variables);
                Act::Execute
            }
            step => return Err(Error::new(Kind::Bug, format!("{step} behind the last step with memory"))),
        };
        acts.push((act, at));
    }
    let late = plan.steps.iter().any(|(step, _)| matches!(step, Step::Seccomp(_)));
    let (key, keyed) = match filter {
        Some(filter) => unlock(filter, late, gate)?,
        None => (Key::default(), None),
    };
    let loaded = filter.filter(|_| late).map(|filter| keyed.as_ref().unwrap_or(filter));
    let wanted = last::Last {
        acts: &acts,
        number,
        gate: gate.as_fd(),
        key,
        filter: loaded,
        argv,
        envp,
        candidates,
        board,
    };
    let prepared = last::prepare(&wanted, layout).context(|| "mmap(what a child keeps)")?;
    Ok(Last { prepared, filter: keyed, key })
}

/// Finds the calls made under the filter that are not the program's. If the filter does not plainly allow all of them,
/// returns a key for this launch alone, and a filter that knows it.
fn unlock(filter: &Filter, late: bool, gate: &OwnedFd) -> Result<(Key, Option<Filter>)> {
    use std::os::fd::AsRawFd;
    let any = [None; 6];
    let some = |first: u64, second: Option<u64>| [Some(first), second, None, None, None, Some(0)];
    let gate = gate.as_raw_fd() as u64;
    let birth = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as u64;
    let mut calls = vec![
        (libc::SYS_clone, [Some(birth), Some(0), None, Some(0), Some(0), Some(0)]),
        (libc::SYS_setsid, [Some(0); 6]),
        (libc::SYS_ioctl, some(0, Some(libc::TIOCSCTTY))),
        (libc::SYS_read, some(gate, None)),
        (libc::SYS_write, some(gate, None)),
    ];
    if !late {
        calls.extend([libc::SYS_close_range, libc::SYS_munmap, libc::SYS_madvise].map(|call| (call, any)));
    }
    // All of these are made before the agent has the listener.
    let mut runcs = Vec::new();
    if filter.listens() {
        calls.push((libc::SYS_close, any));
        let exit = |code| [Some(code), Some(0), Some(0), Some(0), Some(0), Some(0)];
        for call in [libc::SYS_exit_group, libc::SYS_exit] {
            runcs.extend([(call, exit(0)), (call, exit(1))]);
        }
        if !late {
            let ambient = |what: i32| some(libc::PR_CAP_AMBIENT as u64, Some(what as u64));
            runcs.extend([
                (libc::SYS_capset, any),
                (libc::SYS_prctl, ambient(libc::PR_CAP_AMBIENT_CLEAR_ALL)),
                (libc::SYS_prctl, ambient(libc::PR_CAP_AMBIENT_RAISE)),
                (libc::SYS_newfstatat, any),
                (
                    libc::SYS_faccessat2,
                    [None, None, Some(libc::X_OK as u64), Some(libc::AT_EACCESS as u64), Some(0), Some(0)],
                ),
            ]);
        }
    }
    let wanted = seccomp::wanted(filter, &calls, &runcs);
    if wanted.is_empty() {
        return Ok((Key::default(), None));
    }
    let key = random::number().context(|| "getrandom()")?;
    Ok((Key(key), Some(seccomp::unlocked(filter, key, &wanted).context(|| "linux.seccomp")?)))
}

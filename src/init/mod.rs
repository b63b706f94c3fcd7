//! The child of a clone: walks the plan's steps and becomes the container's program.
//!
//! The clone copies the memory of a multithreaded process, so any lock in the copy may be held for ever, malloc's first
//! of all. This module therefore makes system calls only: no allocation, no locks, no logging, no panics.
//! `no_implicit_prelude` and the lints below enforce that at compile time; in debug and test builds an allocator that
//! ends the child enforces it at run time (`sys::tripwire`).
//!
//! The child speaks over one close-on-exec SEQPACKET socket:
//!
//! | it sends | meaning |
//! | --- | --- |
//! | step, 0 | it waits at this step (`Hooks` or `Gate`) for one byte |
//! | step, 0, a descriptor | the master of the terminal that this step (`Console`) has opened |
//! | step, a number | the number of the listener of the filter that this step has loaded; it waits for one byte |
//! | nothing, end of file | it has ended, or its program runs |
//!
//! End of file on the child's side means that the shim has given up the launch: the child exits. Failures, progress and
//! the process that continues in its place are on the [`Board`], which takes no system call. From `Step::Bare` on,
//! `sys::child::last` takes over: by then nothing of this module, or of the shim's memory, is left.
#![no_implicit_prelude]
#![deny(
    clippy::disallowed_macros,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

use crate::plan::step::{Slot, Step};
use crate::plan::Field;
use crate::sys::child as sys;
use crate::sys::child::board::Board;
use crate::sys::child::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use crate::sys::child::last::Prepared;
use crate::sys::child::seccomp::Filter;
use crate::sys::child::{Forked, Key};
use ::core::cell::OnceCell;
use ::core::mem::ManuallyDrop;
use ::core::prelude::rust_2021::*;

mod console;
mod copy;
pub mod device;
mod enter;
mod home;
pub mod host_paths;
mod masks;
mod mounts;
mod nodes;
mod outpost;
mod owned;
mod perform;
mod privileges;
mod program;
mod sibling;
mod state;

/// A report from the child: the step, and the errno (0: it waits there) or the number of a filter's listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub step: u32,
    pub errno: i32,
}

impl Report {
    /// Stands for everything before the first step.
    pub const BEFORE: u32 = u32::MAX >> 1;
    pub const SIZE: usize = 8;

    pub fn to_bytes(self) -> [u8; Self::SIZE] {
        let [a, b, c, d] = self.step.to_ne_bytes();
        let [e, f, g, h] = self.errno.to_ne_bytes();
        [a, b, c, d, e, f, g, h]
    }

    pub fn from_bytes(bytes: [u8; Self::SIZE]) -> Self {
        let [a, b, c, d, e, f, g, h] = bytes;
        Report { step: u32::from_ne_bytes([a, b, c, d]), errno: i32::from_ne_bytes([e, f, g, h]) }
    }
}

/// What a process gets that is born into a joined pid namespace for one call: see `outpost`.
#[derive(Clone, Copy, Debug)]
pub struct Outpost<'a> {
    pub last: &'a Prepared,
    pub board: &'a Board,
    /// The socket on which its answer arrives.
    pub answers: BorrowedFd<'a>,
}

/// Everything that the child gets; prepared before the clone. Every descriptor is above 2.
#[derive(Debug)]
pub struct Lent<'a> {
    pub steps: &'a [(Step, Field)],
    /// Every descriptor below, sorted: all others are closed.
    pub keep: &'a [RawFd],
    pub gate: BorrowedFd<'a>,
    pub ends: Option<[BorrowedFd<'a>; 3]>,
    /// For [`Slot::Lent`].
    pub opened: &'a [BorrowedFd<'a>],
    /// For [`Slot::Opened`]: empty until a step fills them. A process that continues in this one's place has copies.
    pub slots: &'a [OnceCell<OwnedFd>],
    /// The directory of the container's cgroup, for a plan that delegates it.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The `cgroup.procs` files through which to enter.
    pub cgroups: &'a [BorrowedFd<'a>],
    pub board: &'a Board,
    /// What `Bare` keeps.
    pub last: Option<&'a Prepared>,
    /// For kernels that can only mount a procfs of the caller's own pid namespace.
    pub outpost: Option<Outpost<'a>>,
    /// The process stays to reap orphans.
    pub reaps: bool,
    /// Replaces the plan's filter: the same one, with this launch's key.
    pub filter: Option<&'a Filter>,
    /// For calls under the filter.
    pub key: Key,
    /// The signals that the shim ignores.
    pub ignored: sys::signal::Ignored,
}

impl<'a> Lent<'a> {
    fn namespace(&self, slot: Option<Slot>) -> sys::Result<Option<BorrowedFd<'a>>> {
        match slot {
            Some(slot) => self.slot(slot).map(Some),
            None => Ok(None),
        }
    }

    fn slot(&self, slot: Slot) -> sys::Result<BorrowedFd<'a>> {
        let found = match slot {
            Slot::Lent(number) => self.opened.get(usize::from(number)).copied(),
            Slot::Opened(number) => {
                self.slots.get(usize::from(number)).and_then(OnceCell::get).map(|fd| fd.as_fd())
            }
        };
        found.ok_or(sys::Errno::EBADF)
    }

    fn fill(&self, slot: Slot, fd: OwnedFd) -> sys::Result<()> {
        let Slot::Opened(number) = slot else { return Err(sys::Errno::EBADF) };
        let place = self.slots.get(usize::from(number)).ok_or(sys::Errno::EBADF)?;
        place.set(fd).map_err(|_| sys::Errno::EBADF)
    }
}

/// The exit code of a child that did not reach its program.
pub const FAILED: i32 = 1;

/// Runs the plan in the child.
pub fn run(forked: Forked, lent: &Lent<'_>) -> ! {
    let mut step = Report::BEFORE;
    // First of all: the open files of the shim and its other containers do not concern this process.
    let begun = sys::fd::close_all_but(forked, lent.keep).and_then(|()| sys::rseq::leave(forked));
    let walked = begun.and_then(|()| walk(forked, lent, 0, &mut step));
    fail(forked, lent, step, walked)
}

/// Continues the plan in the process that was born at the step before `first`, with everything that its parent had.
fn run_sibling(forked: Forked, lent: &Lent<'_>, first: u32) -> ! {
    let mut step = Report::BEFORE;
    let walked = walk(forked, lent, first, &mut step);
    fail(forked, lent, step, walked)
}

fn fail(forked: Forked, lent: &Lent<'_>, step: u32, walked: sys::Result<()>) -> ! {
    let errno = match walked {
        Ok(()) => sys::Errno::ENOEXEC,
        Err(errno) => errno,
    };
    lent.board.fail(step, errno as i32);
    sys::exec::exit_with(forked, lent.key, FAILED)
}

/// Does nothing until the other end of `until` is closed: the process keeps the namespaces that it was created in
/// alive.
pub fn hold(forked: Forked, until: BorrowedFd<'_>) -> ! {
    let code = match sys::fd::close_all_but(forked, &[until.as_raw_fd()])
        .and_then(|()| sys::identity::undumpable())
    {
        Ok(()) => sys::fd::read(until, &mut [0u8; 1]).map_or(FAILED, |_| 0),
        Err(_) => FAILED,
    };
    sys::exec::exit(forked, code)
}

/// Walks from step `first` to the execve(2); `step` is the current one. A plan that ends without one is an error too.
fn walk(forked: Forked, lent: &Lent<'_>, first: u32, step: &mut u32) -> sys::Result<()> {
    // Until the execve(2). Otherwise a process that is already in this pid namespace could open our /proc/<pid>/fd and
    // our memory, which is the shim's (CVE-2016-9962).
    sys::identity::undumpable()?;
    sys::signal::reset(forked, lent.ignored)?;
    // Modes in the plan are exact.
    sys::limits::set_umask(forked, 0);
    // Its descriptors are closed by the exit: a filter may leave close(2) to an agent that has no listener yet.
    let mut state = ManuallyDrop::new(state::State::new(forked));
    for (number, (act, _)) in (0u32..).zip(lent.steps).skip(first as usize) {
        *step = number;
        lent.board.at(number);
        perform::perform(act, number, lent, &mut state)?;
    }
    *step = step.saturating_add(1);
    Ok(())
}

/// Tells the shim that `step` has been reached, and waits for its go-ahead; ends the child if none comes.
///
/// It uses write(2) and read(2), which every seccomp profile allows: the gate may come after the filter.
fn rendezvous(forked: Forked, lent: &Lent<'_>, step: u32) -> sys::Result<()> {
    sys::fd::write(lent.gate, &Report { step, errno: 0 }.to_bytes())?;
    let mut go = [0u8; 1];
    match sys::fd::read(lent.gate, &mut go) {
        Ok(1) => Ok(()),
        _ => sys::exec::exit(forked, FAILED),
    }
}

//! The child of a clone: it walks the plan's steps, and becomes the container's program.
//!
//! The clone copied the memory of a process with threads, so that any lock may be held for ever in the copy,
//! malloc's first of all. Therefore this module does system calls only: no allocation, no lock, no log, no panic.
//! `no_implicit_prelude` and the lints below say so to the compiler; in debug and test builds an allocator that
//! ends the child says so at run time (`sys::tripwire`).
//!
//! The child speaks on one SEQPACKET socket, close-on-exec:
//!
//! | it sends | it means |
//! | --- | --- |
//! | step, 0 | it waits at this step (`Hooks` or `Gate`) for one byte |
//! | step, 0, a descriptor | the master of the terminal that this step (`Console`) has made |
//! | nothing, end of file | it has ended, or its program runs |
//!
//! and end of file on its own side means that the shim gave the launch up: it ends. What failed, how far it has come and
//! who goes on in its stead is on the [`Board`], which takes no system call. From `Step::Bare` on it is
//! `sys::child::last` that acts: nothing of this module, or of the shim's memory, is left by then.
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
use crate::sys::child::Forked;
use ::core::cell::OnceCell;
use ::core::prelude::rust_2021::*;

mod console;
mod copy;
mod enter;
mod home;
pub mod host_paths;
mod lock;
mod masks;
mod mounts;
mod nodes;
mod outpost;
mod perform;
mod privileges;
mod program;
mod sibling;
mod state;

/// A report of the child: which step, and the errno (0: it waits there).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    pub step: u32,
    pub errno: i32,
}

impl Report {
    /// Stands for what comes before the first step.
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

/// What a process is given that is born into a joined pid namespace for one call: see `outpost`.
#[derive(Clone, Copy, Debug)]
pub struct Outpost<'a> {
    pub last: &'a Prepared,
    pub board: &'a Board,
    /// Where its answer comes.
    pub answers: BorrowedFd<'a>,
}

/// All that the child is given; prepared before the clone. Every descriptor is above 2.
#[derive(Debug)]
pub struct Lent<'a> {
    pub steps: &'a [(Step, Field)],
    /// Every descriptor below, sorted: all others are closed.
    pub keep: &'a [RawFd],
    pub gate: BorrowedFd<'a>,
    pub ends: Option<[BorrowedFd<'a>; 3]>,
    /// For [`Slot::Lent`].
    pub opened: &'a [BorrowedFd<'a>],
    /// For [`Slot::Opened`]: empty, to be filled. A process that goes on in this one's stead has a copy of them.
    pub slots: &'a [OnceCell<OwnedFd>],
    /// The directory of the container's cgroup, for a plan that gives it away.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// `cgroup.procs` files to enter by.
    pub cgroups: &'a [BorrowedFd<'a>],
    pub board: &'a Board,
    /// What `Bare` leaves.
    pub last: Option<&'a Prepared>,
    /// For the kernels that make a procfs of their own pid namespace only.
    pub outpost: Option<Outpost<'a>>,
    /// It is the parent of orphans then.
    pub reaps: bool,
    /// In the place of the plan's: the same with this launch's key.
    pub filter: Option<&'a Filter>,
    /// What the shim ignores.
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

/// The exit code of a child that did not get as far as its program.
pub const FAILED: i32 = 1;

/// Runs in the child.
pub fn run(forked: Forked, lent: &Lent<'_>) -> ! {
    let mut step = Report::BEFORE;
    // First of all: what the shim and its other containers have open is none of this process's business.
    let begun = sys::fd::close_all_but(forked, lent.keep).and_then(|()| sys::rseq::leave(forked));
    let walked = begun.and_then(|()| walk(forked, lent, 0, &mut step));
    fail(forked, lent, step, walked)
}

/// The process that was born at the step before `first`, with all that its parent had.
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
    sys::exec::exit(forked, FAILED)
}

/// A process that does nothing until the other end of `until` is closed: it holds the namespaces that it was made in.
pub fn hold(forked: Forked, until: BorrowedFd<'_>) -> ! {
    let code = match sys::fd::close_all_but(forked, &[until.as_raw_fd()])
        .and_then(|()| sys::identity::undumpable())
    {
        Ok(()) => sys::fd::read(until, &mut [0u8; 1]).map_or(FAILED, |_| 0),
        Err(_) => FAILED,
    };
    sys::exec::exit(forked, code)
}

/// Walks from step `first` to the execve(2); `step` is where it is. A plan that ends without one is an error too.
fn walk(forked: Forked, lent: &Lent<'_>, first: u32, step: &mut u32) -> sys::Result<()> {
    // Until the execve(2), or a process that is in this pid namespace already could open our /proc/<pid>/fd and
    // our memory, which is the shim's (CVE-2016-9962).
    sys::identity::undumpable()?;
    sys::signal::reset(forked, lent.ignored)?;
    // Modes in the plan are exact.
    sys::limits::set_umask(forked, 0);
    let mut state = state::State::new(forked);
    for (number, (act, _)) in (0u32..).zip(lent.steps).skip(first as usize) {
        *step = number;
        lent.board.at(number);
        perform::perform(act, number, lent, &mut state)?;
    }
    *step = step.saturating_add(1);
    Ok(())
}

/// Tells the shim that `step` has been reached, and waits for its go; ends the child where there is none.
///
/// By write(2) and read(2), which every seccomp profile allows: the gate may come after the filter.
fn rendezvous(forked: Forked, lent: &Lent<'_>, step: u32) -> sys::Result<()> {
    sys::fd::write(lent.gate, &Report { step, errno: 0 }.to_bytes())?;
    let mut go = [0u8; 1];
    match sys::fd::read(lent.gate, &mut go) {
        Ok(1) => Ok(()),
        _ => sys::exec::exit(forked, FAILED),
    }
}

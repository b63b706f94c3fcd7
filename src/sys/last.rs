//! Prepares, in the shim, what the last acts of a child need: see [`super::child::last`].

use super::board::{Board, PAGE};
use super::child::last::{Orders, ACTS, GAPS, HOME, STACK};
use super::layout::Layout;
use super::seccomp::Filter;
use super::{check, Errno, Key, Result};
use core::ffi::c_char;
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};

pub use super::child::last::{Act, Prepared};

/// Everything to prepare.
pub struct Last<'a> {
    /// With the numbers of their steps.
    pub acts: &'a [(Act, u32)],
    /// The number of the step that empties the memory.
    pub number: u32,
    pub gate: BorrowedFd<'a>,
    pub key: Key,
    pub filter: Option<&'a Filter>,
    pub argv: &'a [CString],
    pub envp: &'a [CString],
    /// The paths at which the program may be.
    pub candidates: &'a [CString],
    pub board: &'a Board,
}

/// Fills the mapping from its lower end.
struct Room {
    next: usize,
    end: usize,
}

impl Room {
    /// Allocates zeroed bytes of the mapping, aligned for anything.
    fn take(&mut self, bytes: usize) -> Result<usize> {
        let at = self.next;
        let next = at.checked_add(bytes.next_multiple_of(16)).filter(|next| *next <= self.end);
        self.next = next.ok_or(Errno::ENOMEM)?;
        Ok(at)
    }

    fn bytes(&mut self, bytes: &[u8]) -> Result<usize> {
        let at = self.take(bytes.len())?;
        // SAFETY: `take` has given these bytes of a writable mapping to nobody else.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), at as *mut u8, bytes.len()) };
        Ok(at)
    }

    /// Writes an array of pointers to copies of the strings, followed by `ends` null pointers.
    fn strings(&mut self, strings: &[CString], ends: usize) -> Result<*mut *const c_char> {
        let array = self.take((strings.len() + ends) * size_of::<usize>())? as *mut *const c_char;
        for (i, string) in strings.iter().enumerate() {
            let at = self.bytes(string.as_bytes_with_nul())? as *const c_char;
            // SAFETY: `take` gave room for this many pointers, aligned.
            unsafe { array.wrapping_add(i).write(at) };
        }
        Ok(array)
    }
}

fn needed(last: &Last<'_>) -> usize {
    let strings = last.argv.iter().chain(last.envp);
    let strings: usize = strings.map(|text| text.as_bytes_with_nul().len() + 16 + size_of::<usize>()).sum();
    let filter = last.filter.map_or(0, |filter| filter.program.len() * 8);
    let program = longest(last.candidates);
    STACK + size_of::<Orders>() + strings + filter + program + HOME + 16 * 16
}

fn longest(candidates: &[CString]) -> usize {
    candidates.iter().map(|path| path.as_bytes_with_nul().len()).max().unwrap_or(1)
}

/// Prepares everything that the child needs at the end; called in the shim.
pub fn prepare(last: &Last<'_>, layout: &Layout) -> Result<Prepared> {
    let length = needed(last).next_multiple_of(PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), length, access, flags, -1, 0) };
    check(base as libc::c_long)?;
    let prepared = Prepared::new(base.cast(), length);
    let first = base as usize;
    let mut room = Room { next: first + STACK, end: first + length };

    let orders = room.take(size_of::<Orders>())?;
    let gaps = layout.gaps(&[(first, first + length), last.board.range()]);
    if gaps.len() > GAPS || last.acts.len() > ACTS {
        return Err(Errno::E2BIG);
    }
    let argv = room.strings(last.argv, 1)?;
    // The first null pointer is reserved for a HOME that the child finds.
    let envp = room.strings(last.envp, 2)?;
    let program = last.filter.map_or(&[][..], |filter| &filter.program);
    let filter = room.take(size_of_val(program))?;
    // SAFETY: `take` gave room for that many bytes, aligned; the instructions are plain integers.
    unsafe { core::ptr::copy_nonoverlapping(program.as_ptr(), filter as *mut _, program.len()) };
    let program_room = longest(last.candidates);
    let mut acts = [(Act::Sleep, 0); ACTS];
    acts[..last.acts.len()].copy_from_slice(last.acts);
    let mut ranges = [(0, 0); GAPS];
    ranges[..gaps.len()].copy_from_slice(&gaps);
    let filled = Orders {
        acts,
        act_count: last.acts.len(),
        number: last.number,
        gaps: ranges,
        gap_count: gaps.len(),
        gate: last.gate.as_raw_fd() as usize,
        key: last.key.0 as usize,
        filter: libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
            filter: filter as *mut libc::sock_filter,
        },
        filter_flags: last.filter.map_or(0, |filter| filter.flags as usize),
        filter_listens: last.filter.is_some_and(Filter::listens),
        argv,
        envp,
        spare: envp.wrapping_add(last.envp.len()),
        home: room.take(HOME)? as *mut u8,
        program: room.take(program_room)? as *mut u8,
        program_room,
        board: last.board.range().0,
        born: last.board.born_at() as usize,
        outcome: last.board.outcome_at(),
    };
    // SAFETY: `take` gave room for one, aligned.
    unsafe { (orders as *mut Orders).write(filled) };
    Ok(prepared)
}

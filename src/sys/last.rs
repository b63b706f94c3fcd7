//! The last acts of a child, in memory that has nothing but them.
//!
//! A child has a copy of the shim's memory. Before a container can see it, or a process that it makes, all of that goes
//! but the program and one mapping made for this child: a stack, the arguments of its program, and a list of acts. What
//! runs from then on has no thread-local storage, no data segment and no libc: system calls are made by their registers,
//! and nothing is touched but that mapping and the [`Board`].
//!
//! A seccomp profile may be loaded by then that refuses these calls, or answers for them. Each carries the launch's key
//! as a sixth argument, which the kernel ignores and the filter of a launch may know (`crate::seccomp`).

use super::board::{failure, Board, PAGE};
use super::layout::Layout;
use super::seccomp::Filter;
use super::{check, Errno, Result};
use core::ffi::{c_char, CStr};
use core::sync::atomic::{AtomicU64, Ordering};
use std::ffi::CString;
use std::os::fd::{AsRawFd, BorrowedFd};
use syscalls::raw::syscall6;
use syscalls::Sysno;

/// One of them. The order is the plan's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Loads the filter.
    Filter,
    /// clone(2) with CLONE_PARENT: what comes after it is for the new process, and the old one ends.
    Birth,
    /// setsid(2).
    Session,
    /// Descriptor 0 becomes the session's terminal.
    Terminal,
    /// Tells the shim that the gate is reached: eight bytes.
    Announce,
    /// Waits for one byte of the shim's.
    Await,
    /// execve(2).
    Execute,
    /// Closes all, and sleeps until a signal ends it.
    Sleep,
    /// fsopen(2) of a procfs, which is of the caller's pid namespace: its descriptor goes through the gate.
    Procfs,
}

/// What goes along.
pub struct Last<'a> {
    /// With the numbers of their steps.
    pub acts: &'a [(Act, u32)],
    /// The number of the step that empties the memory.
    pub number: u32,
    pub gate: BorrowedFd<'a>,
    pub key: u64,
    pub filter: Option<&'a Filter>,
    pub argv: &'a [CString],
    pub envp: &'a [CString],
    /// Where the program may be.
    pub candidates: &'a [CString],
    pub board: &'a Board,
}

/// linux/mount.h.
const FSOPEN_CLOEXEC: usize = 1;
const ACTS: usize = 8;
const GAPS: usize = 12;
const STACK: usize = 4 * PAGE;
/// The longest `HOME=…` with its NUL.
pub const HOME: usize = 512;
/// What a child ends with that has not become its program.
const FAILED: usize = 1;

/// At the lowest address behind the stack; all pointers lead into the same mapping, or to the board.
#[repr(C)]
struct Orders {
    acts: [(Act, u32); ACTS],
    act_count: usize,
    number: u32,
    gaps: [(usize, usize); GAPS],
    gap_count: usize,
    gate: usize,
    key: usize,
    filter: libc::sock_fprog,
    filter_flags: usize,
    argv: *const *const c_char,
    envp: *const *const c_char,
    /// In `envp`: room for a HOME.
    spare: *mut *const c_char,
    home: *mut u8,
    program: *mut u8,
    program_room: usize,
    board: usize,
    born: usize,
    outcome: *const AtomicU64,
}

/// The mapping. The shim drops it once it has cloned; the child has a copy.
#[derive(Debug)]
pub struct Prepared {
    base: *mut u8,
    length: usize,
}

/// Fills the mapping from its lower end.
struct Room {
    next: usize,
    end: usize,
}

impl Room {
    /// Zeroed bytes of the mapping, aligned for anything.
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

    /// An array of pointers to copies of the strings, with `ends` null pointers behind it.
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

/// In the shim: everything that the child needs at the end.
pub fn prepare(last: &Last<'_>, layout: &Layout) -> Result<Prepared> {
    let length = needed(last).next_multiple_of(PAGE);
    let access = libc::PROT_READ | libc::PROT_WRITE;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory that is there.
    let base = unsafe { libc::mmap(core::ptr::null_mut(), length, access, flags, -1, 0) };
    check(base as libc::c_long)?;
    let prepared = Prepared { base: base.cast(), length };
    let first = base as usize;
    let mut room = Room { next: first + STACK, end: first + length };

    let orders = room.take(size_of::<Orders>())?;
    let gaps = layout.gaps(&[(first, first + length), last.board.range()]);
    if gaps.len() > GAPS || last.acts.len() > ACTS {
        return Err(Errno::E2BIG);
    }
    let argv = room.strings(last.argv, 1)?;
    // The first null pointer is room for a HOME that the child finds.
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
        key: last.key as usize,
        filter: libc::sock_fprog {
            len: u16::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
            filter: filter as *mut libc::sock_filter,
        },
        filter_flags: last.filter.map_or(0, |filter| filter.flags as usize),
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

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: the mapping of `prepare`, which nothing borrows any more.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// Copies a string with its NUL into `room` bytes of the mapping.
fn copy(text: &CStr, to: *mut u8, room: usize) -> Result<()> {
    let bytes = text.to_bytes_with_nul();
    if bytes.len() > room {
        return Err(Errno::ENAMETOOLONG);
    }
    // SAFETY: the caller's room of the mapping, which nothing else uses.
    unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    Ok(())
}

impl Prepared {
    /// In the child, and for good: goes over to the mapping and does what is left to do. `program` is one of the
    /// candidates. An error is of what comes before.
    pub fn enter(&self, program: Option<&CStr>, home: Option<&CStr>) -> Result<core::convert::Infallible> {
        let orders = self.base.wrapping_add(STACK).cast::<Orders>();
        // SAFETY: `prepare` has written it there, and this process has its own copy.
        let filled = unsafe { &mut *orders };
        copy(program.unwrap_or(c""), filled.program, filled.program_room)?;
        if let Some(home) = home {
            copy(home, filled.home, HOME)?;
            // SAFETY: an entry of `envp` that was left for this.
            unsafe { filled.spare.write(filled.home.cast()) };
        }
        let top = self.base.wrapping_add(STACK);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the stack is ours, aligned and large enough for `run`, which never returns; nothing of the old one is
        // used any more.
        unsafe {
            core::arch::asm!("mov rsp, {top}", "xor ebp, ebp", "call {run}", "ud2",
                top = in(reg) top, in("rdi") orders, run = sym run, options(noreturn))
        }
        #[cfg(target_arch = "aarch64")]
        // SAFETY: as above.
        unsafe {
            core::arch::asm!("mov sp, {top}", "mov x29, xzr", "bl {run}", "udf #0",
                top = in(reg) top, in("x0") orders, run = sym run, options(noreturn))
        }
    }
}

/// A call with the launch's key. The answer is the kernel's: below zero an errno.
fn call(key: usize, number: Sysno, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    // SAFETY: the calls of this file take integers and pointers into the mapping or to the board, which stay mapped.
    unsafe { syscall6(number as usize, a, b, c, d, e, key) as isize }
}

/// exit_group(2), exit(2), and where a filter forbids both, a fault. Never returns, never loops.
pub(super) fn end(code: usize) -> ! {
    call(0, Sysno::exit_group, [code, 0, 0, 0, 0]);
    call(0, Sysno::exit, [code, 0, 0, 0, 0]);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: an instruction that is none: the kernel kills the process, whatever it ignores or blocks.
    unsafe {
        core::arch::asm!("ud2", options(noreturn))
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        core::arch::asm!("udf #0", options(noreturn))
    }
}

/// On the stack of the mapping.
unsafe extern "C" fn run(orders: *const Orders) -> ! {
    // SAFETY: `enter` passes the one that `prepare` wrote; the mapping is never unmapped.
    let orders = unsafe { &*orders };
    let mut number = orders.number;
    let mut answer = strip(orders);
    let mut at = 0;
    while answer >= 0 && at < orders.act_count {
        // The list is as long as it says.
        let act = orders.acts[at];
        number = act.1;
        answer = perform(orders, act.0, number);
        at += 1;
    }
    // SAFETY: the board stays mapped.
    let outcome = unsafe { &*orders.outcome };
    outcome.store(failure(number, answer.unsigned_abs() as u32), Ordering::Release);
    end(FAILED)
}

/// Gives up every descriptor but the streams and the gate, and all memory but what is here.
fn strip(orders: &Orders) -> isize {
    let close = |first: usize, last: usize| match first > last {
        true => 0,
        false => call(orders.key, Sysno::close_range, [first, last, 0, 0, 0]),
    };
    let mut answer = close(3, orders.gate - 1);
    if answer >= 0 {
        answer = close(orders.gate + 1, u32::MAX as usize);
    }
    let mut at = 0;
    while answer >= 0 && at < orders.gap_count {
        let (first, end) = orders.gaps[at];
        answer = call(orders.key, Sysno::munmap, [first, end - first, 0, 0, 0]);
        at += 1;
    }
    if answer < 0 {
        return answer;
    }
    // The page that says who is born is not for whom the container can see.
    call(orders.key, Sysno::madvise, [orders.board, PAGE, libc::MADV_DONTFORK as usize, 0, 0])
}

/// Sends a descriptor and one byte through the gate.
fn pass(orders: &Orders, descriptor: i32) -> isize {
    #[repr(C)]
    struct Control {
        header: libc::cmsghdr,
        descriptor: i32,
        _room: i32,
    }
    let control = Control {
        header: libc::cmsghdr {
            cmsg_len: size_of::<libc::cmsghdr>() + size_of::<i32>(),
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        },
        descriptor,
        _room: 0,
    };
    let part = libc::iovec { iov_base: core::ptr::from_ref(&control).cast_mut().cast(), iov_len: 1 };
    // `struct msghdr` of 64-bit architectures, as words: no address, one part, the control message.
    let (parts, about) = (core::ptr::from_ref(&part) as usize, core::ptr::from_ref(&control) as usize);
    let message = [0, 0, parts, 1, about, size_of::<Control>(), 0];
    let message = core::ptr::from_ref(&message) as usize;
    call(orders.key, Sysno::sendmsg, [orders.gate, message, libc::MSG_NOSIGNAL as usize, 0, 0])
}

fn perform(orders: &Orders, act: Act, number: u32) -> isize {
    let key = orders.key;
    match act {
        Act::Filter => {
            let filter = core::ptr::from_ref(&orders.filter) as usize;
            let mode = libc::SECCOMP_SET_MODE_FILTER as usize;
            call(key, Sysno::seccomp, [mode, orders.filter_flags, filter, 0, 0])
        }
        Act::Birth => {
            // Without a stack of its own the new process goes on here, with a copy.
            let flags = (libc::CLONE_PARENT | libc::CLONE_PARENT_SETTID) as usize;
            match call(key, Sysno::clone, [flags, 0, orders.born, 0, 0]) {
                0 => 0,
                refused if refused < 0 => refused,
                _ => end(0),
            }
        }
        Act::Session => call(key, Sysno::setsid, [0; 5]),
        Act::Terminal => call(key, Sysno::ioctl, [0, libc::TIOCSCTTY as usize, 0, 0, 0]),
        Act::Announce => {
            let report = [number, 0];
            let bytes = core::ptr::from_ref(&report) as usize;
            call(key, Sysno::write, [orders.gate, bytes, size_of_val(&report), 0, 0])
        }
        Act::Await => {
            let mut go = 0u8;
            let byte = core::ptr::from_mut(&mut go) as usize;
            match call(key, Sysno::read, [orders.gate, byte, 1, 0, 0]) {
                1 => 0,
                // The shim has given the launch up.
                _ => end(FAILED),
            }
        }
        Act::Execute => {
            let (argv, envp) = (orders.argv as usize, orders.envp as usize);
            let arguments = [orders.program as usize, argv, envp, 0, 0];
            // It comes back with an error only, or where a filter has answered for the kernel.
            call(0, Sysno::execve, arguments)
        }
        Act::Procfs => {
            let name = c"proc".as_ptr() as usize;
            let context = call(key, Sysno::fsopen, [name, FSOPEN_CLOEXEC, 0, 0, 0]);
            if context < 0 {
                return context;
            }
            let sent = pass(orders, context as i32);
            if sent < 0 {
                return sent;
            }
            end(0)
        }
        Act::Sleep => {
            call(key, Sysno::close_range, [0, u32::MAX as usize, 0, 0, 0]);
            loop {
                call(key, Sysno::ppoll, [0; 5]);
            }
        }
    }
}

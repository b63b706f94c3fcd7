//! For tests: a child under a filter, which makes system calls and reports their results.

use super::super::child::seccomp::load;
use super::Filter;
use nix::errno::Errno;
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use std::time::{Duration, Instant};

/// One system call: its entry into the kernel, number and arguments.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub door: Door,
    pub number: i64,
    pub arguments: [u64; 6],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Native,
    /// `int 0x80`: the calls of i386, from a 64-bit program.
    I386,
}

/// The outcome of a child.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The result of each call: a value, or the negative errno.
    Returned(Vec<i64>),
    /// The signal that ended it.
    Killed(i32),
    /// The filter itself was refused.
    Refused(Errno),
}

/// The memory that parent and child share, so that the child reports its results without a system call.
#[repr(C)]
struct Shared {
    done: std::sync::atomic::AtomicI32,
    loaded: std::sync::atomic::AtomicI32,
    results: [std::sync::atomic::AtomicI64; 32],
}

/// Runs `calls` in a child that has loaded `filter` (if there is one).
pub fn run(filter: Option<&Filter>, calls: &[Call]) -> Outcome {
    use std::sync::atomic::Ordering::SeqCst;
    assert!(calls.len() <= 32);
    let size = std::mem::size_of::<Shared>();
    let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping at an address of the kernel's choice.
    let memory = unsafe { libc::mmap(std::ptr::null_mut(), size, protection, flags, -1, 0) };
    assert_ne!(memory, libc::MAP_FAILED);
    // SAFETY: the mapping is zeroed, page-aligned and large enough; atomics of 0 are valid.
    let shared = unsafe { &*memory.cast::<Shared>() };
    // SAFETY: the child makes system calls and atomic stores only, and never returns from this function.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: integers only.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let loaded = filter.map_or(Ok(None), load);
        shared.loaded.store(loaded.as_ref().map_or_else(|errno| *errno as i32, |_| 0), SeqCst);
        if loaded.is_ok() {
            for (call, result) in calls.iter().zip(&shared.results) {
                result.store(make(call), SeqCst);
            }
        }
        shared.done.store(1, SeqCst);
        loop {
            std::hint::spin_loop();
        }
    }
    assert!(pid > 0);
    let pid = nix::unistd::Pid::from_raw(pid);
    let until = Instant::now() + Duration::from_secs(20);
    let outcome = loop {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)).unwrap() {
            WaitStatus::Signaled(_, signal, _) => break Outcome::Killed(signal as i32),
            WaitStatus::StillAlive => {}
            other => panic!("{other:?}"),
        }
        if shared.done.load(SeqCst) == 1 {
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
            waitpid(pid, None).unwrap();
            break match shared.loaded.load(SeqCst) {
                0 => Outcome::Returned(
                    shared.results.iter().take(calls.len()).map(|result| result.load(SeqCst)).collect(),
                ),
                errno => Outcome::Refused(Errno::from_raw(errno)),
            };
        }
        assert!(Instant::now() < until, "the child does not come to an end");
        std::thread::sleep(Duration::from_millis(1));
    };
    // SAFETY: mapped above with this size; `shared` is not used after.
    unsafe { libc::munmap(memory, size) };
    outcome
}

fn make(call: &Call) -> i64 {
    let [a, b, c, d, e, f] = call.arguments;
    match call.door {
        Door::Native => {
            // SAFETY: tests choose calls whose arguments touch no memory, or unmapped memory.
            let result = unsafe { libc::syscall(call.number, a, b, c, d, e, f) };
            if result == -1 {
                -i64::from(Errno::last_raw())
            } else {
                result
            }
        }
        Door::I386 => i386(call.number as u32, a as u32),
    }
}

/// Makes a call with one argument; those that the next four registers hold are 0.
#[cfg(target_arch = "x86_64")]
fn i386(number: u32, argument: u32) -> i64 {
    let result: i32;
    // SAFETY: as for the native door; rbx is reserved by the compiler, and is restored.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {argument:r}",
            "int 0x80",
            "xchg rbx, {argument:r}",
            argument = inout(reg) u64::from(argument) => _,
            inlateout("eax") number as i32 => result,
            in("ecx") 0, in("edx") 0, in("esi") 0, in("edi") 0,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    result.into()
}

#[cfg(not(target_arch = "x86_64"))]
fn i386(_: u32, _: u32) -> i64 {
    -i64::from(libc::ENOSYS)
}

//! rseq(2): the C library makes the kernel write to each thread's memory whenever it is scheduled. A child that gives
//! up that memory must unregister first, or the kernel would kill it.

use super::{check, Errno, Forked, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

/// RSEQ_FLAG_UNREGISTER of linux/rseq.h.
const UNREGISTER: libc::c_int = 1;
/// `struct rseq` as first defined; the C library registers at least that, and a multiple of its alignment.
const LENGTH: u32 = 32;

#[cfg(target_arch = "x86_64")]
const SIGNATURE: u32 = 0x5305_3053;
#[cfg(target_arch = "aarch64")]
const SIGNATURE: u32 = 0xd428_bc00;

unsafe extern "C" {
    /// The offset from the thread pointer; glibc 2.35.
    static __rseq_offset: isize;
    /// 0 if nothing was registered.
    static __rseq_size: libc::c_uint;
}

fn thread_pointer() -> usize {
    let pointer: usize;
    #[cfg(target_arch = "x86_64")]
    // SAFETY: reads the thread control block's first word, which is its own address (the ABI's TLS variant II).
    unsafe {
        core::arch::asm!("mov {}, qword ptr fs:[0]", out(reg) pointer, options(nostack, readonly));
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: reads a register.
    unsafe {
        core::arch::asm!("mrs {}, tpidr_el0", out(reg) pointer, options(nostack, nomem));
    }
    pointer
}

/// Unregisters, for a child that is about to unmap what the kernel would write to.
pub fn leave(_: Forked) -> Result<()> {
    // SAFETY: a constant of the C library.
    let size = unsafe { __rseq_size };
    if size == 0 {
        return Ok(());
    }
    // SAFETY: as above.
    let offset = unsafe { __rseq_offset };
    let area = thread_pointer().wrapping_add_signed(offset);
    let mut answer = Err(Errno::EINVAL);
    for length in [LENGTH, size.next_multiple_of(LENGTH)] {
        // SAFETY: the kernel forgets the area, and touches no memory.
        answer = check(unsafe { libc::syscall(libc::SYS_rseq, area, length, UNREGISTER, SIGNATURE) });
        if answer != Err(Errno::EINVAL) {
            break;
        }
    }
    match answer {
        Err(Errno::ENOSYS) => Ok(()),
        answer => answer.map(drop),
    }
}

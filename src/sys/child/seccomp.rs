//! seccomp(2): loading a filter.

use super::fd::{own, OwnedFd};
use super::{check, Errno, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

/// `struct sock_filter` of linux/filter.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SockFilter {
    pub code: u16,
    pub jt: u8,
    pub jf: u8,
    pub k: u32,
}

/// A compiled program and the SECCOMP_FILTER_FLAG_* it is loaded with.
#[derive(Clone, Debug, PartialEq, Eq)]
// The shim creates and drops it; the child only borrows it.
#[allow(clippy::disallowed_types)]
pub struct Filter {
    pub program: ::std::sync::Arc<[SockFilter]>,
    pub flags: u64,
}

/// SECCOMP_FILTER_FLAG_NEW_LISTENER (Linux 5.0): loading the filter returns the descriptor through which an agent
/// receives the calls that the filter leaves to it.
pub(crate) const FLAG_NEW_LISTENER: u64 = 1 << 3;

impl Filter {
    pub fn listens(&self) -> bool {
        self.flags & FLAG_NEW_LISTENER != 0
    }
}

/// Loads the filter for the calling thread, irrevocably. Needs no_new_privs or CAP_SYS_ADMIN. Returns its listener, if
/// it has one.
pub fn load(filter: &Filter) -> Result<Option<OwnedFd>> {
    let Ok(length) = u16::try_from(filter.program.len()) else { return Err(Errno::E2BIG) };
    let program = libc::sock_fprog { len: length, filter: filter.program.as_ptr().cast_mut().cast() };
    // SAFETY: `program` points to `length` instructions of the kernel's own layout (`SockFilter` is its repr(C) twin),
    // which outlive the call; the kernel only reads them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            filter.flags,
            core::ptr::from_ref(&program),
        )
    };
    match check(answer) {
        // An outer filter may not know seccomp(2); the older call takes no flags.
        Err(Errno::ENOSYS) if filter.flags == 0 => {
            let mode = libc::c_ulong::from(libc::SECCOMP_MODE_FILTER);
            // SAFETY: as above.
            let answer =
                unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, core::ptr::from_ref(&program), 0, 0) };
            check(answer.into()).map(|_| None)
        }
        answer => answer.map(|listener| filter.listens().then(|| own(listener))),
    }
}

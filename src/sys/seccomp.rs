//! seccomp(2): a filter as the kernel takes it, and its loading by the child of a clone.

use super::{check, Errno};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

/// Log every action but "allow" (Linux 4.14).
pub const FLAG_LOG: u64 = 1 << 1;
/// No mitigation of Speculative Store Bypass for the sake of the filter (Linux 4.17).
pub const FLAG_SPEC_ALLOW: u64 = 1 << 2;
/// BPF_MAXINSNS of linux/bpf_common.h: the kernel takes no longer program.
pub const MAX_LENGTH: usize = 4096;

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
pub struct Filter {
    pub program: Arc<[SockFilter]>,
    pub flags: u64,
}

/// Loads the filter for the calling thread, for good. Needs no_new_privs or CAP_SYS_ADMIN. Does not allocate.
pub fn load(filter: &Filter) -> super::Result<()> {
    let Ok(length) = u16::try_from(filter.program.len()) else { return Err(Errno::E2BIG) };
    let program = libc::sock_fprog { len: length, filter: filter.program.as_ptr().cast_mut().cast() };
    // SAFETY: `program` names `length` instructions of the kernel's own layout (`SockFilter` is its repr(C) twin),
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
            check(answer.into()).map(drop)
        }
        answer => answer.map(drop),
    }
}

/// Runs `write` on a descriptor and returns the instructions that it wrote there.
pub fn collect<E>(
    write: impl FnOnce(BorrowedFd<'_>) -> Result<(), E>,
) -> nix::Result<Result<Vec<SockFilter>, E>> {
    use nix::sys::memfd::{memfd_create, MFdFlags};
    let file = memfd_create(c"seccomp", MFdFlags::MFD_CLOEXEC)?;
    if let Err(error) = write(file.as_fd()) {
        return Ok(Err(error));
    }
    let mut bytes = Vec::new();
    let mut file = File::from(file);
    let io = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    file.rewind().map_err(io)?;
    file.read_to_end(&mut bytes).map_err(io)?;
    let field = |at: &[u8]| u16::from_ne_bytes([at[0], at[1]]);
    Ok(Ok(bytes
        .chunks_exact(8)
        .map(|i| SockFilter {
            code: field(i),
            jt: i[2],
            jf: i[3],
            k: u32::from_ne_bytes([i[4], i[5], i[6], i[7]]),
        })
        .collect()))
}

#[cfg(test)]
pub mod child;

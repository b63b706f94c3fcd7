//! seccomp(2): a filter as the kernel takes it. The child of a clone loads it: [`super::child::seccomp`].

use nix::errno::Errno;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd};

pub(crate) use super::child::seccomp::FLAG_NEW_LISTENER;
pub use super::child::seccomp::{Filter, SockFilter};

/// Log every action but "allow" (Linux 4.14).
pub(crate) const FLAG_LOG: u64 = 1 << 1;
/// Does not enable the Speculative Store Bypass mitigation for the filter (Linux 4.17).
pub(crate) const FLAG_SPEC_ALLOW: u64 = 1 << 2;
/// A call that the agent has received waits for its answer, through all signals but fatal ones (Linux 5.19).
pub(crate) const FLAG_WAIT_KILLABLE_RECV: u64 = 1 << 5;
/// BPF_MAXINSNS of linux/bpf_common.h: the maximum length of a program.
pub(crate) const MAX_LENGTH: usize = 4096;

/// Whether this kernel knows these flags. It checks them before it reads the program, of which there is none.
pub(crate) fn knows(flags: u64) -> bool {
    let none = std::ptr::null::<libc::sock_fprog>();
    // SAFETY: the kernel checks the address before it reads the program: null is EFAULT.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, none) };
    super::check(answer) == Err(Errno::EFAULT)
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
pub(crate) mod trial;

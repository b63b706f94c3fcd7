//! The kernel: every `unsafe` of the crate, one file per kernel topic, under kernel names.
//!
//! Functions take `&CStr`, `BorrowedFd` and typed flags, and return `OwnedFd` or an errno; those that the
//! child of a clone uses do not allocate.

pub mod board;
pub mod bpf;
pub mod clone;
pub mod console;
pub mod directory;
pub mod edge;
pub mod epoll;
pub mod event;
pub mod exec;
pub mod fd;
pub mod handler;
pub mod identity;
pub mod idle;
pub mod keyring;
pub mod last;
pub mod layout;
pub mod limits;
pub mod loop_device;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod network;
pub mod peer;
pub mod pipe;
pub mod poll;
pub mod process;
pub mod random;
pub mod root;
pub mod rseq;
pub mod seal;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod stream;
#[cfg(debug_assertions)]
pub mod tripwire;
pub mod tty;
pub mod wait;
pub mod walk;

pub use nix::errno::Errno;

pub type Result<T, E = Errno> = core::result::Result<T, E>;

/// The answer of a raw system call by way of libc's `syscall`, which has put the errno in its place.
fn check(answer: libc::c_long) -> Result<libc::c_long> {
    match answer {
        -1 => Err(Errno::last()),
        answer => Ok(answer),
    }
}

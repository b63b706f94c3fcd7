//! The kernel: every `unsafe` of the crate, one file per kernel topic, under kernel names.
//!
//! Functions take `&CStr`, `BorrowedFd` and typed flags, and return `OwnedFd` or an errno. There are two halves: the
//! files here are the shim's and may allocate; [`child`] is for the child of a clone, which may not.

pub mod child;

/// The shim calls these as well.
pub use child::{
    board, clone, console, fd, identity, idle, keyring, mount, namespace, poll, signal, socket, wait, Errno,
    Result,
};

pub mod bpf;
pub mod edge;
pub mod epoll;
pub mod event;
pub mod handler;
pub mod last;
pub mod layout;
pub mod memory;
pub mod peer;
pub mod pipe;
pub mod process;
pub mod random;
pub mod seal;
pub mod seccomp;
pub mod spawn;
pub mod stream;
#[cfg(debug_assertions)]
pub mod tripwire;

use child::check;

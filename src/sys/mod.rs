//! The kernel: every `unsafe` of the crate, one file per kernel topic, under kernel names.
//!
//! Functions take `&CStr`, `BorrowedFd` and typed flags, and return `OwnedFd` or an errno. There are two halves: the
//! files here are the shim's and may allocate; [`child`] is for the child of a clone, which may not.

pub mod child;

/// The shim calls these as well.
pub use child::{board, clone, console, fd, identity, mount, namespace, socket, wait, Result};
pub(crate) use child::{idle, keyring, netlink, poll, signal, Errno, Key};

pub(crate) mod bpf;
pub(crate) mod edge_epoll;
pub(crate) mod epoll;
pub(crate) mod event;
pub(crate) mod handler;
pub(crate) mod last;
pub(crate) mod layout;
pub(crate) mod memory;
pub(crate) mod path;
pub(crate) mod peer;
pub(crate) mod pipe;
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod seal;
pub mod seccomp;
pub(crate) mod spawn;
pub(crate) mod stream;
#[cfg(debug_assertions)]
pub(crate) mod tripwire;

use child::check;

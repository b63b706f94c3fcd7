//! The mounts of a container, which outlive its first process by a moment.
//!
//! The last process to leave a mount namespace unmounts all that is in it before its exit is seen: an overlayfs
//! writes to the disk first what is not there yet, and that takes as long as the disk does. So the shim keeps the
//! namespace until the exit has been told, and lets go of it on a thread of its own; a Delete waits for that, since the
//! client may use or remove the container's snapshot next.

use crate::sys::fd;
use std::os::fd::OwnedFd;
use std::thread::JoinHandle;

/// It only closes a descriptor.
const STACK: usize = 16 << 10;

#[derive(Default)]
pub(super) enum Mounts {
    #[default]
    Gone,
    Held(OwnedFd),
    Leaving(JoinHandle<()>),
}

impl Mounts {
    /// Those of process `pid`, in a namespace of its own. Where they cannot be held, its exit takes longer.
    pub fn of(pid: u32) -> Mounts {
        let path = std::ffi::CString::new(format!("/proc/{pid}/ns/mnt")).unwrap_or_default();
        match fd::open(&path, libc::O_RDONLY, 0) {
            Ok(namespace) => Mounts::Held(namespace),
            Err(errno) => {
                log::debug!("open({path:?}): {errno}");
                Mounts::Gone
            }
        }
    }

    /// The exit has been told.
    pub fn leave(&mut self) {
        if let Mounts::Held(namespace) = std::mem::take(self) {
            let leave = std::thread::Builder::new().name("unmount".into()).stack_size(STACK);
            match leave.spawn(move || drop(namespace)) {
                Ok(thread) => *self = Mounts::Leaving(thread),
                // Closed by the thread that could not be made, which is to say here.
                Err(e) => log::warn!("start a thread to unmount: {e}"),
            }
        }
    }

    /// Returns when they are unmounted.
    pub fn wait(self) {
        if let Mounts::Leaving(thread) = self {
            // It cannot panic.
            let _ = thread.join();
        }
    }
}

//! The session keyring: keyrings(7), session-keyring(7).

use super::{check, Result};
use core::ffi::CStr;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
const KEYCTL_SETPERM: libc::c_ulong = 5;

/// What the kernel gives to a new session keyring (possessor: all; user: view, read, link), and search for the
/// user: a process that joins the container as the same user finds the keys.
const PERMISSIONS: libc::c_ulong = 0x3f13_0000 | 0x0008_0000;

/// Leaves the inherited session keyring for a new (or the existing) one of this name.
pub fn join_session(name: &CStr) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let ring = check(answer)?;
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, ring, PERMISSIONS) }).map(drop)
}

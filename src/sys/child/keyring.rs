//! The session keyring: keyrings(7), session-keyring(7).

use super::{check, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
const KEYCTL_SETPERM: libc::c_ulong = 5;

/// The default permissions of a new session keyring: possessor: all; user: view, read, link.
const PERMISSIONS: libc::c_ulong = 0x3f13_0000;

/// Who else may search the keyring, so that a process that joins the container finds the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Search {
    /// The same user.
    User,
    /// Everyone: in a user namespace a user is not the same as outside.
    Other,
}

/// Replaces the inherited session keyring by a new (or the existing) one of this name.
pub fn join_session(name: &CStr, search: Option<Search>) -> Result<()> {
    // SAFETY: `name` is NUL-terminated and outlives the call; the kernel only reads it.
    let answer = unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, name.as_ptr()) };
    let ring = check(answer)?;
    let permissions = match search {
        None => return Ok(()),
        Some(Search::User) => PERMISSIONS | 0x0008_0000,
        Some(Search::Other) => PERMISSIONS | 0x0000_0008,
    };
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_SETPERM, ring, permissions) }).map(drop)
}

//! `tmpcopyup`: copies the image's files at the target of a tmpfs into it.
//!
//! Names are taken from directory listings and opened with O_NOFOLLOW, one level at a time.

use crate::sys::child::directory::{self, Entries};
use crate::sys::child::fd::{self, AsFd, BorrowedFd, Stat};
use crate::sys::child::{entry, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// The maximum depth of a tree: each level has a buffer on the stack.
const DEPTH: u32 = 32;

/// Copies the contents of `from` (an O_PATH descriptor of a directory) into `to`, and the directory's own mode and
/// owner.
pub(super) fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    level(from, to, DEPTH)
}

fn level(from: BorrowedFd<'_>, to: BorrowedFd<'_>, left: u32) -> Result<()> {
    let left = left.checked_sub(1).ok_or(Errno::ELOOP)?;
    let from = fd::open_at(from, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let to = fd::open_at(to, c".", libc::O_RDONLY | libc::O_DIRECTORY, 0)?;
    let mut entries = Entries::new(from.as_fd());
    while let Some(name) = entries.next()? {
        entry(from.as_fd(), to.as_fd(), name, left)?;
    }
    let stat = fd::stat(from.as_fd())?;
    fd::give(to.as_fd(), stat.uid, stat.gid)?;
    fd::set_mode(to.as_fd(), stat.mode & 0o7777)
}

fn entry(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, left: u32) -> Result<()> {
    let there = fd::open_at(from, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = fd::stat(there.as_fd())?;
    if !stat.is_directory() {
        return leaf(from, to, name, there.as_fd(), stat);
    }
    entry::make_directory(to, name, 0o700)?;
    let made = fd::open_at(to, name, libc::O_PATH | libc::O_NOFOLLOW | libc::O_DIRECTORY, 0)?;
    level(there.as_fd(), made.as_fd(), left)
}

/// Copies anything but a directory; not inlined, so that its buffer is not on the stack at every level.
#[inline(never)]
fn leaf(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    there: BorrowedFd<'_>,
    stat: Stat,
) -> Result<()> {
    match stat.kind() {
        libc::S_IFREG => {
            let source = fd::open_at(from, name, libc::O_RDONLY | libc::O_NOFOLLOW, 0)?;
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let copy = fd::open_at(to, name, flags, 0o600)?;
            directory::copy_bytes(source.as_fd(), copy.as_fd())?;
            fd::give(copy.as_fd(), stat.uid, stat.gid)?;
            // After the owner: a change of owner clears the set-id bits.
            return fd::set_mode(copy.as_fd(), stat.mode & 0o7777);
        }
        libc::S_IFLNK => {
            let mut text = [0u8; 4096];
            let length = entry::read_link(there, c"", &mut text)?;
            // The last byte is reserved for the terminating NUL.
            if length >= text.len() {
                return Err(Errno::ENAMETOOLONG);
            }
            let target = CStr::from_bytes_until_nul(&text).map_err(|_| Errno::ENAMETOOLONG)?;
            entry::make_symlink(target, to, name)?;
        }
        // A socket is useless without its listener.
        libc::S_IFSOCK => return Ok(()),
        _ => entry::make_node(to, name, stat.mode, libc::major(stat.device), libc::minor(stat.device))?,
    }
    entry::give(to, name, stat.uid, stat.gid)
}

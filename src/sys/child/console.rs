//! The terminal of a container, as its first process makes it: pts(4), ioctl_tty(2).

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// linux/magic.h.
pub const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Lets the other side of `master` be opened.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, core::ptr::from_ref(&locked))
    };
    check(answer).map(drop)
}

/// The other side of `master`, opened by way of the master itself: no path is involved that somebody could have
/// replaced (TIOCGPTPEER, 4.13).
pub fn slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags, an integer.
    check(unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTPEER, flags) }).map(own)
}

/// Sets the window size.
pub fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSWINSZ, core::ptr::from_ref(&size))
    };
    check(answer).map(drop)
}

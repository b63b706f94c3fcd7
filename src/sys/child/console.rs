//! The terminal of a container: pts(4), ioctl_tty(2).

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// linux/magic.h.
pub(crate) const DEVPTS_SUPER_MAGIC: i64 = 0x1cd1;

/// Unlocks the slave of `master`, so that it can be opened.
pub fn unlock(master: BorrowedFd<'_>) -> Result<()> {
    let locked: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int, which outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCSPTLCK, core::ptr::from_ref(&locked))
    };
    check(answer).map(drop)
}

/// Opens the slave of `master` through the master itself: no path is involved that could have been replaced
/// (TIOCGPTPEER, Linux 4.13).
pub fn slave(master: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags, an integer.
    check(unsafe { libc::syscall(libc::SYS_ioctl, master.as_raw_fd(), libc::TIOCGPTPEER, flags) }).map(own)
}

/// In characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    pub columns: u16,
    pub rows: u16,
}

/// Sets the window size, through either side; if it changes, the kernel sends SIGWINCH to the foreground process group.
pub fn resize(terminal: BorrowedFd<'_>, size: WindowSize) -> Result<()> {
    let size = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize, which outlives the call.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCSWINSZ, core::ptr::from_ref(&size))
    };
    check(answer).map(drop)
}

pub fn size(terminal: BorrowedFd<'_>) -> Result<WindowSize> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills one winsize, which is exclusively ours.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, terminal.as_raw_fd(), libc::TIOCGWINSZ, core::ptr::from_mut(&mut size))
    };
    check(answer).map(|_| WindowSize { columns: size.ws_col, rows: size.ws_row })
}

//! ioctl_tty(2): what the shim does with the master of a container's terminal.

use nix::errno::Errno;
use std::os::fd::{AsFd, AsRawFd};

/// Tells the terminal its size; the kernel sends SIGWINCH to the foreground group where it has changed.
pub fn resize(master: impl AsFd, columns: u16, rows: u16) -> nix::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `master` is open for the whole call, and TIOCSWINSZ only reads the `winsize` it is given.
    let result = unsafe { libc::ioctl(master.as_fd().as_raw_fd(), libc::TIOCSWINSZ, &size) };
    Errno::result(result).map(drop)
}

/// The terminal's columns and rows.
pub fn size(terminal: impl AsFd) -> nix::Result<(u16, u16)> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: `terminal` is open for the whole call, and TIOCGWINSZ fills the `winsize` it is given.
    let result = unsafe { libc::ioctl(terminal.as_fd().as_raw_fd(), libc::TIOCGWINSZ, &mut size) };
    Errno::result(result).map(|_| (size.ws_col, size.ws_row))
}

//! Directory listings and copies of file contents, without allocation: getdents64(2), sendfile(2).

use super::fd::BorrowedFd;
use super::{check, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// The offset of the name in `struct linux_dirent64`: inode, offset (8 bytes each), length (2), type (1).
const NAME: usize = 19;

/// Iterates over the names in a directory, except `.` and `..`.
pub struct Entries<'a> {
    directory: BorrowedFd<'a>,
    buffer: [u8; 1024],
    filled: usize,
    at: usize,
}

impl<'a> Entries<'a> {
    pub fn new(directory: BorrowedFd<'a>) -> Self {
        Entries { directory, buffer: [0; 1024], filled: 0, at: 0 }
    }

    /// Returns the next name; None at the end.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&CStr>> {
        loop {
            if self.at >= self.filled {
                self.fill()?;
                if self.filled == 0 {
                    return Ok(None);
                }
            }
            let start = self.at;
            let length = self.buffer.get(start.saturating_add(16)..start.saturating_add(18));
            let length = length.and_then(|b| <[u8; 2]>::try_from(b).ok()).ok_or(Errno::EIO)?;
            let length = usize::from(u16::from_ne_bytes(length));
            if length <= NAME {
                return Err(Errno::EIO);
            }
            self.at = start.saturating_add(length);
            let name = self.buffer.get(start.saturating_add(NAME)..self.at).ok_or(Errno::EIO)?;
            let name = CStr::from_bytes_until_nul(name).map_err(|_| Errno::EIO)?;
            if name == c"." || name == c".." {
                continue;
            }
            // Borrowed anew, since the borrow in the loop may not outlive it.
            let name = self.buffer.get(start.saturating_add(NAME)..self.at).ok_or(Errno::EIO)?;
            return CStr::from_bytes_until_nul(name).map(Some).map_err(|_| Errno::EIO);
        }
    }

    fn fill(&mut self) -> Result<()> {
        let (fd, room, length) = (self.directory.as_raw_fd(), self.buffer.as_mut_ptr(), self.buffer.len());
        // SAFETY: the kernel writes at most `length` bytes into the buffer, which is exclusively ours.
        let answer = check(unsafe { libc::syscall(libc::SYS_getdents64, fd, room, length) })?;
        (self.filled, self.at) = (answer as usize, 0);
        Ok(())
    }
}

/// Copies the rest of `from`: sendfile(2).
pub fn copy_bytes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let none = core::ptr::null_mut::<libc::off_t>();
    loop {
        let (to, from) = (to.as_raw_fd(), from.as_raw_fd());
        // SAFETY: takes integers, and no offset to write back.
        let answer = unsafe { libc::syscall(libc::SYS_sendfile, to, from, none, 1usize << 20) };
        if check(answer)? == 0 {
            return Ok(());
        }
    }
}

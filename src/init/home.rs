//! HOME, if the spec sets none: from the container's own /etc/passwd, as in runc and login(1).

use crate::sys::child::fd::{self, AsFd};
use crate::sys::child::Result;
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// The number of 4 KiB chunks of the file that are read: its length is up to the image.
const CHUNKS: u32 = 256;

/// The room for the entry; longer directories are ignored.
const ROOM: usize = crate::sys::child::last::HOME;
const PREFIX: &[u8] = b"HOME=";

/// A NUL-terminated `HOME=…`.
pub(super) struct Home {
    text: [u8; ROOM],
}

impl Home {
    fn new(directory: &[u8]) -> Self {
        let mut text = [0u8; ROOM];
        let all = PREFIX.iter().chain(directory);
        // The last byte stays 0.
        for (to, from) in text.iter_mut().take(ROOM.saturating_sub(1)).zip(all) {
            *to = *from;
        }
        Home { text }
    }

    pub(super) fn as_c_str(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).unwrap_or(c"HOME=/")
    }
}

/// Returns `/` if the user has no line, or the file does not exist.
pub(super) fn of(uid: u32) -> Home {
    let mut home = Home::new(b"/");
    // The image decides what the file contains, and what it is: a FIFO would block.
    let _ = scan(uid, &mut home);
    home
}

fn scan(uid: u32, home: &mut Home) -> Result<()> {
    let file = fd::open(c"/etc/passwd", libc::O_RDONLY | libc::O_NONBLOCK | libc::O_NOCTTY, 0)?;
    if fd::stat(file.as_fd())?.kind() != libc::S_IFREG {
        return Ok(());
    }
    let mut line = [0u8; 1024];
    let mut length = 0usize;
    let mut chunk = [0u8; 4096];
    for _ in 0..CHUNKS {
        let read = fd::read(file.as_fd(), &mut chunk)?;
        let Some(bytes) = chunk.get(..read) else { return Ok(()) };
        for byte in bytes {
            if *byte != b'\n' {
                // A line that is too long is truncated, and then lacks the directory.
                if let Some(place) = line.get_mut(length) {
                    *place = *byte;
                    length = length.saturating_add(1);
                }
                continue;
            }
            if let Some(directory) = line.get(..length).and_then(|line| directory_of(line, uid)) {
                *home = Home::new(directory);
                return Ok(());
            }
            length = 0;
        }
        if read == 0 {
            if let Some(directory) = line.get(..length).and_then(|line| directory_of(line, uid)) {
                *home = Home::new(directory);
            }
            return Ok(());
        }
    }
    Ok(())
}

/// Returns the sixth field of a passwd(5) line whose third is `uid`.
fn directory_of(line: &[u8], uid: u32) -> Option<&[u8]> {
    let mut fields = line.split(|b| *b == b':');
    let id = fields.nth(2)?;
    let directory = fields.nth(2)?;
    let id: u32 = ::core::str::from_utf8(id).ok()?.parse().ok()?;
    let fits = PREFIX.len().checked_add(directory.len())? < ROOM;
    (id == uid && directory.starts_with(b"/") && fits).then_some(directory)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::std::assert_eq;

    #[test]
    fn the_directory_is_the_sixth_field() {
        assert_eq!(directory_of(b"root:x:0:0:root:/root:/bin/sh", 0), Some(&b"/root"[..]));
        assert_eq!(directory_of(b"root:x:0:0:root:/root:/bin/sh", 1), None);
        assert_eq!(directory_of(b"a:x:7:7::home:/bin/sh", 7), None);
        assert_eq!(directory_of(b"a:x:7:7", 7), None);
        assert_eq!(directory_of(b"a:x:-7:7:::", 7), None);
    }

    #[test]
    fn a_home_is_an_environment_entry() {
        assert_eq!(Home::new(b"/root").as_c_str(), c"HOME=/root");
    }
}

//! memfd_create(2).

use super::fd::OwnedFd;
use super::Result;
use core::ffi::CStr;
use std::io::{Seek, Write};

/// Creates a file in memory with these contents, positioned at its start.
pub fn file(name: &CStr, contents: &[u8]) -> std::io::Result<OwnedFd> {
    let fd: Result<OwnedFd> = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = std::fs::File::from(fd?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file.into())
}

//! A way to a host file that cannot be written through: an overlayfs without an upper layer, or a sealed memfd.
//!
//! A process that can reach our `/proc/<pid>/exe` could overwrite the program on the host (CVE-2019-5736). A read-only
//! bind mount does not help, since CAP_SYS_ADMIN can make it writable. An overlayfs without an upper layer cannot be
//! made writable, and shares the page cache of the program, whereas a memfd is a copy per shim.

use super::fd::{open_at, own};
use super::mount::{Filesystem, ATTR_NODEV, ATTR_NOSUID, ATTR_RDONLY};
use super::{check, Errno, Result};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// A program, and the detached mounts through which it was opened. Closing the last descriptor of one makes the kernel
/// wait for a grace period, 0.1 ms on an idle machine and 1 ms on a busy one.
pub struct Sealed {
    pub program: OwnedFd,
    pub mounts: Vec<OwnedFd>,
}

/// Opens `name` in the directory `folder` through a detached, read-only overlayfs (the calls need Linux 5.2).
pub fn overlay(folder: &CStr, name: &CStr) -> Result<Sealed> {
    let attributes = ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV;
    // An overlayfs without an upper layer needs two lower ones; the second is an empty tmpfs.
    let empty = Filesystem::open(c"tmpfs")?.mount(attributes)?;
    let overlay = Filesystem::open(c"overlay")?;
    overlay.set(c"lowerdir", &layers(folder, empty.as_fd()))?;
    let mount = overlay.mount(attributes)?;
    let program = open_at(mount.as_fd(), name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    Ok(Sealed { program, mounts: vec![mount, empty] })
}

/// Returns `folder:/proc/self/fd/N`, with the characters that overlayfs splits at escaped.
fn layers(folder: &CStr, empty: BorrowedFd<'_>) -> CString {
    let mut bytes = Vec::with_capacity(folder.count_bytes() + 32);
    for &byte in folder.to_bytes() {
        if matches!(byte, b':' | b'\\' | b',') {
            bytes.push(b'\\');
        }
        bytes.push(byte);
    }
    bytes.extend_from_slice(format!(":/proc/self/fd/{}", empty.as_raw_fd()).as_bytes());
    // Neither part has a NUL inside.
    CString::new(bytes).unwrap_or_default()
}

/// Copies `file` into memory that can never change again.
pub fn memory(file: BorrowedFd<'_>) -> Result<Sealed> {
    /// linux/memfd.h, Linux 6.3: without it, `vm.memfd_noexec` may forbid the execve.
    const MFD_EXEC: libc::c_uint = 0x10;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    let create = |flags: libc::c_uint| {
        // SAFETY: the name is static and NUL-terminated.
        check(unsafe { libc::memfd_create(c"containerd-shim-shoal-v2".as_ptr(), flags) }.into()).map(own)
    };
    let copy = create(flags | MFD_EXEC).or_else(|errno| match errno {
        Errno::EINVAL => create(flags),
        errno => Err(errno),
    })?;
    loop {
        // SAFETY: no offset pointer is given; both descriptors are open for the call.
        let sent = unsafe { libc::sendfile(copy.as_raw_fd(), file.as_raw_fd(), ptr::null_mut(), 1 << 30) };
        match Errno::result(sent) {
            Ok(0) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: F_ADD_SEALS takes an integer.
    Errno::result(unsafe { libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
    Ok(Sealed { program: copy, mounts: Vec::new() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    #[test]
    fn a_sealed_copy_is_the_same_and_cannot_be_changed() {
        let mut original = tempfile::tempfile().unwrap();
        original.write_all(b"program").unwrap();
        original.rewind().unwrap();
        let mut copy = File::from(memory(original.as_fd()).unwrap().program);
        copy.rewind().unwrap();
        let mut bytes = Vec::new();
        copy.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"program");
        copy.rewind().unwrap();
        for refused in [copy.write_all(b"x"), copy.set_len(0), copy.set_len(100)] {
            assert_eq!(refused.unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
    }

    #[test]
    fn the_paths_of_layers_are_escaped() {
        let null = File::open("/dev/null").unwrap();
        let text = layers(c"/a:b\\c,d", null.as_fd()).into_string().unwrap();
        assert!(text.starts_with(r"/a\:b\\c\,d:/proc/self/fd/"), "{text}");
    }
}

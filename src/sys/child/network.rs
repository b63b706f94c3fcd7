//! The loopback interface of a new network namespace.

use super::fd::own;
use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// The head of `struct ifreq` (netdevice(7)), as SIOCSIFFLAGS reads it, padded to its full size.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const _: [(); size_of::<libc::ifreq>()] = [(); size_of::<Request>()];

/// Brings up `lo`; the kernel then assigns its addresses.
pub fn loopback_up() -> Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers only.
    let socket = own(check(unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, kind, 0) })?);
    let mut request = Request { name: [0; 16], flags: libc::IFF_UP as i16, rest: [0; 22] };
    let [first, second, ..] = &mut request.name;
    (*first, *second) = (b'l', b'o');
    // SAFETY: `request` is as large as an ifreq, which is all that the kernel reads.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), libc::SIOCSIFFLAGS, core::ptr::from_ref(&request))
    };
    check(answer).map(drop)
}

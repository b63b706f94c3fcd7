//! Network devices by their names: netdevice(7). A socket of any kind stands for the network namespace that it was made in.

use super::fd::{own, AsFd, BorrowedFd, OwnedFd};
use super::{check, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::std::os::fd::AsRawFd;
use ::{core, libc};

/// `struct ifreq`: the name, and what the call is about.
#[repr(C)]
struct Request {
    name: [u8; 16],
    value: Value,
    rest: [u8; 20],
}

#[repr(C)]
union Value {
    index: i32,
    flags: i16,
}

const _: [(); size_of::<libc::ifreq>()] = [(); size_of::<Request>()];

/// Brings up `lo`; the kernel then assigns its addresses.
pub fn loopback_up() -> Result<()> {
    let kind = libc::SOCK_DGRAM | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers only.
    let socket = own(check(unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, kind, 0) })?);
    set_flags(socket.as_fd(), c"lo", libc::IFF_UP as i16)
}

/// A socket for rtnetlink(7).
pub fn route() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers only.
    let answer = unsafe { libc::syscall(libc::SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check(answer).map(own)
}

/// ENODEV where there is no such device.
pub fn index(socket: BorrowedFd<'_>, name: &CStr) -> Result<i32> {
    let mut request = Request::new(name, Value { index: 0 })?;
    request.call(socket, libc::SIOCGIFINDEX)?;
    // SAFETY: the kernel has written the index; all bytes of the union are initialised, and any are an integer.
    Ok(unsafe { request.value.index })
}

/// Sets the device up or down, and says what it was; its other flags stay.
pub fn set_up(socket: BorrowedFd<'_>, name: &CStr, up: bool) -> Result<bool> {
    let mut request = Request::new(name, Value { index: 0 })?;
    request.call(socket, libc::SIOCGIFFLAGS)?;
    // SAFETY: as above.
    let flags = unsafe { request.value.flags };
    let bit = libc::IFF_UP as i16;
    set_flags(socket, name, if up { flags | bit } else { flags & !bit })?;
    Ok(flags & bit != 0)
}

fn set_flags(socket: BorrowedFd<'_>, name: &CStr, flags: i16) -> Result<()> {
    let mut value = Value { index: 0 };
    value.flags = flags;
    Request::new(name, value)?.call(socket, libc::SIOCSIFFLAGS)
}

impl Request {
    fn new(name: &CStr, value: Value) -> Result<Request> {
        let mut request = Request { name: [0; 16], value, rest: [0; 20] };
        let name = name.to_bytes();
        // The kernel wants the zero at its end.
        if name.len() >= request.name.len() {
            return Err(Errno::ENODEV);
        }
        for (place, byte) in request.name.iter_mut().zip(name) {
            *place = *byte;
        }
        Ok(request)
    }

    fn call(&mut self, socket: BorrowedFd<'_>, call: libc::Ioctl) -> Result<()> {
        // SAFETY: `self` is as large as an ifreq and exclusively ours, which is all that the kernel reads and writes.
        let answer =
            unsafe { libc::syscall(libc::SYS_ioctl, socket.as_raw_fd(), call, core::ptr::from_mut(self)) };
        check(answer).map(drop)
    }
}

//! Moves network devices of the host into the container.

use super::enter;
use crate::sys::child::fd::{self, AsFd, BorrowedFd};
use crate::sys::child::{netlink, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// The host has no device of that name.
pub const NONE: Errno = Errno::ENODEV;
/// The container's network namespace has one.
pub const THERE: Errno = Errno::EEXIST;
/// It has more addresses than are moved.
pub const TOO_MANY: Errno = Errno::E2BIG;
/// The kernel moves no such device.
pub const FIXED: Errno = Errno::EINVAL;

/// The index of `from` in the namespace of the socket `host`, if `to` is free in the process's own.
pub(super) fn find(host: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<i32> {
    let index = netlink::index(host, from)?;
    match netlink::index(netlink::route()?.as_fd(), to) {
        Err(Errno::ENODEV) => Ok(index),
        Err(errno) => Err(errno),
        Ok(_) => Err(THERE),
    }
}

/// Moves `from` into the process's own namespace, as `to`. The kernel takes it down and removes its addresses on the
/// way.
pub(super) fn bring(host: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    let index = find(host, from, to)?;
    let addresses = netlink::addresses(host, index)?;
    let namespaces = enter::host_proc_directory(c"self/ns")?;
    let namespace = fd::open_at(namespaces.as_fd(), c"net", libc::O_RDONLY, 0)?;
    netlink::move_device(host, index, namespace.as_fd(), to)?;
    let own = netlink::route()?;
    // The kernel gives it another number if this one is taken.
    let index = netlink::index(own.as_fd(), to)?;
    for address in addresses.iter() {
        match netlink::add_address(own.as_fd(), index, address) {
            // The namespace has no IPv6: by its sysctl, or by the kernel's command line.
            Err(Errno::EACCES | Errno::EOPNOTSUPP) if address.is_v6() => {}
            answer => answer?,
        }
    }
    netlink::set_up(own.as_fd(), index)
}

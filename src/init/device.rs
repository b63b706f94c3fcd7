//! Network devices of the host that become the container's.

use super::enter;
use crate::sys::child::fd::{self, AsFd, BorrowedFd};
use crate::sys::child::{netlink, network, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// The host has no device of that name.
pub const NONE: Errno = Errno::ENODEV;
/// The container's network namespace has one.
pub const THERE: Errno = Errno::EEXIST;
/// More addresses than are moved.
pub const TOO_MANY: Errno = Errno::E2BIG;

/// Moves `from`, of the namespace of the socket `host`, into the process's own, as `to`. The kernel takes the addresses away
/// on the way, and those of IPv6 as soon as a device is down: they are read before, and given again.
pub(super) fn bring(host: BorrowedFd<'_>, from: &CStr, to: &CStr) -> Result<()> {
    let own = network::route()?;
    let index = network::index(host, from)?;
    // The kernel would find that out when the device is here already.
    match network::index(own.as_fd(), to) {
        Err(Errno::ENODEV) => {}
        Err(errno) => return Err(errno),
        Ok(_) => return Err(THERE),
    }
    let addresses = netlink::addresses(host, index)?;
    let namespaces = enter::host_proc_directory(c"self/ns")?;
    let namespace = fd::open_at(namespaces.as_fd(), c"net", libc::O_RDONLY, 0)?;
    let was_up = network::set_up(host, from, false)?;
    if let Err(errno) = netlink::move_device(host, index, namespace.as_fd(), to) {
        // Some, as the host's own loopback, belong where they are.
        let _ = network::set_up(host, from, was_up);
        for address in addresses.iter() {
            // Those of IPv4 are there still.
            let _ = netlink::add_address(host, index, address);
        }
        return Err(errno);
    }
    // Its number can be another one here.
    let index = network::index(own.as_fd(), to)?;
    for address in addresses.iter() {
        netlink::add_address(own.as_fd(), index, address)?;
    }
    network::set_up(own.as_fd(), to, true).map(drop)
}

//! The messages of rtnetlink(7) that move a network device with its addresses.
//!
//! Numbers have the machine's byte order; parts are aligned to four bytes. Devices are looked up by message: the ioctls
//! of netdevice(7) load a kernel module for a name that no device has (dev_load in net/core/dev_ioctl.c).

use super::fd::{self, own, AsRawFd, BorrowedFd, OwnedFd};
use super::{check, socket, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEAD: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEAD: usize = 8;
/// The parts of a dump are never larger: NLMSG_GOODSIZE.
const ANSWER: usize = 8192;
/// How often a dump is repeated if addresses, of any device, have changed meanwhile.
const DUMPS: usize = 16;

/// An address and the length of its prefix.
#[derive(Clone, Copy, Default)]
pub struct Address {
    family: u8,
    prefix: u8,
    bytes: [u8; 16],
}

impl Address {
    pub fn is_v6(&self) -> bool {
        i32::from(self.family) == libc::AF_INET6
    }

    fn bytes(&self) -> &[u8] {
        let length = if self.is_v6() { 16 } else { 4 };
        self.bytes.get(..length).unwrap_or_default()
    }

    /// The last address of an IPv4 network with more than two.
    fn broadcast(&self) -> Option<[u8; 4]> {
        let address = u32::from_be_bytes(self.bytes().try_into().ok()?);
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (hosts > 1).then(|| (address | hosts).to_be_bytes())
    }
}

/// The most addresses that are moved with a device.
pub const ADDRESSES: usize = 256;

pub struct Addresses {
    all: [Address; ADDRESSES],
    length: usize,
}

impl Addresses {
    pub fn iter(&self) -> impl Iterator<Item = &Address> {
        self.all.iter().take(self.length)
    }
}

/// A socket for messages about the devices of the current network namespace, wherever the process goes.
pub fn route() -> Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: takes integers only.
    let answer = unsafe { libc::syscall(libc::SYS_socket, libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) };
    check(answer).map(own)
}

/// The index of a device. ENODEV if there is none of that name.
pub fn index(socket: BorrowedFd<'_>, name: &CStr) -> Result<i32> {
    let mut message = link(libc::RTM_GETLINK, 0, 0, 0)?;
    message.attribute(libc::IFLA_IFNAME, name.to_bytes_with_nul())?;
    message.send(socket)?;
    // The head is enough: what follows is long.
    let mut room = [0; 64];
    fd::read(socket, &mut room)?;
    match field(&room, 4).map(u16::from_ne_bytes) {
        Some(libc::RTM_NEWLINK) => {
            field(&room, HEAD.saturating_add(4)).map(i32::from_ne_bytes).ok_or(Errno::EBADMSG)
        }
        _ => Err(word_of(room.get(HEAD..).unwrap_or_default()).err().unwrap_or(Errno::EBADMSG)),
    }
}

/// Moves a device from the namespace of `socket` into `namespace`, renamed to `name`: in one call, so its old name need
/// not be free there. If the kernel refuses the move, the device is as it was; if it only refuses the name, which another
/// device has got meanwhile, the device is there under its old one.
pub fn move_device(socket: BorrowedFd<'_>, index: i32, namespace: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut message = link(libc::RTM_NEWLINK, libc::NLM_F_ACK, index, 0)?;
    message.attribute(libc::IFLA_IFNAME, name.to_bytes_with_nul())?;
    message.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())?;
    message.ask(socket)
}

pub fn set_up(socket: BorrowedFd<'_>, index: i32) -> Result<()> {
    link(libc::RTM_NEWLINK, libc::NLM_F_ACK, index, libc::IFF_UP)?.ask(socket)
}

/// With a `struct ifinfomsg`: family and type, index, flags, and which of these are to change.
fn link(kind: u16, flags: i32, index: i32, set: i32) -> Result<Message> {
    let mut message = Message::new(kind, flags);
    message.push(&[0; 4])?;
    for number in [index, set, set] {
        message.push(&number.to_ne_bytes())?;
    }
    Ok(message)
}

pub fn add_address(socket: BorrowedFd<'_>, index: i32, address: &Address) -> Result<()> {
    let new = libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Message::new(libc::RTM_NEWADDR, new);
    message.push(&[address.family, address.prefix, 0, libc::RT_SCOPE_UNIVERSE])?;
    message.push(&index.to_ne_bytes())?;
    message.attribute(libc::IFA_LOCAL, address.bytes())?;
    message.attribute(libc::IFA_ADDRESS, address.bytes())?;
    if let Some(broadcast) = address.broadcast() {
        message.attribute(libc::IFA_BROADCAST, &broadcast)?;
    }
    message.ask(socket)
}

/// The permanent global addresses of a device: neither those from the kernel or a router, nor those of one link only.
/// E2BIG if there are too many, EBUSY if no dump was consistent.
pub fn addresses(socket: BorrowedFd<'_>, index: i32) -> Result<Addresses> {
    for _ in 0..DUMPS {
        if let Some(found) = dump(socket, index)? {
            return Ok(found);
        }
    }
    Err(Errno::EBUSY)
}

/// None if addresses have changed meanwhile.
fn dump(socket: BorrowedFd<'_>, index: i32) -> Result<Option<Addresses>> {
    let mut consistent = true;
    let mut found = Addresses { all: [Address::default(); ADDRESSES], length: 0 };
    let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
    message.push(&[0; ADDRESS_HEAD])?;
    message.send(socket)?;
    let mut room = [0; ANSWER];
    loop {
        let length = fd::read(socket, &mut room)?;
        let mut answer = room.get(..length).unwrap_or_default();
        while let Some(Received { kind, flags, body, rest }) = message_of(answer) {
            answer = rest;
            consistent &= flags & libc::NLM_F_DUMP_INTR == 0;
            match kind {
                libc::NLMSG_DONE => {
                    word_of(body)?;
                    return Ok(Some(found).filter(|_| consistent));
                }
                libc::NLMSG_ERROR => word_of(body)?,
                _ => {}
            }
            if let Some(address) = address_of(body, index) {
                *found.all.get_mut(found.length).ok_or(Errno::E2BIG)? = address;
                found.length = found.length.saturating_add(1);
            }
        }
    }
}

struct Received<'a> {
    kind: i32,
    flags: i32,
    body: &'a [u8],
    /// The messages after it.
    rest: &'a [u8],
}

/// The first message.
fn message_of(bytes: &[u8]) -> Option<Received<'_>> {
    let length = u32::from_ne_bytes(field(bytes, 0)?) as usize;
    let [kind, flags] = [4, 6].map(|at| field(bytes, at).map(u16::from_ne_bytes));
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some(Received { kind: kind?.into(), flags: flags?.into(), body: bytes.get(HEAD..length)?, rest })
}

/// A permanent global address of the device `wanted`.
fn address_of(body: &[u8], wanted: i32) -> Option<Address> {
    let [family, prefix, flags, scope] = field(body, 0)?;
    let index = i32::from_ne_bytes(field(body, 4)?);
    let mut flags = u32::from(flags);
    let mut address = Address { family, prefix, ..Address::default() };
    let mut rest = body.get(ADDRESS_HEAD..)?;
    let mut local = false;
    while let (Some(length), Some(kind)) = (field(rest, 0), field(rest, 2)) {
        let length = usize::from(u16::from_ne_bytes(length));
        let Some(value) = rest.get(4..length) else { break };
        match u16::from_ne_bytes(kind) {
            libc::IFA_FLAGS => flags = u32::from_ne_bytes(field(value, 0)?),
            // With IFA_LOCAL, IFA_ADDRESS is the peer's; IPv6 has IFA_LOCAL only if there is a peer.
            kind @ (libc::IFA_LOCAL | libc::IFA_ADDRESS) if !local => {
                local = kind == libc::IFA_LOCAL;
                for (place, byte) in address.bytes.iter_mut().zip(value) {
                    *place = *byte;
                }
            }
            _ => {}
        }
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let moves = index == wanted && scope == libc::RT_SCOPE_UNIVERSE && flags & libc::IFA_F_PERMANENT != 0;
    moves.then_some(address)
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

/// `struct nlmsgerr`, and the end of a dump, begin with a negative errno or zero.
fn word_of(body: &[u8]) -> Result<()> {
    match field(body, 0).map(i32::from_ne_bytes).and_then(i32::checked_neg) {
        Some(0) => Ok(()),
        Some(errno) => Err(Errno::from_raw(errno)),
        None => Err(Errno::EBADMSG),
    }
}

struct Message {
    bytes: [u8; 128],
    length: usize,
}

impl Message {
    fn new(kind: u16, flags: i32) -> Message {
        let mut message = Message { bytes: [0; 128], length: HEAD };
        let flags = (flags | libc::NLM_F_REQUEST) as u16;
        let words = kind.to_ne_bytes().into_iter().chain(flags.to_ne_bytes());
        for (place, byte) in message.bytes.iter_mut().skip(4).zip(words) {
            *place = byte;
        }
        message
    }

    fn push(&mut self, bytes: &[u8]) -> Result<()> {
        let end = self.length.saturating_add(bytes.len());
        let place = self.bytes.get_mut(self.length..end).ok_or(Errno::EMSGSIZE)?;
        place.copy_from_slice(bytes);
        self.length = end.next_multiple_of(4);
        Ok(())
    }

    /// `struct rtattr`: length and type, then the value.
    fn attribute(&mut self, kind: u16, value: &[u8]) -> Result<()> {
        let length = u16::try_from(value.len().saturating_add(4)).map_err(|_| Errno::EMSGSIZE)?;
        let [a, b] = length.to_ne_bytes();
        let [c, d] = kind.to_ne_bytes();
        self.push(&[a, b, c, d])?;
        self.push(value)
    }

    fn send(&mut self, socket: BorrowedFd<'_>) -> Result<()> {
        for (place, byte) in self.bytes.iter_mut().zip((self.length as u32).to_ne_bytes()) {
            *place = byte;
        }
        socket::send(socket, self.bytes.get(..self.length).ok_or(Errno::EMSGSIZE)?, None)
    }

    /// Sends it and reads the acknowledgement, which is there when the call returns.
    fn ask(&mut self, socket: BorrowedFd<'_>) -> Result<()> {
        self.send(socket)?;
        let mut room = [0; 512];
        let length = fd::read(socket, &mut room)?;
        match message_of(room.get(..length).unwrap_or_default()) {
            Some(Received { kind: libc::NLMSG_ERROR, body, .. }) => word_of(body),
            _ => Err(Errno::EBADMSG),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_macros, clippy::disallowed_types, clippy::unwrap_used)]
    use super::*;
    use ::std::{assert, assert_eq};

    #[test]
    fn a_broadcast_address_is_the_last_one_of_a_network() {
        let address = |prefix, family: i32| Address { family: family as u8, prefix, bytes: [10; 16] };
        let broadcast = |prefix| address(prefix, libc::AF_INET).broadcast();
        assert_eq!(broadcast(24), Some([10, 10, 10, 255]));
        assert_eq!(broadcast(0), Some([255; 4]));
        assert_eq!((broadcast(31), broadcast(32)), (None, None));
        assert_eq!(address(64, libc::AF_INET6).broadcast(), None);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_no_message() {
        assert!(message_of(&[]).is_none());
        assert!(message_of(&[32, 0, 0, 0, 20, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]).is_none());
        assert!(address_of(&[2, 24, 0x80, 0], 1).is_none());
    }

    #[test]
    fn a_message_that_is_too_long_is_not_sent() {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        assert_eq!(message.push(&[0; 200]), Err(Errno::EMSGSIZE));
    }
}

//! Messages of rtnetlink(7), as far as a network device and its addresses are concerned.
//!
//! All numbers are in the machine's order; parts begin at multiples of four bytes.

use super::fd::{self, AsRawFd, BorrowedFd};
use super::{socket, Errno, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// `struct nlmsghdr`: length, type, flags, sequence number, port.
const HEAD: usize = 16;
/// `struct ifaddrmsg`.
const ADDRESS_HEAD: usize = 8;
/// The kernel's answers to a dump are never larger: NLMSG_GOODSIZE.
const ANSWER: usize = 8192;

/// An address of a device, and the length of its prefix.
#[derive(Clone, Copy, Default)]
pub struct Address {
    family: u8,
    prefix: u8,
    bytes: [u8; 16],
}

impl Address {
    fn bytes(&self) -> &[u8] {
        let length = if i32::from(self.family) == libc::AF_INET { 4 } else { 16 };
        self.bytes.get(..length).unwrap_or_default()
    }

    /// All bits behind the prefix set: for IPv4 networks of more than two addresses.
    fn broadcast(&self) -> Option<[u8; 4]> {
        let address = u32::from_be_bytes(self.bytes().try_into().ok()?);
        let hosts = u32::MAX.checked_shr(self.prefix.into()).unwrap_or(0);
        (hosts > 1).then(|| (address | hosts).to_be_bytes())
    }
}

/// As many as are moved with a device.
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

/// Moves a device from the namespace of `socket` into `namespace`, where it is called `name`: one act, so that its old
/// name need not be free there.
pub fn move_device(socket: BorrowedFd<'_>, index: i32, namespace: BorrowedFd<'_>, name: &CStr) -> Result<()> {
    let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_ACK);
    // `struct ifinfomsg`: family and type, index, flags, which of these change.
    message.push(&[0; 4])?;
    message.push(&index.to_ne_bytes())?;
    message.push(&[0; 8])?;
    message.attribute(libc::IFLA_IFNAME, name.to_bytes_with_nul())?;
    message.attribute(libc::IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes())?;
    message.ask(socket)
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

/// What somebody has given to the device, for the whole world: neither what the kernel or a router gives to it, nor
/// what counts on one link. E2BIG where there are more than can be moved.
pub fn addresses(socket: BorrowedFd<'_>, index: i32) -> Result<Addresses> {
    let mut found = Addresses { all: [Address::default(); ADDRESSES], length: 0 };
    let mut message = Message::new(libc::RTM_GETADDR, libc::NLM_F_DUMP);
    message.push(&[0; ADDRESS_HEAD])?;
    message.send(socket)?;
    let mut room = [0; ANSWER];
    loop {
        let length = fd::read(socket, &mut room)?;
        let mut answer = room.get(..length).unwrap_or_default();
        while let Some((kind, body, rest)) = message_of(answer) {
            answer = rest;
            match kind {
                libc::NLMSG_DONE => return Ok(found),
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

/// Type and body of the first message, and what comes behind it.
fn message_of(bytes: &[u8]) -> Option<(i32, &[u8], &[u8])> {
    let length = u32::from_ne_bytes(field(bytes, 0)?) as usize;
    let kind = u16::from_ne_bytes(field(bytes, 4)?);
    let rest = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind.into(), bytes.get(HEAD..length)?, rest))
}

/// Of a permanent address of that device, with the widest scope.
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
            // Of IPv4, where IFA_ADDRESS is the peer's. IPv6 has it for a peer only.
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

/// `struct nlmsgerr` begins with a negative errno, or zero.
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

    /// Sends it, and waits for the kernel's word: it comes before the call returns.
    fn ask(&mut self, socket: BorrowedFd<'_>) -> Result<()> {
        self.send(socket)?;
        let mut room = [0; 512];
        let length = fd::read(socket, &mut room)?;
        match message_of(room.get(..length).unwrap_or_default()) {
            Some((libc::NLMSG_ERROR, body, _)) => word_of(body),
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

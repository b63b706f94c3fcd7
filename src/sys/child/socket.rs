//! A pair of SOCK_SEQPACKET sockets, which preserve message boundaries and can carry one descriptor: unix(7).

use super::fd::{own, BorrowedFd, OwnedFd};
use super::{check, Result};
use ::core::prelude::rust_2021::*;
use ::std::os::fd::{AsRawFd, FromRawFd, RawFd};
use ::{core, libc};

/// CMSG_LEN of one descriptor: cmsg(3).
const CONTROL: usize = size_of::<libc::cmsghdr>() + size_of::<RawFd>();

/// Room for one descriptor in a control message, aligned for its header.
#[repr(C)]
union Control {
    header: libc::cmsghdr,
    bytes: [u8; 24],
}

pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    let mut ends = [-1 as RawFd; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: the kernel writes two descriptors into `ends`, which has room for two.
    let answer = unsafe { libc::syscall(libc::SYS_socketpair, libc::AF_UNIX, kind, 0, ends.as_mut_ptr()) };
    check(answer)?;
    let [a, b] = ends;
    Ok((own(a.into()), own(b.into())))
}

/// Sends one message, with a descriptor if there is one. Raises no SIGPIPE.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], passed: Option<BorrowedFd<'_>>) -> Result<()> {
    let Some(passed) = passed else {
        let (none, flags) = (core::ptr::null::<u8>(), libc::MSG_NOSIGNAL);
        // SAFETY: the kernel reads `len` bytes of `bytes`, which outlives the call; there is no address.
        let answer = unsafe {
            libc::syscall(libc::SYS_sendto, socket.as_raw_fd(), bytes.as_ptr(), bytes.len(), flags, none, 0)
        };
        return check(answer).map(drop);
    };
    let mut control = Control { bytes: [0; 24] };
    control.header =
        libc::cmsghdr { cmsg_len: CONTROL, cmsg_level: libc::SOL_SOCKET, cmsg_type: libc::SCM_RIGHTS };
    // SAFETY: its first member has set every byte of the union, so they may be read as bytes.
    let room = unsafe { &mut control.bytes };
    let number = passed.as_raw_fd().to_ne_bytes();
    for (to, from) in room.iter_mut().skip(size_of::<libc::cmsghdr>()).zip(number) {
        *to = from;
    }
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    let message = header(&mut part, core::ptr::from_mut(&mut control), size_of::<Control>());
    // SAFETY: `message` points to `part` (which points to `bytes`) and `control`, all of which outlive the call; the
    // kernel only reads them.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_sendmsg,
            socket.as_raw_fd(),
            core::ptr::from_ref(&message),
            libc::MSG_NOSIGNAL,
        )
    };
    check(answer).map(drop)
}

/// Ends the sending: the other side reads an end of file.
pub fn shut(socket: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_shutdown, socket.as_raw_fd(), libc::SHUT_WR) }).map(drop)
}

/// Receives one message: its length (0 is end of file: the other side is closed) and the descriptor with it. Retries if
/// one of our signal handlers interrupts it.
pub fn receive(socket: BorrowedFd<'_>, bytes: &mut [u8]) -> Result<(usize, Option<OwnedFd>)> {
    let mut control = Control { bytes: [0; 24] };
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut message = header(&mut part, core::ptr::from_mut(&mut control), size_of::<Control>());
    let length = loop {
        // SAFETY: `message` points to `part` (which points to `bytes`, exclusively ours) and `control`, which outlive
        // the call; the kernel writes no more into them than their lengths say.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_recvmsg,
                socket.as_raw_fd(),
                core::ptr::from_mut(&mut message),
                libc::MSG_CMSG_CLOEXEC,
            )
        };
        match check(answer) {
            Err(super::Errno::EINTR) => continue,
            answer => break answer? as usize,
        }
    };
    if message.msg_controllen < CONTROL {
        return Ok((length, None));
    }
    // SAFETY: all bytes of the union are initialised (zeroed, then written by the kernel); a cmsghdr is integers.
    let head = unsafe { control.header };
    if head.cmsg_level != libc::SOL_SOCKET || head.cmsg_type != libc::SCM_RIGHTS {
        return Ok((length, None));
    }
    // SAFETY: as above; any bytes are valid as bytes.
    let room = unsafe { &control.bytes };
    let mut number = [0u8; 4];
    for (to, from) in number.iter_mut().zip(room.iter().skip(size_of::<libc::cmsghdr>())) {
        *to = *from;
    }
    // SAFETY: the kernel has just installed this descriptor for us, and there is no room for a second one.
    let passed = unsafe { OwnedFd::from_raw_fd(RawFd::from_ne_bytes(number)) };
    Ok((length, Some(passed)))
}

fn header(part: &mut libc::iovec, control: *mut Control, room: usize) -> libc::msghdr {
    // SAFETY: a msghdr consists of integers and pointers, for which all-zero bytes are valid.
    let mut message: libc::msghdr = unsafe { core::mem::zeroed() };
    message.msg_iov = part;
    message.msg_iovlen = 1;
    message.msg_control = control.cast();
    message.msg_controllen = room;
    message
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_macros, clippy::disallowed_types, clippy::unwrap_used)]
    use super::*;
    use ::std::os::fd::AsFd;
    use ::std::{self, assert, assert_eq, format};

    #[test]
    fn a_message_carries_a_descriptor() {
        let (a, b) = pair().unwrap();
        let file = std::fs::File::open("/proc/self/stat").unwrap();
        send(a.as_fd(), b"12345678", Some(file.as_fd())).unwrap();
        send(a.as_fd(), b"x", None).unwrap();
        drop(a);
        let mut bytes = [0; 16];
        let (length, passed) = receive(b.as_fd(), &mut bytes).unwrap();
        assert_eq!((length, bytes.get(..length)), (8, Some(&b"12345678"[..])));
        let passed = passed.unwrap();
        let path = std::fs::read_link(format!("/proc/self/fd/{}", passed.as_raw_fd())).unwrap();
        assert!(path.ends_with("stat"), "{path:?}");
        let (length, passed) = receive(b.as_fd(), &mut bytes).unwrap();
        assert!(length == 1 && passed.is_none());
        assert_eq!(receive(b.as_fd(), &mut bytes).unwrap().0, 0);
    }
}

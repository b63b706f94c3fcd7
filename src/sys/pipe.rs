//! pipe(7), fifo(7) and other kinds of streams: opened so that nothing blocks and nothing is inherited.

use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg, OFlag};
use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
use nix::sys::stat::{major, minor, FileStat, Mode, SFlag};
use nix::unistd::{Gid, Uid};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The kind of file at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Fifo,
    /// The null device: character device 1:3.
    Null,
    Directory,
    Other,
}

/// The access that a descriptor is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    /// Every write goes to the end of the file.
    Append,
    /// Both ends of a FIFO: the only way to open one that needs no peer (fifo(7)).
    Both,
}

impl Access {
    fn flags(self) -> OFlag {
        match self {
            Access::Read => OFlag::O_RDONLY,
            Access::Write => OFlag::O_WRONLY,
            Access::Append => OFlag::O_WRONLY | OFlag::O_APPEND,
            Access::Both => OFlag::O_RDWR,
        }
    }
}

#[cfg(test)]
pub fn kind(fd: impl AsFd) -> nix::Result<Kind> {
    nix::sys::stat::fstat(fd).map(|stat| kind_of(&stat))
}

/// A pipe is a FIFO without a name.
pub fn kind_of(stat: &FileStat) -> Kind {
    match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
        SFlag::S_IFIFO => Kind::Fifo,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFCHR if (major(stat.st_rdev), minor(stat.st_rdev)) == (1, 3) => Kind::Null,
        _ => Kind::Other,
    }
}

/// Opens a new description of `fd`'s file through /proc/self/fd, without a second look-up of a path that may have
/// changed. Status flags are per description, so this one may block even if `fd` does not.
pub fn reopen(fd: impl AsFd, access: Access, nonblocking: bool) -> nix::Result<OwnedFd> {
    let mut flags = access.flags() | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    flags.set(OFlag::O_NONBLOCK, nonblocking);
    let path = PathBuf::from(format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd()));
    nix::fcntl::open(&path, flags, Mode::empty())
}

/// The null device for reading and writing.
pub fn null() -> nix::Result<OwnedFd> {
    nix::fcntl::open(c"/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a log file for appending, creating it with 0644.
pub fn append_to(path: &Path) -> nix::Result<OwnedFd> {
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    // O_NONBLOCK in case there is a FIFO.
    nix::fcntl::open(path, flags | OFlag::O_NONBLOCK, Mode::from_bits_truncate(0o644))
}

/// Returns the read end and the write end; both block.
pub fn pipe() -> nix::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

/// Sets O_NONBLOCK on the open file description, and so for every duplicate of the descriptor.
pub fn set_nonblocking(fd: impl AsFd) -> nix::Result<()> {
    let flags = OFlag::from_bits_retain(fcntl(&fd, FcntlArg::F_GETFL)?);
    fcntl(&fd, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).map(drop)
}

pub fn give_to(fd: impl AsFd, uid: u32, gid: u32) -> nix::Result<()> {
    nix::unistd::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// Enlarges a pipe or FIFO to at least `bytes`.
pub fn grow(pipe: &OwnedFd, bytes: i32) -> nix::Result<()> {
    if fcntl(pipe, FcntlArg::F_GETPIPE_SZ)? < bytes {
        fcntl(pipe, FcntlArg::F_SETPIPE_SZ(bytes))?;
    }
    Ok(())
}

/// Whether any process has the read end open: otherwise the write end polls POLLERR (pipe(7)).
pub fn has_reader(write_end: impl AsFd) -> nix::Result<bool> {
    let mut fds = [PollFd::new(write_end.as_fd(), PollFlags::empty())];
    poll(&mut fds, PollTimeout::ZERO)?;
    let events = fds[0].revents().unwrap_or(PollFlags::empty());
    Ok(!events.contains(PollFlags::POLLERR))
}

/// The number of bytes in a pipe or FIFO: FIONREAD.
pub fn unread(end: impl AsFd) -> nix::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, to a live one (ioctl(2), pipe_ioctl in fs/pipe.c).
    let answer = unsafe { libc::ioctl(end.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut bytes) };
    Errno::result(answer).map(|_| u64::try_from(bytes).unwrap_or(0))
}

/// Waits until `fd` is readable or hung up; returns false if `limit` has passed.
pub fn wait_readable(fd: impl AsFd, limit: Duration) -> nix::Result<bool> {
    let until = std::time::Instant::now() + limit;
    loop {
        let left = until.saturating_duration_since(std::time::Instant::now());
        let millis = left.as_nanos().div_ceil(1_000_000).min(i32::MAX as u128) as i32;
        let timeout = PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(Errno::EINTR) => continue,
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno),
        }
    }
}

/// read(2), retried after a signal.
pub fn read(fd: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    loop {
        match nix::unistd::read(&fd, buffer) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

/// write(2), retried after a signal. The caller must ignore SIGPIPE.
pub fn write(fd: impl AsFd, bytes: &[u8]) -> nix::Result<usize> {
    loop {
        match nix::unistd::write(&fd, bytes) {
            Err(Errno::EINTR) => continue,
            other => return other,
        }
    }
}

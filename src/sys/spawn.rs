//! Runs a host program as a child of the shim: clone3(2) and execve(2), with descriptors at the numbers it expects.
//!
//! Not `std::process::Command`: that calls wait(2) for a program that cannot be executed, whose exit the one reaper of
//! the process may have taken already. The child has a copy of the shim's memory and makes system calls only; what it
//! needs is prepared before the clone.

use super::child::clone::{clone, Child};
use super::child::keyring::{self, Search};
use super::child::Forked;
use super::child::{exec, limits};
use super::signal::{self, Ignored};
use super::{fd, namespace, Result};
use nix::errno::Errno;
use nix::fcntl::{fcntl, FcntlArg};
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::OnceLock;

/// The first descriptor after standard input, output and error.
const FIRST: RawFd = 3;

/// Who is told of each new child.
static HEARS: OnceLock<Box<dyn Fn() + Send + Sync>> = OnceLock::new();

/// Calls `hear` after each program that was started: whoever waits for children learns that there is one. The first call
/// counts.
pub fn tell(hear: impl Fn() + Send + Sync + 'static) {
    let _ = HEARS.set(Box::new(hear));
}

/// A program being started. The exit is the reaper's; the pidfd stays valid after that, and polls readable.
pub struct Spawned {
    pub child: Child,
    pub status: Status,
}

/// Becomes readable once the program runs, or cannot run: execve(2) waits for the program's filesystem.
pub struct Status(OwnedFd);

impl AsFd for Status {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Status {
    /// Waits for the execve(2), and returns its error; None if the program runs.
    pub fn errno(&self) -> Result<Option<Errno>> {
        let mut errno = [0u8; 4];
        // Closed by execve (all our descriptors are close-on-exec), or written to if that fails.
        Ok(match super::pipe::read(&self.0, &mut errno)? {
            0 => None,
            _ => Some(Errno::from_raw(i32::from_ne_bytes(errno))),
        })
    }
}

/// Where a program runs, and its streams. The default is the shim's own place, and the null device.
#[derive(Clone, Copy, Default)]
pub struct Place<'a> {
    /// A mount namespace, by the pidfd of a process in it.
    pub mounts: Option<BorrowedFd<'a>>,
    /// `cgroup.procs` files to enter by.
    pub cgroups: &'a [BorrowedFd<'a>],
    /// 0, 1 and 2.
    pub streams: Option<[BorrowedFd<'a>; 3]>,
    /// The name of its session keyring, in place of the shim's: keyrings(7).
    pub keyring: Option<&'a CStr>,
}

/// Runs `path`. `fds` become its descriptors 3, 4, …; 0, 1 and 2 are the null device; it inherits no others.
pub fn spawn(path: &CStr, argv: &[CString], envp: &[CString], fds: &[BorrowedFd<'_>]) -> Result<Spawned> {
    spawn_at(Place::default(), path, argv, envp, fds)
}

/// The same elsewhere.
pub fn spawn_at(
    place: Place<'_>,
    path: &CStr,
    argv: &[CString],
    envp: &[CString],
    fds: &[BorrowedFd<'_>],
) -> Result<Spawned> {
    let null = super::pipe::null()?;
    let (status, status_writer) = super::pipe::pipe()?;

    // Every source is above every target, so no dup2 overwrites a source that is still needed.
    let above = FIRST + fds.len() as RawFd + 1;
    let lift = |fd: BorrowedFd<'_>| -> Result<OwnedFd> {
        let raw = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(above))?;
        // SAFETY: fcntl has just created `raw`; nothing else knows it.
        Ok(unsafe { OwnedFd::from_raw_fd(raw) })
    };
    let streams = match place.streams {
        Some(streams) => streams,
        None => [null.as_fd(); 3],
    };
    let [stdin, stdout, stderr] = streams.map(lift);
    let streams = [stdin?, stdout?, stderr?];
    let cgroups = place.cgroups.iter().map(|fd| lift(*fd)).collect::<Result<Vec<_>>>()?;
    let mounts = place.mounts.map(lift).transpose()?;
    let report = lift(status_writer.as_fd())?;
    drop(status_writer);
    let sources = fds.iter().map(|fd| lift(*fd)).collect::<Result<Vec<_>>>()?;

    let argv: Vec<*const libc::c_char> =
        argv.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();
    let envp: Vec<*const libc::c_char> =
        envp.iter().map(|s| s.as_ptr()).chain(std::iter::once(std::ptr::null())).collect();

    let program = Program {
        path: path.as_ptr(),
        argv: argv.as_ptr(),
        envp: envp.as_ptr(),
        streams: &streams,
        cgroups: &cgroups,
        mounts: mounts.as_ref(),
        keyring: place.keyring,
        report: report.as_raw_fd(),
        sources: &sources,
        ignored: signal::ignored()?,
    };
    let mask = signal::block_all()?;
    let child = clone(0, None, |forked| -> Infallible {
        // SAFETY: this is the child; the pointers are NUL-terminated strings and null-terminated arrays of such in its
        // copy of the memory, and the descriptors are open.
        unsafe { program.execute(forked) }
    });
    let restored = signal::restore(mask);
    if let Some(hear) = HEARS.get() {
        hear();
    }
    let child = child?;
    restored?;

    Ok(Spawned { child, status: Status(status) })
}

struct Program<'a> {
    path: *const libc::c_char,
    argv: *const *const libc::c_char,
    envp: *const *const libc::c_char,
    streams: &'a [OwnedFd; 3],
    cgroups: &'a [OwnedFd],
    mounts: Option<&'a OwnedFd>,
    keyring: Option<&'a CStr>,
    report: RawFd,
    sources: &'a [OwnedFd],
    ignored: Ignored,
}

impl Program<'_> {
    /// # Safety
    /// Only in the child of a clone without CLONE_VM, with pointers as execve(2) requires.
    unsafe fn execute(&self, forked: Forked) -> ! {
        let mut target = 0;
        for source in self.streams.iter().chain(self.sources) {
            // SAFETY: plain system call on an open descriptor; the target is below every source.
            unsafe { libc::dup2(source.as_raw_fd(), target) };
            target += 1;
        }
        let entered = self.enter();
        // Closed now, since execve may wait for the program's filesystem for ever: nobody else's descriptors are held up.
        // `report` is close-on-exec, and above every target.
        let (first, report) = (target as u32, self.report as u32);
        for (first, last) in [(first, report - 1), (report + 1, u32::MAX)] {
            // SAFETY: close_range(2) takes integers; the descriptors of this copy of the process have no owner here.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
        let reset = entered.and_then(|()| signal::reset(forked, self.ignored));
        let reset = reset.and_then(|()| limits::restore_descriptors(forked));
        if reset.is_ok() {
            // SAFETY: the caller guarantees the pointers.
            unsafe { libc::execve(self.path, self.argv, self.envp) };
        }
        let errno = reset.err().unwrap_or_else(Errno::last) as i32;
        let errno = errno.to_ne_bytes();
        // SAFETY: `errno` is four readable bytes.
        unsafe { libc::write(self.report, errno.as_ptr().cast(), errno.len()) };
        exec::exit(forked, 127)
    }

    fn enter(&self) -> Result<()> {
        for procs in self.cgroups {
            fd::write(procs.as_fd(), b"0")?;
        }
        match self.keyring.map(|name| keyring::join_session(name, Some(Search::User))) {
            None | Some(Ok(()) | Err(Errno::ENOSYS)) => {}
            Some(Err(errno)) => return Err(errno),
        }
        match self.mounts {
            Some(mounts) => namespace::join(mounts.as_fd(), libc::CLONE_NEWNS as u64),
            None => Ok(()),
        }
    }
}

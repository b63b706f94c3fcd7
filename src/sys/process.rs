//! Settings of this process in the kernel and the C library: prctl(2), mallopt(3), setsid(2).

use super::child::limits::remember_descriptors;
use nix::errno::Errno;
use nix::sys::resource::{getrlimit, setrlimit, Resource};
use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Raises the soft limit of descriptors to the hard one: a specification may have thousands of mounts, and a group
/// hundreds of containers. Programs get back what this process was started with. To be called once.
pub fn raise_descriptors() -> nix::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
        remember_descriptors(soft);
    }
    Ok(())
}

/// `enum pid_type` of the kernel, as PR_SCHED_CORE takes it.
const PIDTYPE_PGID: libc::c_ulong = 2;

/// Makes this process the parent of its descendants' orphans.
pub fn become_subreaper() -> nix::Result<()> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// Sets the name in `ps` and /proc/self/comm; 15 bytes are used. Otherwise a program that was executed by descriptor is
/// named after the descriptor's number.
pub fn set_name(name: &CStr) -> nix::Result<()> {
    nix::sys::prctl::set_name(name)
}

/// Gives this process group a core-scheduling cookie of its own (Linux 5.14): its tasks share a core's hyper-threads
/// with no others. Children inherit it.
pub fn own_core_scheduling() -> nix::Result<()> {
    // SAFETY: prctl(2) with integers only; the kernel reads and writes no memory of ours for this option.
    let result = unsafe {
        libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_CREATE as libc::c_ulong, 0, PIDTYPE_PGID, 0)
    };
    Errno::result(result).map(drop)
}

/// Limits the allocator to one arena (otherwise each allocating thread gets a heap of its own) and makes it return
/// memory early. Call before there are threads.
pub fn keep_heap_small() {
    for (parameter, value) in
        [(libc::M_ARENA_MAX, 1), (libc::M_TRIM_THRESHOLD, 64 << 10), (libc::M_MMAP_THRESHOLD, 64 << 10)]
    {
        // SAFETY: mallopt(3) takes integers; an unknown parameter or value changes nothing.
        unsafe { libc::mallopt(parameter, value) };
    }
}

/// malloc_trim(3): returns free pages to the kernel.
pub fn trim_heap() {
    // SAFETY: no preconditions; it locks the allocator as any allocation does.
    unsafe { libc::malloc_trim(0) };
}

/// Makes `fd` the standard error (2) of this process.
pub fn replace_stderr(fd: &impl AsFd) -> nix::Result<()> {
    nix::unistd::dup2_stderr(fd)
}

/// Takes a descriptor that the parent process left us at a known number; None if there is none.
///
/// Call once per number, before other code could have opened one there.
pub fn inherited(number: i32) -> Option<OwnedFd> {
    // SAFETY: F_SETFD only touches the descriptor's flags, and fails if it is not open.
    let open = unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } == 0;
    // SAFETY: it is open, it was inherited (so no owner of ours exists), and the caller takes it once.
    open.then(|| unsafe { OwnedFd::from_raw_fd(number) })
}

/// Closes every descriptor from `first` on: those that the parent process leaked to us.
///
/// Call before any code of this process has opened one there.
pub fn close_from(first: u32) -> nix::Result<()> {
    // SAFETY: close_range(2) takes integers; nothing in this process owns one of these descriptors (see above).
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, 0) }).map(drop)
}

/// Makes the kernel's descriptor table large enough for some containers. If threads share it, each growth waits for an
/// RCU grace period (expand_fdtable in the kernel's fs/file.c): 10 ms in the middle of a create.
///
/// Call before there are threads.
pub fn room_for_descriptors() -> nix::Result<()> {
    let none =
        std::fs::File::open("/dev/null").map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))?;
    // SAFETY: the new descriptor has no owner but this call, and is closed with it.
    let high = Errno::result(unsafe { libc::fcntl(none.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 255) })?;
    // SAFETY: it was just created, for us alone.
    drop(unsafe { OwnedFd::from_raw_fd(high) });
    Ok(())
}

/// Leaves the session and the process group of the parent, so that their signals do not reach us.
pub fn own_session() -> nix::Result<()> {
    nix::unistd::setsid().map(drop)
}

//! Resource limits and scheduling of a process.

use super::{check, Forked, Result};
use ::core::prelude::rust_2021::*;
use ::core::sync::atomic::{AtomicU64, Ordering};
use ::{core, libc};

/// The soft limit of descriptors that the shim was started with, once it has raised its own; 0 before.
static DESCRIPTORS: AtomicU64 = AtomicU64::new(0);

/// Sets what [`restore_descriptors`] restores.
pub fn remember_descriptors(soft: u64) {
    DESCRIPTORS.store(soft, Ordering::Relaxed);
}

/// Gives a program the soft limit that the shim was started with: programs that use select(2), or that close all
/// descriptors which they may have, want no other unless they ask for it.
pub fn restore_descriptors(forked: Forked) -> Result<()> {
    match DESCRIPTORS.load(Ordering::Relaxed) {
        0 => Ok(()),
        soft => {
            let hard = rlimit(libc::RLIMIT_NOFILE)?.rlim_max;
            set_rlimit(forked, libc::RLIMIT_NOFILE, soft.min(hard), hard)
        }
    }
}

/// prlimit(2) of the calling process.
pub fn set_rlimit(_: Forked, resource: u32, soft: u64, hard: u64) -> Result<()> {
    let limit = libc::rlimit64 { rlim_cur: soft, rlim_max: hard };
    let none = core::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: the kernel reads one rlimit64 from `limit` and is given nowhere to write.
    let answer =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, core::ptr::from_ref(&limit), none) };
    check(answer).map(drop)
}

fn rlimit(resource: u32) -> Result<libc::rlimit64> {
    let mut limit = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = core::ptr::null::<libc::rlimit64>();
    // SAFETY: the kernel writes one rlimit64 into `limit`, exclusively ours, and is given nothing to read.
    let answer =
        unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, core::ptr::from_mut(&mut limit)) };
    check(answer).map(|_| limit)
}

/// Raises the hard limit to at least `hard`, and keeps the soft one.
pub fn raise_hard_limit(forked: Forked, resource: u32, hard: u64) -> Result<()> {
    let limit = rlimit(resource)?;
    if limit.rlim_max >= hard {
        return Ok(());
    }
    set_rlimit(forked, resource, limit.rlim_cur, hard)
}

/// umask(2), which cannot fail.
pub fn set_umask(_: Forked, mask: u32) {
    // SAFETY: takes an integer.
    unsafe { libc::syscall(libc::SYS_umask, mask) };
}

/// personality(2).
pub fn set_personality(persona: u64) -> Result<()> {
    // SAFETY: takes an integer.
    check(unsafe { libc::syscall(libc::SYS_personality, persona) }).map(drop)
}

/// ioprio_set(2) of the calling process; `value` is class << 13 | level.
pub fn set_io_priority(value: u32) -> Result<()> {
    const IOPRIO_WHO_PROCESS: i32 = 1;
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// set_mempolicy(2) of the calling thread; bit n of byte m of `nodes` is node 8 * m + n.
pub fn set_memory_policy(mode: u32, nodes: &[u8]) -> Result<()> {
    // The call expects one bit more than it reads.
    let bits = nodes.len().saturating_mul(8).saturating_add(1);
    // SAFETY: the kernel reads `bits` - 1 bits of `nodes`, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, nodes.as_ptr(), bits) }).map(drop)
}

/// More CPUs than there can be: the kernel intersects them with the cpuset.
const EVERY_CPU: [u8; 1024] = [0xff; 1024];

/// sched_setaffinity(2) of the calling thread.
pub fn set_affinity(mask: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads at most `len` bytes of `mask`, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, mask.len(), mask.as_ptr()) }).map(drop)
}

/// The same with every CPU of the cpuset.
pub fn reset_affinity() -> Result<()> {
    set_affinity(&EVERY_CPU)
}

/// The first version (48 bytes) of `struct sched_attr`, linux/sched/types.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule {
    /// Filled in by the call.
    pub size: u32,
    pub policy: u32,
    pub flags: u64,
    pub nice: i32,
    pub priority: u32,
    pub runtime: u64,
    pub deadline: u64,
    pub period: u64,
}

/// sched_setattr(2) of the calling thread.
pub fn set_schedule(schedule: Schedule) -> Result<()> {
    let schedule = Schedule { size: size_of::<Schedule>() as u32, ..schedule };
    // SAFETY: the kernel reads `size` bytes, the size of `schedule`.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, core::ptr::from_ref(&schedule), 0) };
    check(answer).map(drop)
}

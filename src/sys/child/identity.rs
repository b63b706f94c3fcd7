//! A process's identity: ids, groups, capabilities, and the prctl(2) flags around them.
//!
//! Raw system calls: glibc's setuid(3) and the like make every thread of the process follow, by a signal and a lock,
//! and in the child of a clone those threads do not exist.

use super::{check, Forked, Key, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

/// `_LINUX_CAPABILITY_VERSION_3` of linux/capability.h: two words for each set.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// prctl(2), for options that take integers only.
fn prctl(option: i32, a: u64, b: u64) -> Result<libc::c_long> {
    prctl_with(Key::default(), option, a, b)
}

fn prctl_with(key: Key, option: i32, a: u64, b: u64) -> Result<libc::c_long> {
    // SAFETY: callers are here and pass only options whose arguments are integers; the kernel ignores a sixth one.
    check(unsafe { libc::syscall(libc::SYS_prctl, option, a, b, 0u64, 0u64, key.0) })
}

/// PR_SET_DUMPABLE 0: until execve(2), only root of the initial user namespace may use /proc/self and ptrace(2) on it.
pub(crate) fn undumpable() -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, 0, 0).map(drop)
}

pub fn no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0).map(drop)
}

/// Keeps the permitted capabilities across the next change of user id.
pub(crate) fn keep_capabilities(_: Forked) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, 1, 0).map(drop)
}

/// Whether `capability` is in the bounding set; EINVAL if the kernel does not know it.
pub(crate) fn in_bounding_set(capability: u8) -> Result<bool> {
    prctl(libc::PR_CAPBSET_READ, capability.into(), 0).map(|answer| answer == 1)
}

pub(crate) fn drop_from_bounding_set(_: Forked, capability: u8) -> Result<()> {
    prctl(libc::PR_CAPBSET_DROP, capability.into(), 0).map(drop)
}

pub(crate) fn clear_ambient(_: Forked, key: Key) -> Result<()> {
    prctl_with(key, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64, 0).map(drop)
}

pub(crate) fn raise_ambient(_: Forked, key: Key, capability: u8) -> Result<()> {
    prctl_with(key, libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE as u64, capability.into()).map(drop)
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWords {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// capset(2) of the calling thread.
pub(crate) fn set_capabilities(
    _: Forked,
    key: Key,
    effective: u64,
    permitted: u64,
    inheritable: u64,
) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let words = |shift: u32| CapabilityWords {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let data = [words(0), words(32)];
    // SAFETY: version 3 takes a header and two triples of words, which these are; the kernel only reads the data, and
    // writes the header only if the version is wrong. It ignores the other arguments.
    let answer = unsafe {
        let header = core::ptr::from_ref(&header);
        libc::syscall(libc::SYS_capset, header, data.as_ptr(), 0u64, 0u64, 0u64, key.0)
    };
    check(answer).map(drop)
}

/// A bit of linux/capability.h.
pub(crate) const SYS_ADMIN: u64 = 1 << 21;

/// Makes those of `capabilities` that are permitted effective, and no others: capget(2), capset(2) of the calling
/// thread.
pub(crate) fn regain(forked: Forked, capabilities: u64) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut data = [CapabilityWords::default(); 2];
    // SAFETY: version 3 has two triples of words, which the kernel writes into `data`, exclusively ours; it writes the
    // header only if the version is wrong.
    let answer = unsafe { libc::syscall(libc::SYS_capget, core::ptr::from_ref(&header), data.as_mut_ptr()) };
    check(answer)?;
    let [low, high] = data;
    let whole = |low: u32, high: u32| u64::from(high) << 32 | u64::from(low);
    let permitted = whole(low.permitted, high.permitted);
    let (effective, inheritable) = (capabilities & permitted, whole(low.inheritable, high.inheritable));
    set_capabilities(forked, Key::default(), effective, permitted, inheritable)
}

/// setgroups(2).
pub(crate) fn set_groups(_: Forked, groups: &[u32]) -> Result<()> {
    // SAFETY: the kernel reads `len` ids of `groups`, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) }).map(drop)
}

/// setgid(2): sets all three ids, given CAP_SETGID. It is the call that runc makes, so any profile that works with runc
/// allows it.
pub(crate) fn set_gid(_: Forked, gid: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setgid, gid) }).map(drop)
}

/// setuid(2): like [`set_gid`], given CAP_SETUID.
pub(crate) fn set_uid(_: Forked, uid: u32) -> Result<()> {
    // SAFETY: takes integers only.
    check(unsafe { libc::syscall(libc::SYS_setuid, uid) }).map(drop)
}

/// `__NEW_UTS_LEN` of the kernel: the maximum length of a name in bytes.
pub(crate) const HOSTNAME_MAX: usize = 64;

/// sethostname(2).
pub(crate) fn set_hostname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of `name`, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sethostname, name.as_ptr(), name.len()) }).map(drop)
}

/// setdomainname(2).
pub(crate) fn set_domainname(name: &[u8]) -> Result<()> {
    // SAFETY: the kernel reads `len` bytes of `name`, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_setdomainname, name.as_ptr(), name.len()) }).map(drop)
}

/// The thread's own id in its pid namespace.
pub(crate) fn thread_id() -> u32 {
    // SAFETY: takes nothing, and cannot fail.
    let answer = unsafe { libc::syscall(libc::SYS_gettid) };
    answer as u32
}

/// The capability numbers in a bit mask.
pub(crate) fn capability_numbers(mask: u64) -> impl Iterator<Item = u8> {
    (0..64u8).filter(move |n| mask.checked_shr(u32::from(*n)).unwrap_or(0) & 1 == 1)
}

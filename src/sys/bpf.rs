//! bpf(2): device programs of cgroup v2 (BPF_PROG_TYPE_CGROUP_DEVICE, Linux 4.15; BPF_F_REPLACE, Linux 5.6).

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const CGROUP_DEVICE: u32 = 6;
const F_ALLOW_MULTI: u32 = 2;
const F_REPLACE: u32 = 4;

/// The device program needs no GPL-only helper.
const LICENSE: &CStr = c"Apache-2.0";

/// `struct bpf_insn` of linux/bpf.h.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Insn {
    pub code: u8,
    /// Destination in the low four bits, source in the high ones.
    pub registers: u8,
    pub offset: i16,
    pub immediate: i32,
}

/// The start of `union bpf_attr` for BPF_PROG_LOAD; the kernel treats what is missing as zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

/// The start of `union bpf_attr` for BPF_PROG_ATTACH and BPF_PROG_DETACH.
#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

fn bpf<T>(command: libc::c_int, attributes: &T) -> Result<libc::c_long, Errno> {
    // SAFETY: `attributes` is one of the two structs above: plain integers without padding that is read, of the size
    // passed; the callers borrow what its addresses point to for the call, and the kernel only reads it.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attributes), std::mem::size_of::<T>())
    };
    Errno::result(result)
}

/// Loads a device program for cgroups.
pub fn load_device_program(program: &[Insn]) -> Result<OwnedFd, Errno> {
    let mut attributes = Load {
        prog_type: PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: u32::try_from(program.len()).map_err(|_| Errno::E2BIG)?,
        insns: program.as_ptr() as u64,
        license: LICENSE.as_ptr() as u64,
        ..Load::default()
    };
    attributes.prog_name[..7].copy_from_slice(b"devices");
    let fd = bpf(PROG_LOAD, &attributes)?;
    let fd = libc::c_int::try_from(fd).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just created this descriptor (close-on-exec, as bpf(2) says) for us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

/// Attaches `program` next to the existing ones (all must allow), or in place of `replaced`.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        attach_flags: F_ALLOW_MULTI | if replaced.is_some() { F_REPLACE } else { 0 },
        replace_bpf_fd: replaced.map_or(0, number),
    };
    bpf(PROG_ATTACH, &attributes).map(drop)
}

pub fn detach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Errno> {
    let attributes = Attach {
        target_fd: number(cgroup),
        attach_bpf_fd: number(program),
        attach_type: CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(PROG_DETACH, &attributes).map(drop)
}

//! Loop devices: a file as a block device (linux/loop.h, loop(4)).

use super::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use super::{check, Errno, Result};
use ::core::prelude::rust_2021::*;
use ::{core, libc};

const LOOP_CTL_GET_FREE: libc::c_ulong = 0x4C82;
/// Linux 5.8.
const LOOP_CONFIGURE: libc::c_ulong = 0x4C0A;

const LO_FLAGS_READ_ONLY: u32 = 1;
/// The device lets its file go with its last user: the mount.
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_DIRECT_IO: u32 = 16;

/// `struct loop_info64`: only the flags are ours to set.
#[repr(C)]
struct Info {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    sizelimit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config`.
#[repr(C)]
struct Config {
    fd: u32,
    block_size: u32,
    info: Info,
    reserved: [u64; 8],
}

const _: [(); 232] = [(); size_of::<Info>()];
const _: [(); 304] = [(); size_of::<Config>()];

/// How the device behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub readonly: bool,
    pub direct: bool,
}

/// The number of a device that nobody uses, for now.
pub fn free(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours.
    let answer = unsafe { libc::syscall(libc::SYS_ioctl, control.as_raw_fd(), LOOP_CTL_GET_FREE) };
    check(answer).and_then(|number| u32::try_from(number).map_err(|_| Errno::EOVERFLOW))
}

/// Puts `file` behind the device. EBUSY where another process was faster.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, options: Options) -> Result<()> {
    let mut flags = LO_FLAGS_AUTOCLEAR;
    if options.readonly {
        flags |= LO_FLAGS_READ_ONLY;
    }
    if options.direct {
        flags |= LO_FLAGS_DIRECT_IO;
    }
    let config = Config {
        fd: file.as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: Info {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            sizelimit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` is laid out as the kernel's struct (its size is checked above), outlives the call, and is
    // only read.
    let answer =
        unsafe { libc::syscall(libc::SYS_ioctl, device.as_raw_fd(), LOOP_CONFIGURE, &raw const config) };
    check(answer).map(drop)
}

/// Opens the file and a device for it.
/// (`device` opens that of a number: names need memory, which `sys` does not allocate).
pub fn open(
    path: &core::ffi::CStr,
    options: Options,
    device: impl Fn(u32) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let access = if options.readonly { libc::O_RDONLY } else { libc::O_RDWR };
    let file = fd::open(path, access, 0)?;
    let control = fd::open(c"/dev/loop-control", libc::O_RDWR, 0)?;
    // Everybody on the host asks for the free one at the same time.
    for _ in 0..100 {
        let device = device(free(control.as_fd())?)?;
        match configure(device.as_fd(), file.as_fd(), options) {
            Err(Errno::EBUSY) => {}
            answer => return answer.map(|()| device),
        }
    }
    Err(Errno::EBUSY)
}

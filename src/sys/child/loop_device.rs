//! Loop devices: a file as a block device (linux/loop.h, loop(4)).

use super::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use super::{check, Errno, Result};
use ::core::prelude::rust_2021::*;
use ::linux_raw_sys::loop_device::{
    loop_config, LOOP_CONFIGURE, LOOP_CTL_GET_FREE, LO_FLAGS_AUTOCLEAR, LO_FLAGS_DIRECT_IO,
    LO_FLAGS_READ_ONLY,
};
use ::{core, libc};

/// How the device behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub readonly: bool,
    pub direct: bool,
}

/// Returns the number of a device that is unused at the moment.
pub fn free(control: BorrowedFd<'_>) -> Result<u32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument and touches no memory of ours.
    let answer = unsafe {
        libc::syscall(libc::SYS_ioctl, control.as_raw_fd(), libc::c_ulong::from(LOOP_CTL_GET_FREE))
    };
    check(answer).and_then(|number| u32::try_from(number).map_err(|_| Errno::EOVERFLOW))
}

/// Attaches `file` to the device (Linux 5.8). EBUSY if another process was faster.
pub fn configure(device: BorrowedFd<'_>, file: BorrowedFd<'_>, options: Options) -> Result<()> {
    // SAFETY: the struct consists of integers and arrays of them, for which zeros are valid.
    let mut config: loop_config = unsafe { core::mem::zeroed() };
    config.fd = file.as_raw_fd().unsigned_abs();
    // The device releases its file with its last user: the mount.
    config.info.lo_flags = LO_FLAGS_AUTOCLEAR as u32;
    if options.readonly {
        config.info.lo_flags |= LO_FLAGS_READ_ONLY as u32;
    }
    if options.direct {
        config.info.lo_flags |= LO_FLAGS_DIRECT_IO as u32;
    }
    // SAFETY: `config` is the kernel's struct, outlives the call, and is only read.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_ioctl,
            device.as_raw_fd(),
            libc::c_ulong::from(LOOP_CONFIGURE),
            &raw const config,
        )
    };
    check(answer).map(drop)
}

/// Opens the file and a device for it. (`device` opens the device of a number: names need memory, which `sys` does not
/// allocate.)
pub fn open(
    path: &core::ffi::CStr,
    options: Options,
    device: impl Fn(u32) -> Result<OwnedFd>,
) -> Result<OwnedFd> {
    let access = if options.readonly { libc::O_RDONLY } else { libc::O_RDWR };
    let file = fd::open(path, access, 0)?;
    let control = fd::open(c"/dev/loop-control", libc::O_RDWR, 0)?;
    // Every process on the host gets the same free device at the same time.
    for _ in 0..100 {
        let device = device(free(control.as_fd())?)?;
        match configure(device.as_fd(), file.as_fd(), options) {
            Err(Errno::EBUSY) => {}
            answer => return answer.map(|()| device),
        }
    }
    Err(Errno::EBUSY)
}

//! memfd_create(2); the stacks of threads in fork(2).

use super::child::board::PAGE;
use super::child::clone;
use super::fd::OwnedFd;
use super::Result;
use core::ffi::CStr;
use std::io::{Seek, Write};
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// Creates a file in memory with these contents, positioned at its start.
pub fn file(name: &CStr, contents: &[u8]) -> std::io::Result<OwnedFd> {
    let fd: Result<OwnedFd> = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = std::fs::File::from(fd?);
    file.write_all(contents)?;
    file.rewind()?;
    Ok(file.into())
}

/// Memory of the calling thread that no child gets a copy of, for as long as this exists.
pub struct Unforked {
    ranges: [(usize, usize); 2],
    _of_this_thread: PhantomData<*mut ()>,
}

/// The C library's record of a thread lies at the top of its stack.
const RECORD: usize = 4 * PAGE;

/// Keeps the stacks of a thread that never clones out of the processes that other threads clone: they are cheaper, and
/// know less. The top of the stack stays, since fork(3) looks at the records of all threads in the child.
pub fn unforked_stack() -> Unforked {
    let range = |range: Option<(usize, usize)>, kept: usize| match range {
        // The guard page is a mapping of its own, and costs as much.
        Some((start, length)) if length > kept => {
            (start.saturating_sub(PAGE), length.saturating_add(PAGE).saturating_sub(kept))
        }
        _ => (0, 0),
    };
    let ranges = [range(stack(), RECORD), range(signal_stack(), 0)];
    clone::forbid(true);
    advise(&ranges, libc::MADV_DONTFORK);
    Unforked { ranges, _of_this_thread: PhantomData }
}

impl Drop for Unforked {
    fn drop(&mut self) {
        // The C library gives the stack to another thread, which may clone.
        advise(&self.ranges, libc::MADV_DOFORK);
        clone::forbid(false);
    }
}

fn advise(ranges: &[(usize, usize)], advice: i32) {
    for &(start, length) in ranges.iter().filter(|(_, length)| *length > 0) {
        // SAFETY: changes no contents, and this process keeps the mapping. A child of another thread never uses the
        // stacks of this one, which is forbidden to clone as long as `Unforked` exists. An error changes nothing.
        unsafe { libc::madvise(start as *mut libc::c_void, length, advice) };
    }
}

fn stack() -> Option<(usize, usize)> {
    let mut attributes = MaybeUninit::<libc::pthread_attr_t>::uninit();
    // SAFETY: takes no memory; the thread that calls exists.
    let own = unsafe { libc::pthread_self() };
    // SAFETY: initializes the attributes if it succeeds.
    if unsafe { libc::pthread_getattr_np(own, attributes.as_mut_ptr()) } != 0 {
        return None;
    }
    let (mut start, mut length) = (std::ptr::null_mut(), 0);
    // SAFETY: the attributes are initialized; the two others are written.
    let known = unsafe { libc::pthread_attr_getstack(attributes.as_ptr(), &mut start, &mut length) } == 0;
    // SAFETY: they are initialized, and not used again.
    unsafe { libc::pthread_attr_destroy(attributes.as_mut_ptr()) };
    known.then_some((start as usize, length))
}

/// The standard library's, for its message about an overflow.
fn signal_stack() -> Option<(usize, usize)> {
    let mut stack = libc::stack_t { ss_sp: std::ptr::null_mut(), ss_flags: libc::SS_DISABLE, ss_size: 0 };
    // SAFETY: changes nothing, and fills in `stack`.
    let told = unsafe { libc::sigaltstack(std::ptr::null(), &mut stack) } == 0;
    (told && stack.ss_flags & libc::SS_DISABLE == 0).then_some((stack.ss_sp as usize, stack.ss_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mappings of this process that no child gets.
    fn unforked() -> Vec<(usize, usize)> {
        let text = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut range = (0, 0);
        let mut found = Vec::new();
        for line in text.lines() {
            let bounds = line.split(' ').next().and_then(|word| word.split_once('-'));
            let bounds = bounds.and_then(|(start, end)| {
                Some((usize::from_str_radix(start, 16).ok()?, usize::from_str_radix(end, 16).ok()?))
            });
            if let Some(bounds) = bounds {
                range = bounds;
            } else if line
                .strip_prefix("VmFlags:")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "dc"))
            {
                found.push(range);
            }
        }
        found
    }

    #[test]
    fn children_do_not_get_the_stacks_of_a_thread_until_it_ends() {
        let [during, after] = std::thread::spawn(|| {
            let (bottom, _) = stack().unwrap();
            let address = bottom.saturating_add(PAGE);
            let has = || unforked().iter().filter(|(start, end)| (*start..*end).contains(&address)).count();
            let own = unforked_stack();
            let during = (has(), unforked().len() >= 4);
            let child = |forked| super::super::child::exec::exit(forked, 3);
            assert!(matches!(clone::clone(0, None, child), Err(super::super::Errno::ENOTSUP)));
            drop(own);
            [during, (has(), true)]
        })
        .join()
        .unwrap();
        assert_eq!((during, after), ((1, true), (0, true)));
    }
}

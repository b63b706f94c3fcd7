//! A process that holds its streams: it reads or writes them with memory mapped from a file whose page never arrives.
//! read(2) and write(2) of a pipe copy with the pipe locked, so any other process that uses the pipe waits as well.

use std::os::fd::AsRawFd;

/// Maps one page of a file.
fn page(path: &str) -> *mut libc::c_void {
    let file = std::fs::File::open(path).expect("the file");
    let access = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new private mapping, of a file that is open.
    let page =
        unsafe { libc::mmap(std::ptr::null_mut(), 4096, access, libc::MAP_PRIVATE, file.as_raw_fd(), 0) };
    assert!(page != libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
    page
}

/// Writes to the standard output; first a byte, so that there is something to read.
pub fn output(path: &str) -> i32 {
    let page = page(path);
    // SAFETY: the byte is there.
    unsafe { libc::write(1, c"x".as_ptr().cast(), 1) };
    // SAFETY: the page is mapped.
    i32::from(unsafe { libc::write(1, page, 4096) } < 0)
}

/// Leaves a process behind that reads the standard input, or writes to the output, and exits.
pub fn behind(stream: &str, path: &str) -> i32 {
    let page = page(path);
    // SAFETY: this program has one thread.
    match unsafe { libc::fork() } {
        -1 => return 1,
        0 => {
            let moved = if stream == "in" {
                // SAFETY: the page is mapped.
                unsafe { libc::read(0, page, 16) }
            } else {
                // SAFETY: the page is mapped.
                unsafe { libc::write(1, page, 4096) }
            };
            return i32::from(moved < 0);
        }
        _ => {}
    }
    std::thread::sleep(std::time::Duration::from_millis(500));
    0
}

/// Writes small pieces as fast as possible, each a page of a small pipe, never waiting in the kernel, with children
/// that keep the pipe open.
pub fn flood(children: &str) -> i32 {
    // SAFETY: on this process's own descriptor.
    unsafe { libc::fcntl(1, libc::F_SETFL, libc::O_NONBLOCK | libc::O_DIRECT) };
    // SAFETY: as above.
    unsafe { libc::fcntl(1, libc::F_SETPIPE_SZ, 4096) };
    for _ in 0..children.parse().unwrap_or(0) {
        // SAFETY: this program has one thread.
        if unsafe { libc::fork() } == 0 {
            std::thread::sleep(std::time::Duration::from_secs(30));
            return 0;
        }
    }
    let begun = std::time::Instant::now();
    while begun.elapsed() < std::time::Duration::from_secs(20) {
        // SAFETY: the bytes are there.
        if unsafe { libc::write(1, [0u8; 64].as_ptr().cast(), 64) } < 0 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
    }
    0
}

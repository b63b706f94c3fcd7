//! getrandom(2).

use super::{check, Errno, Result};

/// Returns an unpredictable number.
pub fn number() -> Result<u64> {
    let mut bytes = [0u8; 8];
    // SAFETY: the kernel writes at most `len` bytes into `bytes`, which is exclusively ours.
    let answer = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    match check(answer as libc::c_long)? {
        8 => Ok(u64::from_ne_bytes(bytes)),
        _ => Err(Errno::EIO),
    }
}

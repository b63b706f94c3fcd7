//! Which file to execute.

use crate::sys::child::{exec, Errno, Key, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::std::ffi::CString;

/// Returns the first candidate that may be executed. If all fail, the first error that says more than "not there"
/// counts; the shim turns it into words.
pub(super) fn find(key: Key, candidates: &[CString]) -> Result<&CStr> {
    let mut failure = Errno::ENOENT;
    for candidate in candidates {
        match exec::executable(key, candidate) {
            Ok(()) => return Ok(candidate),
            Err(Errno::ENOENT | Errno::ENOTDIR) if candidates.len() > 1 => {}
            Err(errno) if failure == Errno::ENOENT => failure = errno,
            Err(_) => {}
        }
    }
    Err(failure)
}

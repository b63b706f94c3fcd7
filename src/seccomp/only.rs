//! A filter of the shim's own, for a process that makes a few calls and could be taken over.

use super::arch;
use super::verdict::{ALLOW, ARCHITECTURE, JEQ, LD_ABS, NUMBER, RET};
use crate::error::{Error, Kind, Result};
use crate::sys::seccomp::{Filter, SockFilter};
use libseccomp::ScmpArch;

/// SECCOMP_RET_KILL_PROCESS of linux/seccomp.h.
const KILL: u32 = 0x8000_0000;

/// Allows these calls on this machine's own architecture; any other call kills the process.
pub fn only(calls: &[i64]) -> Result<Filter> {
    let unknown = || Error::new(Kind::Bug, "seccomp: an unknown architecture");
    let native = arch::audit(ScmpArch::native()).ok_or_else(unknown)?;
    let one = |code, jt, jf, k| SockFilter { code, jt, jf, k };
    let mut program = vec![
        one(LD_ABS, 0, 0, ARCHITECTURE),
        one(JEQ, 1, 0, native),
        one(RET, 0, 0, KILL),
        one(LD_ABS, 0, 0, NUMBER),
    ];
    for call in calls {
        program.extend([one(JEQ, 0, 1, *call as u32), one(RET, 0, 0, ALLOW)]);
    }
    program.push(one(RET, 0, 0, KILL));
    Ok(Filter { program: program.into(), flags: 0 })
}

#[cfg(test)]
mod tests {
    use super::super::verdict::{verdict, Verdict};
    use super::only;

    #[test]
    fn nothing_else_is_allowed() {
        let filter = only(&[libc::SYS_clone, libc::SYS_exit]).unwrap();
        let allowed = |call| verdict(&filter.program, call, [None; 6]) == Verdict::Allowed;
        assert!(allowed(libc::SYS_clone) && allowed(libc::SYS_exit));
        assert!((0..500).filter(|call| allowed(*call)).count() == 2);
    }
}

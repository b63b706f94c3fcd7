//! Whether a process has executed a program since it was cloned: the kernel knows, even if the process was killed
//! before it could report anything.

use std::fs::File;
use std::io::Read;

/// PF_FORKNOEXEC of linux/sched.h, "forked but didn't exec": set until the execve(2) can no longer fail.
const FORKED_ONLY: u64 = 0x40;

/// Whether the process has executed a program; a zombie counts too. None if no process has the pid (any more).
pub(super) fn executed(pid: u32) -> Option<bool> {
    // The kernel composes the whole line for each first read, and the beginning is enough.
    let mut line = [0; 256];
    let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut line).ok()?;
    let line = String::from_utf8_lossy(line.get(..length)?);
    flags(&line).map(|flags| flags & FORKED_ONLY == 0)
}

/// The ninth field of proc_pid_stat(5); the second one is a name in parentheses, which may itself contain any.
fn flags(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(6)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_was_executed_and_nothing_else_counts() {
        assert_eq!(executed(std::process::id()), Some(true));
        assert_eq!(executed(u32::MAX), None);
        let line = "7 (a) b) S 1 7 7 0 -1 4194368 100";
        assert_eq!(flags(line), Some(4_194_368));
    }
}

//! Whether a process has executed a program since it was cloned: the kernel's word, where the process itself may have been
//! killed before it could say anything.

/// PF_FORKNOEXEC of linux/sched.h, "forked but didn't exec": until the execve(2) can fail no more.
const FORKED_ONLY: u64 = 0x40;

/// None where nobody has the pid, or not any more. Of a zombie too.
pub(super) fn executed(pid: u32) -> Option<bool> {
    flags(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|flags| flags & FORKED_ONLY == 0)
}

/// The ninth field of proc_pid_stat(5); the second one is a name in parentheses, which may have any in it.
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

//! The program: its lookup, the gate, the filter, the execve(2).

use super::builder::Builder;
use super::Step;
use crate::error::{Error, Kind, Result};
use crate::spec::Process;
use crate::sys::seccomp::Filter;
use std::ffi::{CStr, CString};

/// When the program runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// When the client calls Start.
    Gate,
    AtOnce,
}

/// No process in the container has seen this one so far, and all work in memory that is still a copy of the shim's is
/// done: the rest is a list of acts of [`crate::sys::last`].
pub(super) fn all(b: &mut Builder, process: &Process, filter: Option<Filter>, start: Start) -> Result<()> {
    let Some(name) = process.args.first() else {
        return Err(Error::new(Kind::Bug, "a process without arguments"));
    };
    let candidates = candidates(name, process.variable("PATH"));
    b.step("process.args[0]", Step::FindProgram { name: name.clone(), candidates });
    b.step("process", Step::Bare);
    // The program must not run before the agent has the listener and knows the pid, which exists only after the birth.
    let listens = filter.as_ref().is_some_and(Filter::listens);
    if let Some(filter) = filter.filter(|_| process.no_new_privileges) {
        b.step("linux.seccomp", Step::Seccomp(filter));
    }
    if b.pids.is_some() {
        b.step("linux.namespaces[pid]", Step::Birth);
    }
    b.step("process", Step::SetSid);
    if process.terminal {
        b.step("process.terminal", Step::ControlTerminal);
    }
    if start == Start::Gate {
        b.step("process", Step::Gate);
    } else if listens {
        b.step("linux.seccomp.listenerPath", Step::Gate);
    }
    // An empty HOME counts as unset: the child adds its own.
    let envp = process.env.iter().filter(|pair| pair.as_c_str() != c"HOME=").cloned().collect();
    b.step("process.args", Step::Exec { argv: process.args.clone(), envp });
    Ok(())
}

/// The paths that execvp(3) would try with the program's own PATH. Without a PATH nothing is found, as in runc.
pub(super) fn candidates(name: &CStr, path: Option<&[u8]>) -> Vec<CString> {
    let name = name.to_bytes();
    if name.is_empty() {
        return Vec::new();
    }
    if name.contains(&b'/') {
        return CString::new(name).into_iter().collect();
    }
    let Some(path) = path.filter(|path| !path.is_empty()) else { return Vec::new() };
    path.split(|byte| *byte == b':')
        .filter_map(|dir| {
            let dir = if dir.is_empty() { b"." } else { dir };
            CString::new([dir, b"/", name].concat()).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::candidates;
    use std::ffi::CStr;

    fn found(name: &CStr, path: Option<&[u8]>) -> Vec<String> {
        candidates(name, path).iter().map(|path| path.to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn a_name_is_looked_up_in_path_only() {
        assert_eq!(found(c"sh", Some(b"/bin::/usr/bin")), ["/bin/sh", "./sh", "/usr/bin/sh"]);
        assert!(found(c"sh", None).is_empty());
        assert!(found(c"", Some(b"/bin")).is_empty());
    }

    #[test]
    fn a_name_with_a_slash_is_a_path() {
        assert_eq!(found(c"bin/sh", Some(b"/usr")), ["bin/sh"]);
    }
}

//! A profile, what it does to the program itself, and the permitted outcomes for a container or an exec under it.

use crate::program::{CODE, NO_EXIT, WORD};
use serde_json::{json, Value};
use std::fmt;

/// What happens to the calls that the profile names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// The call fails with EPERM.
    Refuse,
    /// Errno 0: nothing is done, and the caller is told that it succeeded.
    Fake,
    Trap,
    /// No tracer is attached: ENOSYS.
    Trace,
    KillThread,
    KillProcess,
}

impl Act {
    fn words(self) -> (&'static str, Option<u32>) {
        match self {
            Act::Refuse => ("SCMP_ACT_ERRNO", Some(libc::EPERM as u32)),
            Act::Fake => ("SCMP_ACT_ERRNO", Some(0)),
            Act::Trap => ("SCMP_ACT_TRAP", None),
            Act::Trace => ("SCMP_ACT_TRACE", None),
            Act::KillThread => ("SCMP_ACT_KILL_THREAD", None),
            Act::KillProcess => ("SCMP_ACT_KILL_PROCESS", None),
        }
    }

    fn kills(self) -> bool {
        matches!(self, Act::Trap | Act::KillThread | Act::KillProcess)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calls {
    /// This call; all others are allowed.
    One(&'static str),
    /// All but these calls.
    AllBut(&'static [&'static str]),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    pub act: Act,
    pub calls: Calls,
    pub no_new_privileges: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Container,
    Exec { terminal: bool },
}

/// The outcome of a case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The program was executed; its exit status and its output.
    Ran(u32, String),
    /// An error, and no program was executed.
    Refused(String),
    /// It was reported as started, and no program was executed.
    Pretended(u32),
    /// This request was not answered in time.
    Hung(&'static str),
    /// Not tried: there is no container to execute anything in.
    NoContainer,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let without = if self.no_new_privileges { "" } else { ", without noNewPrivileges" };
        match self.calls {
            Calls::One(name) => write!(f, "{:?} {name}{without}", self.act),
            Calls::AllBut(names) => write!(f, "{:?} all but {names:?}{without}", self.act),
        }
    }
}

impl Case {
    pub fn profile(&self) -> Value {
        let (action, errno) = self.act.words();
        match self.calls {
            Calls::One(name) => json!({ "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{ "names": [name], "action": action, "errnoRet": errno }] }),
            Calls::AllBut(names) => json!({ "defaultAction": action, "defaultErrnoRet": errno,
                "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] }),
        }
    }

    fn concerns(&self, name: &str) -> bool {
        match self.calls {
            Calls::One(one) => one == name,
            Calls::AllBut(names) => !names.contains(&name),
        }
    }

    pub fn writes(&self) -> bool {
        !self.concerns("write")
    }

    /// Returns how the program ends under this profile, and what it writes.
    fn end(&self) -> (u32, &'static str) {
        let killed = 128 + libc::SIGSYS as u32;
        let output = if self.writes() { WORD } else { "" };
        if !self.writes() && self.act.kills() {
            (killed, output)
        } else if !self.concerns("exit_group") {
            (CODE, output)
        } else if self.act.kills() {
            (killed, output)
        } else if !self.concerns("exit") {
            (CODE, output)
        } else {
            (NO_EXIT, output)
        }
    }

    /// Returns what is wrong with an outcome; `control` is runc's, if it was run.
    pub fn fault(&self, outcome: &Outcome, control: Option<&Outcome>) -> Option<String> {
        match outcome {
            Outcome::Ran(status, output) => {
                let end = (*status, output.replace('\r', ""));
                let expected = self.end();
                (end != (expected.0, expected.1.into()))
                    .then(|| format!("the program ended with {end:?}, expected {expected:?}"))
            }
            Outcome::Refused(why) if matches!(control, Some(Outcome::Ran(..))) => {
                Some(format!("runc runs the program, and here: {why}"))
            }
            Outcome::Refused(why) if why.len() < 20 => Some(format!("an error without a sentence: {why:?}")),
            Outcome::Refused(_) | Outcome::NoContainer => None,
            Outcome::Pretended(status) => {
                Some(format!("told as started, with the exit status {status}; no program was executed"))
            }
            Outcome::Hung(what) => Some(format!("{what}: no answer")),
        }
    }
}

/// Returns config.json, for both runtimes. A user other than root, so that there is something to change to.
pub fn config(case: &Case, root: &str, words: &[&str]) -> Value {
    json!({
        "ociVersion": "1.1.0",
        "root": { "path": root },
        "process": process(case, words, false),
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] },
            { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["newinstance", "ptmxmode=0666", "mode=0620"] },
        ],
        "linux": {
            "namespaces": [{ "type": "mount" }, { "type": "pid" }],
            "seccomp": case.profile(),
        },
    })
}

pub fn process(case: &Case, words: &[&str], terminal: bool) -> Value {
    let capabilities = json!(["CAP_KILL", "CAP_NET_RAW"]);
    json!({
        "terminal": terminal,
        "cwd": "/",
        "args": words,
        "env": ["PATH=/"],
        "user": { "uid": 1000, "gid": 1000, "additionalGids": [10] },
        "capabilities": { "bounding": capabilities },
        "noNewPrivileges": case.no_new_privileges,
    })
}

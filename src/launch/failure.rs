//! Turns a step's number and an errno back into a sentence.
//!
//! Messages about the program and the working directory use runc's wording: docker and others look for "executable file
//! not found", "no such file or directory", "permission denied" and "is a directory" to choose the exit codes 126 and
//! 127.

use crate::error::{invalid, Error, Kind};
use crate::init::{device, host_paths, Report};
use crate::plan::{Field, Plan, Step};
use crate::sys::Errno;
use std::ffi::CStr;

/// The message for the failure of a step.
#[derive(Clone, Debug)]
pub(super) struct Sentence {
    pub(super) step: u32,
    words: Words,
}

#[derive(Clone, Debug)]
enum Words {
    /// `step 12/41: mount(...)`, and the spec's field.
    Step {
        call: String,
        field: Field,
    },
    /// The same, unless the errno is `gone`, which means that no process can be created in the pid namespace any more.
    Pids {
        call: String,
        field: Field,
        gone: i32,
    },
    /// `mounts[3].source "/x": no such file or directory (ENOENT)`, or what is wrong with the file found there.
    Open {
        what: String,
        refusals: Vec<(Errno, String)>,
    },
    /// The look-up of `argv[0]`.
    Find {
        name: String,
    },
    Exec {
        name: String,
    },
    Workdir {
        path: String,
    },
}

/// The sentences for the steps at which the process may already be visible: they can fail Start.
pub(super) fn behind_bare(plan: &Plan) -> Vec<Sentence> {
    let bare = plan.steps.iter().position(|(step, _)| matches!(step, Step::Bare)).unwrap_or(plan.steps.len());
    (bare..plan.steps.len()).filter_map(|step| sentence(plan, step as u32)).collect()
}

/// The error for a deadline that passed at this step.
pub(super) fn late(plan: &Plan, number: u32) -> Error {
    let at = match plan.steps.get(number as usize) {
        Some((step, field)) if field.is_empty() => call(plan, step, number),
        Some((step, field)) => format!("{field}: {}", call(plan, step, number)),
        None => "before the first step".to_owned(),
    };
    Error::new(Kind::Deadline, format!("{at}: not done within the time limit: the process was killed"))
}

/// The program that the steps execute, if they end in an execve.
pub(super) fn program_of(later: &[Sentence]) -> Option<&str> {
    later.iter().find_map(|sentence| match &sentence.words {
        Words::Exec { name } => Some(name.as_str()),
        _ => None,
    })
}

/// The error for a deadline that passed when a process had nothing left to do but execute its program.
pub(super) fn not_executed(later: &[Sentence]) -> Error {
    let what = program_of(later).unwrap_or("the program");
    let text = format!("exec {what}: execve(2) not done within the time limit: the process was killed");
    Error::new(Kind::Deadline, text)
}

/// Translates the child's report.
pub(super) fn error(plan: &Plan, report: Report) -> Error {
    match sentence(plan, report.step) {
        Some(sentence) => sentence.error(report.errno),
        None if report.step == Report::BEFORE => Error::system("prepare the process", report.errno),
        None => Error::new(Kind::Bug, "the plan has no program to execute"),
    }
}

fn sentence(plan: &Plan, number: u32) -> Option<Sentence> {
    let (step, field) = plan.steps.get(number as usize)?;
    let pids = |gone| Words::Pids { call: call(plan, step, number), field: field.clone(), gone };
    let words = match step {
        Step::Aim { .. } => pids(libc::ESRCH),
        Step::SetNs { flags, .. } if flags & libc::CLONE_NEWPID as u64 != 0 => pids(libc::ESRCH),
        // pid_namespaces(7): once its first process has ended, no process can be created in it; clone(2) returns ENOMEM
        // then.
        Step::Birth => pids(libc::ENOMEM),
        Step::FindProgram { name, .. } => Words::Find { name: name.to_string_lossy().into() },
        Step::Exec { .. } => Words::Exec { name: program(plan) },
        Step::Workdir { path, .. } => Words::Workdir { path: path.to_string_lossy().into() },
        Step::MapTree { slot, .. } => {
            let opened = plan.steps.iter().find(|(step, _)| step.fills() == Some(*slot));
            let path = opened.and_then(|(step, field)| Some((opening(step)?.0, field)));
            let what = path.map(|(path, field)| format!("{field} {path:?}: mount_setattr(MOUNT_ATTR_IDMAP)"));
            Words::Open { what: what.unwrap_or_else(|| call(plan, step, number)), refusals: Vec::new() }
        }
        Step::FindNetDevice { .. } | Step::NetDevice { .. } => {
            let words = |(errno, why): (Errno, &str)| (errno, why.to_owned());
            let refusals = [
                (device::NONE, "the host has no such network device (ENODEV)"),
                (device::THERE, "the container's network namespace has a device of that name (EEXIST)"),
                (device::TOO_MANY, "it has more than 256 addresses (E2BIG)"),
                (device::FIXED, "the kernel moves no such device (EINVAL)"),
            ];
            let what = format!("{field}: {}", call(plan, step, number));
            Words::Open { what, refusals: refusals.map(words).into() }
        }
        Step::Unshare { flags } if *flags == libc::CLONE_NEWTIME as u64 => {
            let none = "this kernel has no time namespaces (EINVAL)".to_owned();
            Words::Open { what: call(plan, step, number), refusals: vec![(Errno::EINVAL, none)] }
        }
        step => match opening(step) {
            Some((path, mut refusals)) => {
                let users = plan.steps.iter().any(|(step, _)| matches!(step, Step::LockMounts { .. }));
                if matches!(step, Step::OpenTree { recursive: false, .. }) && users {
                    refusals.push((Errno::EINVAL, LOCKED.to_owned()));
                }
                Words::Open { what: format!("{field} {path:?}"), refusals }
            }
            None => Words::Step { call: call(plan, step, number), field: field.clone() },
        },
    };
    Some(Sentence { step: number, words })
}

/// mount_namespaces(7): what is under a mount that came from outside stays hidden.
const LOCKED: &str =
    "invalid argument (EINVAL); in a user namespace what has mounts below it can be bound with rbind only";

/// For steps that follow a path of the host: the path, and the meaning of the child's refusals.
fn opening(step: &Step) -> Option<(&CStr, Vec<(Errno, String)>)> {
    Some(match step {
        Step::OpenNamespace { path, kind, private_for, .. } => (path, namespace(*kind, *private_for)),
        Step::OpenOwner { path, .. } => (path, namespace(libc::CLONE_NEWUSER as u64, None)),
        Step::OpenDevice { path, .. } => {
            (path, vec![(host_paths::OTHER_DEVICE, "the host has another device there".to_owned())])
        }
        Step::OpenTree { path, plain: true, .. } => {
            let why = "links without end, or one of /proc that is the runtime's own";
            (path, vec![(Errno::ELOOP, why.to_owned())])
        }
        Step::OpenTree { path, .. } | Step::OpenLoop { path, .. } => (path, Vec::new()),
        _ => return None,
    })
}

fn namespace(kind: u64, private_for: Option<&str>) -> Vec<(Errno, String)> {
    let changes = if kind == libc::CLONE_NEWUSER as u64 {
        "is no user namespace for a container".to_owned()
    } else {
        format!("{} would change", private_for.unwrap_or("the container"))
    };
    vec![
        (host_paths::NO_NAMESPACE, "not a namespace".to_owned()),
        (host_paths::OTHER_KIND, "a namespace of another kind".to_owned()),
        (host_paths::OF_THE_HOST, format!("the host's, which {changes}")),
    ]
}
fn call(plan: &Plan, step: &Step, number: u32) -> String {
    format!("step {}/{}: {step}", u64::from(number) + 1, plan.steps.len())
}

fn program(plan: &Plan) -> String {
    let name = plan.steps.iter().find_map(|(step, _)| match step {
        Step::FindProgram { name, .. } => Some(name.to_string_lossy().into()),
        _ => None,
    });
    name.unwrap_or_default()
}

impl Sentence {
    pub(super) fn error(&self, errno: i32) -> Error {
        match &self.words {
            Words::Step { call, field } => {
                let error = Error::system(call.clone(), errno);
                if field.is_empty() {
                    error
                } else {
                    error.context(field.clone())
                }
            }
            Words::Pids { gone, .. } if *gone == errno => {
                Error::system("the first process of the pid namespace has ended", errno)
                    .with_kind(Kind::State)
            }
            Words::Pids { call, field, .. } => Error::system(call.clone(), errno).context(field.clone()),
            Words::Open { what, refusals } => {
                match refusals.iter().find(|(refusal, _)| *refusal as i32 == errno) {
                    Some((_, why)) => invalid(format!("{what}: {why}")),
                    None => Error::system(what.clone(), errno),
                }
            }
            Words::Find { name } => find(name, errno),
            Words::Exec { name } if errno == 0 => Error::new(
                Kind::System,
                format!("exec {name}: the seccomp profile answers for execve(2), and nothing was executed"),
            ),
            Words::Exec { name } => Error::system(format!("exec {name}"), errno),
            Words::Workdir { path } if errno == libc::EXDEV => Error::new(
                Kind::Denied,
                format!("process.cwd {path:?}: current working directory is outside of the container's root"),
            ),
            Words::Workdir { path } => Error::system(format!("process.cwd: chdir({path:?})"), errno),
        }
    }
}

fn find(name: &str, errno: i32) -> Error {
    let quoted = format!("exec: {name:?}");
    match errno {
        // Errors about the files in PATH, not about the process that looks for them.
        libc::ENOENT | libc::ENOTDIR | libc::EACCES | libc::EISDIR | libc::ELOOP | libc::ENAMETOOLONG
            if !name.contains('/') =>
        {
            Error::new(Kind::System, format!("{quoted}: executable file not found in $PATH"))
        }
        _ if !name.contains('/') => Error::system(quoted, errno),
        libc::EACCES | libc::EISDIR => Error::system(quoted, errno),
        _ => Error::system(format!("{quoted}: stat {name}"), errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_worded_as_runc_words_it() {
        let text = |name: &str, errno| find(name, errno).to_string();
        assert_eq!(text("foo", libc::ENOENT), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(text("foo", libc::EACCES), "exec: \"foo\": executable file not found in $PATH");
        assert_eq!(text("foo", libc::EMFILE), "exec: \"foo\": too many open files (EMFILE)");
        let missing = "exec: \"/foo\": stat /foo: no such file or directory (ENOENT)";
        assert_eq!(text("/foo", libc::ENOENT), missing);
        assert_eq!(text("/foo", libc::EACCES), "exec: \"/foo\": permission denied (EACCES)");
        assert_eq!(text("/tmp", libc::EISDIR), "exec: \"/tmp\": is a directory (EISDIR)");
    }
}

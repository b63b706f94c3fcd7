//! Session, terminal, streams, keyring and limits: process attributes that are set while it is still root.

use super::builder::Builder;
use super::host::{AppArmor, Host};
use super::{Field, Step};
use crate::error::{invalid, Result};
use crate::spec::{unsupported, MemoryPolicy, Process};
use crate::sys::keyring::Search;
use std::ffi::CString;

/// The label that a security module applies to the program.
pub(super) struct Label {
    pub field: Field,
    /// File name below /proc/thread-self/attr.
    pub file: CString,
    pub value: CString,
}

impl Label {
    /// SELinux labels keys too.
    pub fn of_selinux(&self) -> bool {
        self.field == SELINUX
    }
}

const SELINUX: &str = "process.selinuxLabel";

/// Returns the process's label. A label that no module would enforce is an error, as in runc.
pub(super) fn label(process: &Process, host: &Host) -> Result<Option<Label>> {
    if let Some(profile) = &process.apparmor_profile {
        let field = "process.apparmorProfile";
        let file = match host.apparmor {
            AppArmor::Off => return Err(invalid(format!("{field}: AppArmor is not enabled on this host"))),
            AppArmor::Shared => c"exec",
            AppArmor::Own => c"apparmor/exec",
        };
        let value = [b"exec ", profile.to_bytes()].concat();
        let value = CString::new(value).map_err(|_| invalid(format!("{field}: a NUL byte")))?;
        return Ok(Some(Label { field: field.into(), file: file.into(), value }));
    }
    if let Some(value) = &process.selinux_label {
        if !host.selinux {
            return Err(invalid(format!("{SELINUX}: SELinux is not enabled on this host")));
        }
        return Ok(Some(Label { field: SELINUX.into(), file: c"exec".into(), value: value.clone() }));
    }
    Ok(None)
}

/// The name of a container's session keyring: runc's.
pub(crate) fn keyring_of(id: &str) -> Result<CString> {
    CString::new(format!("_ses.{id}")).map_err(|_| invalid("id: a NUL byte"))
}

/// Which process a session keyring is for.
#[derive(Clone, Copy)]
pub(super) struct Keyring {
    pub user_namespace: bool,
    /// It is for the container's first process, which creates the keyring.
    pub first: bool,
}

/// The session attributes that belong to the container, not to the process.
pub(super) struct Session<'a> {
    pub id: &'a str,
    /// None keeps the inherited keyring.
    pub keyring: Option<Keyring>,
    pub personality: Option<u64>,
    pub memory_policy: Option<&'a MemoryPolicy>,
}

/// The umask if the spec sets none, as in runc.
const UMASK: u32 = 0o022;

pub(super) fn all(
    b: &mut Builder,
    process: &Process,
    session: &Session<'_>,
    label: Option<Label>,
) -> Result<()> {
    let user = &process.user;
    if process.terminal {
        b.step("process.terminal", Step::Terminal);
    } else {
        b.step("process.terminal", Step::Stdio { uid: user.uid });
    }
    if let Some(keyring) = session.keyring {
        let search = match keyring {
            Keyring { user_namespace: false, .. } => Some(Search::User),
            Keyring { first: true, .. } => Some(Search::Other),
            // As in runc, the permissions that the first process has set stay.
            Keyring { first: false, .. } => None,
        };
        let name = keyring_of(session.id)?;
        let label = process.selinux_label.clone().filter(|_| label.as_ref().is_some_and(Label::of_selinux));
        b.step("process", Step::Keyring { name, search, label });
    }
    if process.variable("HOME").is_none_or(<[u8]>::is_empty) {
        b.step("process.env", Step::Home { uid: user.uid });
    }
    b.step("process.user.umask", Step::Umask(user.umask.unwrap_or(UMASK)));
    if let Some(personality) = session.personality {
        b.step("linux.personality", Step::Personality(personality));
    }
    if let Some(scheduler) = process.scheduler {
        // It would be lost at its birth, and a policy for real time with it.
        if scheduler.resets_on_fork() && b.pids.is_some() {
            let what = "SCHED_FLAG_RESET_ON_FORK in a pid namespace that is joined";
            return Err(unsupported(&format!("process.scheduler.flags: {what}")));
        }
        b.step("process.scheduler", Step::Scheduler(scheduler));
    }
    if let Some(priority) = process.io_priority {
        b.step("process.ioPriority", Step::IoPriority(priority));
    }
    if let Some(policy) = session.memory_policy {
        b.step("linux.memoryPolicy", Step::MemoryPolicy(policy.clone()));
    }
    if let Some(label) = label {
        b.step(label.field, Step::ExecLabel { value: label.value });
    }
    // After everything that opens files, and before the privilege to raise a limit is dropped.
    if !process.rlimits.iter().any(|limit| limit.resource == libc::RLIMIT_NOFILE) {
        b.step("process.rlimits", Step::Descriptors);
    }
    for (i, limit) in process.rlimits.iter().enumerate() {
        let step = Step::Rlimit { resource: limit.resource, soft: limit.soft, hard: limit.hard };
        b.step(format!("process.rlimits[{i}]"), step);
    }
    Ok(())
}

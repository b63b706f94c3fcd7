//! Runs one hook of the spec: a process like any other, made from a plan of a few steps.
//!
//! A hook has the state on its standard input, only the environment that the spec gives it (inherited variables
//! from an image were CVE-2025-23266), no descriptor of the shim's, and a time limit where the spec has one.

use super::ended::LATE;
use super::waiting::end;
use super::{after, ExitStatus, Launcher, Leash, Order};
use crate::cgroup::Entry;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::plan::{Open, Plan, Slot, Step};
use crate::spec::Hook;
use crate::stdio::Ends;
use crate::sys::epoll::Interest;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::{memory, pipe};
use crate::tasks::{self, News};
use std::collections::VecDeque;
use std::ffi::CString;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// So much of what a hook writes to its standard error is in the error.
const TAIL: usize = 4096;

/// How long the exit code of a hook that has ended may take: in the container, a tracer can keep it.
const REAPED: Duration = Duration::from_secs(1);

/// A hook of the container's own, as a process of it.
pub type Compile<'a> = &'a (dyn Fn(&Hook) -> Result<(Plan, Entry)> + Send + Sync);

/// Where a hook runs.
#[derive(Clone, Copy)]
pub enum Place<'a> {
    /// On the host: prestart, createRuntime, poststart, poststop.
    Host,
    /// In the container's namespaces, while its root is still the host's: createContainer.
    /// `alone`: nobody but the container's process is in its pid namespace, which the hook joins then.
    Namespaces { init: BorrowedFd<'a>, alone: bool },
    /// In the container: startContainer. The program is a file of the image, so it has no more rights than the
    /// container's program: it is compiled as an exec is, and so are its cgroup, ids, capabilities and filter.
    Container(BorrowedFd<'a>, Compile<'a>),
}

/// Runs `hook` to its end. `field` is where it is in the spec, e.g. `hooks.createRuntime[0]`; `state` is the JSON of
/// the container's state (runtime.md, "State"). It ends with the `leash`, whatever limit it has itself.
pub async fn run(
    launcher: &dyn Launcher,
    leash: &Leash,
    hook: &Hook,
    field: &str,
    state: &[u8],
    bundle: &Path,
    place: Place<'_>,
) -> Result<()> {
    attempt(launcher, leash, hook, state, bundle, place).await.context(|| format!("{field} {:?}", hook.path))
}

async fn attempt(
    launcher: &dyn Launcher,
    leash: &Leash,
    hook: &Hook,
    state: &[u8],
    bundle: &Path,
    place: Place<'_>,
) -> Result<()> {
    // The one that comes first, and what it is called.
    let own = hook.timeout.filter(|limit| after(*limit) <= leash.deadline);
    let deadline = own.map_or(leash.deadline, after);
    let (errors, errors_end) = pipe::pipe().context(|| "pipe")?;
    let ends = Ends {
        stdin: memory::file(c"state", state).context(|| "memfd_create(state)")?,
        stdout: pipe::null().context(|| "open(\"/dev/null\")")?,
        stderr: errors_end,
    };
    let (plan, entry, init) = match place {
        Place::Host => (plan(hook, bundle, None)?, Entry::default(), None),
        Place::Namespaces { init, alone } => (plan(hook, bundle, Some(alone))?, Entry::default(), Some(init)),
        Place::Container(init, compile) => {
            let (plan, entry) = compile(hook)?;
            (plan, entry, Some(init))
        }
    };
    let told: News<ExitStatus> = News::default();
    let tell = told.clone();
    let order = Order {
        plan: &plan,
        ends: Some(ends),
        entry,
        init,
        leash,
        on_exit: Box::new(move |status| tell.set(status)),
    };
    let pidfd = launcher.launch(order).await?.at_gate().await?.start_by(leash).await?;
    let mut tail = Tail::default();
    let begun = Instant::now();
    let in_time = follow(&pidfd, errors, deadline, &mut tail).await?;
    if !in_time {
        end(pidfd.as_fd(), None, LATE).await;
        let took = own.unwrap_or_else(|| begun.elapsed());
        return Err(Error::new(Kind::Deadline, format!("killed after {took:?}{tail}")));
    }
    match told.within(REAPED).await {
        None => Err(Error::new(Kind::Deadline, "its exit code is kept from the shim")),
        Some(ExitStatus { code: 0, .. }) => Ok(()),
        Some(ExitStatus { code, .. }) => Err(Error::new(Kind::System, format!("exit status {code}{tail}"))),
    }
}

/// A hook of the host as a plan; `inside`: in the namespaces of the container's process, and where that is alone in its
/// pid namespace in that too. Others would see a program of the host's with all its rights.
fn plan(hook: &Hook, bundle: &Path, inside: Option<bool>) -> Result<Plan> {
    let text = |bytes: &[u8], what: &str| {
        CString::new(bytes)
            .map_err(|_| invalid(format!("{what}: a NUL byte in {:?}", bytes.escape_ascii().to_string())))
    };
    let all = |list: &[String], what: &str| {
        list.iter().map(|entry| text(entry.as_bytes(), what)).collect::<Result<Vec<_>>>()
    };
    let program = text(hook.path.as_os_str().as_bytes(), "path")?;
    let mut argv = all(&hook.args, "args")?;
    if argv.is_empty() {
        argv.push(program.clone());
    }
    let envp = all(&hook.env, "env")?;
    let directory = text(bundle.as_os_str().as_bytes(), "bundle")?;

    let mut plan = Plan::default();
    let mut steps = Vec::new();
    if let Some(alone) = inside {
        let pids = if alone { libc::CLONE_NEWPID } else { 0 };
        let flags = libc::CLONE_NEWNS
            | libc::CLONE_NEWNET
            | libc::CLONE_NEWIPC
            | libc::CLONE_NEWUTS
            | libc::CLONE_NEWCGROUP
            | pids;
        plan.opens.push((Open::Init, "".into()));
        steps.push(Step::SetNs { slot: Slot::Lent(0), flags: flags as u64 });
        // As the root of the container's user namespace, where it has one: as in runc.
        steps.push(Step::JoinUser { slot: Slot::Lent(0), apart: true });
        steps.push(Step::BecomeRoot { unshare: 0 });
    }
    steps.extend([
        Step::Stdio { uid: 0 },
        Step::Umask(0o22),
        Step::Workdir { path: directory, retry: false },
        Step::FindProgram { name: program.clone(), candidates: vec![program] },
        Step::Bare,
    ]);
    steps.extend((inside == Some(true)).then_some(Step::Birth));
    steps.extend([Step::SetSid, Step::Exec { argv, envp }]);
    plan.steps = steps.into_iter().map(|step| (step, "".into())).collect();
    Ok(plan)
}

/// The last bytes that were written.
#[derive(Default)]
struct Tail(VecDeque<u8>);

impl Tail {
    fn add(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
        let excess = self.0.len().saturating_sub(TAIL);
        drop(self.0.drain(..excess));
    }
}

impl std::fmt::Display for Tail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let bytes: Vec<u8> = self.0.iter().copied().collect();
        match String::from_utf8_lossy(&bytes).trim() {
            "" => Ok(()),
            text => write!(f, ", stderr: {text}"),
        }
    }
}

/// Collects what the hook writes until it has ended; false where the time was over before.
async fn follow(pidfd: &OwnedFd, errors: OwnedFd, deadline: Instant, tail: &mut Tail) -> Result<bool> {
    pipe::set_nonblocking(&errors).context(|| "fcntl(F_SETFL)")?;
    let mut errors = std::fs::File::from(errors);
    let mut chunk = [0; 4096];
    let mut open = true;
    loop {
        let [more, ended] = match open {
            true => tasks::either([errors.as_fd(), pidfd.as_fd()], deadline).await?,
            // The pipe is at its end: only the process is left to wait for.
            false => [false, tasks::ready(pidfd.as_fd(), Interest::READ, deadline).await?],
        };
        // Also where it writes without an end.
        if !ended && (!more || Instant::now() >= deadline) {
            return Ok(false);
        }
        // A bounded share: what the hook left running may write on and on.
        for _ in 0..16 {
            match errors.read(&mut chunk) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => tail.add(chunk.get(..length).unwrap_or_default()),
                // Nothing more for now.
                Err(_) => break,
            }
        }
        if ended {
            return Ok(true);
        }
    }
}

//! Runs one hook of the spec: a process like any other.
//!
//! A hook gets the state on its standard input, no other descriptor of the shim, and a time limit if the spec has one.

use super::ended::LATE;
use super::waiting::end;
use super::{after, ExitStatus, Launcher, Leash, Order, Waiting};
use crate::cgroup::Entry;
use crate::error::{Context, Error, Kind, Result};
use crate::plan::Plan;
use crate::stdio::StdioFds;
use crate::sys::epoll::Interest;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::{memory, pipe};
use crate::tasks::{self, News};
use std::collections::VecDeque;
use std::io::Read;
use std::time::{Duration, Instant};

/// How much of a hook's standard error the error message includes.
const TAIL: usize = 4096;

/// How long the exit code of a hook that has ended may take: a tracer in the container can hold it back.
const REAPED: Duration = Duration::from_secs(1);

/// A compiled hook.
pub struct Run<'a> {
    pub plan: &'a Plan,
    pub entry: Entry,
    /// The container's first process, for a hook that joins it.
    pub init: Option<BorrowedFd<'a>>,
    pub timeout: Option<Duration>,
    /// The JSON of the container's state (runtime.md, "State").
    pub state: &'a [u8],
}

/// Runs the hook until it exits. The `leash` bounds it, whatever its own limit.
pub async fn run(launcher: &dyn Launcher, leash: &Leash, hook: Run<'_>) -> Result<()> {
    begin(launcher, leash, hook).await?.finish().await
}

/// A hook that has been launched, and waits at its gate if it has one.
pub(crate) struct Begun {
    pub(crate) waiting: Waiting,
    /// With the hook's own limit.
    pub(crate) leash: Leash,
    /// That limit, if it is the earlier one.
    own: Option<Duration>,
    errors: OwnedFd,
    told: News<ExitStatus>,
}

pub(crate) async fn begin(launcher: &dyn Launcher, leash: &Leash, hook: Run<'_>) -> Result<Begun> {
    let Run { plan, entry, init, timeout, state } = hook;
    // The earlier deadline, and the limit to report with it.
    let own = timeout.filter(|limit| after(*limit) <= leash.deadline);
    let shorter = own.map_or_else(|| leash.clone(), |limit| leash.shorter(limit));
    let (errors, errors_end) = pipe::pipe().context(|| "pipe")?;
    let ends = StdioFds {
        stdin: memory::file(c"state", state).context(|| "memfd_create(state)")?,
        stdout: pipe::null().context(|| "open(\"/dev/null\")")?,
        stderr: errors_end,
    };
    let told: News<ExitStatus> = News::default();
    let tell = told.clone();
    let order = Order {
        plan,
        ends: Some(ends),
        entry,
        init,
        leash,
        on_exit: Box::new(move |status| tell.set(status)),
    };
    let waiting = launcher.launch(order).await?.at_gate().await?;
    Ok(Begun { waiting, leash: shorter, own, errors, told })
}

impl Begun {
    pub(crate) async fn finish(self) -> Result<()> {
        let Begun { waiting, leash, own, errors, told } = self;
        let pidfd = waiting.start_by(&leash).await.map_err(|e| match own {
            Some(took) if e.kind() == Kind::Deadline => e.context(format!("killed after {took:?}")),
            _ => e,
        })?;
        let mut tail = Tail::default();
        let begun = Instant::now();
        let in_time = follow(&pidfd, errors, leash.deadline, &mut tail).await?;
        if !in_time {
            end(pidfd.as_fd(), None, LATE).await;
            let took = own.unwrap_or_else(|| begun.elapsed());
            return Err(Error::new(Kind::Deadline, format!("killed after {took:?}{tail}")));
        }
        match told.within(REAPED).await {
            None => Err(Error::new(Kind::Deadline, "its exit code is kept from the shim")),
            Some(ExitStatus { code: 0, .. }) => Ok(()),
            Some(ExitStatus { code, .. }) => {
                Err(Error::new(Kind::System, format!("exit status {code}{tail}")))
            }
        }
    }
}

/// The last bytes written.
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

/// Collects the hook's output until it exits; returns false if the deadline passes first.
async fn follow(pidfd: &OwnedFd, errors: OwnedFd, deadline: Instant, tail: &mut Tail) -> Result<bool> {
    pipe::set_nonblocking(&errors).context(|| "fcntl(F_SETFL)")?;
    let mut errors = std::fs::File::from(errors);
    let mut chunk = [0; 4096];
    let mut open = true;
    loop {
        let [more, ended] = if open {
            tasks::either([errors.as_fd(), pidfd.as_fd()], deadline).await?
        } else {
            // The pipe has reached its end: only the process is left to wait for.
            [false, tasks::ready(pidfd.as_fd(), Interest::READ, deadline).await?]
        };
        // Even if it writes without end.
        if !ended && (!more || Instant::now() >= deadline) {
            return Ok(false);
        }
        // Bounded: a process that the hook left behind may keep writing.
        for _ in 0..16 {
            match errors.read(&mut chunk) {
                Ok(0) => {
                    open = false;
                    break;
                }
                Ok(length) => tail.add(chunk.get(..length).unwrap_or_default()),
                // No more data for now.
                Err(_) => break,
            }
        }
        if ended {
            return Ok(true);
        }
    }
}

//! `binary://`: a program of the host reads the container's output from its descriptors 3 and 4.
//!
//! The contract is containerd's (pkg/process of its shim): the program reports on descriptor 5 that it is ready, by
//! writing a byte or closing it; its environment consists of CONTAINER_ID and CONTAINER_NAMESPACE; at the end it gets
//! SIGTERM, and SIGKILL if it takes longer than twelve seconds. The shim's reaper collects its exit status; here only
//! the pidfd is polled.

use super::uri::Program;
use super::Labels;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::sys::epoll::Interest;
use crate::sys::{pipe, spawn, wait};
use crate::tasks;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long Create waits for a program to report that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// A running program and the write ends of its streams.
pub struct Started {
    pub logger: Logger,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// A running program. Dropping it without [`Logger::into_pidfd`] kills the program.
#[derive(Debug)]
pub struct Logger(Option<OwnedFd>);

pub async fn start(program: &Program, labels: &Labels<'_>, deadline: Instant) -> Result<Started> {
    let left = deadline.saturating_duration_since(Instant::now());
    start_within(program, labels, READY_LIMIT.min(left)).await
}

pub(super) async fn start_within(program: &Program, labels: &Labels<'_>, limit: Duration) -> Result<Started> {
    let c_string = |text: String| {
        CString::new(text).map_err(|e| invalid(format!("stdout: logging program {:?}: {e}", program.path)))
    };
    let path = c_string(program.path.clone())?;
    let argv = std::iter::once(&program.path).chain(&program.args);
    let argv = argv.map(|arg| c_string(arg.clone())).collect::<Result<Vec<_>>>()?;
    let envp = [
        c_string(format!("CONTAINER_ID={}", labels.container))?,
        c_string(format!("CONTAINER_NAMESPACE={}", labels.namespace))?,
    ];

    let new_pipe = || pipe::pipe().context(|| "pipe2()");
    let (stdout_reader, stdout) = new_pipe()?;
    let (stderr_reader, stderr) = new_pipe()?;
    let (ready, ready_writer) = new_pipe()?;
    let fds = [stdout_reader.as_fd(), stderr_reader.as_fd(), ready_writer.as_fd()];
    let executing = || format!("start logging program: execve({:?})", program.path);
    let deadline = Instant::now() + limit;
    let spawned = spawn::spawn(&path, &argv, &envp, &fds).context(executing)?;
    let logger = Logger(Some(spawned.child.pidfd));
    drop(ready_writer);

    if !tasks::ready(spawned.status.as_fd(), Interest::READ, deadline).await? {
        let what = format!("{}: not done within the time limit", executing());
        return Err(Error::new(Kind::Deadline, what));
    }
    if let Some(errno) = spawned.status.errno().context(executing)? {
        return Err(errno).context(executing);
    }
    if !tasks::ready(ready.as_fd(), Interest::READ, deadline).await? {
        let what = format!("logging program {:?} was not ready within {limit:?}", program.path);
        return Err(Error::new(Kind::Deadline, what));
    }
    let count = pipe::read(&ready, &mut [0]).context(|| "read from the logging program")?;
    if count == 0 && program.strict {
        let what = format!(
            "logging program {:?} closed its ready descriptor without a byte: it may have crashed",
            program.path
        );
        return Err(Error::new(Kind::System, what));
    }
    Ok(Started { logger, stdout, stderr })
}

impl Logger {
    /// Waits for the program to exit by itself.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        match &self.0 {
            None => true,
            Some(pidfd) => {
                let deadline = Instant::now() + limit;
                tasks::ready(pidfd.as_fd(), Interest::READ, deadline).await.unwrap_or(true)
            }
        }
    }

    /// Asks the program to exit; the owner of the pidfd ensures that it does.
    pub fn into_pidfd(mut self) -> Option<OwnedFd> {
        let pidfd = self.0.take()?;
        if pipe::wait_readable(&pidfd, Duration::ZERO).unwrap_or(false) {
            return None;
        }
        terminate(pidfd.as_fd());
        Some(pidfd)
    }
}

impl Drop for Logger {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            kill(pidfd.as_fd());
        }
    }
}

fn terminate(pidfd: BorrowedFd<'_>) {
    // A signal from root is refused only if the program has changed its user or its security label.
    let _ = wait::signal(pidfd, libc::SIGTERM);
}

pub fn kill(pidfd: BorrowedFd<'_>) {
    let _ = wait::signal(pidfd, libc::SIGKILL);
}

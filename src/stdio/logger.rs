//! `binary://`: a program of the host reads the container's output from its descriptors 3 and 4.
//!
//! The contract is containerd's (its pkg/process of the shim): descriptor 5 tells that the program is ready, by a
//! byte or by being closed; the environment is CONTAINER_ID and CONTAINER_NAMESPACE and nothing else; at the end it
//! gets SIGTERM, and SIGKILL when it takes longer than twelve seconds. Its exit is taken by the shim's reaper; here
//! only the pidfd is looked at.

use super::uri::Program;
use super::Labels;
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::sys::epoll::Interest;
use crate::sys::{pipe, spawn, wait};
use crate::tasks;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// How long Create waits for a program to say that it is ready.
const READY_LIMIT: Duration = Duration::from_secs(10);

/// A running program, and the write ends of its streams.
pub struct Started {
    pub logger: Logger,
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

/// Dropping it without [`Logger::into_pidfd`] kills the program.
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
    /// Waits for the program to end by itself.
    pub async fn ended_within(&self, limit: Duration) -> bool {
        match &self.0 {
            None => true,
            Some(pidfd) => {
                let deadline = Instant::now() + limit;
                tasks::ready(pidfd.as_fd(), Interest::READ, deadline).await.unwrap_or(true)
            }
        }
    }

    /// Asks the program to end; whoever takes the pidfd sees to it that it does.
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
    // Only a program that has given itself another user or a security label refuses root's signal.
    let _ = wait::signal(pidfd, libc::SIGTERM);
}

pub fn kill(pidfd: BorrowedFd<'_>) {
    let _ = wait::signal(pidfd, libc::SIGKILL);
}

//! Opens all streams of a request, or none of them.

use super::console::Terminal;
use super::copy::{Copy, Sink, Source};
use super::copy_queue::CopyQueue;
use super::fifo::Output;
use super::io::Io;
use super::uri::{Program, Target};
use super::{logger, Labels, Stdio, StdioFds, Whose};
use crate::error::{invalid, Context, Error, Result};
use crate::paths::{Opened, Owner, Paths, Purpose};
use crate::sys::pipe::{self, Kind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// The context in which streams are opened; see [`super::Streams::open`].
pub(super) struct Opening<'a> {
    pub copy_queue: &'a Arc<CopyQueue>,
    pub paths: &'a Paths,
    pub whose: Whose,
    /// Gets the process's fifos and pipes.
    pub owner: Owner,
    pub deadline: Instant,
}

impl Opening<'_> {
    /// Opens the streams of `request`.
    pub async fn open(&self, request: &Stdio, labels: &Labels<'_>) -> Result<(Option<StdioFds>, Io)> {
        let target = Target::parse(&request.stdout)?;
        let io = Io::new(self.copy_queue);
        if request.terminal {
            let output = match &target {
                Target::Paths => self.terminal_output(&request.stdout).await?,
                Target::Binary(program) => binary_for_terminal(&io, program, labels, self.deadline).await?,
                Target::File(_) => {
                    return Err(invalid(format!(
                        "stdout: {:?}: file:// does not work with a terminal, a path or binary:// does",
                        request.stdout
                    )))
                }
            };
            let input = self.input(&io, &request.stdin, true).await?;
            io.state().terminal = Some(Terminal { output, input });
            return Ok((None, io));
        }

        let (stdout, stderr) = match &target {
            Target::Paths => self.outputs(&io, request).await?,
            Target::File(path) => {
                let mut opened = self.path("stdout", path, Purpose::Log).await?;
                self.both_to(&io, next(&mut opened)?)?
            }
            Target::Binary(program) => {
                let started = logger::start(program, labels, self.deadline).await?;
                io.state().logger = Some(started.logger);
                self.give(&started.stdout)?;
                self.give(&started.stderr)?;
                (started.stdout, started.stderr)
            }
        };
        let stdin = match self.input(&io, &request.stdin, false).await? {
            Some(stdin) => stdin,
            None => null()?,
        };
        Ok((Some(StdioFds { stdin, stdout, stderr }), io))
    }

    async fn path(&self, field: &'static str, path: &str, purpose: Purpose) -> Result<Opened> {
        let opened = self.paths.open(Path::new(path), purpose, self.deadline).await.context(|| field)?;
        if opened.kind == Kind::Directory {
            return Err(invalid(format!("{field}: {path:?} is a directory")));
        }
        Ok(opened)
    }

    /// The container's end of the input; for a terminal, the end that the shim reads.
    async fn input(&self, io: &Io, path: &str, terminal: bool) -> Result<Option<OwnedFd>> {
        if path.is_empty() {
            return Ok(None);
        }
        let for_program = (!terminal).then_some(self.owner);
        let mut opened = self.path("stdin", path, Purpose::Input { for_program }).await?;
        match opened.kind {
            Kind::Null | Kind::Directory => Ok(None),
            Kind::Fifo => {
                io.state().stdin = Some(next(&mut opened)?);
                next(&mut opened).map(Some)
            }
            Kind::Other if terminal => next(&mut opened).map(Some),
            Kind::Other => {
                let (read, write) = self.pipe()?;
                pipe::set_nonblocking(&write).context(|| "fcntl(F_SETFL)")?;
                let copy = Copy::new(Source::Pipe(next(&mut opened)?), Sink::File(write));
                io.copy(None, Some(copy))?;
                Ok(Some(read))
            }
        }
    }

    /// Opens the outputs given by path. Each stream is separate, unless both name the same path and the shim copies to
    /// it: they then share a pipe, which keeps their order.
    async fn outputs(&self, io: &Io, request: &Stdio) -> Result<(OwnedFd, OwnedFd)> {
        let stdout = self.output(io, "stdout", &request.stdout).await?;
        if matches!(stdout, Out::File(_) | Out::Copied(_)) && request.stderr == request.stdout {
            let end = self.end(io, stdout)?;
            let other = end.try_clone().context(|| "dup()")?;
            return Ok((end, other));
        }
        // The file is the copier's from now on: to close it is to ask its filesystem.
        let stdout = self.end(io, stdout)?;
        let stderr = self.output(io, "stderr", &request.stderr).await?;
        Ok((stdout, self.end(io, stderr)?))
    }

    async fn output(&self, io: &Io, field: &'static str, path: &str) -> Result<Out> {
        if path.is_empty() {
            return Ok(Out::Null);
        }
        let for_program = (self.whose == Whose::Container).then_some(self.owner);
        let mut opened = self.path(field, path, Purpose::Output { for_program }).await?;
        match opened.kind {
            Kind::Null | Kind::Directory => Ok(Out::Null),
            Kind::Fifo => {
                let output = Output::keep(next(&mut opened)?, next(&mut opened)?);
                if self.whose == Whose::Exec {
                    return Ok(Out::Copied(self.copied_to(io, Sink::Fifo(output))?));
                }
                io.state().outputs.push(output);
                Ok(Out::Fifo(next(&mut opened)?))
            }
            Kind::Other => next(&mut opened).map(Out::File),
        }
    }

    async fn terminal_output(&self, path: &str) -> Result<Sink> {
        if path.is_empty() {
            return Ok(Sink::Nobody);
        }
        let mut opened = self.path("stdout", path, Purpose::Output { for_program: None }).await?;
        match opened.kind {
            Kind::Null | Kind::Directory => Ok(Sink::Nobody),
            Kind::Fifo => Ok(Sink::Fifo(Output::keep(next(&mut opened)?, next(&mut opened)?))),
            Kind::Other => next(&mut opened).map(Sink::File),
        }
    }

    fn end(&self, io: &Io, out: Out) -> Result<OwnedFd> {
        match out {
            Out::Null => null(),
            Out::Fifo(end) | Out::Copied(end) => Ok(end),
            Out::File(file) => self.copied_to(io, Sink::File(file)),
        }
    }

    /// Creates a pipe whose content is copied to `sink`; returns the container's end.
    fn copied_to(&self, io: &Io, sink: Sink) -> Result<OwnedFd> {
        let (read, write) = self.pipe()?;
        pipe::set_nonblocking(&read).context(|| "fcntl(F_SETFL)")?;
        io.copy(Some(Copy::new(Source::Pipe(read), sink)), None)?;
        Ok(write)
    }

    /// A single pipe for both streams, which keeps their order.
    fn both_to(&self, io: &Io, file: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
        let stdout = self.copied_to(io, Sink::File(file))?;
        let stderr = stdout.try_clone().context(|| "dup()")?;
        Ok((stdout, stderr))
    }

    /// The read end and the write end.
    fn pipe(&self) -> Result<(OwnedFd, OwnedFd)> {
        let ends = pipe::pipe().context(|| "pipe2()")?;
        self.give(&ends.0)?;
        Ok(ends)
    }

    /// To their owner, who can then open them again by /proc/self/fd or /dev/stdout.
    fn give(&self, pipe: &OwnedFd) -> Result<()> {
        let (uid, gid) = self.owner;
        if self.owner == (0, 0) {
            return Ok(());
        }
        pipe::give_to(pipe, uid, gid).context(|| format!("fchown(a pipe, {uid}, {gid})"))
    }
}

/// The next descriptor, in the order given by [`Purpose`].
fn next(opened: &mut Opened) -> Result<OwnedFd> {
    if opened.fds.is_empty() {
        return Err(Error::new(crate::error::Kind::Bug, "a path was opened without a descriptor"));
    }
    Ok(opened.fds.remove(0))
}

fn null() -> Result<OwnedFd> {
    pipe::null().context(|| "open(\"/dev/null\")")
}

/// An opened output path.
enum Out {
    Null,
    Fifo(OwnedFd),
    /// The write end of a pipe that the shim copies to the path.
    Copied(OwnedFd),
    File(OwnedFd),
}

async fn binary_for_terminal(
    io: &Io,
    program: &Program,
    labels: &Labels<'_>,
    deadline: Instant,
) -> Result<Sink> {
    let started = logger::start(program, labels, deadline).await?;
    io.state().logger = Some(started.logger);
    // A terminal has a single output; the program sees EOF on its second stream now.
    drop(started.stderr);
    pipe::set_nonblocking(&started.stdout).context(|| "fcntl(F_SETFL)")?;
    Ok(Sink::File(started.stdout))
}

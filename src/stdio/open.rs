//! Opens the streams that a request names, or none of them.

use super::console::Terminal;
use super::copy::{Copy, Sink, Source};
use super::exchange::Exchange;
use super::fifo::{self, Output};
use super::io::Io;
use super::uri::{Program, Target};
use super::{logger, Ends, Labels, Stdio, Whose};
use crate::error::{invalid, Context, Result};
use crate::sys::pipe::{self, Access, Kind};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Opens what `request` names; see [`super::Switchboard::open`].
pub async fn open(
    exchange: &Arc<Exchange>,
    request: &Stdio,
    labels: &Labels<'_>,
    owner: (u32, u32),
    whose: Whose,
    deadline: Instant,
) -> Result<(Option<Ends>, Io)> {
    let target = Target::parse(&request.stdout)?;
    let io = Io::new(exchange);
    if request.terminal {
        let output = match &target {
            Target::Paths => terminal_output(&request.stdout)?,
            Target::Binary(program) => binary_for_terminal(&io, program, labels, deadline).await?,
            Target::File(_) => {
                return Err(invalid(format!(
                    "stdout: {:?}: file:// does not work with a terminal, a path or binary:// does",
                    request.stdout
                )))
            }
        };
        let input = stdin(&io, &request.stdin, true)?;
        io.state().terminal = Some(Terminal { output, input });
        return Ok((None, io));
    }

    let (stdout, stderr) = match &target {
        Target::Paths => paths(&io, request, whose)?,
        Target::File(path) => both_to(&io, log_file(Path::new(path))?)?,
        Target::Binary(program) => {
            let started = logger::start(program, labels, deadline).await?;
            io.state().logger = Some(started.logger);
            (started.stdout, started.stderr)
        }
    };
    let stdin = match stdin(&io, &request.stdin, false)? {
        Some(stdin) => stdin,
        None => null()?,
    };
    let ends = Ends { stdin, stdout, stderr };
    if owner != (0, 0) {
        give(&ends, owner)?;
    }
    Ok((Some(ends), io))
}

fn null() -> Result<OwnedFd> {
    pipe::null().context(|| "open(\"/dev/null\")")
}

/// What a stream's path stands for.
fn locate(field: &str, path: &Path) -> Result<(OwnedFd, Kind)> {
    let (found, kind) =
        pipe::locate(path).context(|| format!("open({path:?})")).context(|| field.to_owned())?;
    match kind {
        Kind::Directory => Err(invalid(format!("{field}: {path:?} is a directory"))),
        kind => Ok((found, kind)),
    }
}

/// The container's end of the input. For a terminal the end that the shim reads.
fn stdin(io: &Io, path: &str, terminal: bool) -> Result<Option<OwnedFd>> {
    if path.is_empty() {
        return Ok(None);
    }
    let path = Path::new(path);
    let (found, kind) = locate("stdin", path)?;
    let (read, write) = match kind {
        Kind::Null | Kind::Directory => return Ok(None),
        Kind::Fifo => fifo::input(&found, path, terminal).context(|| "stdin")?,
        Kind::Other if terminal => {
            return pipe::reopen(&found, Access::Read, true)
                .context(|| format!("open({path:?}, O_RDONLY)"))
                .map(Some)
        }
        Kind::Other => {
            let file = pipe::reopen(&found, Access::Read, true)
                .context(|| format!("open({path:?}, O_RDONLY)"))
                .context(|| "stdin")?;
            let (read, write) = pipe::pipe().context(|| "pipe2()")?;
            pipe::set_nonblocking(&write).context(|| "fcntl(F_SETFL)")?;
            io.copy(None, Some(Copy::new(Source::Pipe(file), Sink::File(write))))?;
            return Ok(Some(read));
        }
    };
    io.state().stdin = Some(write);
    Ok(Some(read))
}

/// Output by path: each stream for itself, but what the shim copies to one place, which both name, goes by one pipe: it
/// arrives in the order in which it was written.
fn paths(io: &Io, request: &Stdio, whose: Whose) -> Result<(OwnedFd, OwnedFd)> {
    let stdout = output(io, "stdout", &request.stdout, whose)?;
    let stderr = match &stdout {
        Out::File(_) | Out::Copied(_) if request.stderr == request.stdout => None,
        _ => Some(output(io, "stderr", &request.stderr, whose)?),
    };
    match (stdout, stderr) {
        (Out::File(file), None) => both_to(io, file),
        (Out::Copied(end), None) => {
            let other = end.try_clone().context(|| "dup()")?;
            Ok((end, other))
        }
        (stdout, stderr) => Ok((end(io, stdout)?, end(io, stderr.unwrap_or(Out::Null))?)),
    }
}

/// What an output's path stands for, opened.
enum Out {
    Null,
    Fifo(OwnedFd),
    /// The write end of a pipe that is copied there.
    Copied(OwnedFd),
    File(OwnedFd),
}

fn output(io: &Io, field: &'static str, path: &str, whose: Whose) -> Result<Out> {
    if path.is_empty() {
        return Ok(Out::Null);
    }
    let path = Path::new(path);
    let (found, kind) = locate(field, path)?;
    match kind {
        Kind::Null | Kind::Directory => Ok(Out::Null),
        Kind::Fifo => {
            let output = Output::keep(&found, path).context(|| field)?;
            if whose == Whose::Exec {
                return Ok(Out::Copied(copied_to(io, Sink::Fifo(output))?));
            }
            let end = output.for_container(path).context(|| field)?;
            io.state().outputs.push(output);
            Ok(Out::Fifo(end))
        }
        Kind::Other => {
            let file = pipe::reopen(&found, Access::Append, true);
            Ok(Out::File(file.context(|| format!("open({path:?}, O_APPEND)")).context(|| field)?))
        }
    }
}

fn end(io: &Io, out: Out) -> Result<OwnedFd> {
    match out {
        Out::Null => null(),
        Out::Fifo(end) | Out::Copied(end) => Ok(end),
        Out::File(file) => copied_to(io, Sink::File(file)),
    }
}

/// A pipe whose content is copied to `sink`: the container's end.
fn copied_to(io: &Io, sink: Sink) -> Result<OwnedFd> {
    let (read, write) = pipe::pipe().context(|| "pipe2()")?;
    pipe::set_nonblocking(&read).context(|| "fcntl(F_SETFL)")?;
    io.copy(Some(Copy::new(Source::Pipe(read), sink)), None)?;
    Ok(write)
}

/// One pipe for both streams, which keeps their order.
fn both_to(io: &Io, file: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    let stdout = copied_to(io, Sink::File(file))?;
    let stderr = stdout.try_clone().context(|| "dup()")?;
    Ok((stdout, stderr))
}

fn log_file(path: &Path) -> Result<OwnedFd> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).context(|| format!("mkdir({parent:?})")).context(|| "stdout")?;
    }
    pipe::append_to(path).context(|| format!("open({path:?}, O_APPEND|O_CREAT)")).context(|| "stdout")
}

fn terminal_output(path: &str) -> Result<Sink> {
    if path.is_empty() {
        return Ok(Sink::Nobody);
    }
    let path = Path::new(path);
    let (found, kind) = locate("stdout", path)?;
    match kind {
        Kind::Null | Kind::Directory => Ok(Sink::Nobody),
        Kind::Fifo => Ok(Sink::Fifo(Output::keep(&found, path).context(|| "stdout")?)),
        Kind::Other => {
            let file = pipe::reopen(&found, Access::Append, true);
            Ok(Sink::File(file.context(|| format!("open({path:?}, O_APPEND)")).context(|| "stdout")?))
        }
    }
}

async fn binary_for_terminal(
    io: &Io,
    program: &Program,
    labels: &Labels<'_>,
    deadline: Instant,
) -> Result<Sink> {
    let started = logger::start(program, labels, deadline).await?;
    io.state().logger = Some(started.logger);
    // A terminal has one output; the program sees the end of its second stream now.
    drop(started.stderr);
    pipe::set_nonblocking(&started.stdout).context(|| "fcntl(F_SETFL)")?;
    Ok(Sink::File(started.stdout))
}

/// Fifos and pipes may be opened again through /proc/self/fd or /dev/stdout by whoever owns them.
fn give(ends: &Ends, (uid, gid): (u32, u32)) -> Result<()> {
    for (name, end) in [("stdin", &ends.stdin), ("stdout", &ends.stdout), ("stderr", &ends.stderr)] {
        if pipe::kind(end).context(|| "fstat()")? == Kind::Fifo {
            pipe::give_to(end, uid, gid).context(|| format!("fchown({name}, {uid}, {gid})"))?;
        }
    }
    Ok(())
}

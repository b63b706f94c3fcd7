//! Opens a file in a separate process: this program with the verb [`VERB`]. Unlike a thread, a process can be killed
//! while a filesystem blocks it.
//!
//! It has a socket at descriptor 3, by which it sends one message, one for each descriptor, and one when it has closed them.
//! It is the shim's, not a container's: it runs in the shim's namespaces and cgroup, with nothing in its environment.

use super::here::{self, Refused};
use super::{Opened, Owner, Purpose};
use crate::error::{Context, Error, Kind, Result};
use crate::sync::{Mutex, MutexGuard};
use crate::sys::epoll::Interest;
use crate::sys::{pipe, process, socket, spawn, wait};
use crate::tasks;
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

pub const VERB: &str = "open-path";
const LINK: &str = "link";
const UNLINK: &str = "unlink";
const UNMOUNT: &str = "unmount";
const WRITE: &str = "write";
/// What the program calls itself: ps(1) shows why it is there.
const NAME: &CStr = c"containerd-shim-shoal-v2";
const SOCKET: i32 = 3;
/// The size of a message: a path, twice as long when quoted, and the call.
const ROOM: usize = 16 << 10;

/// More of them than wait for one filesystem that does not answer.
const OPENERS_MAX: usize = 256;

/// Those that were killed and have not ended: a filesystem can keep one from its end.
#[derive(Debug, Default)]
pub(super) struct Openers(Mutex<Vec<OwnedFd>>);

/// What a process is to do.
#[derive(Clone, Copy)]
pub(super) enum Order<'a> {
    Open(&'a CStr, Purpose),
    Link(&'a CStr, &'a CStr),
    Unlink(&'a CStr),
    Unmount(&'a CStr),
    Write(&'a CStr, &'a CStr),
}

impl Order<'_> {
    fn words(self) -> Vec<CString> {
        let word = |word: &str| CString::new(word).unwrap_or_default();
        match self {
            Order::Open(path, purpose) => vec![word(&purpose.to_word()), path.to_owned()],
            Order::Link(at, to) => vec![word(LINK), at.to_owned(), to.to_owned()],
            Order::Write(path, text) => vec![word(WRITE), path.to_owned(), text.to_owned()],
            Order::Unlink(at) => vec![word(UNLINK), at.to_owned()],
            Order::Unmount(at) => vec![word(UNMOUNT), at.to_owned()],
        }
    }
}

/// Killed when it is dropped, so when its time is over, or when nobody wants its answer any more.
struct Opener<'a> {
    pidfd: Option<OwnedFd>,
    openers: &'a Openers,
}

impl Drop for Opener<'_> {
    fn drop(&mut self) {
        let Some(pidfd) = self.pidfd.take() else { return };
        // It has ended by itself, mostly.
        let _ = wait::signal(pidfd.as_fd(), libc::SIGKILL);
        let mut left = self.openers.left();
        left.push(pidfd);
    }
}

impl Openers {
    /// Those that have not ended.
    fn left(&self) -> MutexGuard<'_, Vec<OwnedFd>> {
        let mut left = self.0.lock();
        left.retain(|pidfd| !pipe::wait_readable(pidfd, Duration::ZERO).unwrap_or(true));
        left
    }

    fn start(&self, order: Order<'_>, socket: BorrowedFd<'_>) -> Result<(Opener<'_>, spawn::Status)> {
        if self.left().len() >= OPENERS_MAX {
            let what = format!("{OPENERS_MAX} processes that were killed still wait for filesystems");
            return Err(Error::new(Kind::System, what));
        }
        let own = [NAME.to_owned(), CString::new(VERB).unwrap_or_default()];
        let argv: Vec<_> = own.into_iter().chain(order.words()).collect();
        let started = spawn::spawn(c"/proc/self/exe", &argv, &[], &[socket]);
        let started = started.map_err(|errno| failed(&format!("start it: {errno}")))?;
        Ok((Opener { pidfd: Some(started.child.pidfd), openers: self }, started.status))
    }

    /// The shim's side; `path` is for the errors.
    pub(super) async fn run(&self, order: Order<'_>, path: &Path, deadline: Instant) -> Result<Opened> {
        let what = || format!("open({path:?})");
        let (ours, its) = socket::pair().map_err(|errno| failed(&format!("socketpair(): {errno}")))?;
        let (_opener, status) = self.start(order, its.as_fd()).context(what)?;
        drop(its);

        let mut bytes = vec![0; ROOM];
        let (length, _) = receive(ours.as_fd(), &mut bytes, deadline).await.context(what)?;
        let Some(answer) = bytes.get(..length).and_then(decode) else {
            let why = match status.errno() {
                Ok(Some(errno)) => format!("execve(\"/proc/self/exe\"): {errno}"),
                _ => "it has ended".into(),
            };
            return Err(failed(&why)).context(what);
        };
        let (mut opened, count) = match answer {
            Answer::Opened { opened, count } => (opened, count),
            Answer::Refused(refused) => return Err(refused.into_error()),
        };
        for _ in 0..count {
            let (_, fd) = receive(ours.as_fd(), &mut bytes, deadline).await.context(what)?;
            opened.fds.push(fd.ok_or_else(|| failed("no descriptor came")).context(what)?);
        }
        // It has none of them any more: as the only reader of a fifo it would pass for the client.
        receive(ours.as_fd(), &mut bytes, deadline).await.context(what)?;
        Ok(opened)
    }
}

/// Of the process, and not of the path: without an errno, which callers would take for the path's.
fn failed(why: &str) -> Error {
    Error::new(Kind::System, format!("the process that was to do it: {why}"))
}

async fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    deadline: Instant,
) -> Result<(usize, Option<OwnedFd>)> {
    if !tasks::ready(socket, Interest::READ, deadline).await? {
        return Err(Error::new(
            Kind::Deadline,
            "not done within the time limit: its filesystem, or who listens there, does not answer",
        ));
    }
    socket::receive(socket, bytes).context(|| "recvmsg()")
}

/// The process's side: does what its first word says with the paths behind it.
pub fn serve(words: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Vec<OsString> = words.collect();
    let Some(socket) = process::inherited(SOCKET) else {
        eprintln!("{VERB} is what the shim calls itself with");
        return ExitCode::FAILURE;
    };
    if let Ok(watched) = socket.try_clone() {
        // A shim that is gone cannot kill it. Without a thread it waits on.
        let _ = std::thread::Builder::new().spawn(move || {
            let _ = socket::receive(watched.as_fd(), &mut [0]);
            std::process::exit(1);
        });
    }
    let words: Vec<&OsStr> = words.iter().map(OsString::as_os_str).collect();
    let nothing = || Opened { kind: pipe::Kind::Other, mode: 0, mount: 0, fds: Vec::new() };
    let done = match words[..] {
        [word, at, to] if word == LINK => here::link(Path::new(at), Path::new(to)).map(|()| nothing()),
        [word, path, text] if word == WRITE => {
            here::write(Path::new(path), text.as_encoded_bytes()).map(|()| nothing())
        }
        [word, at] if word == UNLINK => {
            here::unlink(Path::new(at));
            Ok(nothing())
        }
        [word, at] if word == UNMOUNT => here::unmount(Path::new(at)).map(|()| nothing()),
        [word, path] => match word.to_str().and_then(Purpose::of_word) {
            Some(purpose) => opened(Path::new(path), purpose),
            None => return ExitCode::FAILURE,
        },
        _ => return ExitCode::FAILURE,
    };
    match answer(socket.as_fd(), done) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn opened(path: &Path, purpose: Purpose) -> Result<Opened, Refused> {
    let opened = here::open(path, purpose)?;
    match purpose {
        Purpose::Contents { limit } => copied(opened, path, limit),
        Purpose::Connect => connected(opened, path),
        _ => Ok(opened),
    }
}

fn answer(socket: BorrowedFd<'_>, done: Result<Opened, Refused>) -> Result<()> {
    let sent = || "sendmsg()";
    socket::send(socket, &encode(&done), None).context(sent)?;
    let Ok(Opened { fds, .. }) = done else { return Ok(()) };
    fds.iter().try_for_each(|fd| socket::send(socket, &[0], Some(fd.as_fd())).context(sent))?;
    drop(fds);
    socket::send(socket, &[0], None).context(sent)
}

/// Waits for room in the listener's queue.
fn connected(opened: Opened, path: &Path) -> Result<Opened, Refused> {
    let connect = |socket: OwnedFd| {
        let stream = UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
        stream.set_nonblocking(true)?;
        Ok(stream.into())
    };
    let refused = |e: std::io::Error| Refused {
        call: format!("connect({path:?})"),
        errno: e.raw_os_error().unwrap_or(libc::EIO),
    };
    let fds =
        opened.fds.into_iter().map(|socket| connect(socket).map_err(refused)).collect::<Result<_, _>>()?;
    Ok(Opened { fds, ..opened })
}

/// Reading a file can block on its filesystem, too: hand over a copy in memory.
fn copied(opened: Opened, path: &Path, limit: u64) -> Result<Opened, Refused> {
    let copy = |file: OwnedFd| -> std::io::Result<OwnedFd> {
        let mut copy = File::from(memfd_create(c"contents", MFdFlags::MFD_CLOEXEC)?);
        std::io::copy(&mut File::from(file).take(limit + 1), &mut copy)?;
        copy.rewind()?;
        Ok(copy.into())
    };
    let refused = |e: std::io::Error| Refused {
        call: format!("read({path:?})"),
        errno: e.raw_os_error().unwrap_or(libc::EIO),
    };
    let fds = opened.fds.into_iter().map(|file| copy(file).map_err(refused)).collect::<Result<_, _>>()?;
    Ok(Opened { fds, ..opened })
}

impl Purpose {
    fn to_word(self) -> String {
        match self {
            Purpose::Look => "look".into(),
            Purpose::Output { for_program: None } => "output".into(),
            Purpose::Output { for_program: Some((uid, gid)) } => format!("output:{uid}:{gid}"),
            Purpose::Input { for_program: None } => "input".into(),
            Purpose::Input { for_program: Some((uid, gid)) } => format!("input:{uid}:{gid}"),
            Purpose::Log => "log".into(),
            Purpose::Connect => "connect".into(),
            Purpose::Place => "place".into(),
            Purpose::Handle => "handle".into(),
            Purpose::Folder => "folder".into(),
            Purpose::Contents { limit } => limit.to_string(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        let owner = |word: &str| -> Option<Owner> {
            let (uid, gid) = word.split_once(':')?;
            Some((uid.parse().ok()?, gid.parse().ok()?))
        };
        if let Some(word) = word.strip_prefix("output:") {
            return Some(Purpose::Output { for_program: Some(owner(word)?) });
        }
        if let Some(word) = word.strip_prefix("input:") {
            return Some(Purpose::Input { for_program: Some(owner(word)?) });
        }
        Some(match word {
            "look" => Purpose::Look,
            "output" => Purpose::Output { for_program: None },
            "input" => Purpose::Input { for_program: None },
            "log" => Purpose::Log,
            "connect" => Purpose::Connect,
            "place" => Purpose::Place,
            "handle" => Purpose::Handle,
            "folder" => Purpose::Folder,
            limit => Purpose::Contents { limit: limit.parse().ok()? },
        })
    }
}

#[derive(Debug)]
enum Answer {
    /// This many descriptors follow.
    Opened {
        opened: Opened,
        count: usize,
    },
    Refused(Refused),
}

const KINDS: [pipe::Kind; 4] = [pipe::Kind::Fifo, pipe::Kind::Null, pipe::Kind::Directory, pipe::Kind::Other];

/// Numbers as the machine has them. Opened: four bytes of 0, four of the mode, eight of the mount, one for the kind (its
/// place in [`KINDS`]), one for the number of descriptors. Refused: four bytes of the errno, then the call.
fn encode(answer: &Result<Opened, Refused>) -> Vec<u8> {
    match answer {
        Ok(opened) => {
            let kind = KINDS.iter().position(|known| *known == opened.kind).unwrap_or_default();
            let numbers = [0, opened.mode].into_iter().flat_map(u32::to_ne_bytes);
            let numbers = numbers.chain(opened.mount.to_ne_bytes());
            numbers.chain([kind as u8, opened.fds.len() as u8]).collect()
        }
        Err(Refused { call, errno }) => {
            let call = call.as_bytes().iter().take(ROOM - 4);
            errno.to_ne_bytes().into_iter().chain(call.copied()).collect()
        }
    }
}

fn decode(bytes: &[u8]) -> Option<Answer> {
    let (errno, rest) = bytes.split_first_chunk()?;
    let errno = i32::from_ne_bytes(*errno);
    if errno != 0 {
        let call = String::from_utf8_lossy(rest).into_owned();
        return Some(Answer::Refused(Refused { call, errno }));
    }
    let (mode, rest) = rest.split_first_chunk()?;
    let (mount, rest) = rest.split_first_chunk()?;
    let [kind, count] = rest else { return None };
    let kind = *KINDS.get(usize::from(*kind))?;
    let (mode, mount) = (u32::from_ne_bytes(*mode), u64::from_ne_bytes(*mount));
    Some(Answer::Opened { opened: Opened { kind, mode, mount, fds: Vec::new() }, count: (*count).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        for kind in KINDS {
            let sent = Opened { kind, mode: 0o4755, mount: u64::MAX - 7, fds: Vec::new() };
            let Some(Answer::Opened { opened, count: 0 }) = decode(&encode(&Ok(sent))) else { panic!() };
            assert_eq!((opened.kind, opened.mode, opened.mount), (kind, 0o4755, u64::MAX - 7));
        }
        let refused = Refused { call: "open(\"ä\")".into(), errno: libc::ELOOP };
        let Some(Answer::Refused(refused)) = decode(&encode(&Err(refused))) else { panic!() };
        assert_eq!((&*refused.call, refused.errno), ("open(\"ä\")", libc::ELOOP));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let whole = encode(&Ok(Opened { kind: pipe::Kind::Fifo, mode: 1, mount: 2, fds: Vec::new() }));
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_none(), "{length} bytes");
        }
        assert!(decode(&[whole.clone(), vec![0]].concat()).is_none());
        let mut other = whole;
        other[16] = 9;
        assert!(decode(&other).is_none());
    }

    #[test]
    fn a_purpose_is_the_same_on_both_sides() {
        for purpose in [
            Purpose::Look,
            Purpose::Output { for_program: None },
            Purpose::Output { for_program: Some((0, u32::MAX)) },
            Purpose::Input { for_program: None },
            Purpose::Input { for_program: Some((7, 8)) },
            Purpose::Log,
            Purpose::Connect,
            Purpose::Place,
            Purpose::Handle,
            Purpose::Folder,
            Purpose::Contents { limit: 1 << 20 },
        ] {
            assert_eq!(Purpose::of_word(&purpose.to_word()), Some(purpose));
        }
        assert_eq!(Purpose::of_word("what"), None);
    }
}

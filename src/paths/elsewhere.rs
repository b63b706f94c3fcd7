//! Opens a file in a process of its own: this program with the verb [`VERB`]. It can be killed while a filesystem keeps it
//! waiting, and a thread cannot.
//!
//! It has a socket at descriptor 3, by which it sends one message, and then one for each descriptor. It is the shim's, not a
//! container's: it runs in the shim's namespaces and cgroup, with nothing in its environment.

use super::here::{self, Refused};
use super::{Opened, Purpose};
use crate::error::{Context, Error, Kind, Result};
use crate::sys::epoll::Interest;
use crate::sys::{pipe, process, socket, spawn, wait};
use crate::tasks;
use nix::sys::memfd::{memfd_create, MFdFlags};
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

pub const VERB: &str = "open-path";
/// What the program calls itself: ps(1) shows why it is there.
const NAME: &CStr = c"containerd-shim-shoal-v2";
const SOCKET: i32 = 3;
/// Of a message: a path, twice as long where it is quoted, and the call.
const ROOM: usize = 16 << 10;

/// Killed when it is dropped, so when its time is over, or when nobody wants its answer any more.
struct Opener(OwnedFd);

impl Drop for Opener {
    fn drop(&mut self) {
        // It has ended by itself, mostly.
        let _ = wait::signal(self.0.as_fd(), libc::SIGKILL);
    }
}

/// The shim's side.
pub async fn open(c_path: &CStr, path: &Path, purpose: Purpose, deadline: Instant) -> Result<Opened> {
    let what = || format!("open({path:?})");
    let (ours, its) = socket::pair().context(|| "socketpair()")?;
    let verb = CString::new(VERB).map_err(|e| Error::caused_by(Kind::Bug, VERB, e))?;
    let word = CString::new(purpose.to_word()).map_err(|e| Error::caused_by(Kind::Bug, VERB, e))?;
    let argv = [NAME.to_owned(), verb, word, c_path.to_owned()];
    let started = spawn::spawn(c"/proc/self/exe", &argv, &[], &[its.as_fd()])
        .context(|| "start a process that opens a path")?;
    drop(its);
    let _opener = Opener(started.child.pidfd);

    let mut bytes = vec![0; ROOM];
    let (length, _) = receive(ours.as_fd(), &mut bytes, deadline).await.context(what)?;
    let Some(answer) = bytes.get(..length).and_then(decode) else {
        let why = || format!("{}: the process that was to do it", what());
        return Err(match started.status.errno().context(why)? {
            Some(errno) => Error::system(why(), errno as i32),
            None => Error::new(Kind::System, format!("{} has ended", why())),
        });
    };
    let (mut opened, count) = match answer {
        Answer::Opened { opened, count } => (opened, count),
        Answer::Refused(refused) => return Err(refused.into_error()),
    };
    for _ in 0..count {
        let (_, fd) = receive(ours.as_fd(), &mut bytes, deadline).await.context(what)?;
        opened
            .fds
            .push(fd.ok_or_else(|| Error::new(Kind::System, format!("{}: no descriptor came", what())))?);
    }
    Ok(opened)
}

async fn receive(
    socket: BorrowedFd<'_>,
    bytes: &mut [u8],
    deadline: Instant,
) -> Result<(usize, Option<OwnedFd>)> {
    if !tasks::ready(socket, Interest::READ, deadline).await? {
        return Err(Error::new(
            Kind::Deadline,
            "not done within the time limit: its filesystem does not answer",
        ));
    }
    socket::receive(socket, bytes).context(|| "recvmsg()")
}

/// The process's side: opens the path of its second word for the purpose of its first.
pub fn serve(mut words: impl Iterator<Item = OsString>) -> ExitCode {
    let (purpose, path) = (words.next(), words.next());
    let purpose = purpose.as_deref().and_then(OsStr::to_str).and_then(Purpose::of_word);
    let (Some(purpose), Some(path), Some(socket)) = (purpose, path, process::inherited(SOCKET)) else {
        eprintln!("{VERB} is what the shim calls itself with");
        return ExitCode::FAILURE;
    };
    let Ok(watched) = socket.try_clone() else { return ExitCode::FAILURE };
    // A shim that is gone cannot kill it.
    std::thread::spawn(move || {
        let _ = socket::receive(watched.as_fd(), &mut [0]);
        std::process::exit(1);
    });
    match answer(socket.as_fd(), Path::new(&path), purpose) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn answer(socket: BorrowedFd<'_>, path: &Path, purpose: Purpose) -> Result<()> {
    let opened = here::open(path, purpose).and_then(|opened| match purpose {
        Purpose::Contents { limit } => copied(opened, path, limit),
        _ => Ok(opened),
    });
    let sent = || "sendmsg()";
    socket::send(socket, &encode(&opened), None).context(sent)?;
    let mut fds = opened.iter().flat_map(|opened| &opened.fds);
    fds.try_for_each(|fd| socket::send(socket, &[0], Some(fd.as_fd())).context(sent))
}

/// To read a file is to wait for its filesystem, too: what is handed over is in memory.
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
            Purpose::Output { end: false } => "output".into(),
            Purpose::Output { end: true } => "output-and-end".into(),
            Purpose::Input { blocking: false } => "input".into(),
            Purpose::Input { blocking: true } => "blocking-input".into(),
            Purpose::Log => "log".into(),
            Purpose::Contents { limit } => limit.to_string(),
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Some(match word {
            "look" => Purpose::Look,
            "output" => Purpose::Output { end: false },
            "output-and-end" => Purpose::Output { end: true },
            "input" => Purpose::Input { blocking: false },
            "blocking-input" => Purpose::Input { blocking: true },
            "log" => Purpose::Log,
            limit => Purpose::Contents { limit: limit.parse().ok()? },
        })
    }
}

#[derive(Debug)]
enum Answer {
    /// So many descriptors follow.
    Opened {
        opened: Opened,
        count: usize,
    },
    Refused(Refused),
}

const KINDS: [pipe::Kind; 4] = [pipe::Kind::Fifo, pipe::Kind::Null, pipe::Kind::Directory, pipe::Kind::Other];

/// Numbers as the machine has them. Opened: four bytes of 0, four of the mode, eight of the device, one for the kind (its
/// place in [`KINDS`]), one for the number of descriptors. Refused: four bytes of the errno, then the call.
fn encode(answer: &Result<Opened, Refused>) -> Vec<u8> {
    match answer {
        Ok(opened) => {
            let kind = KINDS.iter().position(|known| *known == opened.kind).unwrap_or_default();
            let numbers = [0, opened.mode].into_iter().flat_map(u32::to_ne_bytes);
            let numbers = numbers.chain(opened.device.to_ne_bytes());
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
    let (device, rest) = rest.split_first_chunk()?;
    let [kind, count] = rest else { return None };
    let kind = *KINDS.get(usize::from(*kind))?;
    let (mode, device) = (u32::from_ne_bytes(*mode), u64::from_ne_bytes(*device));
    Some(Answer::Opened { opened: Opened { kind, mode, device, fds: Vec::new() }, count: (*count).into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_arrives_as_it_was_sent() {
        for kind in KINDS {
            let sent = Opened { kind, mode: 0o4755, device: u64::MAX - 7, fds: Vec::new() };
            let Some(Answer::Opened { opened, count: 0 }) = decode(&encode(&Ok(sent))) else { panic!() };
            assert_eq!((opened.kind, opened.mode, opened.device), (kind, 0o4755, u64::MAX - 7));
        }
        let refused = Refused { call: "open(\"ä\")".into(), errno: libc::ELOOP };
        let Some(Answer::Refused(refused)) = decode(&encode(&Err(refused))) else { panic!() };
        assert_eq!((&*refused.call, refused.errno), ("open(\"ä\")", libc::ELOOP));
    }

    #[test]
    fn what_is_no_answer_is_none() {
        let whole = encode(&Ok(Opened { kind: pipe::Kind::Fifo, mode: 1, device: 2, fds: Vec::new() }));
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
            Purpose::Output { end: false },
            Purpose::Output { end: true },
            Purpose::Input { blocking: false },
            Purpose::Input { blocking: true },
            Purpose::Log,
            Purpose::Contents { limit: 1 << 20 },
        ] {
            assert_eq!(Purpose::of_word(&purpose.to_word()), Some(purpose));
        }
        assert_eq!(Purpose::of_word("what"), None);
    }
}

//! One request, and what is told on the way to its answer.

use super::protos::rpc;
use super::{log, Criu, Dump, Restore};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::Leash;
use crate::sys::epoll::Interest;
use crate::sys::fd::{AsFd, BorrowedFd, OwnedFd};
use crate::sys::spawn::{self, Place};
use crate::sys::{socket, wait, Errno};
use crate::tasks;
use protobuf::Message;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// A packet of CRIU's: as in runc.
const ROOM: usize = 40 << 10;
/// How long it may take to end once it has answered.
const END: Duration = Duration::from_secs(5);

/// What CRIU tells.
#[derive(Debug)]
pub enum Heard {
    /// The first process is in its namespaces, and nothing else of it is there.
    Namespaces(u32),
    /// All processes exist and stand still, without their own rights yet.
    Restored(u32),
    /// All processes have their own rights, and go on next.
    Resuming,
    /// The processes of a dump stand still.
    Seized,
    /// The master of a terminal that a process of the container has.
    Terminal(OwnedFd),
    /// It has done what it was asked for; the pid of the first process, where that was made.
    Done(Option<u32>),
}

/// Killed when it is dropped: when its time is over, or nobody wants its answer any more.
struct Process(OwnedFd);

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended by itself, mostly.
        let _ = wait::signal(self.0.as_fd(), libc::SIGKILL);
    }
}

/// CRIU at work.
pub struct Talk<'a> {
    socket: OwnedFd,
    program: CString,
    process: Process,
    status: spawn::Status,
    pub pid: u32,
    leash: &'a Leash,
    /// The first process of what is dumped.
    dumped: Option<BorrowedFd<'a>>,
    /// It waits for a word of ours.
    waits: bool,
}

impl<'a> Talk<'a> {
    /// `first` is the process that `dump` names. Once that has ended, CRIU has `END` to say why.
    pub fn dump(criu: &Criu, dump: &Dump<'_>, first: BorrowedFd<'a>, leash: &'a Leash) -> Result<Self> {
        let talk = Self::begin(criu, &dump.request(), Place::default(), &[], leash)?;
        Ok(Talk { dumped: Some(first), ..talk })
    }

    /// `place` is where the container is to be, with its streams as CRIU's 0, 1 and 2; `fds` are its 4, 5, …
    pub fn restore(
        criu: &Criu,
        restore: &Restore<'_>,
        place: Place<'_>,
        fds: &[BorrowedFd<'_>],
        leash: &'a Leash,
    ) -> Result<Self> {
        Self::begin(criu, &restore.request(), place, fds, leash)
    }

    fn begin(
        Criu(program): &Criu,
        request: &rpc::Req,
        place: Place<'_>,
        fds: &[BorrowedFd<'_>],
        leash: &'a Leash,
    ) -> Result<Self> {
        let (socket, its) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
        let argv = [program.clone(), c"swrk".to_owned(), c"3".to_owned()];
        // It runs other programs (iptables, tar), and is the operator's to configure.
        let envp: Vec<CString> = std::env::vars_os()
            .filter_map(|(name, value)| CString::new([name.as_bytes(), b"=", value.as_bytes()].concat()).ok())
            .collect();
        let fds: Vec<_> = [its.as_fd()].into_iter().chain(fds.iter().copied()).collect();
        let spawned = spawn::spawn_at(place, program, &argv, &envp, &fds).context(|| "start criu")?;
        let (pid, process, program) = (spawned.child.pid, Process(spawned.child.pidfd), program.clone());
        let (status, dumped, waits) = (spawned.status, None, false);
        let mut talk = Talk { socket, program, process, status, pid, leash, dumped, waits };
        talk.send(request)?;
        Ok(talk)
    }

    /// It has ended, or was none that can be run.
    fn silent(&self) -> Error {
        match (self.leash.check(), self.status.errno()) {
            (Err(killed), _) => killed,
            (_, Ok(Some(errno))) => Error::system(format!("execve({:?})", self.program), errno as i32),
            _ => Error::new(Kind::System, "criu has ended without an answer"),
        }
    }

    fn send(&mut self, request: &rpc::Req) -> Result<()> {
        let bytes =
            request.write_to_bytes().map_err(|e| Error::caused_by(Kind::Bug, "encode for criu", e))?;
        match socket::send(self.socket.as_fd(), &bytes, None) {
            Err(Errno::EPIPE | Errno::ECONNRESET) => Err(self.silent()),
            sent => sent.context(|| "send to criu"),
        }
    }

    /// Lets it go on where it waits, and what comes next.
    pub async fn next(&mut self) -> Result<Heard> {
        let mut bytes = vec![0; ROOM];
        loop {
            if std::mem::take(&mut self.waits) {
                let go = rpc::Req {
                    type_: Some(rpc::Type::NOTIFY.into()),
                    notify_success: Some(true),
                    ..Default::default()
                };
                self.send(&go)?;
            }
            self.said().await?;
            let (length, passed) = match socket::receive(self.socket.as_fd(), &mut bytes) {
                // It has not read all that it was told.
                Err(Errno::ECONNRESET) => (0, None),
                received => received.context(|| "receive from criu")?,
            };
            if length == 0 {
                return Err(self.silent());
            }
            let answer = rpc::Resp::parse_from_bytes(bytes.get(..length).unwrap_or_default())
                .map_err(|e| Error::caused_by(Kind::System, "criu has answered what is no message", e))?;
            match answer.type_() {
                rpc::Type::NOTIFY => {
                    self.waits = true;
                    let pid = u32::try_from(answer.notify.pid()).unwrap_or_default();
                    match (answer.notify.script(), passed) {
                        ("setup-namespaces", _) => return Ok(Heard::Namespaces(pid)),
                        ("post-restore", _) => return Ok(Heard::Restored(pid)),
                        ("pre-resume", _) => return Ok(Heard::Resuming),
                        ("network-lock", _) => return Ok(Heard::Seized),
                        ("orphan-pts-master", Some(master)) => return Ok(Heard::Terminal(master)),
                        _ => {}
                    }
                }
                _ if !answer.success() => return Err(failure(&answer)),
                rpc::Type::DUMP | rpc::Type::RESTORE => {
                    let pid = answer.restore.as_ref().and_then(|restored| u32::try_from(restored.pid()).ok());
                    self.end().await;
                    return Ok(Heard::Done(pid));
                }
                kind => return Err(Error::new(Kind::System, format!("criu has answered a {kind:?}"))),
            }
        }
    }

    /// Waits until it says something. A kill through the leash does not reach it: what it traces goes on when it ends,
    /// and so its owner decides about that first.
    async fn said(&self) -> Result<()> {
        let (socket, deadline) = (self.socket.as_fd(), self.leash.deadline);
        let said = async {
            let Some(first) = self.dumped else {
                return tasks::ready(socket, Interest::READ, deadline).await;
            };
            match tasks::either([socket, first], deadline).await? {
                [false, true] => {
                    let said =
                        tasks::ready(socket, Interest::READ, deadline.min(crate::launch::after(END))).await?;
                    said.then_some(true).ok_or_else(|| Error::new(Kind::State, "its first process has ended"))
                }
                [said, _] => Ok(said),
            }
        };
        if self.leash.unless_killed(said).await? {
            Ok(())
        } else {
            Err(Error::new(Kind::Deadline, "criu: not done within the time limit"))
        }
    }

    /// Kills it, and waits for its end.
    pub async fn stop(self) {
        let _ = wait::signal(self.process.0.as_fd(), libc::SIGKILL);
        let _ = tasks::ready(self.process.0.as_fd(), Interest::READ, crate::launch::after(END)).await;
    }

    /// It has nothing to do any more but to end.
    async fn end(&mut self) {
        let _ = socket::shut(self.socket.as_fd());
        let _ = tasks::ready(self.process.0.as_fd(), Interest::READ, crate::launch::after(END)).await;
    }
}

fn failure(answer: &rpc::Resp) -> Error {
    let words = match (answer.cr_errmsg().trim(), answer.cr_errno()) {
        ("", 0) => "it says no reason".to_owned(),
        ("", errno) => return Error::system("criu", errno),
        (words, _) => words.to_owned(),
    };
    Error::new(Kind::System, format!("criu: {}", log::errors(&words).unwrap_or(words)))
}

/// What it has failed with, in the words of its log.
pub fn explain(error: Error, log: &[u8]) -> Error {
    let log = String::from_utf8_lossy(log);
    match log::errors(&log) {
        Some(words) if error.kind() == Kind::System => Error::new(Kind::System, format!("criu: {words}")),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Place as Folder;
    use super::*;
    use crate::tasks::block_on;
    use std::os::unix::fs::PermissionsExt;

    /// What a criu that does `script` is heard to say of a dump, to the end.
    fn heard(script: &str, limit: Duration) -> Result<Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("criu");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        talk(path.to_str().unwrap(), limit)
    }

    fn talk(path: &str, limit: Duration) -> Result<Vec<String>> {
        let null = crate::sys::pipe::null().unwrap();
        let place =
            Folder { images: null.as_fd(), work: null.as_fd(), log: "dump.log", config: None, root: "/" };
        let dump = Dump {
            place,
            pid: 1,
            leave_running: true,
            open_tcp: false,
            external_unix_sockets: false,
            terminal: false,
            file_locks: false,
            cgroups: super::super::Cgroups::Soft,
            external: Vec::new(),
            mounts: Vec::new(),
            freezer: None,
        };
        let leash = Leash::lasting(limit);
        let first = wait::open_pidfd(std::process::id()).unwrap();
        let mut talk = Talk::dump(&Criu(CString::new(path).unwrap()), &dump, first.as_fd(), &leash)?;
        let mut all = Vec::new();
        let told = loop {
            match block_on(talk.next()) {
                Ok(heard @ Heard::Done(_)) => {
                    all.push(format!("{heard:?}"));
                    break Ok(all);
                }
                Ok(heard) => all.push(format!("{heard:?}")),
                Err(e) => break Err(e),
            }
        };
        // Other tests have a reaper, which would find the zombie again and again.
        let _ = wait::signal(talk.process.0.as_fd(), libc::SIGKILL);
        let _ = nix::sys::wait::waitid(
            nix::sys::wait::Id::PIDFd(talk.process.0.as_fd()),
            nix::sys::wait::WaitPidFlag::WEXITED,
        );
        told
    }

    const LONG: Duration = Duration::from_secs(20);
    /// One packet each: printf(1) writes once.
    const REQUEST: &str = "dd bs=4096 count=1 <&3 2>/dev/null >/dev/null";
    const DONE: &str = r"printf '\010\001\020\001' >&3";

    #[test]
    fn it_is_answered_on_its_way_to_the_end() {
        let told = r"printf '\010\006\020\001\052\020\012\014post-restore\020\007' >&3";
        // A word that nobody waits for is answered, too.
        let other = r"printf '\010\006\020\001\052\006\012\004else' >&3";
        let script = format!("{REQUEST}\n{told}\n{REQUEST}\n{other}\n{REQUEST}\n{DONE}");
        assert_eq!(heard(&script, LONG).unwrap(), ["Restored(7)", "Done(None)"]);
    }

    #[test]
    fn what_goes_wrong_is_told() {
        for (script, words) in [
            ("exit 3", "criu has ended without an answer"),
            (&*format!("{REQUEST}; printf garbage >&3"), "criu has answered what is no message"),
            // No success, and why.
            (&*format!(r"{REQUEST}; printf '\010\001\020\000\112\003why' >&3"), "criu: why"),
            (&*format!(r"{REQUEST}; printf '\010\001\020\000\070\002' >&3"), "no such file or directory"),
            (&*format!(r"{REQUEST}; printf '\010\001\020\000' >&3"), "criu: it says no reason"),
        ] {
            let error = heard(script, LONG).unwrap_err();
            assert_eq!(error.kind(), Kind::System, "{error}");
            assert!(error.to_string().contains(words), "{error}");
        }
        let error = talk("/no/criu", LONG).unwrap_err().to_string();
        assert!(error.contains("execve(\"/no/criu\")") && error.contains("no such file"), "{error}");
    }

    #[test]
    fn one_that_hangs_is_killed_when_the_time_is_over() {
        let begun = std::time::Instant::now();
        let error = heard(&format!("{REQUEST}; exec sleep 1000"), Duration::from_millis(300)).unwrap_err();
        assert_eq!(error.kind(), Kind::Deadline);
        assert!(begun.elapsed() < LONG);
    }

    #[test]
    fn the_log_explains_a_failure_and_no_time_limit() {
        let log = b"(00.1) Error (criu/x.c:1): the reason\n(00.2) Error (criu/y.c:1): Dumping FAILED.\n";
        let failed = explain(Error::new(Kind::System, "criu: x"), log).to_string();
        assert_eq!(failed, "criu: the reason");
        assert_eq!(explain(Error::new(Kind::Deadline, "late"), log).to_string(), "late");
    }
}

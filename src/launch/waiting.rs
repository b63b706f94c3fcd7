//! A process at its gate, and the socket that it waits on.

use super::failure::Sentence;
use super::reaper::Ended;
use crate::error::{Context, Error, Kind, Result};
use crate::init::Report;
use crate::sys::{socket, wait, Errno};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

/// How long a child that reported a failure may take to be gone.
pub(super) const GONE: Duration = Duration::from_secs(5);

/// A process at its gate. Dropping it closes the gate, and the child exits by itself.
#[derive(Debug)]
pub struct Waiting {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// The master of the terminal that the plan allocated.
    pub console: Option<OwnedFd>,
    gate: OwnedFd,
    /// What the steps after the gate are called; empty for a process that is not of the real launcher.
    later: Vec<Sentence>,
    ended: Option<Arc<Ended>>,
}

impl Waiting {
    /// A process that waits on the other end of `gate`, a SOCK_SEQPACKET pair. It is sent one byte to start;
    /// its end closes when its program runs, or it sends 8 bytes (step and errno, `init::Report`) before it ends.
    /// Where `gate` is dropped instead, it sees the end of the file and ends.
    pub fn new(pid: u32, pidfd: OwnedFd, console: Option<OwnedFd>, gate: OwnedFd) -> Self {
        Waiting { pid, pidfd, console, gate, later: Vec::new(), ended: None }
    }

    pub(super) fn of_plan(mut self, later: Vec<Sentence>, ended: Arc<Ended>) -> Self {
        self.later = later;
        self.ended = Some(ended);
        self
    }

    /// Opens the gate and waits for the execve(2): Ok when the program runs (or was killed on its way there, which
    /// its exit tells), else the step that failed. After a failure the process is gone and its exit has been told,
    /// unless it takes longer than `GONE` to go.
    pub fn start(self) -> Result<OwnedFd> {
        match socket::send(self.gate.as_fd(), &[1], None) {
            Ok(()) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => {
                return Err(Error::new(Kind::State, "the process ended before it was started"));
            }
            Err(errno) => return Err(errno).context(|| "send(gate)"),
        }
        let mut bytes = [0; Report::SIZE];
        match socket::receive(self.gate.as_fd(), &mut bytes) {
            // Closed by the execve(2), or by a kill.
            Ok((0, _)) | Err(Errno::ECONNRESET) => Ok(self.pidfd),
            Ok((Report::SIZE, _)) => {
                let report = Report::from_bytes(bytes);
                self.wait_until_gone();
                let sentence = self.later.iter().find(|sentence| sentence.step == report.step);
                Err(match sentence {
                    Some(sentence) => sentence.error(report.errno),
                    None => Error::system(format!("step {}", u64::from(report.step) + 1), report.errno),
                })
            }
            Ok((length, _)) => {
                Err(Error::new(Kind::Bug, format!("a report of {length} bytes from the gate")))
            }
            Err(errno) => Err(errno).context(|| "recvmsg(gate)"),
        }
    }

    fn wait_until_gone(&self) {
        match &self.ended {
            Some(ended) => drop(ended.wait(GONE)),
            None => {
                // Somebody else's process: it can be signalled until it has been reaped.
                let mut left = 1000;
                while left > 0 && wait::signal(self.pidfd.as_fd(), 0).is_ok() {
                    std::thread::sleep(Duration::from_millis(1));
                    left -= 1;
                }
            }
        }
    }
}

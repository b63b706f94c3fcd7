//! The process that continues in the place of one that has ended: reported by the reaper, from what the board says.

use super::ended::Ended;
use crate::sync::Mutex;
use crate::sys::board::Board;
use crate::sys::fd::OwnedFd;
use crate::tasks::News;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// Its pid, its pidfd (None: it has been reaped), and its end.
type Heir = (u32, Option<OwnedFd>, Arc<Ended>);

#[derive(Debug)]
pub(super) struct Birth {
    pub(super) board: Arc<Board>,
    settled: News<()>,
    heir: Mutex<Option<Heir>>,
    /// Where the one who stood in does not know him.
    named: AtomicU32,
}

impl Birth {
    pub(super) fn new(board: &Arc<Board>) -> Arc<Self> {
        Arc::new(Birth {
            board: Arc::clone(board),
            settled: News::default(),
            heir: Mutex::default(),
            named: AtomicU32::new(0),
        })
    }

    /// A child of the shim's, which goes on when the one who stands in has ended.
    pub(super) fn name(&self, pid: u32) {
        self.named.store(pid, Ordering::SeqCst);
    }

    pub(super) fn born(&self) -> Option<u32> {
        Some(self.named.load(Ordering::SeqCst)).filter(|pid| *pid != 0).or_else(|| self.board.born())
    }

    pub(super) fn settle(&self, heir: Option<Heir>) {
        *self.heir.lock() = heir;
        self.settled.set(());
    }

    /// Returns the new process, once. None: there is none, or the parent has not ended within `limit`.
    pub(super) async fn within(&self, limit: Duration) -> Option<Heir> {
        self.settled.within(limit).await?;
        self.heir.lock().take()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Reaper, Strangers};
    use super::*;
    use crate::error::{Error, Kind};
    use crate::sys::clone::Child;
    use crate::sys::fd::AsFd;
    use crate::sys::wait;
    use crate::tasks::block_on;
    use std::process::Command;
    use std::sync::mpsc::channel;

    #[test]
    fn the_reaper_is_free_when_it_tells_of_a_birth() {
        let reaper = Reaper::start(Strangers::Leave).unwrap();
        let birth = Birth::new(&Arc::new(Board::new().unwrap()));
        let (other, (sender, told)) = (reaper.clone(), channel());
        // What is woken may have to run on this very thread, and launch.
        let launches = move |()| {
            let nothing = || Err(Error::new(Kind::System, "nothing is made"));
            sender.send(other.spawn(nothing, Box::new(|_| {})).is_err()).unwrap();
        };
        let _then = birth.settled.then(Box::new(launches));
        let make = || {
            let pid = Command::new("true").spawn().unwrap().id();
            Ok(Child { pid, pidfd: wait::open_pidfd(pid).unwrap() })
        };
        let _kept = reaper.spawn_parent(make, &birth, Box::new(|_| {})).unwrap();
        assert!(told.recv_timeout(Duration::from_secs(10)).unwrap());
    }

    /// A child that the reaper is not to have seen yet, and one that stands in for another.
    fn sleeper() -> Child {
        let pid = Command::new("sleep").arg("1000").spawn().unwrap().id();
        Child { pid, pidfd: wait::open_pidfd(pid).unwrap() }
    }

    #[test]
    fn the_exit_of_who_stands_in_is_that_of_his_successor_if_there_is_one() {
        let reaper = Reaper::start(Strangers::Leave).unwrap();
        for named in [false, true] {
            let birth = Birth::new(&Arc::new(Board::new().unwrap()));
            let (sender, told) = channel();
            let on_exit =
                Box::new(move |status: crate::launch::ExitStatus| sender.send(status.code).unwrap());
            let stands_in = reaper.spawn_parent(|| Ok(sleeper()), &birth, on_exit).unwrap();
            block_on(stands_in.keep()).unwrap();
            let successor = named.then(sleeper);
            successor.iter().for_each(|child| birth.name(child.pid));
            wait::signal(stands_in.child.pidfd.as_fd(), libc::SIGKILL).unwrap();
            let heir = block_on(birth.within(Duration::from_secs(10)));
            assert_eq!(heir.map(|(pid, ..)| pid), successor.as_ref().map(|child| child.pid));
            if let Some(child) = successor {
                assert!(told.try_recv().is_err(), "it lives");
                wait::signal(child.pidfd.as_fd(), libc::SIGTERM).unwrap();
            }
            let code = 128 + if named { libc::SIGTERM } else { libc::SIGKILL };
            assert_eq!(told.recv_timeout(Duration::from_secs(10)), Ok(code as u32));
        }
    }
}

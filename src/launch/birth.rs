//! The process that continues in the place of one that has ended: reported by the reaper, from what the board says.

use super::ended::Ended;
use crate::sync::Mutex;
use crate::sys::board::Board;
use crate::sys::fd::OwnedFd;
use crate::tasks::News;
use std::sync::Arc;
use std::time::Duration;

/// Its pid, its pidfd (None: it has been reaped), and its end.
type Heir = (u32, Option<OwnedFd>, Arc<Ended>);

pub(super) struct Birth {
    pub(super) board: Arc<Board>,
    settled: News<()>,
    heir: Mutex<Option<Heir>>,
}

impl Birth {
    pub(super) fn new(board: &Arc<Board>) -> Arc<Self> {
        Arc::new(Birth { board: Arc::clone(board), settled: News::default(), heir: Mutex::default() })
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
    use crate::sys::wait;
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
}

//! Who goes on in the stead of a process that has ended: told by the reaper, from what the board says.

use super::reaper::Ended;
use crate::sys::board::Board;
use crate::sys::fd::OwnedFd;
use crate::tasks::News;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A pid, its pidfd (None: it has been reaped), and its end.
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
        *self.heir.lock().unwrap_or_else(PoisonError::into_inner) = heir;
        self.settled.set(());
    }

    /// Who was born, unless he has been asked for. None: nobody was, or the parent has not ended within `limit`.
    pub(super) async fn within(&self, limit: Duration) -> Option<Heir> {
        self.settled.within(limit).await?;
        self.heir.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

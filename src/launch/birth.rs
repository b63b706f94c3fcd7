//! Who goes on in the stead of a process that has ended: told by the reaper, from what the board says.

use super::reaper::Ended;
use crate::sys::board::Board;
use crate::sys::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// A pid, its pidfd (None: it has been reaped), and its end.
type Heir = (u32, Option<OwnedFd>, Arc<Ended>);

pub(super) struct Birth {
    pub(super) board: Arc<Board>,
    state: Mutex<State>,
    settled: Condvar,
}

enum State {
    Expected,
    Settled(Option<Heir>),
}

impl Birth {
    pub(super) fn new(board: &Arc<Board>) -> Arc<Self> {
        let (board, state) = (Arc::clone(board), Mutex::new(State::Expected));
        Arc::new(Birth { board, state, settled: Condvar::new() })
    }

    pub(super) fn settle(&self, heir: Option<Heir>) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Settled(heir);
        self.settled.notify_all();
    }

    /// Who was born, unless he has been asked for. None: nobody was, or the parent has not ended within `limit`.
    pub(super) fn wait(&self, limit: Duration) -> Option<Heir> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = |state: &mut State| matches!(state, State::Expected);
        let waited = self.settled.wait_timeout_while(state, limit, expected);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        match &mut *state {
            State::Settled(heir) => heir.take(),
            State::Expected => None,
        }
    }
}

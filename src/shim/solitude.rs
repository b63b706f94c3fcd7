//! Ends a shim that nobody needs any more: its client died between two requests, or has forgotten it.

use crate::sandbox::{Left, Sandbox};
use crate::service::server::Look;
use crate::sync::Mutex;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long there must be no peer, no container and no bundle: a restarting client is back within this time.
const ALONE: Duration = Duration::from_secs(10);
/// How long a pod that was never started may take to end.
const SHUTDOWN: Duration = Duration::from_secs(10);

pub(super) struct Solitude {
    pub sandbox: Arc<Sandbox>,
    /// The directory in which the shim was launched, which containerd removes.
    pub bundle: PathBuf,
    pub end: Arc<dyn Fn() + Send + Sync>,
    pub since: Mutex<Option<Instant>>,
}

impl Solitude {
    /// Called after each request and at the time it returns; `peers` tells whether anybody is connected.
    pub fn look(&self, peers: bool) -> Look {
        let mut since = self.since.lock();
        let now = Instant::now();
        match self.sandbox.left() {
            Left::Nothing if !peers => {
                let end = *since.get_or_insert(now) + ALONE;
                if now < end {
                    return Look { again: Some(end), rest: None };
                }
                // From now on every create fails, including one that is already queued.
                if !self.bundle.exists() && self.sandbox.shutdown() {
                    log::info!("exiting: nothing left to serve, and the bundle is gone");
                    (self.end)();
                    return Look::default();
                }
                *since = Some(now);
                Look { again: Some(now + ALONE), rest: None }
            }
            Left::Unstarted(id, age) => {
                let limit = self.sandbox.unstarted_limit();
                match limit.checked_sub(age).filter(|left| !left.is_zero()) {
                    Some(left) => Look { again: now.checked_add(left), rest: None },
                    None => self.end_unstarted(id, limit),
                }
            }
            _ => {
                *since = None;
                Look::default()
            }
        }
    }

    fn end_unstarted(&self, id: String, limit: Duration) -> Look {
        let (sandbox, end) = (Arc::clone(&self.sandbox), Arc::clone(&self.end));
        let rest = async move {
            // It may have been started by now.
            if !matches!(sandbox.left(), Left::Unstarted(..)) {
                return;
            }
            log::warn!(sandbox = id.as_str(); "shutting down: the sandbox was not started within {limit:?}");
            match sandbox.shutdown_pod(&id, SHUTDOWN).await {
                Ok(()) => end(),
                Err(e) => log::warn!("{e}"),
            }
        };
        // By then it is being stopped, or cannot be stopped.
        Look { again: Some(Instant::now() + SHUTDOWN), rest: Some(Box::pin(rest)) }
    }
}

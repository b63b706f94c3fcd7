//! Whether there is anything that somebody could still ask for.

use super::{PodSlot, Sandbox};
use std::time::Duration;

/// What the shim is there for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Something,
    /// No container, no pod, and nothing is being made.
    Nothing,
    /// A pod that was created so long ago and has not been started; nothing else.
    Unstarted(String, Duration),
}

impl Sandbox {
    pub(crate) fn left(&self) -> Left {
        let containers = self.lock();
        match &containers.pod {
            _ if !containers.known.is_empty() => Left::Something,
            PodSlot::None => Left::Nothing,
            PodSlot::Taken(..) => Left::Something,
            // A clock that was set back says nothing.
            PodSlot::Here(pod) if pod.is_unstarted() => {
                Left::Unstarted(pod.id.clone(), pod.created_at.elapsed().unwrap_or_default())
            }
            PodSlot::Here(_) => Left::Something,
        }
    }

    /// How long a pod may be there without being started.
    pub(crate) fn unstarted_limit(&self) -> Duration {
        self.world.settings_or_default().unstarted_timeout
    }
}

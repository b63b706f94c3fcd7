//! Whether the shim still has anything to serve.

use super::{PodSlot, Sandbox};
use std::time::Duration;

/// What the shim still has to serve.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Something,
    /// No container, no pod, and no create in progress.
    Nothing,
    /// Only a pod that was created this long ago and never started.
    Unstarted(String, Duration),
}

impl Sandbox {
    pub(crate) fn left(&self) -> Left {
        let containers = self.lock();
        match &containers.pod {
            _ if !containers.known.is_empty() => Left::Something,
            PodSlot::None => Left::Nothing,
            PodSlot::Taken(..) => Left::Something,
            // A clock that was set back yields no age.
            PodSlot::Here(pod) if pod.is_unstarted() => {
                Left::Unstarted(pod.id.clone(), pod.created_at.elapsed().unwrap_or_default())
            }
            PodSlot::Here(_) => Left::Something,
        }
    }

    /// How long a pod may exist without being started.
    pub(crate) fn unstarted_limit(&self) -> Duration {
        self.world.settings_or_default().unstarted_timeout
    }
}

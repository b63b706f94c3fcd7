//! The shim's pod, as requested by both of its services: containerd's Sandbox and the Controller.

pub(super) mod config;
pub(super) mod status;

use super::convert;
use super::reply::Reply;
use crate::error::{invalid, Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::sandbox::{PodCreate, Sandbox};
use containerd_shim_protos::types::mount::Mount;
use protobuf::well_known_types::any::Any;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time limit of a stop that specifies none.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Ends the shim; called once the response is sent.
pub(super) type End = Arc<dyn Fn() + Send + Sync>;

#[derive(Clone)]
pub(super) struct Pod {
    pub(super) sandbox: Arc<Sandbox>,
    /// The shim's own id, which is also that of the only pod it may have.
    pub(super) id: String,
    /// The directory in which the shim was launched.
    pub(super) bundle: PathBuf,
    pub(super) end: End,
}

/// The common part of CreateSandbox and Controller.Start.
pub(super) struct Wanted {
    pub(super) id: String,
    pub(super) rootfs: Vec<Mount>,
    pub(super) options: Option<Any>,
    /// Empty means the shim's own.
    pub(super) bundle: String,
    pub(super) netns: String,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) deadline: Option<Instant>,
}

/// The time limit of a stop; 0 means the default.
pub(super) fn limit(seconds: u32) -> Duration {
    match seconds {
        0 => TIMEOUT,
        seconds => Duration::from_secs(seconds.into()),
    }
}

impl Pod {
    pub(super) async fn create(&self, wanted: Wanted) -> Result<()> {
        if wanted.id != self.id {
            return Err(invalid(format!("sandbox_id {:?}: this shim is that of {:?}", wanted.id, self.id)));
        }
        let id = convert::id("sandbox_id", wanted.id)?;
        let bundle = match wanted.bundle.as_str() {
            "" => self.bundle.clone(),
            path => absolute("bundle_path", path)?,
        };
        let netns = match wanted.netns.as_str() {
            "" => None,
            path => Some(absolute("netns_path", path)?),
        };
        let config = config::from_any(wanted.options.as_ref())?;
        if let Some(config) = &config {
            config::agrees(config, netns.as_deref())?;
        }
        if !wanted.rootfs.is_empty() {
            log::warn!(sandbox = id; "ignored rootfs: the pod has no container of its own");
        }
        let create = PodCreate {
            id,
            bundle,
            config,
            netns,
            annotations: wanted.annotations,
            deadline: wanted.deadline,
        };
        self.sandbox.create_pod(create).await
    }

    /// Validates the id of a call that does not need the pod to exist.
    pub(super) fn known(&self, id: &str) -> Result<()> {
        if id == self.id {
            Ok(())
        } else {
            Err(Error::new(Kind::NotFound, format!("sandbox {id}: this shim is that of {}", self.id)))
        }
    }

    /// Blocks no thread: the thread that handles the pod's exit responds.
    pub(super) fn wait(&self, id: &str, reply: Reply, encode: fn(ExitStatus) -> Result<Vec<u8>>) {
        let Some(later) = reply.later().map(Arc::new) else { return };
        let waiter = later.clone();
        let known = self.sandbox.on_pod_exit(id, Box::new(move |exit| waiter.send(encode(exit))));
        match known {
            Ok(waits) => later.keep(waits),
            Err(e) => later.send(Err(e)),
        }
    }
}

fn absolute(field: &str, path: &str) -> Result<PathBuf> {
    if path.starts_with('/') && !path.contains('\0') {
        Ok(path.into())
    } else {
        Err(invalid(format!("{field}: {path:?} is not an absolute path")))
    }
}

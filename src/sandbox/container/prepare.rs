//! What every launch of a container needs before its plan.

use crate::error::{Context, Result};
use crate::sandbox::request::Options;
use crate::seccomp::{Cache, Compiled};
use crate::spec::Spec;
use std::path::Path;

pub(super) fn read_spec(bundle: &Path) -> Result<Spec> {
    let path = bundle.join(crate::spec::CONFIG);
    let json = std::fs::read(&path).context(|| format!("read({path:?})"))?;
    Spec::parse(&json)
}

/// The spec's seccomp profile, compiled; what is worth a warning is logged with the container's create only.
pub(super) fn filter(filters: &Cache, spec: &Spec) -> Result<Option<Compiled>> {
    spec.seccomp.as_ref().map(|profile| filters.compile(profile)).transpose()
}

pub(super) fn io_owner(options: &Options) -> (u32, u32) {
    (options.io_uid, options.io_gid)
}

pub(super) fn warn(id: &str, warnings: &[String]) {
    for warning in warnings {
        log::warn!(id = id; "{warning}");
    }
}

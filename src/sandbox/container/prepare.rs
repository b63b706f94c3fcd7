//! What every launch in a container needs before its plan.

use crate::error::Result;
use crate::paths::Paths;
use crate::sandbox::request::Options;
use crate::seccomp::{Cache, Compiled};
use crate::spec::{Spec, CONFIG, CONFIG_MAX};
use std::path::Path;
use std::time::Instant;

pub(super) async fn read_spec(paths: &Paths, bundle: &Path, deadline: Instant) -> Result<Spec> {
    Spec::parse(&paths.read(&bundle.join(CONFIG), CONFIG_MAX, deadline).await?)
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
        log::warn!(container = id; "{warning}");
    }
}

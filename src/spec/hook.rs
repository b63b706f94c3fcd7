//! `hooks`: programs of the host that run at six points of a container's life (config.md, "POSIX-platform Hooks").

use crate::error::{invalid, Result};
use oci_spec::runtime as oci;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Absolute.
    pub path: PathBuf,
    /// Includes `argv[0]`; empty if the spec has none.
    pub args: Vec<String>,
    /// Empty if the spec has none.
    pub env: Vec<String>,
    pub timeout: Option<Duration>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    pub prestart: Vec<Hook>,
    pub create_runtime: Vec<Hook>,
    pub create_container: Vec<Hook>,
    pub start_container: Vec<Hook>,
    pub poststart: Vec<Hook>,
    pub poststop: Vec<Hook>,
}

impl Hooks {
    pub(super) fn check(raw: oci::Hooks) -> Result<Self> {
        #[allow(deprecated)]
        let prestart = raw.prestart();
        Ok(Hooks {
            prestart: list("prestart", prestart)?,
            create_runtime: list("createRuntime", raw.create_runtime())?,
            create_container: list("createContainer", raw.create_container())?,
            start_container: list("startContainer", raw.start_container())?,
            poststart: list("poststart", raw.poststart())?,
            poststop: list("poststop", raw.poststop())?,
        })
    }

    /// Whether there are hooks that run while the container's process waits in its namespaces, before its root becomes
    /// `/`.
    pub(crate) fn of_create(&self) -> bool {
        !(self.prestart.is_empty() && self.create_runtime.is_empty() && self.create_container.is_empty())
    }
}

fn list(kind: &str, hooks: &Option<Vec<oci::Hook>>) -> Result<Vec<Hook>> {
    hooks
        .iter()
        .flatten()
        .enumerate()
        .map(|(i, hook)| {
            let field = |name: &str| format!("hooks.{kind}[{i}].{name}");
            if !hook.path().is_absolute() {
                return Err(invalid(format!("{}: {:?} is not absolute", field("path"), hook.path())));
            }
            let timeout = match hook.timeout() {
                None => None,
                Some(seconds @ 1..) => Some(Duration::from_secs(seconds.unsigned_abs())),
                Some(seconds) => {
                    return Err(invalid(format!("{}: {seconds} is not greater than zero", field("timeout"))));
                }
            };
            Ok(Hook {
                path: hook.path().clone(),
                args: hook.args().clone().unwrap_or_default(),
                env: hook.env().clone().unwrap_or_default(),
                timeout,
            })
        })
        .collect()
}

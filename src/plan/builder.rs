//! A plan while it grows.

use super::{Field, Open, Plan, RootPath, Slot, Step};
use crate::error::{invalid, Error, Kind, Result};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

#[derive(Default)]
pub(super) struct Builder {
    pub plan: Plan,
}

impl Builder {
    pub fn step(&mut self, field: impl Into<Field>, step: Step) {
        self.plan.steps.push((step, field.into()));
    }

    pub fn open(&mut self, field: impl Into<Field>, open: Open) -> Result<Slot> {
        let field = field.into();
        let slot = u16::try_from(self.plan.opens.len())
            .map_err(|_| Error::new(Kind::Invalid, format!("{field}: more than 65535 things to open")))?;
        self.plan.opens.push((open, field));
        Ok(Slot(slot))
    }

    pub fn warn(&mut self, what: impl Into<String>) {
        self.plan.warnings.push(what.into());
    }
}

/// A path of the container; the spec's check has no NUL left in it.
pub(super) fn root_path(field: &str, path: &str) -> Result<RootPath> {
    RootPath::new(path).ok_or_else(|| invalid(format!("{field}: a NUL byte in {path:?}")))
}

/// A path of the host, for the kernel.
pub(super) fn host_path(field: &str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| invalid(format!("{field}: a NUL byte in {path:?}")))
}

/// Without `.` and doubled slashes, so that two spellings of one path compare equal. `..` stays: what it means
/// depends on links.
pub(super) fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}

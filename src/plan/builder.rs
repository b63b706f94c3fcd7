//! A plan while it grows.

use super::step::Mappings;
use super::{Field, Open, Plan, RootPath, Slot, Step};
use crate::error::{invalid, Error, Kind, Result};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// A joined pid namespace.
#[derive(Clone, Copy)]
pub(super) struct Pids {
    pub slot: Slot,
    /// Its setns(2) is still to come.
    pub later: bool,
}

#[derive(Default)]
pub(super) struct Builder {
    pub plan: Plan,
    /// The container's user namespace, new or joined.
    pub user: Option<Slot>,
    /// The network namespace that is joined, where it is open before the others.
    pub network: Option<Slot>,
    /// A pid namespace that others are in already: what is born there is seen by them.
    pub pids: Option<Pids>,
    /// The container's root, as a path of the host.
    pub root: PathBuf,
    /// How many slots the steps fill so far.
    opened: u16,
    /// Where the next bind source is opened, among the steps so far.
    sources: usize,
}

impl Builder {
    pub fn step(&mut self, field: impl Into<Field>, step: Step) {
        self.plan.steps.push((step, field.into()));
    }

    /// Lent by the shim.
    pub fn open(&mut self, field: impl Into<Field>, open: Open) -> Result<Slot> {
        let field = field.into();
        let slot = u16::try_from(self.plan.opens.len()).map_err(|_| too_many(&field))?;
        self.plan.opens.push((open, field));
        Ok(Slot::Lent(slot))
    }

    /// For a step that opens something.
    pub fn slot(&mut self, field: &str) -> Result<Slot> {
        let slot = self.opened;
        self.opened = slot.checked_add(1).ok_or_else(|| too_many(field))?;
        Ok(Slot::Opened(slot))
    }

    /// Sources of binds are opened here, as the host has them: before anything of the container is mounted.
    pub fn sources_here(&mut self) {
        self.sources = self.plan.steps.len();
    }

    /// Among the sources.
    pub fn source(&mut self, field: impl Into<Field>, step: Step) {
        self.plan.steps.insert(self.sources, (step, field.into()));
        self.sources += 1;
    }

    /// A user namespace with these maps: one for all who want the same.
    pub fn user_namespace(&mut self, field: impl Into<Field>, mappings: &Mappings) -> Result<Slot> {
        let known =
            |(open, _): &(Open, Field)| matches!(open, Open::UserNamespace(known) if known == mappings);
        match self.plan.opens.iter().position(known).and_then(|at| u16::try_from(at).ok()) {
            Some(slot) => Ok(Slot::Lent(slot)),
            None => self.open(field, Open::UserNamespace(mappings.clone())),
        }
    }

    pub fn warn(&mut self, what: impl Into<String>) {
        self.plan.warnings.push(what.into());
    }
}

fn too_many(field: &str) -> Error {
    Error::new(Kind::Invalid, format!("{field}: more than 65535 things to open"))
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

//! A plan under construction.

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
    /// Its setns(2) has not happened yet.
    pub later: bool,
}

#[derive(Default)]
pub(super) struct Builder {
    pub plan: Plan,
    /// The container's user namespace, new or joined.
    pub user: Option<Slot>,
    /// The network namespace to join, if it is opened before the others.
    pub network: Option<Slot>,
    /// A joined pid namespace: its other members see every process born there.
    pub pids: Option<Pids>,
    /// The container's root, as a path of the host.
    pub root: PathBuf,
    /// The number of slots that the steps fill so far.
    opened: u16,
    /// The index among the steps at which the next bind source is opened.
    sources: usize,
}

impl Builder {
    pub fn step(&mut self, field: impl Into<Field>, step: Step) {
        self.plan.steps.push((step, field.into()));
    }

    /// Adds something that the shim lends to the child.
    pub fn open(&mut self, field: impl Into<Field>, open: Open) -> Result<Slot> {
        let field = field.into();
        let slot = u16::try_from(self.plan.opens.len()).map_err(|_| too_many(&field))?;
        self.plan.opens.push((open, field));
        Ok(Slot::Lent(slot))
    }

    /// Allocates a slot for a step that opens something.
    pub fn slot(&mut self, field: &str) -> Result<Slot> {
        let slot = self.opened;
        self.opened = slot.checked_add(1).ok_or_else(|| too_many(field))?;
        Ok(Slot::Opened(slot))
    }

    /// Opens bind sources at this point, as the host has them: before anything of the container is mounted.
    pub fn sources_here(&mut self) {
        self.sources = self.plan.steps.len();
    }

    /// Adds a step among those that open bind sources.
    pub fn source(&mut self, field: impl Into<Field>, step: Step) {
        self.plan.steps.insert(self.sources, (step, field.into()));
        self.sources += 1;
    }

    /// Returns a user namespace with these maps; requests for the same maps share one.
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

/// Converts a path in the container; `spec` has already rejected NUL bytes.
pub(super) fn root_path(field: &str, path: &str) -> Result<RootPath> {
    RootPath::new(path).ok_or_else(|| invalid(format!("{field}: a NUL byte in {path:?}")))
}

/// Converts a path on the host for the kernel.
pub(super) fn host_path(field: &str, path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| invalid(format!("{field}: a NUL byte in {path:?}")))
}

/// Removes `.` and doubled slashes, so that two spellings of one path compare equal. `..` stays: its meaning depends on
/// symlinks.
pub(super) fn tidy(path: &Path) -> PathBuf {
    path.components().filter(|c| *c != Component::CurDir).collect()
}

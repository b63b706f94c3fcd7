//! State that one step leaves for a later one.

use super::home::Home;
use crate::sys::child::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::child::walk::{Missing, PathBuffer};
use crate::sys::child::{root, Errno, Forked, Result};
use ::core::ffi::CStr;
use ::core::prelude::rust_2021::*;
use ::libc;

/// The mounts that hide paths: our own objects, never the container's (CVE-2025-31133). Each is attached at the first
/// path that it masks, and copied for the others.
#[derive(Default)]
pub(super) struct Covers {
    pub(super) file: Option<OwnedFd>,
    pub(super) directory: Option<OwnedFd>,
}

pub(super) struct State<'a> {
    pub(super) forked: Forked,
    root: Option<OwnedFd>,
    /// The path by which it was opened, in the mount namespace.
    pub(super) root_path: Option<&'a CStr>,
    /// The parent directory of the last node or symlink created, with its path: usually `dev`, for a dozen of them.
    parent: Option<(&'a [u8], OwnedFd)>,
    pub(super) procfs: Option<OwnedFd>,
    /// The container's side of its terminal.
    pub(super) terminal: Option<OwnedFd>,
    pub(super) covers: Covers,
    pub(super) label: Option<OwnedFd>,
    /// For the labels of keys.
    pub(super) key_label: Option<OwnedFd>,
    pub(super) home: Option<Home>,
    /// The working directory has been entered.
    pub(super) in_workdir: bool,
    pub(super) program: Option<&'a CStr>,
}

impl<'a> State<'a> {
    pub(super) fn new(forked: Forked) -> Self {
        State {
            forked,
            root: None,
            root_path: None,
            parent: None,
            procfs: None,
            terminal: None,
            covers: Covers::default(),
            label: None,
            key_label: None,
            home: None,
            in_workdir: false,
            program: None,
        }
    }

    pub(super) fn set_root(&mut self, root: OwnedFd) {
        self.root = Some(root);
    }

    /// Returns the parent directory of `path` (created if missing), and its last component.
    pub(super) fn parent(&mut self, path: &'a CStr) -> Result<(BorrowedFd<'_>, &'a CStr)> {
        let (above, name) = root::split(path).ok_or(Errno::EINVAL)?;
        if self.parent.as_ref().is_none_or(|(known, _)| *known != above) {
            let buffer = PathBuffer::new(above)?;
            let directory = Missing::Directory(0o755);
            let directory = root::open_or_create(self.root()?, buffer.as_c_str(), directory)?;
            self.parent = Some((above, directory));
        }
        self.parent.as_ref().map(|(_, directory)| (directory.as_fd(), name)).ok_or(Errno::EBADF)
    }

    /// Another mount or file may be at that path now.
    pub(super) fn forget_parent(&mut self) {
        self.parent = None;
    }

    /// The container's root. An exec opens none: after it joins the mount namespace, its root is `/`.
    pub(super) fn root(&mut self) -> Result<BorrowedFd<'_>> {
        if self.root.is_none() {
            self.root = Some(fd::open(c"/", libc::O_PATH | libc::O_DIRECTORY, 0)?);
        }
        self.root.as_ref().map(|root| root.as_fd()).ok_or(Errno::EBADF)
    }
}

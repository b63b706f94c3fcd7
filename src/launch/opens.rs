//! What a plan lets the shim open before the clone.

use super::failure::not_opened;
use super::{mapping, Reaper};
use crate::error::{invalid, Context, Error, Kind, Result};
use crate::plan::{Field, Idmapped, Open};
use crate::sys::fd::{self, AsFd, BorrowedFd, OwnedFd};
use crate::sys::{loop_device, mount, namespace, Errno};
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// A descriptor to lend.
pub(super) struct Lending {
    pub(super) fd: OwnedFd,
    pub(super) directory: bool,
}

pub(super) fn all(
    opens: &[(Open, Field)],
    init: Option<BorrowedFd<'_>>,
    reaper: &Reaper,
) -> Result<Vec<Lending>> {
    let mut opened = Vec::with_capacity(opens.len());
    for (open, field) in opens {
        let lending = one(open, field, init, reaper, &opened)?;
        opened.push(lending);
    }
    Ok(opened)
}

/// `before`: what has been opened so far.
fn one(
    open: &Open,
    field: &Field,
    init: Option<BorrowedFd<'_>>,
    reaper: &Reaper,
    before: &[Lending],
) -> Result<Lending> {
    let (opened, directory) = match open {
        Open::Tree { path, recursive, idmap } => {
            let name = c_path(path, field)?;
            let tree = not_opened(mount::clone_tree(&name, *recursive), field, path)?;
            if let Some(Idmapped { namespace, recursive }) = idmap {
                let namespace = before.get(usize::from(namespace.0));
                let namespace =
                    namespace.ok_or_else(|| Error::new(Kind::Bug, "a slot that the plan has not"))?;
                mount::map_ids(tree.as_fd(), namespace.fd.as_fd(), *recursive)
                    .context(|| format!("{field} {path:?}: mount_setattr(MOUNT_ATTR_IDMAP)"))?;
            }
            let stat = not_opened(fd::stat(tree.as_fd()), field, path)?;
            (tree, stat.is_directory())
        }
        Open::Device { path, kind, major, minor } => {
            let name = c_path(path, field)?;
            let node = not_opened(mount::clone_tree(&name, false), field, path)?;
            let stat = not_opened(fd::stat(node.as_fd()), field, path)?;
            if stat.kind() != *kind || stat.device != libc::makedev(*major, *minor) {
                return Err(invalid(format!("{field} {path:?}: the host has another device there")));
            }
            (node, false)
        }
        Open::UserNamespace(mappings) => (mapping::namespace(reaper, mappings, field)?, false),
        Open::Namespace { path, kind, apart } => {
            let name = c_path(path, field)?;
            let file = not_opened(fd::open(&name, libc::O_RDONLY, 0), field, path)?;
            check_namespace(file.as_fd(), *kind, field, path)?;
            if let Some(changes) = apart {
                refuse_own(file.as_fd(), *kind, changes, field, path)?;
            }
            (file, false)
        }
        Open::Loop { path, readonly, direct } => {
            let name = c_path(path, field)?;
            let options = loop_device::Options { readonly: *readonly, direct: *direct };
            let access = if *readonly { libc::O_RDONLY } else { libc::O_RDWR };
            let device = |number| {
                // A number has no NUL.
                let path = CString::new(format!("/dev/loop{number}")).unwrap_or_default();
                fd::open(&path, access, 0)
            };
            (not_opened(loop_device::open(&name, options, device), field, path)?, false)
        }
        Open::Init => {
            let init =
                init.ok_or_else(|| Error::new(Kind::Bug, "the plan needs the container's first process"))?;
            (init.try_clone_to_owned().context(|| "dup(pidfd)")?, false)
        }
    };
    let fd = fd::above_standard(opened).context(|| "fcntl(F_DUPFD_CLOEXEC)")?;
    Ok(Lending { fd, directory })
}

fn c_path(path: &Path, field: &Field) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| invalid(format!("{field} {path:?}: a NUL in a path")))
}

/// A path in a spec may lead to any file: only a namespace of the right kind is joined.
fn check_namespace(file: BorrowedFd<'_>, kind: u64, field: &Field, path: &Path) -> Result<()> {
    let on_nsfs = fd::filesystem(file).is_ok_and(|magic| magic == namespace::NSFS_MAGIC);
    let found = if on_nsfs { namespace::kind(file) } else { Err(Errno::ENOTTY) };
    match found {
        Ok(found) if found == kind => Ok(()),
        Ok(_) => Err(invalid(format!("{field} {path:?}: a namespace of another kind"))),
        Err(_) => Err(invalid(format!("{field} {path:?}: not a namespace"))),
    }
}

/// A path can lead to the shim's own namespace, or to that of the host's first process: what the container does
/// would be done to the host.
fn refuse_own(file: BorrowedFd<'_>, kind: u64, changes: &str, field: &Field, path: &Path) -> Result<()> {
    let [own, first] = match i32::try_from(kind) {
        Ok(libc::CLONE_NEWNS) => [c"/proc/self/ns/mnt", c"/proc/1/ns/mnt"],
        Ok(libc::CLONE_NEWNET) => [c"/proc/self/ns/net", c"/proc/1/ns/net"],
        Ok(libc::CLONE_NEWIPC) => [c"/proc/self/ns/ipc", c"/proc/1/ns/ipc"],
        Ok(libc::CLONE_NEWUTS) => [c"/proc/self/ns/uts", c"/proc/1/ns/uts"],
        Ok(libc::CLONE_NEWUSER) => [c"/proc/self/ns/user", c"/proc/1/ns/user"],
        _ => return Err(Error::new(Kind::Bug, format!("{field}: a namespace that nothing changes"))),
    };
    let inode = |file: BorrowedFd<'_>| fd::stat(file).map(|stat| stat.inode);
    let inode_of = |name| fd::open(name, libc::O_RDONLY, 0).and_then(|file| inode(file.as_fd()));
    let found = inode(file).context(|| format!("fstat({path:?})"))?;
    // The first process may be out of sight; the own namespace must not be.
    if inode_of(own).context(|| format!("{own:?}"))? == found || inode_of(first) == Ok(found) {
        let why = match kind == libc::CLONE_NEWUSER as u64 {
            true => "is no user namespace for a container".to_owned(),
            false => format!("{changes} would change"),
        };
        return Err(invalid(format!("{field} {path:?}: the host's, which {why}")));
    }
    Ok(())
}

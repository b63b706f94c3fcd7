//! Walks everything below a cgroup, however deep: a container with write access to its own can nest them beyond what a
//! stack, a path or a descriptor table holds.
//!
//! The way back is therefore a list, and only one descriptor is open at a time: down by a name, up by `..`.

use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::dir::Dir;
use crate::error::Result;

/// A cgroup on the path from the top to the current one.
struct Passed {
    name: CString,
    /// The children still to visit.
    left: Vec<CString>,
}

/// Calls `visit` for `top` and for each cgroup below it, parents first. Cgroups that disappear meanwhile are skipped.
pub(super) fn each(top: &Dir, visit: impl FnMut(&Dir) -> Result<()>) -> Result<()> {
    walk(top, visit, |_, _| Ok(()))
}

/// Removes each cgroup below `top`, the deepest first.
pub(super) fn remove_below(top: &Dir) -> Result<()> {
    walk(top, |_| Ok(()), |above, name| above.remove_child(name))
}

fn walk(
    top: &Dir,
    mut visit: impl FnMut(&Dir) -> Result<()>,
    mut leave: impl FnMut(&Dir, &CStr) -> Result<()>,
) -> Result<()> {
    visit(top)?;
    let mut way = vec![Passed { name: CString::default(), left: top.children()? }];
    // None: at the top.
    let mut below: Option<Dir> = None;
    while let Some(passed) = way.last_mut() {
        let here = below.as_ref().unwrap_or(top);
        if let Some(name) = passed.left.pop() {
            let path = shown(top, way.len(), &name);
            if let Some(child) = here.child(&name, path)? {
                visit(&child)?;
                way.push(Passed { name, left: child.children()? });
                below = Some(child);
            }
            continue;
        }
        let Some(done) = way.pop() else { break };
        below = match way.last() {
            None => break,
            Some(_) if way.len() == 1 => None,
            Some(passed) => Some(here.above(shown(top, way.len() - 1, &passed.name))?),
        };
        leave(below.as_ref().unwrap_or(top), &done.name)?;
    }
    Ok(())
}

/// The name of a cgroup in errors, `depth` levels below: its whole path may be megabytes long.
fn shown(top: &Dir, depth: usize, name: &CStr) -> PathBuf {
    let name = OsStr::from_bytes(name.to_bytes());
    match depth {
        1 => top.path().join(name),
        _ => top.path().join("\u{2026}").join(name),
    }
}

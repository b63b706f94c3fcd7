//! `linux.cgroupsPath`: a path below each hierarchy, or `slice:prefix:name` for systemd.

use std::path::PathBuf;

use super::layout::Hierarchy;
use crate::error::{invalid, Result};

/// A unit's name, its slice, and the path at which systemd puts it (systemd.slice(5): `a-b.slice` is in `a.slice`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    pub slice: String,
    pub name: String,
    pub path: PathBuf,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CgroupsPath {
    /// Below each hierarchy's mount point.
    Absolute(PathBuf),
    /// Below the shim's own cgroup.
    Relative(PathBuf),
    Systemd(Unit),
}

impl CgroupsPath {
    /// `systemd` is the option `SystemdCgroup`; without it the form decides, since not every client can pass options to
    /// a runtime. With systemd, an empty `text` means a scope named after `id`; without, the caller has a default.
    pub fn parse(text: &str, systemd: bool, id: &str) -> Result<CgroupsPath> {
        let wrong = |what: &str| Err(invalid(format!("linux.cgroupsPath: {text:?} {what}")));
        if text.contains('\0') {
            return wrong("has a NUL in it");
        }
        let parts: Vec<&str> = text.split(':').collect();
        if let (Some([slice, prefix, name]), false) = (parts.first_chunk(), text.contains('/'))
            && parts.len() == 3
            && (systemd || slice.is_empty() || slice.ends_with(".slice"))
        {
            return unit(slice, prefix, name)
                .map_or_else(|| wrong("names no slice or no unit"), |unit| Ok(CgroupsPath::Systemd(unit)));
        }
        if systemd && text.is_empty() {
            return match unit("", "shoal", id) {
                Some(unit) => Ok(CgroupsPath::Systemd(unit)),
                None => wrong("and the container's id make no unit name"),
            };
        }
        if systemd {
            return wrong("is not of the form slice:prefix:name, which the systemd driver needs");
        }
        let path = normal(text);
        if path.as_os_str().is_empty() {
            return wrong("is the root of the hierarchy");
        }
        if text.starts_with('/') {
            Ok(CgroupsPath::Absolute(path))
        } else {
            Ok(CgroupsPath::Relative(path))
        }
    }

    /// The path below the mount point of `hierarchy`.
    pub(super) fn below(&self, hierarchy: &Hierarchy) -> PathBuf {
        match self {
            CgroupsPath::Absolute(path) => path.clone(),
            CgroupsPath::Systemd(unit) => unit.path.clone(),
            // A v2 cgroup with processes cannot enable controllers for its children, so it becomes a sibling.
            CgroupsPath::Relative(path) if hierarchy.is_unified() => {
                let own = normal(&hierarchy.own);
                own.parent().unwrap_or(&own).join(path)
            }
            CgroupsPath::Relative(path) => normal(&hierarchy.own).join(path),
        }
    }
}

/// Makes a path relative, without `.`, and with `..` clamped at the top.
fn normal(text: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.pop();
            }
            part => path.push(part),
        }
    }
    path
}

fn unit(slice: &str, prefix: &str, name: &str) -> Option<Unit> {
    let slice = if slice.is_empty() { "system.slice" } else { slice };
    // Processes live in scopes; a slice contains none itself.
    if name.is_empty() || name.ends_with(".slice") {
        return None;
    }
    let name = match prefix {
        "" => format!("{name}.scope"),
        prefix => format!("{prefix}-{name}.scope"),
    };
    // systemd.unit(5): only these characters, at most 255 of them.
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    if !name.chars().all(allowed) || name.len() > 255 {
        return None;
    }
    let path = expand(slice)?.join(&name);
    Some(Unit { slice: slice.to_owned(), name, path })
}

/// `a-b.slice` is `a.slice/a-b.slice`; `-.slice` is the root.
pub(super) fn expand(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    let mut path = PathBuf::new();
    let mut prefix = String::new();
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        if !prefix.is_empty() {
            prefix.push('-');
        }
        prefix.push_str(part);
        path.push(format!("{prefix}.slice"));
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn hierarchy(names: &[&str], own: &str) -> Hierarchy {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        Hierarchy { mount: "/m".into(), names, own: own.into() }
    }

    #[test]
    fn a_path_cannot_leave_the_hierarchy() {
        let path = CgroupsPath::parse("/../a/./../b//c", false, "c1").unwrap();
        assert_eq!(path, CgroupsPath::Absolute("b/c".into()));
        let path = CgroupsPath::parse("../../x", false, "c1").unwrap();
        assert_eq!(path.below(&hierarchy(&["memory"], "own")), Path::new("own/x"));
        assert_eq!(path.below(&hierarchy(&[], "a/own")), Path::new("a/x"));
        assert!(CgroupsPath::parse("/..", false, "c1").is_err());
    }

    #[track_caller]
    fn systemd(text: &str, option: bool) -> Unit {
        match CgroupsPath::parse(text, option, "c1").unwrap() {
            CgroupsPath::Systemd(unit) => unit,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn slices_are_nested_by_their_dashes() {
        let unit = systemd("kubepods-besteffort-pod1.slice:cri-containerd:c1", false);
        assert_eq!(unit.name, "cri-containerd-c1.scope");
        let path =
            "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1.slice/cri-containerd-c1.scope";
        assert_eq!(unit.path, Path::new(path));
        assert_eq!(systemd("-.slice:p:n", false).path, Path::new("p-n.scope"));
        assert_eq!(systemd(":docker:n", false).path, Path::new("system.slice/docker-n.scope"));
        assert_eq!(systemd("", true).path, Path::new("system.slice/shoal-c1.scope"));
    }

    #[test]
    fn the_form_decides_unless_the_option_does() {
        assert_eq!(
            CgroupsPath::parse("/a.slice:b:c", false, "c1").unwrap(),
            CgroupsPath::Absolute("a.slice:b:c".into())
        );
        for (text, option) in [
            ("/default/c1", true),
            ("a--b.slice:p:n", false),
            ("x.slice:p:n m", true),
            ("x.slice:p:n.slice", true),
            ("a:b:c", true),
        ] {
            let error = CgroupsPath::parse(text, option, "c1").expect_err(text);
            assert!(error.to_string().starts_with("linux.cgroupsPath"), "{error}");
        }
    }
}

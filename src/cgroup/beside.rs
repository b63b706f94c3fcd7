//! Finds the cgroup that a process is in, so that another one can be placed beside it: proc_pid_cgroup(5).

use std::path::{Component, Path};

use super::dir::Dir;
use super::Member;
use crate::error::{Context, Error, Kind, Result};

/// Opens the cgroup of `pid` in the hierarchy of `place`.
pub(super) fn of(proc: &Path, pid: u32, place: &Member) -> Result<Dir> {
    let file = proc.join(format!("{pid}/cgroup"));
    let text = std::fs::read_to_string(&file).context(|| format!("read({file:?})"))?;
    let outside = || {
        let what = format!("process {pid} is in no cgroup below {:?}: {file:?} says {text:?}", place.mount);
        Error::new(Kind::State, what)
    };
    let path = text.lines().find_map(|line| path_in(line, &place.names)).ok_or_else(outside)?;
    // A path outside the shim's own cgroup namespace would begin with `/..`.
    let below = Path::new(path.trim_start_matches('/'));
    if below.components().all(|part| matches!(part, Component::Normal(_))) {
        Dir::open(&place.mount.join(below))
    } else {
        Err(outside())
    }
}

/// Returns the path of a line `id:controllers:path` if it is for the hierarchy with these names; the unified one has
/// none.
fn path_in<'a>(line: &'a str, names: &[String]) -> Option<&'a str> {
    let mut fields = line.splitn(3, ':');
    let (controllers, path) = (fields.nth(1)?, fields.next()?);
    let mut listed = controllers.split(',').filter(|name| !name.is_empty());
    let this = if names.is_empty() {
        controllers.is_empty()
    } else {
        listed.any(|name| names.iter().any(|n| n == name))
    };
    this.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_found_in_each_hierarchy() {
        let proc = tempfile::tempdir().unwrap();
        let mount = proc.path().join("mount");
        for path in ["a/b", "c:d", ""] {
            std::fs::create_dir_all(mount.join(path)).unwrap();
        }
        std::fs::create_dir(proc.path().join("7")).unwrap();
        let text = "9:name=systemd:/\n4:cpu,cpuacct:/a/b\n3:pids:/../x\n2:memory:/gone\n0::/c:d\n";
        std::fs::write(proc.path().join("7/cgroup"), text).unwrap();
        let find = |names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            of(proc.path(), 7, &Member { mount: mount.clone(), below: "own".into(), names })
        };
        assert_eq!(find(&["cpuacct", "cpu"]).unwrap().path(), mount.join("a/b"));
        assert_eq!(find(&[]).unwrap().path(), mount.join("c:d"));
        assert_eq!(find(&["name=systemd"]).unwrap().path(), mount.join(""));
        assert_eq!(find(&["memory"]).unwrap_err().errno(), Some(libc::ENOENT));
        for names in [["pids"], ["freezer"]] {
            assert_eq!(find(&names).unwrap_err().kind(), Kind::State, "{names:?}");
        }
    }
}

//! Cgroups that somebody else has frozen: the host's administrator, or the container itself.

use super::nested::census;
use super::*;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Freezes through the freezer file, as anyone with the rights may, and waits until it has taken effect.
fn freeze(dir: &Path) {
    let v1 = dir.join("freezer.state");
    if v1.exists() {
        std::fs::write(&v1, "FROZEN").unwrap();
    } else {
        std::fs::write(dir.join("cgroup.freeze"), "1").unwrap();
    }
    until("the freezer", || is_frozen(dir));
}

fn is_frozen(dir: &Path) -> bool {
    let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap_or_default();
    read("freezer.state").trim() == "FROZEN" || read("cgroup.events").contains("frozen 1")
}

fn thaw(dir: &Path) {
    let v1 = dir.join("freezer.state");
    if v1.exists() {
        std::fs::write(&v1, "THAWED").unwrap();
    } else {
        std::fs::write(dir.join("cgroup.freeze"), "0").unwrap();
    }
}

/// Returns this machine's layout, and on a hybrid host also the one without the unified hierarchy: v1 alone has no
/// `cgroup.kill`.
fn layouts() -> Vec<Layout> {
    let mut all: Vec<Layout> = layout().into_iter().collect();
    if let Some(Layout::V1(hierarchies)) = all.first() {
        let mut alone = hierarchies.clone();
        alone.retain(|hierarchy| !hierarchy.is_unified());
        if alone.iter().all(|hierarchy| !hierarchy.has("freezer")) {
            other_machine("no freezer");
            return Vec::new();
        }
        all.push(Layout::V1(alone));
    }
    all
}

#[test]
fn what_is_killed_dies_whoever_has_frozen_it() {
    type Place = fn(&Path) -> PathBuf;
    let places: [(&str, Place); 3] = [
        ("itself", |own| own.to_owned()),
        ("one below", |own| own.join("below")),
        ("one above", |own| own.parent().unwrap().to_owned()),
    ];
    for layout in layouts() {
        for (what, place) in places {
            let cgroup = make(&layout, "above/killed", "{}");
            let other = make(&layout, "above/other", "{}");
            let own = census(&*cgroup);
            let below = own.join("below");
            std::fs::create_dir(&below).unwrap();
            let (mut child, mut stranger) = (inside(&*cgroup, "read x"), inside(&*other, "read x"));
            if what == "one below" {
                std::fs::write(below.join("cgroup.procs"), child.id().to_string()).unwrap();
            }
            freeze(&place(&own));
            cgroup.kill().unwrap();
            until(what, || child.try_wait().unwrap().is_some());
            block_on(cgroup.remove()).unwrap();
            if what == "one above" {
                assert!(is_frozen(&census(&*other)), "the others are not to run");
            }
            thaw(own.parent().unwrap());
            assert_eq!(stranger.try_wait().unwrap(), None, "{what}: a stranger was killed");
            other.kill().unwrap();
            stranger.wait().unwrap();
            finish(&*other);
            for (mount, _) in other.directories() {
                let _ = std::fs::remove_dir(mount.join(path("").trim_matches('/')));
            }
        }
    }
}

#[test]
fn none_is_made_where_it_would_be_frozen() {
    for layout in layouts() {
        let first = make(&layout, "cold/first", "{}");
        let above = census(&*first).parent().unwrap().to_owned();
        freeze(&above);
        let second = CgroupsPath::parse(&path("cold/second"), false, "second").unwrap();
        let error = block_on(cgroup::create(
            &Host::default(),
            &layout,
            &second,
            &Resources::default(),
            &BTreeMap::new(),
            &AtomicBool::new(false),
        ))
        .err();
        thaw(&above);
        let error = error.expect("its first process would never come to its gate");
        assert_eq!(error.kind(), Kind::State);
        assert!(
            error.to_string().contains("linux.cgroupsPath") && error.to_string().contains("frozen"),
            "{error}"
        );
        assert!(!above.join("second").exists());
        finish(&*first);
        for (mount, _) in first.directories() {
            let _ = std::fs::remove_dir(mount.join(path("").trim_matches('/')));
        }
    }
}

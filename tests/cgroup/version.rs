//! What only one cgroup version has.

use super::*;

#[test]
fn a_clone_is_born_in_it() {
    let Some(layout) = layout() else { return };
    let cgroup = make(&layout, "born", "{}");
    let entry = cgroup.entry(None).unwrap();
    let Some(into) = entry.into else {
        other_machine("no unified hierarchy");
        return finish(&*cgroup);
    };
    let child = shoal::sys::clone::clone(0, Some(into.as_fd()), |_| loop {
        // SAFETY: takes nothing, and sleeps.
        unsafe { libc::pause() };
    })
    .unwrap();
    let (mount, below) = cgroup.directories().pop().unwrap();
    let procs = std::fs::read_to_string(mount.join(below).join("cgroup.procs")).unwrap();
    assert_eq!(procs.trim(), child.pid.to_string());
    cgroup.kill().unwrap();
    shoal::sys::wait::reap(child.pid).unwrap();
    finish(&*cgroup);
}

#[test]
fn an_exec_goes_where_the_first_process_is_once_controllers_are_passed_on() {
    let Some(layout) = layout() else { return };
    if !layout.is_v2() {
        other_machine("cgroup v1 lets processes be anywhere");
        return;
    }
    let cgroup = make(&layout, "nested", "{}");
    let (mount, below) = cgroup.directories().pop().unwrap();
    let top = mount.join(&below);
    let own = top.join("init.scope");
    let script = format!(
        "mkdir {0} && echo $$ >{0}/cgroup.procs && echo +pids >{1}/cgroup.subtree_control && read x",
        own.display(),
        top.display()
    );
    let mut child = inside(&*cgroup, &script);
    until("the container's own cgroup", || {
        std::fs::read_to_string(top.join("cgroup.subtree_control")).unwrap().contains("pids")
    });
    let entered = || {
        let into = cgroup.entry(Some(child.id())).unwrap().into.unwrap();
        std::fs::read_link(format!("/proc/self/fd/{}", into.as_raw_fd())).unwrap()
    };
    assert_eq!(entered(), own);
    // A frozen cgroup that the container nested would hold the exec.
    std::fs::write(own.join("cgroup.freeze"), "1").unwrap();
    let error = cgroup.entry(Some(child.id())).unwrap_err();
    assert!(error.kind() == Kind::State && error.to_string().contains("frozen"), "{error}");
    std::fs::write(own.join("cgroup.freeze"), "0").unwrap();
    // Somebody has moved the process to another cgroup.
    let other = make(&layout, "moved", "{}");
    let (mount, below) = other.directories().pop().unwrap();
    let out = mount.join(below);
    std::fs::write(out.join("cgroup.procs"), child.id().to_string()).unwrap();
    assert_eq!(entered(), out);
    other.kill().unwrap();
    cgroup.kill().unwrap();
    child.wait().unwrap();
    finish(&*other);
    finish(&*cgroup);
}

#[test]
fn an_exec_goes_where_the_first_process_is_once_its_own_cgroup_is_gone() {
    let Some(layout) = layout() else { return };
    let (cgroup, other) = (make(&layout, "left", "{}"), make(&layout, "new", "{}"));
    let mut child = inside(&*cgroup, "read x");
    // The first exec, after which the cgroup's files stay open.
    drop(cgroup.entry(Some(child.id())).unwrap());
    for (mount, below) in other.directories() {
        std::fs::write(mount.join(below).join("cgroup.procs"), child.id().to_string()).unwrap();
    }
    // An exec enters what still exists; it cannot enter what systemd removed once it was empty.
    for (mount, below) in cgroup.directories() {
        if !mount.ends_with("cpuset") {
            std::fs::remove_dir(mount.join(below)).unwrap();
        }
    }
    let mut exec = inside_of(cgroup.entry(Some(child.id())).unwrap(), "read x");
    let places = |pid: u32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let expected: Vec<String> = places(child.id())
        .lines()
        .map(|line| if line.contains(":cpuset:") { line.replace("/new", "/left") } else { line.to_owned() })
        .collect();
    assert!(expected.iter().any(|line| line.ends_with("/new")), "{expected:?}");
    assert_eq!(places(exec.id()).lines().collect::<Vec<_>>(), expected);
    cgroup.kill().unwrap();
    other.kill().unwrap();
    child.wait().unwrap();
    exec.wait().unwrap();
    finish(&*cgroup);
    finish(&*other);
}

/// A unified hierarchy has cgroup.kill; without it, the freezer and signals kill.
#[test]
fn v1_alone_freezes_and_kills() {
    let Some(Layout::V1(mut hierarchies)) = layout() else {
        other_machine("not a v1 host");
        return;
    };
    hierarchies.retain(|hierarchy| !hierarchy.is_unified());
    let and_freezer = Layout::V1(hierarchies.clone());
    hierarchies.retain(|hierarchy| !hierarchy.has("freezer"));
    for (name, layout) in [("v1", and_freezer), ("no-freezer", Layout::V1(hierarchies))] {
        let cgroup = make(&layout, name, "{}");
        assert!(cgroup.entry(None).unwrap().into.is_none());
        let mut child = inside(&*cgroup, "while :; do sleep 0.01 & done");
        until("children", || cgroup.pids().unwrap().len() > 3);
        cgroup.kill().unwrap();
        child.wait().unwrap();
        until("the last one's end", || cgroup.pids().unwrap().is_empty());
        finish(&*cgroup);
    }
}

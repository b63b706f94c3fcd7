//! Different kernels and cgroups: the container is the same.

use crate::bench::rooted;
use crate::container::{launch_in, Bundle, Running};
use serde_json::{json, Value};
use shoal::cgroup::Entry;
use shoal::plan::{CgroupMounts, Host};
use std::path::{Path, PathBuf};

/// Covers kernels before 5.6, and seccomp profiles around us that are older than openat2(2) and clone3(2).
#[test]
fn without_openat2_and_clone3_all_is_the_same() {
    if !rooted("without_openat2_and_clone3_all_is_the_same") {
        return;
    }
    let test = "without_openat2_and_clone3_all_is_the_same";
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "9000" });
    // Its source is looked up without magic links.
    let own =
        json!({ "destination": "/own", "source": bundle.root().join("etc/passwd"), "options": ["bind"] });
    bundle.spec["mounts"].as_array_mut().unwrap().push(own);
    let text = if std::env::var_os("SHOAL_TEST_ALONE").is_some() {
        refuse(&[libc::SYS_openat2, libc::SYS_clone3]);
        let missing = shoal::sys::child::root::open(
            std::os::fd::AsFd::as_fd(&std::fs::File::open("/").unwrap()),
            c"tmp",
            0,
        );
        assert!(missing.is_ok());
        println!("REPORT {}", bundle.report());
        return;
    } else {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("kernels::{test}"), "--exact", "--nocapture"])
            .env("SHOAL_TEST_ALONE", "1")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}{errors}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stdout).unwrap()
    };
    let line = text.lines().find_map(|line| line.split_once("REPORT ")).expect("a report").1;
    let mut without: Value = serde_json::from_str(line).unwrap();
    let mut with = bundle.report();
    assert_eq!(without["seccomp"]["mode"], "2", "the wrapper is there");
    for report in [&mut without, &mut with] {
        let fields = report.as_object_mut().unwrap();
        fields.retain(|field, _| !["seccomp", "namespaces", "mounts"].contains(&field.as_str()));
    }
    assert_eq!(without, with);
}

/// Loads a filter into this thread (and its children) that returns ENOSYS for these calls.
fn refuse(calls: &[i64]) {
    use shoal::sys::child::seccomp::{load, Filter, SockFilter};
    let op = |code: u32, jt, jf, k| SockFilter { code: code as u16, jt, jf, k };
    let mut program = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for call in calls {
        program.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *call as u32));
        program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32));
    }
    program.push(op(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW));
    shoal::sys::identity::no_new_privs().unwrap();
    load(&Filter { program: program.into(), flags: 0 }).unwrap();
}

/// Before 6.17, a procfs shows the pid namespace of the process that opens it, and a process is born there only for
/// that.
#[test]
fn a_joined_pid_namespace_has_its_procfs_on_older_kernels_too() {
    if !rooted("a_joined_pid_namespace_has_its_procfs_on_older_kernels_too") {
        return;
    }
    let test = "kernels::a_joined_pid_namespace_has_its_procfs_on_older_kernels_too";
    let older = std::env::var_os("SHOAL_TEST_ALONE").is_some();
    if older {
        refuse_descriptors_as_options();
    } else {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture"])
            .env("SHOAL_TEST_ALONE", "1")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    }
    let others = Bundle::new(&["/probe", "sleep"]);
    let other = others.create().unwrap();
    let pid = other.waiting.pid;
    let pidfd = other.waiting.start().unwrap();
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["linux"]["sysctl"] = json!({ "kernel.msgmax": "9000" });
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != "pid");
    namespaces.push(json!({ "type": "pid", "path": format!("/proc/{pid}/ns/pid") }));
    let report = bundle.report();
    // Its procfs knows it by its pid there.
    assert!(report["pid"].as_u64().unwrap() > 1, "{report}");
    let theirs = std::fs::read_link(format!("/proc/{pid}/ns/pid")).unwrap();
    assert_eq!(report["namespaces"]["pid"], theirs.to_str().unwrap());
    shoal::sys::wait::signal(std::os::fd::AsFd::as_fd(&pidfd), libc::SIGKILL).unwrap();
    other.exit.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
}

/// Makes fsconfig(2) with FSCONFIG_SET_FD report an unknown option.
fn refuse_descriptors_as_options() {
    use shoal::sys::child::seccomp::{load, Filter, SockFilter};
    const SET_FD: u32 = 5;
    let op = |code: u32, jt, jf, k| SockFilter { code: code as u16, jt, jf, k };
    let (load_word, equal) =
        (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K);
    let answer = |k| op(libc::BPF_RET | libc::BPF_K, 0, 0, k);
    let program = [
        op(load_word, 0, 0, 0),
        op(equal, 0, 3, libc::SYS_fsconfig as u32),
        op(load_word, 0, 0, 24),
        op(equal, 0, 1, SET_FD),
        answer(libc::SECCOMP_RET_ERRNO | libc::EINVAL as u32),
        answer(libc::SECCOMP_RET_ALLOW),
    ];
    shoal::sys::identity::no_new_privs().unwrap();
    load(&Filter { program: program.into(), flags: 0 }).unwrap();
}

/// A cgroup of this test, which is removed when dropped.
pub struct Group(pub PathBuf);

impl Group {
    pub fn new(hierarchy: &Path, name: &str) -> Self {
        let path = hierarchy.join(format!("rooted-{name}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Group(path)
    }

    pub fn name(&self) -> &str {
        self.0.file_name().unwrap().to_str().unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        crate::bench::eventually("the cgroup is empty", || std::fs::remove_dir(&self.0).is_ok());
    }
}

fn cgroups(running: Running) -> Vec<String> {
    let report: Value = serde_json::from_str(&running.finish()).unwrap();
    report["cgroup"].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
}

/// Returns where a cgroup2 is mounted, with or without controllers.
pub fn cgroup2() -> Option<PathBuf> {
    let found = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].into_iter().find(|dir| {
        Path::new(dir).join("cgroup.procs").exists() && Path::new(dir).join("cgroup.controllers").exists()
    });
    if found.is_none() {
        testbed::skip::other_machine("no cgroup2 is mounted");
    }
    found.map(PathBuf::from)
}

#[test]
fn a_container_is_born_in_its_cgroup() {
    if !rooted("a_container_is_born_in_its_cgroup") {
        return;
    }
    let Some(hierarchy) = cgroup2() else { return };
    let alone = std::env::var_os("SHOAL_TEST_ALONE").is_some();
    if alone {
        // Without clone3(2), the child writes cgroup.procs.
        refuse(&[libc::SYS_clone3]);
    } else {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["kernels::a_container_is_born_in_its_cgroup", "--exact", "--nocapture"])
            .env("SHOAL_TEST_ALONE", "1")
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{}{errors}", String::from_utf8_lossy(&output.stdout));
    }
    let group = Group::new(&hierarchy, "born");
    for bundle in [Bundle::new, crate::users::bundle].map(|make| make(&["/probe", "report"])) {
        let into = std::fs::File::open(&group.0).unwrap().into();
        let running = bundle.create_in(Entry { into: Some(into), ..Entry::default() }).unwrap();
        let member = std::fs::read_to_string(group.0.join("cgroup.procs")).unwrap();
        assert_eq!(member.trim(), running.waiting.pid.to_string());
        let lines = cgroups(running);
        assert!(lines.contains(&format!("0::/{}", group.name())), "{lines:?}");
    }
}

/// A systemd inside makes cgroups of its own, which nothing else would allow.
#[test]
fn root_of_a_user_namespace_has_its_cgroup() {
    if !rooted("root_of_a_user_namespace_has_its_cgroup") {
        return;
    }
    let Some(hierarchy) = cgroup2() else { return };
    let group = Group::new(&hierarchy, "given");
    let mut bundle =
        crate::users::bundle(&["/probe", "stat", "/sys/fs/cgroup", "/sys/fs/cgroup/cgroup.procs"]);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "cgroup" }));
    let host = Host { cgroups: CgroupMounts::V2, ..Host::probe(Path::new("/")).unwrap() };
    for (options, owner) in [(json!(["ro"]), "65534"), (json!(["rw"]), "0")] {
        let mount = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": options });
        let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
        mounts.truncate(7);
        mounts.push(mount);
        let into = std::fs::File::open(&group.0).unwrap().into();
        let entry = Entry { into: Some(into), ..Entry::default() };
        let running = launch_in(&bundle.plan_on(&host).unwrap(), None, entry).unwrap();
        let report: serde_json::Value = serde_json::from_str(&running.finish()).unwrap();
        for path in ["/sys/fs/cgroup", "/sys/fs/cgroup/cgroup.procs"] {
            let found = report[path].as_str().unwrap().split([' ', ':']).nth(2).unwrap();
            assert_eq!(found, owner, "{report}");
        }
    }
}

#[test]
fn a_container_enters_its_cgroups() {
    if !rooted("a_container_enters_its_cgroups") {
        return;
    }
    let hierarchies: Vec<_> =
        ["freezer", "pids"].iter().map(|name| Path::new("/sys/fs/cgroup").join(name)).collect();
    if !hierarchies.iter().all(|path| path.join("cgroup.procs").exists()) {
        testbed::skip::other_machine("no cgroup v1");
        return;
    }
    let groups: Vec<_> = hierarchies.iter().map(|path| Group::new(path, "enters")).collect();
    // A user namespace needs a second process, which does not count.
    std::fs::write(groups[1].0.join("pids.max"), "1").unwrap();
    for bundle in [Bundle::new, crate::users::bundle].map(|make| make(&["/probe", "report"])) {
        let procs = groups.iter().map(|group| {
            std::sync::Arc::new(std::os::fd::OwnedFd::from(
                std::fs::OpenOptions::new().write(true).open(group.0.join("cgroup.procs")).unwrap(),
            ))
        });
        let lines = cgroups(bundle.create_in(Entry { procs: procs.collect(), ..Entry::default() }).unwrap());
        for (controller, group) in ["freezer", "pids"].iter().zip(&groups) {
            let end = format!(":{controller}:/{}", group.name());
            assert!(lines.iter().any(|line| line.ends_with(&end)), "{end}: {lines:?}");
        }
    }
}

//! Cgroups in this machine's hierarchies, of whichever version. Needs root and a writable cgroup tree.
//!
//! Each test makes a cgroup of its own and checks that nothing of it is left.

mod frozen;
mod nested;
mod systemd;
mod usage;
mod version;

use std::collections::BTreeMap;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use shoal::cgroup::oom::Happened;
use shoal::cgroup::{self, Cgroup, CgroupsPath, Host, Layout, Stats};
use shoal::error::Kind;
use shoal::spec::resources::Resources;
use shoal::tasks::block_on;
use testbed::skip::{missing, other_machine};

/// Returns the machine's layout, or `None`, with the reason on stderr, if it cannot run these tests.
fn layout() -> Option<Layout> {
    if !nix::unistd::geteuid().is_root() {
        missing("not root");
        return None;
    }
    let layout = match Layout::probe(Path::new("/proc")) {
        Ok(layout) => layout,
        Err(error) => {
            missing(&error.to_string());
            return None;
        }
    };
    let mount = &layout.hierarchies()[0].mount;
    let name = format!("shoal-probe-{}-{:?}", std::process::id(), std::thread::current().id());
    let probe = mount.join(name);
    if let Err(error) = std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)) {
        missing(&format!("{mount:?} cannot be written to: {error}"));
        return None;
    }
    Some(layout)
}

/// Returns whether memory is accounted: kernels since 6.11 can be built without the v1 memory controller.
fn counts_memory(layout: &Layout) -> bool {
    let counts = layout.is_v2() || layout.hierarchies().iter().any(|h| h.has("memory"));
    if !counts {
        other_machine("the kernel has no memory controller for v1");
    }
    counts
}

fn path(name: &str) -> String {
    format!("/shoal-test-{}/{name}", std::process::id())
}

fn make(layout: &Layout, name: &str, json: &str) -> Box<dyn Cgroup> {
    let resources = Resources::from_json(json.as_bytes(), "linux.resources").unwrap();
    let path = CgroupsPath::parse(&path(name), false, name).unwrap();
    block_on(cgroup::create(
        &Host::default(),
        layout,
        &path,
        &resources,
        &BTreeMap::new(),
        &AtomicBool::new(false),
    ))
    .unwrap()
}

/// Spawns a shell that enters the cgroup as a container's child does, and then runs `script`.
fn inside(cgroup: &dyn Cgroup, script: &str) -> Child {
    inside_of(cgroup.entry(None).unwrap(), script)
}

fn inside_of(entry: cgroup::Entry, script: &str) -> Child {
    let files = entry.procs.iter().map(|file| std::fs::File::from(file.try_clone().unwrap()));
    let mut files: Vec<std::fs::File> = files.collect();
    if let Some(into) = entry.into {
        let procs = format!("/proc/self/fd/{}/cgroup.procs", into.as_raw_fd());
        files.push(std::fs::OpenOptions::new().write(true).open(procs).unwrap());
    }
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: between fork and exec there are only write(2) calls on descriptors that are open.
    unsafe {
        command.pre_exec(move || files.iter_mut().try_for_each(|file| file.write_all(b"0")));
    }
    command.spawn().unwrap()
}

#[track_caller]
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what} does not come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Ends a test: removes the cgroup, and the test's own directory above it once that is empty.
fn finish(cgroup: &dyn Cgroup) {
    block_on(cgroup.remove()).unwrap();
    block_on(cgroup.remove()).expect("removing twice is fine");
    for (mount, below) in cgroup.directories() {
        let path = mount.join(&below);
        assert!(!path.exists(), "{path:?} is left");
        let _ = std::fs::remove_dir(path.parent().unwrap());
    }
}

fn read(cgroup: &dyn Cgroup, controller: &str, file: &str) -> String {
    let directories = cgroup.directories();
    let record = cgroup.record();
    let at = record.members.iter().position(|m| m.names.iter().any(|n| n == controller)).unwrap_or(0);
    let (mount, below) = &directories[at];
    std::fs::read_to_string(mount.join(below).join(file)).unwrap().trim().to_owned()
}

#[test]
fn a_process_lives_in_it_from_entry_to_kill() {
    let Some(layout) = layout() else { return };
    if !counts_memory(&layout) {
        return;
    }
    let cgroup =
        make(&layout, "life", r#"{"memory":{"limit":67108864},"pids":{"limit":32},"cpu":{"shares":512}}"#);
    assert!(cgroup.pids().unwrap().is_empty());
    let mut child = inside(&*cgroup, "while :; do :; done");
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);
    match cgroup.stats().unwrap() {
        Stats::V1(stats) => {
            assert_eq!(stats.pids.unwrap().limit, 32);
            assert_eq!(stats.memory.unwrap().usage.limit, 64 << 20);
        }
        Stats::V2(stats) => {
            assert_eq!((stats.pids.current, stats.pids.limit), (1, 32));
            assert_eq!(stats.memory.usage_limit, 64 << 20);
        }
    }
    let time = || match cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.cpu.total / 1000,
        Stats::V2(stats) => stats.cpu.usage_usec,
    };
    let before = time();
    until("processor time", || time() > before);

    block_on(cgroup.freeze()).unwrap();
    let frozen = time();
    std::thread::sleep(Duration::from_millis(50));
    assert!(time() - frozen < 20_000, "it runs although it is frozen");
    cgroup.thaw().unwrap();
    until("processor time after the thaw", || time() > frozen + 1000);

    block_on(cgroup.freeze()).unwrap();
    cgroup.kill().unwrap();
    assert!(!child.wait().unwrap().success());
    cgroup.kill().expect("nothing is left to kill");
    finish(&*cgroup);
    // As with the Go shim, a query right after an exit is answered.
    match cgroup.stats().unwrap() {
        Stats::V1(stats) => assert_eq!(*stats, Default::default()),
        Stats::V2(stats) => assert_eq!(*stats, Default::default()),
    }
    assert!(cgroup.pids().unwrap().is_empty());
}

#[test]
fn one_with_processes_is_not_taken_over() {
    let Some(layout) = layout() else { return };
    let cgroup = make(&layout, "busy", "{}");
    let mut child = inside(&*cgroup, "read x");
    let path = CgroupsPath::parse(&path("busy"), false, "busy").unwrap();
    let error = block_on(cgroup::create(
        &Host::default(),
        &layout,
        &path,
        &Resources::default(),
        &BTreeMap::new(),
        &AtomicBool::new(false),
    ))
    .err()
    .unwrap();
    assert_eq!(error.kind(), Kind::State);
    assert!(error.to_string().contains("is in use: 1 process"), "{error}");
    assert_eq!(cgroup.pids().unwrap(), [child.id()], "the one that is there is not touched");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    // Once empty, the cgroup may be used again.
    finish(&*make(&layout, "busy", "{}"));
}

#[test]
fn a_limit_that_the_kernel_refuses_leaves_nothing_behind() {
    let Some(layout) = layout() else { return };
    let json = r#"{"cpu":{"quota":1,"period":100000}}"#;
    let resources = Resources::from_json(json.as_bytes(), "linux.resources").unwrap();
    let cgroups_path = CgroupsPath::parse(&path("refused/deep"), false, "refused").unwrap();
    let error = block_on(cgroup::create(
        &Host::default(),
        &layout,
        &cgroups_path,
        &resources,
        &BTreeMap::new(),
        &AtomicBool::new(false),
    ))
    .err()
    .unwrap();
    assert_eq!(error.errno(), Some(libc::EINVAL), "{error}");
    let text = error.to_string();
    assert!(text.starts_with("linux.resources.cpu: write("), "{text}");
    assert!(text.contains("cpu.cfs_quota_us\", \"1\"") || text.contains("cpu.max\", \"1 100000\""), "{text}");
    for hierarchy in layout.hierarchies() {
        let path = hierarchy.mount.join(path("refused").trim_start_matches('/'));
        assert!(!path.exists(), "{path:?} is left");
    }
}

#[test]
fn limits_change_while_it_runs() {
    let Some(layout) = layout() else { return };
    if !counts_memory(&layout) {
        return;
    }
    let cgroup = make(
        &layout,
        "update",
        r#"{"memory":{"limit":33554432,"swap":33554432},"cpu":{"quota":50000,"period":100000}}"#,
    );
    let mut child = inside(&*cgroup, "read x");
    let update = |json: &str| {
        block_on(cgroup.update(&Resources::from_json(json.as_bytes(), "resources").unwrap())).unwrap();
    };
    // Up past the old sum, and down again: on v1 each needs a different order of writes.
    update(r#"{"memory":{"limit":134217728,"swap":268435456}}"#);
    update(r#"{"memory":{"limit":16777216,"swap":16777216},"cpu":{"quota":25000},"pids":{"limit":-1}}"#);
    let v2 = layout.is_v2();
    let (limit, quota) =
        if v2 { ("memory.max", "cpu.max") } else { ("memory.limit_in_bytes", "cpu.cfs_quota_us") };
    assert_eq!(read(&*cgroup, "memory", limit), "16777216");
    assert_eq!(read(&*cgroup, "cpu", quota), if v2 { "25000 100000" } else { "25000" });
    assert_eq!(read(&*cgroup, "pids", "pids.max"), "max");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    finish(&*cgroup);
}

/// Returns whether a node of the device can be opened in the cgroup.
fn opens(cgroup: &dyn Cgroup, node: &Path, redirection: &str) -> bool {
    let script = format!("exec {redirection} '{}'", node.display());
    inside(cgroup, &script).wait().unwrap().success()
}

#[test]
fn devices_are_refused_and_granted() {
    let Some(layout) = layout() else { return };
    // Other filesystems may be mounted with nodev.
    let scratch = tempfile::tempdir_in("/dev").unwrap();
    let node = |name: &str, major, minor| {
        let path = scratch.path().join(name);
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o666);
        let device = nix::sys::stat::makedev(major, minor);
        nix::sys::stat::mknod(&path, nix::sys::stat::SFlag::S_IFCHR, mode, device).unwrap();
        path
    };
    let (null, kmsg) = (node("null", 1, 3), node("kmsg", 1, 11));
    let cgroup = make(&layout, "devices", r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    assert!(opens(&*cgroup, &null, "<>"));
    assert!(!opens(&*cgroup, &kmsg, "<"));
    let update = |json: &str| {
        block_on(cgroup.update(&Resources::from_json(json.as_bytes(), "resources").unwrap())).unwrap();
    };
    update(r#"{"devices":[{"allow":false},{"allow":true,"type":"c","major":1,"minor":11,"access":"r"}]}"#);
    assert!(opens(&*cgroup, &kmsg, "<"));
    assert!(!opens(&*cgroup, &kmsg, "<>"));
    assert!(opens(&*cgroup, &null, "<>"));
    update(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#);
    assert!(opens(&*cgroup, &kmsg, "<>"));
    update(r#"{"devices":[{"allow":false}]}"#);
    assert!(!opens(&*cgroup, &kmsg, "<"));
    assert!(opens(&*cgroup, &null, "<>"));
    finish(&*cgroup);
}

fn wait_readable(watch: &cgroup::oom::Watch, limit: Duration) -> bool {
    use nix::poll::{poll, PollFd, PollFlags, PollTimeout};
    use std::os::fd::AsFd;
    let timeout = PollTimeout::try_from(limit).unwrap();
    poll(&mut [PollFd::new(watch.as_fd(), PollFlags::POLLIN)], timeout).unwrap() > 0
}

#[test]
fn an_oom_kill_is_told() {
    let Some(layout) = layout() else { return };
    if !counts_memory(&layout) {
        return;
    }
    let cgroup = make(&layout, "oom", r#"{"memory":{"limit":20971520,"swap":20971520}}"#);
    let mut watch = cgroup.watch_oom().unwrap().expect("a memory controller");
    assert!(!wait_readable(&watch, Duration::ZERO));
    // tail(1) keeps the last line, which never ends.
    let mut child = inside(&*cgroup, "exec tail -n 1 /dev/zero");
    let start = Instant::now();
    let mut kills = 0;
    while kills == 0 {
        assert!(start.elapsed() < Duration::from_secs(100), "no kill is told");
        wait_readable(&watch, Duration::from_secs(1));
        match watch.take().unwrap() {
            Happened::Kills(n) => kills += n,
            Happened::Gone { .. } => panic!("the cgroup is there"),
        }
    }
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    match cgroup.stats().unwrap() {
        Stats::V1(stats) => assert_eq!(stats.oom_control.unwrap().oom_kill, 1),
        Stats::V2(stats) => assert_eq!(stats.memory_events.unwrap().oom_kill, 1),
    }
    finish(&*cgroup);
    assert!(wait_readable(&watch, Duration::from_secs(10)), "the removal is not told");
    match watch.take().unwrap() {
        Happened::Kills(n) => assert!(!layout.is_v2() && n == 0, "{n} kills"),
        Happened::Gone { .. } => assert!(layout.is_v2()),
    }
}

#[test]
fn an_oom_kill_is_told_when_the_cgroup_is_gone() {
    let Some(layout) = layout() else { return };
    if !counts_memory(&layout) {
        return;
    }
    let cgroup = make(&layout, "late", r#"{"memory":{"limit":20971520,"swap":20971520}}"#);
    let mut watch = cgroup.watch_oom().unwrap().expect("a memory controller");
    let mut child = inside(&*cgroup, "exec tail -n 1 /dev/zero");
    child.wait().unwrap();
    finish(&*cgroup);
    let mut told = false;
    while !told {
        assert!(wait_readable(&watch, Duration::from_secs(10)), "no kill is told");
        told = match watch.take().unwrap() {
            Happened::Kills(n) => n > 0,
            Happened::Gone { changed } => {
                assert!(changed);
                true
            }
        };
    }
}

#[test]
fn a_record_is_enough_to_end_it() {
    let Some(layout) = layout() else { return };
    let cgroup = make(&layout, "record", "{}");
    let child = inside(&*cgroup, "sleep 1000 & read x");
    until("the second process", || cgroup.pids().unwrap().len() == 2);
    // Nested cgroups are removed with the container's.
    for (mount, below) in cgroup.directories() {
        std::fs::create_dir_all(mount.join(below).join("own/deep")).unwrap();
    }
    let json = serde_json::to_string(&cgroup.record()).unwrap();
    drop(cgroup);
    let mut child = child;
    let found = cgroup::open(&Host::default(), &serde_json::from_str(&json).unwrap()).unwrap().unwrap();
    found.kill().unwrap();
    child.wait().unwrap();
    finish(&*found);
    if let Some(gone) = cgroup::open(&Host::default(), &serde_json::from_str(&json).unwrap()).unwrap() {
        gone.kill().unwrap();
        block_on(gone.remove()).unwrap();
    }
}

#[test]
fn without_systemd_its_driver_says_so() {
    let Some(layout) = layout() else { return };
    let run = tempfile::tempdir().unwrap();
    let path = CgroupsPath::parse("x.slice:p:n", false, "n").unwrap();
    let host = Host { run: run.path().to_owned(), ..Host::default() };
    let error = block_on(cgroup::create(
        &host,
        &layout,
        &path,
        &Resources::default(),
        &BTreeMap::new(),
        &AtomicBool::new(false),
    ))
    .err()
    .unwrap();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.to_string().contains("systemd cannot be reached"), "{error}");
}

#[test]
fn many_at_once_share_their_parents() {
    let Some(layout) = layout() else { return };
    std::thread::scope(|threads| {
        for thread in 0..8 {
            let layout = &layout;
            threads.spawn(move || {
                for round in 0..10 {
                    // The parent is removed with its last child, and made again for the next one.
                    finish(&*make(layout, &format!("many/{thread}-{round}"), r#"{"pids":{"limit":5}}"#));
                }
            });
        }
    });
    for hierarchy in layout.hierarchies() {
        let _ = std::fs::remove_dir(hierarchy.mount.join(path("").trim_matches('/')));
    }
}

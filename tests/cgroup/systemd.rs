//! Transient scopes of this machine's systemd.

use super::*;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

fn systemctl(arguments: &[&str]) -> String {
    let output = Command::new("systemctl").args(arguments).output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Lets one test run at a time: systemd answers nobody while it reloads.
static ALONE: Mutex<()> = Mutex::new(());

/// Returns the layout of a host that systemd runs, and the right to use it exclusively.
fn systemd() -> Option<(Layout, MutexGuard<'static, ()>)> {
    let layout = layout()?;
    if !Path::new("/run/systemd/system").is_dir() {
        other_machine("no systemd");
        return None;
    }
    Some((layout, ALONE.lock().unwrap_or_else(PoisonError::into_inner)))
}

fn scope(layout: &Layout, name: &str, json: &str) -> shoal::error::Result<Box<dyn Cgroup>> {
    scope_with(layout, name, json, &BTreeMap::new())
}

fn scope_with(
    layout: &Layout,
    name: &str,
    json: &str,
    annotations: &BTreeMap<String, String>,
) -> shoal::error::Result<Box<dyn Cgroup>> {
    let resources = Resources::from_json(json.as_bytes(), "linux.resources").unwrap();
    let path = CgroupsPath::parse(&format!("shoal-test.slice:t:{name}"), false, name).unwrap();
    block_on(cgroup::create(
        &Host::default(),
        layout,
        &path,
        &resources,
        annotations,
        &AtomicBool::new(false),
    ))
}

#[test]
fn a_scope_has_the_properties_of_annotations_and_is_not_made_with_bad_ones() {
    let Some((layout, _alone)) = systemd() else { return };
    let annotation = |name: &str, text: &str| (format!("org.systemd.property.{name}"), text.to_owned());
    let annotations = BTreeMap::from([
        annotation("Description", "'of an annotation'"),
        annotation("RuntimeMaxSec", "3600"),
        annotation("TimeoutStopUSec", "uint64 7000000"),
        annotation("Documentation", "['man:a(1)', 'man:b(1)']"),
    ]);
    let cgroup = scope_with(&layout, "annotated", "{}", &annotations).unwrap();
    let show = |property: &str| systemctl(&["show", "--value", "-p", property, "t-annotated.scope"]);
    assert_eq!(show("Description"), "of an annotation");
    assert_eq!((show("RuntimeMaxUSec"), show("TimeoutStopUSec")), ("1h".into(), "7s".into()));
    assert_eq!(show("Documentation").replace('"', ""), "man:a(1) man:b(1)");
    cgroup.kill().unwrap();
    block_on(cgroup.remove()).unwrap();
    for (name, text, words) in [
        ("Description", "uint64 1", "t-bad.scope"),
        ("NoSuchProperty", "1", "NoSuchProperty"),
        ("Slice", "'system.slice'", "annotations"),
        ("Description", "'open", "annotations"),
    ] {
        let error =
            scope_with(&layout, "bad", "{}", &BTreeMap::from([annotation(name, text)])).err().unwrap();
        assert!(error.to_string().contains(words), "{name} {text}: {error}");
        assert_eq!(systemctl(&["show", "--value", "-p", "LoadState", "t-bad.scope"]), "not-found");
    }
}

#[test]
fn a_scope_lives_as_long_as_its_container() {
    let Some((layout, _alone)) = systemd() else { return };
    let memory = counts_memory(&layout);
    let with_memory = |limit: &str, rest: &str| {
        if memory {
            format!(r#"{{"memory":{{"limit":{limit}}},{rest}"#)
        } else {
            format!("{{{rest}")
        }
    };
    let json = with_memory("67108864", r#""pids":{"limit":32},"cpu":{"shares":512,"quota":50000}}"#);
    let cgroup = scope(&layout, "life", &json).unwrap();
    let (mount, below) = cgroup.directories().pop().unwrap();
    assert_eq!(below, Path::new("shoal.slice/shoal-test.slice/t-life.scope"));
    assert!(cgroup.pids().unwrap().is_empty(), "the place-holder is not shown");
    let mut child = inside(&*cgroup, "read x");
    // The placeholder process is gone: only the child may keep the scope alive.
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(systemctl(&["is-active", "t-life.scope"]), "active");
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);
    let show = |property: &str| systemctl(&["show", "--value", "-p", property, "t-life.scope"]);
    assert_eq!(show("Delegate"), "yes");
    assert_eq!(show("TasksMax"), "32");

    let json = with_memory("33554432", r#""pids":{"limit":64}}"#);
    block_on(cgroup.update(&Resources::from_json(json.as_bytes(), "resources").unwrap())).unwrap();
    systemctl(&["daemon-reload"]);
    assert_eq!(read(&*cgroup, "pids", "pids.max"), "64");
    let limit = if layout.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    if memory {
        assert_eq!(read(&*cgroup, "memory", limit), "33554432");
    }
    assert!(opens(&*cgroup, Path::new("/dev/null"), "<>"));
    assert!(!opens(&*cgroup, Path::new("/dev/kmsg"), "<"));

    let second = scope(&layout, "life", "{}").err().expect("the name is taken");
    assert_eq!(second.kind(), Kind::Exists, "{second}");
    assert!(second.to_string().contains("t-life.scope in shoal-test.slice"), "{second}");
    assert_eq!(cgroup.pids().unwrap(), [child.id()]);

    block_on(cgroup.freeze()).unwrap();
    cgroup.thaw().unwrap();
    cgroup.kill().unwrap();
    child.wait().unwrap();
    block_on(cgroup.remove()).unwrap();
    block_on(cgroup.remove()).expect("removing twice is fine");
    assert!(!mount.join(&below).exists());
    assert_eq!(systemctl(&["show", "--value", "-p", "LoadState", "t-life.scope"]), "not-found");
}

#[test]
fn a_scope_that_fails_half_way_is_gone() {
    let Some((layout, _alone)) = systemd() else { return };
    let error = scope(&layout, "half", r#"{"cpu":{"quota":1,"period":100000}}"#).err().unwrap();
    assert!(error.to_string().contains("t-half.scope"), "{error}");
    assert_eq!(systemctl(&["show", "--value", "-p", "LoadState", "t-half.scope"]), "not-found");
    // Now a scope that nobody enters.
    let cgroup = scope(&layout, "half", "{}").unwrap();
    let record = cgroup.record();
    drop(cgroup);
    let found = cgroup::open(&Host::default(), &record).unwrap().unwrap();
    found.kill().unwrap();
    block_on(found.remove()).unwrap();
    assert_eq!(systemctl(&["show", "--value", "-p", "LoadState", "t-half.scope"]), "not-found");
}

#[test]
fn a_scope_for_a_single_process_has_room_for_it() {
    let Some((layout, _alone)) = systemd() else { return };
    let cgroup = scope(&layout, "single", r#"{"pids":{"limit":1}}"#).unwrap();
    let mut entry = cgroup.entry(None).unwrap();
    if let Some(into) = entry.into.take() {
        let child = shoal::sys::clone::clone(0, Some(into.as_fd()), |_| loop {
            // SAFETY: takes nothing, and sleeps.
            unsafe { libc::pause() };
        })
        .unwrap();
        drop(entry);
        assert_eq!(read(&*cgroup, "pids", "pids.max"), "1");
        cgroup.kill().unwrap();
        shoal::sys::wait::reap(child.pid).unwrap();
    }
    block_on(cgroup.remove()).unwrap();
}

fn update(cgroup: &dyn Cgroup, json: &str) {
    block_on(cgroup.update(&Resources::from_json(json.as_bytes(), "resources").unwrap())).unwrap();
}

fn quota(layout: &Layout, cgroup: &dyn Cgroup) -> String {
    if layout.is_v2() {
        read(cgroup, "cpu", "cpu.max")
    } else {
        ["cpu.cfs_quota_us", "cpu.cfs_period_us"].map(|file| read(cgroup, "cpu", file)).join(" ")
    }
}

#[test]
fn a_half_of_a_quota_keeps_the_other_half_when_systemd_writes_it_again() {
    let Some((layout, _alone)) = systemd() else { return };
    let cgroup = scope(&layout, "halves", r#"{"cpu":{"shares":512,"quota":10000,"period":50000}}"#).unwrap();
    let mut child = inside(&*cgroup, "read x");
    let both = |what: &str, json: &str, expected: &str| {
        update(&*cgroup, json);
        assert_eq!(quota(&layout, &*cgroup), expected, "{what}");
        systemctl(&["daemon-reload"]);
        // systemd writes what it knows at the unit's next change, if not at once.
        systemctl(&["set-property", "--runtime", "t-halves.scope", "TasksMax=100"]);
        assert_eq!(quota(&layout, &*cgroup), expected, "{what}, after daemon-reload");
    };
    both("the quota", r#"{"cpu":{"quota":20000}}"#, "20000 50000");
    both("the period", r#"{"cpu":{"period":100000}}"#, "20000 100000");
    both("the shares", r#"{"cpu":{"shares":1024}}"#, "20000 100000");
    both("memory", r#"{"memory":{"limit":67108864}}"#, "20000 100000");
    if layout.is_v2() {
        both("a file", r#"{"unified":{"cpu.max":"30000"}}"#, "30000 100000");
    }
    // systemd counts in hundredths; until its next write, the files have the exact value.
    update(&*cgroup, r#"{"cpu":{"quota":12345}}"#);
    update(&*cgroup, r#"{"cpu":{"shares":300}}"#);
    assert_eq!(quota(&layout, &*cgroup), "12345 100000");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    block_on(cgroup.remove()).unwrap();
}

#[test]
fn a_limit_of_swap_stays_when_systemd_writes_it_again() {
    let Some((layout, _alone)) = systemd() else { return };
    if !layout.is_v2() {
        return other_machine("systemd knows no limit of memory and swap together");
    }
    let cgroup = scope(&layout, "swap", r#"{"memory":{"limit":67108864,"swap":67108864}}"#).unwrap();
    let mut child = inside(&*cgroup, "read x");
    let both = |what: &str, expected: &str| {
        for when in ["at once", "after daemon-reload"] {
            assert_eq!(read(&*cgroup, "memory", "memory.swap.max"), expected, "{what}, {when}");
            systemctl(&["daemon-reload"]);
            systemctl(&["set-property", "--runtime", "t-swap.scope", "TasksMax=100"]);
        }
    };
    both("as much as memory", "0");
    update(&*cgroup, r#"{"memory":{"swap":100663296}}"#);
    both("swap alone", "33554432");
    update(&*cgroup, r#"{"memory":{"limit":83886080}}"#);
    both("memory alone", "16777216");
    update(&*cgroup, r#"{"memory":{"swap":83886080}}"#);
    both("as much as memory, by an update", "0");
    update(&*cgroup, r#"{"memory":{"swap":-1}}"#);
    both("no limit", "max");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    block_on(cgroup.remove()).unwrap();
}

#[test]
fn a_scope_that_has_ended_has_statistics() {
    let Some((layout, _alone)) = systemd() else { return };
    let cgroup = scope(&layout, "ended", "{}").unwrap();
    let mut child = inside(&*cgroup, "exit 0");
    child.wait().unwrap();
    let (mount, below) = cgroup.directories().pop().unwrap();
    until("the end of the scope", || !mount.join(&below).exists());
    cgroup.stats().expect("as with the Go shim");
    assert!(cgroup.pids().unwrap().is_empty());
    block_on(cgroup.remove()).unwrap();
}

#[test]
fn a_weight_of_blocks_stays_when_systemd_writes_it_again() {
    let Some((layout, _alone)) = systemd() else { return };
    let cgroup = scope(&layout, "blocks", r#"{"blockIO":{"weight":500}}"#);
    // Not every kernel has an I/O scheduler with weights.
    let cgroup = match cgroup {
        Err(e) if e.to_string().contains("weight") => return other_machine(&e.to_string()),
        cgroup => cgroup.unwrap(),
    };
    let directories = cgroup.directories();
    let weight = || {
        let places = directories.iter().map(|(mount, below)| mount.join(below));
        let mut files = places.flat_map(|place| ["io.weight", "blkio.weight"].map(|file| place.join(file)));
        files.find_map(|file| std::fs::read_to_string(file).ok())
    };
    let Some(before) = weight() else { return other_machine("another scheduler") };
    let mut child = inside(&*cgroup, "read x");
    update(&*cgroup, r#"{"pids":{"limit":50}}"#);
    assert_eq!(weight().as_ref(), Some(&before), "after an update");
    systemctl(&["daemon-reload"]);
    systemctl(&["set-property", "--runtime", "t-blocks.scope", "TasksMax=100"]);
    assert_eq!(weight(), Some(before), "after daemon-reload");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    block_on(cgroup.remove()).unwrap();
}

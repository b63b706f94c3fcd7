//! Images and containers that try to reach the host: each test covers one class of docs/cve.md.

use crate::bench::{launcher, rooted};
use crate::container::{launch, Bundle};
use serde_json::{json, Value};
use shoal::plan::Step;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

macro_rules! needs_root {
    ($name:literal) => {
        if !rooted($name) {
            return;
        }
    };
}

fn names(path: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(path).unwrap().flatten();
    let mut names: Vec<_> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Returns a path out of the root, with more `..` than the root is deep.
fn outwards(path: &Path) -> String {
    format!("{}{}", "/..".repeat(20), path.display())
}

fn tmpfs(destination: &str) -> Value {
    json!({ "destination": destination, "type": "tmpfs", "source": "tmpfs", "options": ["mode=755"] })
}

/// CVE-2021-30465, CVE-2019-18837: targets, including links, are resolved inside the root.
#[test]
fn mount_targets_that_are_links_stay_inside() {
    needs_root!("mount_targets_that_are_links_stay_inside");
    let outside = tempfile::tempdir().unwrap();
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("mark"), "").unwrap();
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let root = bundle.root();
    symlink(outside.path(), root.join("absolute")).unwrap();
    symlink(outwards(outside.path()), root.join("relative")).unwrap();
    std::fs::remove_dir(root.join("run")).unwrap();
    symlink(outwards(outside.path()), root.join("run")).unwrap();
    symlink("/run/dangling/file", root.join("etc/resolv.conf")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.push(tmpfs("/absolute/made"));
    mounts.push(tmpfs("/relative/also"));
    let source = volume.path().join("mark");
    mounts.push(
        json!({ "destination": "/etc/resolv.conf", "type": "bind", "source": source, "options": ["bind"] }),
    );
    let report = bundle.report();
    assert_eq!(names(outside.path()), Vec::<String>::new());
    let points: Vec<_> =
        report["mounts"].as_array().unwrap().iter().map(|m| m["point"].as_str().unwrap()).collect();
    let inside = outside.path().to_str().unwrap();
    for point in ["made".to_owned(), "also".to_owned(), "dangling/file".to_owned()] {
        let point = format!("{inside}/{point}");
        assert!(points.contains(&point.as_str()), "{point} in {points:?}");
    }
}

/// CVE-2026-41579, CVE-2026-47766: a link in place of /dev, without a mount there.
#[test]
fn devices_are_not_made_outside() {
    needs_root!("devices_are_not_made_outside");
    let outside = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let root = bundle.root();
    std::fs::remove_dir(root.join("dev")).unwrap();
    symlink(outwards(outside.path()), root.join("dev")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let report = bundle.report();
    assert_eq!(names(outside.path()), Vec::<String>::new());
    // /dev leads to a place inside.
    assert_eq!(report["devices"]["null"], "char 1:3 666 0:0");
    assert!(root.join(outside.path().strip_prefix("/").unwrap()).join("null").exists());
}

/// CVE-2025-31133: what the image has in place of a device is not taken for it.
#[test]
fn a_link_is_not_taken_for_a_device() {
    needs_root!("a_link_is_not_taken_for_a_device");
    let mut bundle = Bundle::new(&["/probe", "open", "/proc/timer_list", "/proc/keys"]);
    let root = bundle.root();
    symlink("/proc/sysrq-trigger", root.join("dev/null")).unwrap();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.contains("mknod") && error.contains("EEXIST"), "{error}");
}

#[test]
fn masked_files_are_empty_and_read_only_paths_are_read_only() {
    needs_root!("masked_files_are_empty_and_read_only_paths_are_read_only");
    let files =
        ["/proc/timer_list", "/proc/keys", "/proc/sys/kernel/core_pattern", "/proc/irq/default_smp_affinity"];
    let bundle = Bundle::new(&[&["/probe", "open"][..], &files].concat());
    for (name, report) in bundle.reports() {
        for masked in &files[..2] {
            assert_eq!(report[masked], json!({ "read": 0, "write": "ok" }), "{name} {masked}");
        }
        for readonly in &files[2..] {
            assert_eq!(report[readonly]["write"], "EROFS", "{name} {readonly}");
        }
    }
}

/// A mask is the host's node, but root in the container cannot change its mode or owner.
#[test]
fn masks_cannot_change_the_hosts_null_device() {
    needs_root!("masks_cannot_change_the_hosts_null_device");
    let mode =
        || std::fs::metadata("/dev/null").map(|about| std::os::unix::fs::MetadataExt::mode(&about)).unwrap();
    let before = mode();
    let report: Value = serde_json::from_str(
        &Bundle::new(&["/probe", "chmod", "/proc/timer_list"]).create().unwrap().finish(),
    )
    .unwrap();
    assert_eq!(report["/proc/timer_list"], "EROFS");
    assert_eq!(mode(), before);
}

/// CVE-2019-16884: a volume over a part of /proc.
#[test]
fn nothing_is_mounted_inside_of_proc() {
    needs_root!("nothing_is_mounted_inside_of_proc");
    let volume = tempfile::tempdir().unwrap();
    for target in ["/proc/self/attr", "/proc/sys/kernel", "/link/1"] {
        let mut bundle = Bundle::new(&["/probe", "report"]);
        symlink("/proc", bundle.root().join("link")).unwrap();
        let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
        mounts.push(
            json!({ "destination": target, "type": "bind", "source": volume.path(), "options": ["bind"] }),
        );
        let error = bundle.create().err().unwrap_or_else(|| panic!("{target} was mounted over")).to_string();
        assert!(error.starts_with("mounts[7]"), "{error}");
    }
}

/// CVE-2019-19921, CVE-2023-27561: a link in place of /proc or /sys puts the mount where no mask finds it.
#[test]
fn kernel_filesystems_are_not_mounted_through_links() {
    needs_root!("kernel_filesystems_are_not_mounted_through_links");
    for place in ["proc", "sys"] {
        let bundle = Bundle::new(&["/probe", "report"]);
        let root = bundle.root();
        let _ = std::fs::remove_dir(root.join(place));
        std::fs::create_dir_all(root.join("dev")).unwrap();
        std::fs::create_dir(root.join("elsewhere")).unwrap();
        // Later hidden by the tmpfs on /dev, so that the masked paths do not exist.
        symlink("/elsewhere", root.join("dev/link")).unwrap();
        symlink("/dev/link", root.join(place)).unwrap();
        let error = bundle.create().err().unwrap_or_else(|| panic!("/{place} is a link")).to_string();
        assert!(error.contains(&format!("\"/{place}\"")) && error.contains("ENOTDIR"), "{error}");
    }
}

/// CVE-2024-21626: no descriptor of the shim is a way out.
#[test]
fn a_working_directory_by_descriptor_leads_nowhere() {
    needs_root!("a_working_directory_by_descriptor_leads_nowhere");
    for number in 0..24 {
        let mut bundle = Bundle::new(&["/probe", "report"]);
        bundle.spec["process"]["cwd"] = format!("/proc/self/fd/{number}").into();
        match bundle.create() {
            Err(error) => assert!(error.to_string().contains("process.cwd"), "{error}"),
            Ok(running) => {
                let report: Value = serde_json::from_str(&running.finish()).unwrap();
                panic!("descriptor {number} led to {}", report["cwd"]);
            }
        }
    }
}

/// A terminal comes from the container's devpts, and from nothing that looks like one.
#[test]
fn a_fake_multiplexer_is_refused() {
    needs_root!("a_fake_multiplexer_is_refused");
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let root = bundle.root();
    std::fs::create_dir(root.join("dev/pts")).unwrap();
    std::fs::write(root.join("dev/pts/ptmx"), "").unwrap();
    bundle.spec["process"]["terminal"] = true.into();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    mounts.retain(|mount| !mount["destination"].as_str().unwrap().starts_with("/dev"));
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.contains("ptmx") && error.contains("ENODEV"), "{error}");
}

/// The race of CVE-2021-30465: a directory on the path alternates with a link while mounts are made.
#[test]
fn a_path_that_changes_during_the_create_stays_inside() {
    needs_root!("a_path_that_changes_during_the_create_stays_inside");
    let outside = tempfile::tempdir().unwrap();
    let mut bundle = Bundle::new(&["/probe", "exit", "0"]);
    let root = bundle.root();
    let mounts = bundle.spec["mounts"].as_array_mut().unwrap();
    for n in 0..8 {
        mounts.push(tmpfs(&format!("/race/a/made{n}")));
    }
    std::fs::create_dir_all(root.join("race/b")).unwrap();
    symlink(outwards(outside.path()), root.join("race/c")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut made, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let path = |name: &str| root.join("race").join(name);
            while !stop.load(Ordering::Relaxed) {
                for name in ["b", "c"] {
                    let _ = std::fs::rename(path(name), path("a"));
                    let _ = std::fs::rename(path("a"), path(name));
                }
            }
        });
        for _ in 0..150 {
            match bundle.create() {
                Ok(running) => {
                    made += 1;
                    running.finish();
                }
                Err(_) => refused += 1,
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    println!("{made} made, {refused} refused");
    assert_eq!(names(outside.path()), Vec::<String>::new());
}

/// CVE-2016-9962, CVE-2019-5736: while a process joins the container, nothing inside can open it: its memory,
/// descriptors and executable are the shim's until the execve.
#[test]
fn a_joining_process_cannot_be_opened_from_inside() {
    needs_root!("a_joining_process_cannot_be_opened_from_inside");
    let bundle = Bundle::new(&["/probe", "watch", "/stop"]);
    let init = bundle.create().unwrap();
    let pidfd = init.waiting.pidfd.try_clone().unwrap();
    let (waiting, mut output, exit) = (init.waiting, init.output, init.exit);
    waiting.start().unwrap();
    let process = json!({
        "user": { "uid": 0, "gid": 0 }, "args": ["/probe", "sleep"], "cwd": "/", "env": [],
        "capabilities": bundle.spec["process"]["capabilities"]
    });
    let plan = bundle.exec_plan(&process).unwrap();
    assert!(plan.steps.iter().any(|(step, _)| matches!(step, Step::SetNs { .. })));
    for _ in 0..60 {
        // At its gate it stays in the namespaces as long as we like; then it runs for a moment.
        let running = launch(&plan, Some(pidfd.as_fd())).unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        let pidfd = running.waiting.start().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(5));
        shoal::sys::wait::signal(pidfd.as_fd(), libc::SIGKILL).unwrap();
        running.exit.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
    }
    std::fs::write(bundle.root().join("stop"), "").unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut output, &mut text).unwrap();
    exit.recv_timeout(std::time::Duration::from_secs(5)).unwrap();
    let seen: Value = serde_json::from_str(&text).unwrap();
    // The watch works: it opened processes that had become /probe, and met those that had not.
    assert!(seen["opened"].as_u64().unwrap() > 10, "{seen}");
    assert!(seen["refused"].as_u64().unwrap() > 10, "{seen}");
    assert_eq!(seen["foreign"], json!([]), "{seen}");
    let _ = launcher();
}

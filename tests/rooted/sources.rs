//! Where the sources of binds are found, and what of the host's mounts stays with them: ours and runc's. Odd mounts are in
//! a mount namespace of a thread's own.

use crate::bench::{c, launcher, null, rooted};
use crate::container::Bundle;
use serde_json::json;
use shoal::cgroup::Entry;
use shoal::error::{Error, Kind};
use shoal::launch::{Launcher, Leash, Order};
use shoal::plan::RootfsMount;
use shoal::stdio::Ends;
use shoal::sys::{mount, namespace};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `test` in a thread that has a mount namespace of its own; what it launches, and runc, begin there.
fn apart(test: impl FnOnce(&Path) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        namespace::unshare(libc::CLONE_NEWNS as u64).unwrap();
        mount::mount(None, c"/", None, libc::MS_REC | libc::MS_PRIVATE, None).unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        tmpfs(folder.path(), 0);
        test(folder.path());
        mount::unmount(&path(folder.path()), libc::MNT_DETACH).unwrap();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

fn path(path: &Path) -> std::ffi::CString {
    c(path.to_str().unwrap())
}

fn tmpfs(target: &Path, flags: u64) {
    mount::mount(Some(c"t"), &path(target), Some(c"tmpfs"), flags, Some(c"mode=755")).unwrap();
}

fn bind(bundle: &mut Bundle, source: &Path, destination: &str, options: &[&str]) {
    let mount = json!({ "destination": destination, "type": "bind", "source": source, "options": options });
    bundle.spec["mounts"].as_array_mut().unwrap().push(mount);
}

fn both(args: &[&str]) -> [Bundle; 2] {
    [Bundle::new(args), crate::users::bundle(args)]
}

#[test]
fn a_tree_that_has_a_mount_namespace_in_it_can_be_bound() {
    if !rooted("a_tree_that_has_a_mount_namespace_in_it_can_be_bound") {
        return;
    }
    apart(|folder| {
        std::fs::write(folder.join("file"), "text").unwrap();
        std::fs::write(folder.join("namespace"), "").unwrap();
        let file = format!("--mount={}", folder.join("namespace").display());
        assert!(Command::new("unshare").args([&file, "true"]).status().unwrap().success());
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(mounts.contains(" - nsfs "), "{mounts}");
        for mut bundle in both(&["/probe", "cat", "/volume/file", "/volume/namespace", "/file"]) {
            bind(&mut bundle, folder, "/volume", &["rbind"]);
            // The file below it: a copy of a mount namespace has no other ones in it.
            bind(&mut bundle, &folder.join("namespace"), "/file", &["bind"]);
            for (name, report) in bundle.reports() {
                let found = json!({ "/volume/file": "text", "/volume/namespace": "", "/file": "" });
                assert_eq!(report, found, "{name}");
            }
        }
    });
}

/// What a launch that gets half a second has to say for itself.
fn too_long(bundle: &Bundle) -> Error {
    let plan = bundle.plan().unwrap();
    let begun = Instant::now();
    let order = Order {
        plan: &plan,
        ends: Some(Ends { stdin: null(), stdout: null(), stderr: null() }),
        entry: Entry::default(),
        init: None,
        hooks: &mut |_, _| Ok(()),
        leash: &Leash::lasting(Duration::from_millis(500)),
        on_exit: Box::new(|_| {}),
    };
    let error = launcher().launch(order).expect_err("late");
    assert!(begun.elapsed() < Duration::from_secs(4), "{error}: {:?}", begun.elapsed());
    assert_eq!(error.kind(), Kind::Deadline, "{error}");
    error
}

/// The child waits, and ends with its time; no thread of the shim hangs.
#[test]
fn a_source_that_never_answers_ends_with_the_launch() {
    if !rooted("a_source_that_never_answers_ends_with_the_launch") {
        return;
    }
    apart(|folder| {
        let server = std::fs::OpenOptions::new().read(true).write(true).open("/dev/fuse").unwrap();
        let dead = folder.join("dead");
        std::fs::create_dir(&dead).unwrap();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", server.as_raw_fd());
        mount::mount(Some(c"dead"), &path(&dead), Some(c"fuse"), 0, Some(&c(&options))).unwrap();
        for mut bundle in both(&["/probe", "report"]) {
            bind(&mut bundle, &dead.join("volume"), "/volume", &["rbind"]);
            let error = too_long(&bundle).to_string();
            assert!(error.starts_with("mounts[7].source: step ") && error.contains("dead/volume"), "{error}");
            bundle.spec["mounts"].as_array_mut().unwrap().pop();
            namespace_of(&mut bundle, "network", Some(&dead.join("network")));
            bundle.spec["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
            let error = too_long(&bundle).to_string();
            assert!(error.starts_with("linux.namespaces[network]: step "), "{error}");
            namespace_of(&mut bundle, "network", None);
            let (fstype, options, target) = ("ext4".into(), vec!["loop".into(), "ro".into()], String::new());
            let source = dead.join("image").to_str().unwrap().to_owned();
            bundle.rootfs = vec![RootfsMount { fstype, source, options, target }];
            if Path::new("/dev/loop-control").exists() {
                let error = too_long(&bundle).to_string();
                assert!(error.starts_with("rootfs[0].source: step "), "{error}");
            }
        }
    });
}

fn namespace_of(bundle: &mut Bundle, kind: &str, path: Option<&Path>) {
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.retain(|namespace| namespace["type"] != kind);
    namespaces.push(match path {
        Some(path) => json!({ "type": kind, "path": path }),
        None => json!({ "type": kind }),
    });
}

/// It is not opened as a reader would, who waits for the writer.
#[test]
fn a_fifo_is_no_namespace() {
    if !rooted("a_fifo_is_no_namespace") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let fifo = folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let mut bundle = Bundle::new(&["/probe", "report"]);
    namespace_of(&mut bundle, "ipc", Some(&fifo));
    let error = bundle.create().err().expect("refused");
    assert_eq!(error.kind(), Kind::Invalid);
    assert_eq!(error.to_string(), format!("linux.namespaces[ipc] {fifo:?}: not a namespace"));
}

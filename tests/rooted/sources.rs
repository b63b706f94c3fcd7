//! Where the sources of binds are looked up, and which flags of the host's mounts stay: ours and runc's. Unusual
//! mounts are in a mount namespace of a thread's own.

use crate::bench::{c, eventually, launcher, null, rooted};
use crate::container::{runc, Bundle};
use crate::reports::same;
use serde_json::{json, Value};
use shoal::cgroup::Entry;
use shoal::error::{Error, Kind};
use shoal::launch::{Launcher, Leash, Order};
use shoal::plan::RootfsMount;
use shoal::stdio::StdioFds;
use shoal::sys::{mount, namespace};
use shoal::tasks::block_on;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `test` in a thread with a mount namespace of its own, which is that of our launches and of runc.
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
fn flags_of_the_hosts_mounts_are_locked_in_a_user_namespace() {
    if !rooted("flags_of_the_hosts_mounts_are_locked_in_a_user_namespace") {
        return;
    }
    apart(|folder| {
        for name in ["closed", "open", "closed/below"] {
            std::fs::create_dir(folder.join(name)).unwrap();
            let flags = if name == "open" { 0 } else { libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC };
            tmpfs(&folder.join(name), flags);
        }
        for name in ["closed/below", "closed"] {
            let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let flags = flags | libc::MS_REMOUNT | libc::MS_BIND;
            mount::mount(None, &path(&folder.join(name)), None, flags, None).unwrap();
        }
        let paths = ["/closed", "/closed/below", "/open", "/own", "/dev/null"];
        let mut bundle = crate::users::bundle(&[&["/probe", "unlock"], &paths[..]].concat());
        for set in ["bounding", "effective", "permitted"] {
            bundle.spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
        }
        bind(&mut bundle, &folder.join("closed"), "/closed", &["rbind"]);
        bind(&mut bundle, &folder.join("open"), "/open", &["rbind", "nosuid", "nodev"]);
        bind(&mut bundle, &folder.join("open"), "/own", &["rbind", "ro"]);
        let locked = json!({ "ro": "EPERM", "nosuid": "EPERM", "nodev": "EPERM", "noexec": "EPERM" });
        for (name, report) in bundle.reports() {
            for path in &paths[..2] {
                assert_eq!(report[*path], locked, "{name}: {path}");
            }
            // Flags that only the specification asks for are not locked.
            assert_eq!(report["/open"], json!({ "nosuid": "ok", "nodev": "ok" }), "{name}");
            assert_eq!(report["/own"], json!({ "ro": "ok" }), "{name}");
        }
        // An option that would clear a flag of the host's is refused, and so is a bind that would uncover what is
        // below a mount, as with runc.
        let refused = [
            (&["rbind", "rw"], "mounts[10]: step ", "operation not permitted (EPERM)"),
            (
                &["bind", "nosuid"],
                "mounts[10].source ",
                "what has mounts below it can be bound with rbind only",
            ),
        ];
        for (options, start, end) in refused {
            bind(&mut bundle, &folder.join("closed"), "/again", options);
            let error = bundle.create().err().expect("refused").to_string();
            assert!(error.starts_with(start) && error.ends_with(end), "{error}");
            if let Some(runc) = runc() {
                assert!(!bundle.try_runc(&runc).status.success(), "{options:?}");
            }
            bundle.spec["mounts"].as_array_mut().unwrap().pop();
        }
    });
}

/// Other ways fail too: calls other than mount(2), a copy, uncovering what is below, or a nested user namespace.
#[test]
fn flags_of_the_hosts_mounts_stay_locked_whatever_a_user_namespace_tries() {
    if !rooted("flags_of_the_hosts_mounts_stay_locked_whatever_a_user_namespace_tries") {
        return;
    }
    apart(|folder| {
        for name in ["closed", "closed/below"] {
            std::fs::create_dir(folder.join(name)).unwrap();
            tmpfs(&folder.join(name), libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC);
        }
        for name in ["closed/below", "closed"] {
            let flags = libc::MS_RDONLY | libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
            let flags = flags | libc::MS_REMOUNT | libc::MS_BIND;
            mount::mount(None, &path(&folder.join(name)), None, flags, None).unwrap();
        }
        let mut bundle = crate::users::bundle(&["/probe", "loosen", "/closed"]);
        for set in ["bounding", "effective", "permitted"] {
            bundle.spec["process"]["capabilities"][set].as_array_mut().unwrap().push("CAP_SYS_ADMIN".into());
        }
        bind(&mut bundle, &folder.join("closed"), "/closed", &["rbind"]);
        for (name, report) in bundle.reports() {
            let ways = json!({
                "in place": "EPERM", "a copy": "EPERM", "a copy of it alone": "EINVAL", "attached": "EPERM",
                "uncovered": "EINVAL", "superblock": "EPERM", "nested": "EPERM",
            });
            assert_eq!(report["/closed"], ways, "{name}");
        }
    });
}

/// A mount in a volume of a user namespace does not propagate to the host, whatever the specification says.
#[test]
fn propagation_in_a_user_namespace_is_as_with_runc() {
    if !rooted("propagation_in_a_user_namespace_is_as_with_runc") {
        return;
    }
    apart(|folder| {
        std::fs::create_dir(folder.join("shared")).unwrap();
        let shared = folder.join("shared");
        tmpfs(&shared, 0);
        mount::mount(None, &path(&shared), None, libc::MS_SHARED, None).unwrap();
        std::fs::create_dir(shared.join("below")).unwrap();
        tmpfs(&shared.join("below"), 0);
        for root in [Value::Null, json!("rprivate"), json!("rslave"), json!("rshared"), json!("shared")] {
            let mut bundle = crate::users::bundle(&["/probe", "report"]);
            let silent = root.is_null();
            bundle.spec["linux"]["rootfsPropagation"] = root;
            let words = ["", "rprivate", "private", "rslave", "slave", "rshared", "shared", "runbindable"];
            for word in words {
                let options = [&["rbind"][..], &[word][usize::from(word.is_empty())..]].concat();
                bind(&mut bundle, &shared, &format!("/m{word}"), &options);
            }
            let report = same(&bundle);
            let volumes = report["mounts"].as_array().unwrap().iter();
            let volumes = volumes.filter(|mount| mount["point"].as_str().unwrap().starts_with("/m"));
            assert!(volumes.clone().count() == 2 * words.len(), "{report}");
            // A mount that is to be shared is not the host's peer, but a slave that follows it.
            for mount in volumes.filter(|mount| mount["point"] == "/mshared" && silent) {
                assert_eq!(mount["propagation"], json!(["shared", "master"]));
            }
        }
    });
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
        // Linux sometimes takes it for an older one, depending on the processor on which it was made.
        let pin = || Command::new("unshare").args([&file, "true"]).output().unwrap().status.success();
        eventually("a pinned mount namespace", pin);
        let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        assert!(mounts.contains(" - nsfs "), "{mounts}");
        for mut bundle in both(&["/probe", "cat", "/volume/file", "/volume/namespace", "/file"]) {
            bind(&mut bundle, folder, "/volume", &["rbind"]);
            // The file below it: a copy of a mount namespace contains no other ones.
            bind(&mut bundle, &folder.join("namespace"), "/file", &["bind"]);
            for (name, report) in bundle.reports() {
                let found = json!({ "/volume/file": "text", "/volume/namespace": "", "/file": "" });
                assert_eq!(report, found, "{name}");
            }
        }
    });
}

#[test]
fn a_source_in_the_containers_root_is_what_is_mounted_there() {
    if !rooted("a_source_in_the_containers_root_is_what_is_mounted_there") {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    std::fs::set_permissions(volume.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::create_dir(volume.path().join("deep")).unwrap();
    std::fs::write(volume.path().join("deep/file"), "text").unwrap();
    let look = ["/probe", "cat", "/seen/deep/file", "/deep/file", "/before/deep/file"];
    for mut bundle in both(&look) {
        let root = bundle.root();
        std::fs::create_dir(root.join("data")).unwrap();
        bind(&mut bundle, &root.join("data"), "/before", &["rbind"]);
        bind(&mut bundle, volume.path(), "/data", &["rbind"]);
        bind(&mut bundle, &root.join("data"), "/seen", &["rbind"]);
        bind(&mut bundle, &root.join("./data//deep"), "/deep", &["bind", "ro"]);
        for (name, report) in bundle.reports() {
            let found =
                json!({ "/seen/deep/file": "text", "/deep/file": "text", "/before/deep/file": "ENOENT" });
            assert_eq!(report, found, "{name}");
        }
    }
    // With a rootfs of the request, which exists only in the container's mount namespace.
    let mut bundle = Bundle::new(&["/probe", "cat", "/seen"]);
    let image = bundle.dir.path().join("image");
    std::fs::rename(bundle.root(), &image).unwrap();
    std::fs::create_dir(bundle.root()).unwrap();
    let (root, source) = (bundle.root(), image.to_str().unwrap().to_owned());
    let (fstype, options, target) = ("bind".into(), vec!["rbind".into()], String::new());
    bundle.rootfs = vec![RootfsMount { fstype, source, options, target }];
    bind(&mut bundle, &root.join("etc/passwd"), "/seen", &["bind"]);
    assert!(bundle.report()["/seen"].as_str().unwrap().starts_with("root:x:0:0:"));
}

/// The mount namespace of the container's process, as with runc.
#[test]
fn a_source_is_looked_for_in_the_mount_namespace_that_is_joined() {
    if !rooted("a_source_is_looked_for_in_the_mount_namespace_that_is_joined") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let script = "mount -t tmpfs t \"$0\" && echo text > \"$0/file\" && exec sleep 1000";
    // One for each runtime: pivot_root(2) affects the namespace's other processes.
    let mut holders = Vec::new();
    for runtime in ["shoal", "runc"] {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", script]).arg(folder.path());
        let holder = command.spawn().unwrap();
        let pid = holder.id();
        holders.push(Killed(holder));
        let file = format!("/proc/{pid}/root{}/file", folder.path().display());
        eventually("the file", || std::fs::read_to_string(&file).is_ok_and(|text| text == "text\n"));
        let mut bundle = Bundle::new(&["/probe", "cat", "/seen"]);
        namespace_of(&mut bundle, "mount", Some(Path::new(&format!("/proc/{pid}/ns/mnt"))));
        bind(&mut bundle, &folder.path().join("file"), "/seen", &["bind"]);
        let report = if runtime == "shoal" { Some(bundle.report()) } else { bundle.report_of_runc() };
        assert!(report.is_none_or(|report| report["/seen"] == "text\n"), "{runtime}");
    }
}

struct Killed(std::process::Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A magic link of the shim leads to its own files, which no container may reach.
#[test]
fn a_magic_link_leads_to_nothing_of_the_shims() {
    if !rooted("a_magic_link_leads_to_nothing_of_the_shims") {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("file"), "text").unwrap();
    std::fs::set_permissions(volume.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = std::fs::File::open(volume.path().join("file")).unwrap();
    let pid = std::process::id();
    let inside = |link: &str| format!("{link}{}/file", volume.path().display());
    let why = "links without end, or one of /proc that is the runtime's own";
    let other = "invalid argument (EINVAL)";
    // Each with runc's result: its own root is the host's too.
    let links = [
        ("/proc/self/fd/0".to_owned(), why, false),
        (format!("/proc/{pid}/fd/{}", file.as_raw_fd()), other, false),
        ("/proc/self/exe".to_owned(), why, false),
        ("/proc/thread-self/exe".to_owned(), why, false),
        (format!("/proc/{pid}/exe"), other, false),
        (inside(&format!("/proc/{pid}/root")), other, false),
        (inside("/proc/self/root"), why, true),
    ];
    for mut bundle in both(&["/probe", "cat", "/seen"]) {
        // Whatever has this number there.
        bind(&mut bundle, &Path::new("/proc/self/fd").join(file.as_raw_fd().to_string()), "/seen", &["bind"]);
        assert!(bundle.create().is_err());
        bundle.spec["mounts"].as_array_mut().unwrap().pop();
        for (source, why, with_runc) in &links {
            bind(&mut bundle, Path::new(source), "/seen", &["bind"]);
            let error = bundle.create().err().unwrap_or_else(|| panic!("{source} is bound")).to_string();
            assert!(error.starts_with(&format!("mounts[7].source {source:?}: {why}")), "{error}");
            if let Some(runc) = runc() {
                let theirs = bundle.try_runc(&runc);
                let text = String::from_utf8_lossy(&theirs.stdout);
                assert_eq!(theirs.status.success(), *with_runc, "{source}: {text}");
            }
            bundle.spec["mounts"].as_array_mut().unwrap().pop();
        }
        // A path that is not a link belongs to the process that becomes the container's.
        bind(&mut bundle, Path::new("/proc/self/comm"), "/seen", &["bind"]);
        for (name, report) in bundle.reports() {
            assert_eq!(report["/seen"], "probe\n", "{name}");
        }
        bundle.spec["mounts"].as_array_mut().unwrap().pop();
    }
}

/// Returns the error of a launch that gets half a second.
fn too_long(bundle: &Bundle) -> Error {
    let plan = bundle.plan().unwrap();
    let begun = Instant::now();
    let order = Order {
        plan: &plan,
        ends: Some(StdioFds { stdin: null(), stdout: null(), stderr: null() }),
        entry: Entry::default(),
        init: None,
        leash: &Leash::lasting(Duration::from_millis(500)),
        on_exit: Box::new(|_| {}),
    };
    let error = block_on(launcher().launch(order)).err().expect("late");
    assert!(begun.elapsed() < Duration::from_secs(4), "{error}: {:?}", begun.elapsed());
    assert_eq!(error.kind(), Kind::Deadline, "{error}");
    error
}

/// The child waits, and ends when its time is over; no thread of the shim hangs.
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

/// Opening it like a reader would wait for a writer.
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

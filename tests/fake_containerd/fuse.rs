//! A FUSE rootfs. The helper program here binds the image, and records how it was called.

use crate::{connect, create_request, deaf, delete, kill, shut_down, start, wait};
use containerd_shim_protos::api::{CreateTaskRequest, CreateTaskResponse, StateRequest, StateResponse};
use containerd_shim_protos::types::mount::Mount;
use serde_json::json;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use testbed::fake::{eventually, Containerd, Version};
use testbed::wire::{decode, Wire, TASK_V3};

const BINDS: &str = "mount --bind \"$1\" \"$2\"; echo done >&2";

/// A directory of programs with this `mount.fuse3`, for a shim to find, and a bundle whose root is empty.
struct Scene {
    containerd: Containerd,
    bundle: PathBuf,
    image: PathBuf,
    programs: PathBuf,
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap();
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.exists())
}

/// The programs that a helper here needs, but no directory that may have a package's helper.
fn path(programs: &Path) -> String {
    let tools = programs.join("tools");
    std::fs::create_dir(&tools).unwrap();
    for tool in ["sh", "mount", "env", "ls", "sleep"] {
        std::os::unix::fs::symlink(found(tool).unwrap(), tools.join(tool)).unwrap();
    }
    format!("{}:{}", programs.display(), tools.display())
}

impl Scene {
    fn new(helper: Option<&str>) -> Scene {
        let mut containerd = Containerd::new(Version::V2_3);
        let programs = containerd.dir.path().join("programs");
        std::fs::create_dir(&programs).unwrap();
        if let Some(script) = helper {
            let file = programs.join("mount.fuse3");
            let seen = format!(
                "echo \"$@\" > {0}/args; env > {0}/env; ls -l /proc/self/fd > {0}/fds",
                programs.display()
            );
            std::fs::write(&file, format!("#!/bin/sh\n{seen}\n{script}\n")).unwrap();
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        }
        containerd.environment.push(("PATH", path(&programs).leak()));
        let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
        let image = containerd.dir.path().join("image");
        std::fs::rename(bundle.join("rootfs"), &image).unwrap();
        std::fs::create_dir(bundle.join("rootfs")).unwrap();
        Scene { containerd, bundle, image, programs }
    }

    fn connect(&self) -> Wire {
        let mut wire = self.containerd.connect(&self.containerd.start("c1"));
        connect(&mut wire, TASK_V3, "c1");
        wire
    }

    fn create(&self, wire: &mut Wire) -> Result<u32, String> {
        self.create_of(wire, &["lowerdir=/a:/b", "X-containerd.x=1", "ro"])
    }

    fn create_of(&self, wire: &mut Wire, options: &[&str]) -> Result<u32, String> {
        let created = wire.call::<CreateTaskResponse>(TASK_V3, "Create", &self.request(options));
        created.map(|created| created.pid).map_err(|refusal| refusal.1)
    }

    fn create_within(&self, wire: &mut Wire, limit: Duration) -> Result<u32, String> {
        wire.ask(TASK_V3, "Create", &self.request(&[]), limit);
        let created = decode::<CreateTaskResponse>(wire.next().unwrap().1);
        created.map(|created| created.pid).map_err(|refusal| refusal.1)
    }

    fn request(&self, options: &[&str]) -> CreateTaskRequest {
        let mut request = create_request(&self.containerd, "c1");
        request.rootfs.push(Mount {
            type_: "fuse3.fuse-overlayfs".into(),
            source: self.image.to_str().unwrap().into(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Default::default()
        });
        request
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.programs.join(name)).unwrap()
    }

    fn nothing_is_mounted(&self) {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.bundle.to_str().unwrap()), "{mounts}");
    }

    fn end(self, wire: Wire) {
        shut_down(wire, "c1");
        self.containerd.delete("c1");
        self.containerd.remove_bundle("c1");
    }
}

#[test]
fn a_helper_mounts_the_root_and_the_host_keeps_nothing() {
    let scene = Scene::new(Some(BINDS));
    let mut wire = scene.connect();
    let pid = scene.create(&mut wire).unwrap();
    let (image, target) = (scene.image.display(), scene.bundle.join("rootfs"));
    let called = format!("{image} {} -o lowerdir=/a:/b -o ro -t fuse-overlayfs", target.display());
    assert_eq!(scene.read("args").trim(), called);
    // It gets only the PATH from the shim; the rest is the shell's.
    let own =
        |line: &&str| !["PATH=", "PWD=", "OLDPWD=", "SHLVL=", "_="].iter().any(|own| line.starts_with(own));
    assert_eq!(scene.read("env").lines().filter(own).collect::<Vec<_>>(), Vec::<&str>::new());
    let sockets = scene.read("fds").lines().filter(|line| line.contains("socket:")).count();
    assert_eq!(sockets, 0, "{}", scene.read("fds"));
    scene.nothing_is_mounted();
    start(&mut wire, TASK_V3, "c1");
    let root = format!("/proc/{pid}/root");
    assert!(Path::new(&root).join("probe").exists(), "its root is the image");
    kill(&mut wire, TASK_V3, "c1");
    wait(&mut wire, TASK_V3, "c1");
    delete(&mut wire, TASK_V3, "c1");
    scene.end(wire);
}

#[test]
fn a_helper_that_fails_says_why_and_leaves_nothing() {
    for (helper, why) in [
        (Some("echo no such layer >&2; exit 3"), "exit status 3, stderr: no such layer"),
        (Some("mount --bind \"$1\" \"$2\"; exit 4"), "exit status 4"),
        (None, "rootfs[0].type: mount.fuse3: exec: \"mount.fuse3\": executable file not found in $PATH"),
    ] {
        let scene = Scene::new(helper);
        let mut wire = scene.connect();
        let error = scene.create(&mut wire).unwrap_err();
        assert!(error.contains("rootfs[0]") && error.contains(why), "{error}");
        scene.nothing_is_mounted();
        let state = StateRequest { id: "c1".into(), ..Default::default() };
        assert!(wire.call::<StateResponse>(TASK_V3, "State", &state).is_err());
        scene.end(wire);
    }
}

#[test]
fn a_helper_that_hangs_is_killed_when_the_time_of_the_create_is_over() {
    let scene = Scene::new(Some("exec sleep 1000"));
    let mut wire = scene.connect();
    let begun = Instant::now();
    let limit = Duration::from_secs(1);
    let error = scene.create_within(&mut wire, limit).unwrap_err();
    assert!(error.contains("rootfs[0]") && error.contains("killed after "), "{error}");
    assert!(begun.elapsed() < limit * 5);
    scene.nothing_is_mounted();
    scene.end(wire);
}

#[test]
fn a_root_that_does_not_answer_ends_in_time_and_leaves_nothing() {
    let Some(_) = found("/dev/fuse") else { return testbed::skip::missing("no /dev/fuse") };
    let mut scene = Scene::new(Some(BINDS));
    let deaf = deaf::Fuse::mount(&scene.containerd.dir.path().join("deaf"), deaf::Waits::UntilKilled);
    scene.image = deaf.path.join("dir-mkdir");
    let mut wire = scene.connect();
    let begun = Instant::now();
    let limit = Duration::from_secs(1);
    let error = scene.create_within(&mut wire, limit).unwrap_err();
    assert!(error.contains("killed after ") || error.contains("time limit"), "{error}");
    assert!(begun.elapsed() < limit * 5);
    scene.nothing_is_mounted();
    drop(deaf);
    scene.end(wire);
}

/// The processes whose arguments have this text.
fn running(text: &str) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| {
        let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text)
    })
    .count()
}

#[test]
fn the_server_of_a_real_helper_ends_with_the_container() {
    if let Some(program) =
        ["/dev/fuse", "mount.fuse3", "fuse-overlayfs"].into_iter().find(|program| found(program).is_none())
    {
        return testbed::skip::missing(&format!("no {program}"));
    }
    let mut scene = Scene::new(None);
    scene.containerd.environment.clear();
    let mut wire = scene.connect();
    let layers: Vec<String> = ["upper", "work"]
        .map(|name| {
            let folder = scene.containerd.dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            format!("{name}dir={}", folder.display())
        })
        .to_vec();
    let lower = format!("lowerdir={}", scene.image.display());
    let pid = scene.create_of(&mut wire, &[&lower, &layers[0], &layers[1]]).unwrap();
    scene.nothing_is_mounted();
    start(&mut wire, TASK_V3, "c1");
    let mounts = std::fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).unwrap();
    assert!(root.contains(" - fuse.fuse-overlayfs "), "{root}");
    assert_eq!(running(&layers[0]), 1);
    std::fs::write(format!("/proc/{pid}/root/new"), "x").unwrap();
    assert!(scene.containerd.dir.path().join("upper/new").exists());
    kill(&mut wire, TASK_V3, "c1");
    wait(&mut wire, TASK_V3, "c1");
    delete(&mut wire, TASK_V3, "c1");
    assert!(eventually(|| running(&layers[0]) == 0), "the server stays");
    scene.end(wire);
}

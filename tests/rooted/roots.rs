//! The rootfs mounts of a request, as snapshotters ask for them.

use crate::bench::rooted;
use crate::container::Bundle;
use serde_json::Value;
use shoal::plan::RootfsMount;
use std::path::{Path, PathBuf};
use std::process::Command;

fn mount(fstype: &str, source: &Path, options: &[&str]) -> RootfsMount {
    RootfsMount {
        fstype: fstype.into(),
        source: source.to_str().unwrap().into(),
        target: String::new(),
        options: options.iter().map(|word| (*word).into()).collect(),
    }
}

/// Returns a bundle whose root is empty, and the files that were in it.
fn bundle() -> (Bundle, PathBuf) {
    let bundle = Bundle::new(&["/probe", "report"]);
    let image = bundle.dir.path().join("image");
    std::fs::rename(bundle.root(), &image).unwrap();
    std::fs::create_dir(bundle.root()).unwrap();
    (bundle, image)
}

fn root(report: &Value) -> (&str, &str, &str) {
    let mounts = report["mounts"].as_array().unwrap();
    let root = mounts.iter().find(|mount| mount["point"] == "/").unwrap();
    let word = |name: &str| root[name].as_str().unwrap();
    (word("type"), word("source"), word("options"))
}

/// Checks that nothing of a root is on the host, not even while a container runs.
fn nothing_stays(bundle: &Bundle) {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(bundle.dir.path().to_str().unwrap()), "{mounts}");
    assert_eq!(std::fs::read_dir(bundle.root()).unwrap().count(), 0);
}

#[test]
fn a_bind_can_be_read_only() {
    if !rooted("a_bind_can_be_read_only") {
        return;
    }
    let (mut bundle, image) = bundle();
    bundle.rootfs = vec![mount("bind", &image, &["rbind", "ro", "rslave"])];
    let report = bundle.report();
    assert!(root(&report).2.starts_with("ro,"), "{report}");
    nothing_stays(&bundle);
}

#[test]
fn an_overlay_of_many_layers_fits() {
    if !rooted("an_overlay_of_many_layers_fits") {
        return;
    }
    let (mut bundle, image) = bundle();
    // Long enough that the options of 60 layers exceed a page.
    let layers = bundle.dir.path().join("a-long-name-for-a-folder-of-snapshots-as-it-is-in-real-life");
    std::fs::create_dir(&layers).unwrap();
    let layer = |n: usize| layers.join(n.to_string());
    std::fs::rename(&image, layer(100)).unwrap();
    for n in 101..160 {
        std::fs::create_dir(layer(n)).unwrap();
        std::fs::write(layer(n).join(format!("file{n}")), "").unwrap();
    }
    for name in ["upper", "work"] {
        std::fs::create_dir(layers.join(name)).unwrap();
    }
    let lower: Vec<String> = (100..160).rev().map(|n| layer(n).to_str().unwrap().into()).collect();
    let folder = layers.to_str().unwrap();
    bundle.rootfs = vec![mount(
        "overlay",
        Path::new("overlay"),
        &[
            "index=off",
            &format!("workdir={folder}/work"),
            &format!("upperdir={folder}/upper"),
            &format!("lowerdir={}", lower.join(":")),
        ],
    )];
    assert!(bundle.rootfs[0].options[3].len() > 4096);
    let report = bundle.report();
    assert_eq!(root(&report).0, "overlay");
    assert!((101..160).all(|n| report["root"][format!("file{n}")] == "file 644 0:0"), "{}", report["root"]);
    nothing_stays(&bundle);
}

#[test]
fn an_image_file_is_mounted_by_a_loop_device() {
    if !rooted("an_image_file_is_mounted_by_a_loop_device") {
        return;
    }
    if !Path::new("/dev/loop-control").exists() {
        testbed::skip::other_machine("no /dev/loop-control");
        return;
    }
    let (mut bundle, files) = bundle();
    let image = bundle.dir.path().join("image.ext4");
    let made =
        Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).args([&files, &image]).arg("64m").status();
    if !made.is_ok_and(|status| status.success()) {
        testbed::skip::missing("no mke2fs");
        return;
    }
    bundle.rootfs = vec![mount("ext4", &image, &["loop", "ro", "noload"])];
    let report = bundle.report();
    let (fstype, source, options) = root(&report);
    assert_eq!(fstype, "ext4");
    assert!(source.starts_with("/dev/loop"), "{source}");
    assert!(options.starts_with("ro,"));
    nothing_stays(&bundle);

    bundle.rootfs = vec![mount("ext4", &image, &["loop"])];
    assert!(root(&bundle.report()).2.starts_with("rw,"));

    bundle.rootfs = vec![mount("ext4", &files.join("nothing"), &["loop"])];
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.starts_with("rootfs[0].source") && error.contains("ENOENT"), "{error}");
    // The devices are detached with their mounts.
    let behind = |loop_device: std::fs::DirEntry| {
        std::fs::read_to_string(loop_device.path().join("loop/backing_file")).unwrap_or_default()
    };
    let used = || {
        let devices = std::fs::read_dir("/sys/block").unwrap().flatten();
        devices.map(behind).any(|file| file.trim() == image.to_str().unwrap())
    };
    let gone = (0..100).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(20));
        !used()
    });
    assert!(gone, "a loop device stays");
}

#[test]
fn a_mount_can_go_below_the_root_and_no_link_leads_it_out() {
    if !rooted("a_mount_can_go_below_the_root_and_no_link_leads_it_out") {
        return;
    }
    for make in [Bundle::new, crate::users::bundle] {
        let mut bundle = make(&["/probe", "report"]);
        let image = bundle.dir.path().join("image");
        std::fs::rename(bundle.root(), &image).unwrap();
        std::fs::create_dir(bundle.root()).unwrap();
        let data = bundle.dir.path().join("data");
        for folder in [&data, &image.join("sub"), &image.join("srv/inner")] {
            std::fs::create_dir_all(folder).unwrap();
        }
        std::os::unix::fs::symlink("/srv", image.join("link")).unwrap();
        let below = |target: &str, mount: RootfsMount| RootfsMount { target: target.into(), ..mount };
        bundle.rootfs = vec![
            mount("bind", &image, &["rbind", "rw"]),
            below("/sub", mount("tmpfs", Path::new("first"), &["size=1m"])),
            below("../link/inner", mount("bind", &data, &["bind", "ro", "rprivate"])),
        ];
        let report = bundle.report();
        let mounts = report["mounts"].as_array().unwrap();
        let find = |point: &str| mounts.iter().find(|mount| mount["point"] == point);
        assert_eq!(find("/sub").expect("below the root")["source"], "first", "{report}");
        let inner = find("/srv/inner").expect("where the link leads inside");
        assert!(inner["options"].as_str().unwrap().starts_with("ro,"), "{inner}");
        nothing_stays(&bundle);

        bundle.rootfs[1].target = "/missing".into();
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.starts_with("rootfs[1].target: step ") && error.ends_with("(ENOENT)"), "{error}");
    }
}

#[test]
fn owners_below_the_root_can_be_mapped() {
    if !rooted("owners_below_the_root_can_be_mapped") {
        return;
    }
    let (mut bundle, image) = bundle();
    let data = bundle.dir.path().join("data");
    std::fs::create_dir_all(image.join("sub")).unwrap();
    std::fs::create_dir(&data).unwrap();
    std::fs::write(data.join("file"), "").unwrap();
    bundle.spec["process"]["args"] = serde_json::json!(["/probe", "stat", "/sub/file"]);
    let mapped = mount("bind", &data, &["bind", "uidmap=0:7000:10", "gidmap=0:7000:10"]);
    bundle.rootfs = vec![mount("bind", &image, &["rbind"]), RootfsMount { target: "sub".into(), ..mapped }];
    let report = bundle.report();
    assert!(report["/sub/file"].as_str().unwrap().contains("7000:7000"), "{report}");
}

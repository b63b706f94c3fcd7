//! Mounts whose files have other owners inside: binds, and a snapshotter's rootfs.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::users::{bundle, give, ids, FIRST};
use serde_json::{json, Value};
use shoal::plan::RootfsMount;
use std::os::unix::fs::{chown, MetadataExt};
use std::path::{Path, PathBuf};

/// Makes a directory with a file of root's and one of user 1000's.
fn volume() -> tempfile::TempDir {
    let volume = tempfile::tempdir().unwrap();
    std::fs::write(volume.path().join("root"), "").unwrap();
    std::fs::write(volume.path().join("user"), "").unwrap();
    chown(volume.path().join("user"), Some(1000), Some(1001)).unwrap();
    volume
}

fn owner(path: &Path) -> (u32, u32) {
    let about = std::fs::symlink_metadata(path).unwrap();
    (about.uid(), about.gid())
}

/// Returns the owner from `file 644 0:0 12`.
fn owner_in<'a>(report: &'a Value, path: &str) -> &'a str {
    report[path].as_str().unwrap().split(' ').nth(2).unwrap()
}

fn bind(bundle: &mut Bundle, source: &Path, options: &[&str], maps: Option<Value>) {
    let mut mount = json!({ "destination": "/volume", "type": "bind", "source": source, "options": options });
    if let Some(maps) = maps {
        mount["uidMappings"] = maps.clone();
        mount["gidMappings"] = maps;
    }
    bundle.spec["mounts"].as_array_mut().unwrap().push(mount);
}

const LOOK: [&str; 4] = ["/probe", "stat", "/volume/root", "/volume/user"];

#[test]
fn the_owners_of_a_bind_are_mapped_both_ways() {
    if !rooted("the_owners_of_a_bind_are_mapped_both_ways") {
        return;
    }
    let volume = volume();
    let mut plain = bundle(&LOOK);
    bind(&mut plain, volume.path(), &["rbind"], None);
    for (name, report) in plain.reports() {
        assert_eq!(owner_in(&report, "/volume/root"), "65534:65534", "{name}");
    }
    // With the container's own map, and with one of the mount's.
    for (options, maps) in
        [(&["rbind", "idmap"][..], None), (&["bind", "ridmap"], None), (&["rbind"], Some(ids()))]
    {
        let mut mapped = bundle(&LOOK);
        bind(&mut mapped, volume.path(), options, maps.clone());
        for (name, report) in mapped.reports() {
            assert_eq!(owner_in(&report, "/volume/root"), "0:0", "{name} {options:?}");
            assert_eq!(owner_in(&report, "/volume/user"), "1000:1001", "{name} {options:?}");
        }
        mapped.spec["process"]["args"] = json!(["/probe", "save", "/volume/made"]);
        mapped.create().unwrap().finish();
        assert_eq!(owner(&volume.path().join("made")), (0, 0), "{options:?}");
        std::fs::remove_file(volume.path().join("made")).unwrap();
    }
}

#[test]
fn owners_are_mapped_without_a_user_namespace_too() {
    if !rooted("owners_are_mapped_without_a_user_namespace_too") {
        return;
    }
    let volume = volume();
    let mut mapped = Bundle::new(&LOOK);
    let maps = json!([
        { "containerID": 0, "hostID": 5000, "size": 10 }, { "containerID": 1000, "hostID": 7, "size": 2 }
    ]);
    bind(&mut mapped, volume.path(), &["rbind"], Some(maps));
    for (name, report) in mapped.reports() {
        assert_eq!(owner_in(&report, "/volume/root"), "5000:5000", "{name}");
        assert_eq!(owner_in(&report, "/volume/user"), "7:8", "{name}");
    }
    // Root inside is not in that map.
    mapped.spec["process"]["args"] = json!(["/probe", "save", "/volume/made"]);
    assert!(mapped.create().unwrap().waiting.start().is_ok());
    assert!(!volume.path().join("made").exists());
}

#[test]
fn what_is_mounted_below_is_mapped_if_it_is_asked_for() {
    if !rooted("what_is_mounted_below_is_mapped_if_it_is_asked_for") {
        return;
    }
    let volume = tempfile::tempdir().unwrap();
    let below = volume.path().join("below");
    std::fs::create_dir(&below).unwrap();
    let mount = std::process::Command::new("mount").args(["-t", "tmpfs", "below"]).arg(&below).status();
    assert!(mount.unwrap().success());
    std::fs::write(below.join("file"), "").unwrap();
    let owners: Vec<Vec<String>> = ["idmap", "ridmap"]
        .iter()
        .map(|word| {
            let mut mapped = bundle(&["/probe", "stat", "/volume", "/volume/below/file"]);
            bind(&mut mapped, volume.path(), &["rbind", word], None);
            let reports = mapped.reports();
            reports.iter().map(|(_, report)| owner_in(report, "/volume/below/file").to_owned()).collect()
        })
        .collect();
    let unmounted = std::process::Command::new("umount").arg(&below).status();
    assert!(unmounted.unwrap().success());
    assert!(owners[0].iter().all(|owner| owner == "65534:65534"), "{owners:?}");
    assert!(owners[1].iter().all(|owner| owner == "0:0"), "{owners:?}");
}

#[test]
fn a_filesystem_that_cannot_map_is_named() {
    if !rooted("a_filesystem_that_cannot_map_is_named") {
        return;
    }
    let mut mapped = bundle(&LOOK);
    bind(&mut mapped, Path::new("/proc"), &["bind", "idmap"], None);
    let error = mapped.create().err().expect("refused").to_string();
    let expected = "mounts[7].source \"/proc\": mount_setattr(MOUNT_ATTR_IDMAP): invalid argument (EINVAL)";
    assert_eq!(error, expected);
}

/// Returns a bundle whose root is empty, and the files that were in it, owned by the host's root.
fn emptied() -> (Bundle, PathBuf) {
    let bundle = bundle(&["/probe", "save", "/tmp/saved"]);
    let image = bundle.dir.path().join("image");
    std::fs::rename(bundle.root(), &image).unwrap();
    std::fs::create_dir(bundle.root()).unwrap();
    for entry in std::fs::read_dir(&image).unwrap() {
        chown(entry.unwrap().path(), Some(0), Some(0)).unwrap();
    }
    chown(&image, Some(0), Some(0)).unwrap();
    (bundle, image)
}

fn mount(fstype: &str, source: &Path, options: &[String]) -> RootfsMount {
    let maps = [format!("uidmap=0:{FIRST}:65536"), format!("gidmap=0:{FIRST}:65536")];
    let options = options.iter().cloned().chain(maps).collect();
    RootfsMount {
        fstype: fstype.into(),
        source: source.to_str().unwrap().into(),
        target: String::new(),
        options,
    }
}

fn saved(file: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap()
}

#[test]
fn the_layers_of_an_overlay_are_mapped_and_its_upper_one_is_not() {
    if !rooted("the_layers_of_an_overlay_are_mapped_and_its_upper_one_is_not") {
        return;
    }
    let (mut bundle, image) = emptied();
    let folder = bundle.dir.path().to_owned();
    for name in ["second", "upper", "work"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    std::fs::write(folder.join("second/file"), "").unwrap();
    give(&folder.join("upper"));
    let (image, folder) = (image.to_str().unwrap(), folder.to_str().unwrap());
    let options = [
        format!("workdir={folder}/work"),
        format!("upperdir={folder}/upper"),
        format!("lowerdir={folder}/second:{image}"),
    ];
    bundle.rootfs = vec![mount("overlay", Path::new("overlay"), &options)];
    bundle.create().unwrap().finish();
    let file = Path::new(folder).join("upper/tmp/saved");
    assert_eq!(owner(&file), (FIRST, FIRST));
    let report = saved(&file);
    assert_eq!(report["root"]["etc"], "dir 755 0:0");
    assert_eq!(report["root"]["file"], "file 644 0:0");
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(folder), "{mounts}");
}

#[test]
fn a_bound_root_is_mapped() {
    if !rooted("a_bound_root_is_mapped") {
        return;
    }
    let (mut bundle, image) = emptied();
    bundle.rootfs = vec![mount("bind", &image, &["rbind".into(), "rw".into()])];
    bundle.create().unwrap().finish();
    let file = image.join("tmp/saved");
    assert_eq!(owner(&file), (0, 0));
    assert_eq!(saved(&file)["root"]["probe"].as_str().unwrap().split(' ').nth(2), Some("0:0"));
    assert_eq!(saved(&file)["ids"]["uid"], "0 0 0 0");
}

//! Filesystem options of a mount in all the forms that mount(2) takes, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::compare;
use serde_json::{json, Value};
use std::path::Path;

/// Makes a bundle with directories for an overlay, and one more mount.
fn bundle(make: fn(&[&str]) -> Bundle, fstype: &str, source: &str, options: &Value) -> Bundle {
    let mut bundle = make(&["/probe", "report"]);
    let dir = bundle.dir.path().to_str().unwrap().to_owned();
    for name in ["lower", "second", "a,b", "rootfs/m"] {
        std::fs::create_dir_all(Path::new(&dir).join(name)).unwrap();
    }
    let options = options.to_string().replace('@', &dir);
    let options: Value = serde_json::from_str(&options).unwrap();
    let mount = json!({ "destination": "/m", "type": fstype, "source": source, "options": options });
    bundle.spec["mounts"].as_array_mut().unwrap().push(mount);
    bundle
}

/// Runs each with a new upper layer, since an overlay leaves marks there.
fn same(bundle: &Bundle) -> Value {
    let renew = || {
        for name in ["upper", "work"].map(|name| bundle.dir.path().join(name)) {
            let _ = std::fs::remove_dir_all(&name);
            std::fs::create_dir(&name).unwrap();
        }
    };
    renew();
    let ours = bundle.report();
    renew();
    compare(ours, bundle.report_of_runc())
}

fn mounted(report: &Value) -> Value {
    let mounts = report["mounts"].as_array().unwrap();
    mounts.iter().find(|mount| mount["point"] == "/m").unwrap().clone()
}

/// Checks that neither runs it, and that our error is about the mount.
fn refused(fstype: &str, options: &Value, why: &str) {
    let bundle = bundle(Bundle::new, fstype, fstype, options);
    let error = bundle.create().err().expect("refused").to_string();
    assert!(error.starts_with("mounts[7]") && error.contains(why), "{error}");
    if let Some(runc) = crate::container::runc() {
        assert!(!bundle.try_runc(&runc).status.success(), "runc takes {options}");
    }
}

#[test]
fn several_options_in_one_string_are_as_with_runc() {
    if !rooted("several_options_in_one_string_are_as_with_runc") {
        return;
    }
    for options in [
        json!(["size=1m,mode=700"]),
        json!(["nosuid", ",size=1m,,mode=700,", ","]),
        json!(["mpol=bind:0,0,size=1m", "mode=711"]),
    ] {
        same(&bundle(Bundle::new, "tmpfs", "tmpfs", &options));
    }
    let report = bundle(Bundle::new, "tmpfs", "tmpfs", &json!(["size=1m,ro"])).report();
    assert!(mounted(&report)["options"].as_str().unwrap().starts_with("ro,"));
    let overlay = |options| same(&bundle(Bundle::new, "overlay", "overlay", &options));
    overlay(json!(["lowerdir=@/lower:@/second,upperdir=@/upper,workdir=@/work", "noatime"]));
    overlay(json!(["lowerdir=@/a\\,b:@/lower"]));
    // The filesystem does not know an option of the mount.
    refused("tmpfs", &json!(["size=1m,nosuid"]), "invalid argument");
    refused("tmpfs", &json!(["ro,nosuid"]), "invalid argument");
}

#[test]
fn options_that_are_longer_than_fsconfig_takes_are_as_with_runc() {
    if !rooted("options_that_are_longer_than_fsconfig_takes_are_as_with_runc") {
        return;
    }
    let long = "./".repeat(150);
    let lower = format!("lowerdir=@/lower/{long}:@/second");
    let upper = format!("upperdir=@/upper/{long}");
    for options in [
        json!([lower]),
        json!(["lowerdir=@/lower", upper, "workdir=@/work"]),
        json!([lower, upper, "workdir=@/work", "nosuid", "nodev", "noexec", "nodiratime", "sync"]),
        json!([lower, "ro", "noatime"]),
        json!([lower, "strictatime", "rshared"]),
        json!([format!("{lower},index=off"), "relatime", "rslave"]),
    ] {
        let report = same(&bundle(Bundle::new, "overlay", "overlay", &options));
        assert_eq!(mounted(&report)["type"], "overlay");
    }
    // A name that is not a path, such as that of a tmpfs or a share.
    let report = same(&bundle(Bundle::new, "tmpfs", &"x".repeat(300), &json!(["size=1m", "mode=711", "ro"])));
    assert_eq!(mounted(&report)["source"], "x".repeat(300));
    refused("tmpfs", &json!(["x".repeat(300)]), "invalid argument");
    refused("overlay", &json!([format!("lowerdir=@/lower/{}", "./".repeat(2100))]), "longer than a page");
}

#[test]
fn long_options_are_taken_in_a_user_namespace() {
    if !rooted("long_options_are_taken_in_a_user_namespace") {
        return;
    }
    let bundle = bundle(crate::users::bundle, "tmpfs", &"x".repeat(300), &json!(["size=1m", "mode=711"]));
    let report = same(&bundle);
    assert_eq!(mounted(&report)["type"], "tmpfs");
}

/// Only mount(2) has this option.
#[test]
fn versions_of_inodes_are_as_with_runc() {
    if !rooted("versions_of_inodes_are_as_with_runc") {
        return;
    }
    for make in [Bundle::new, crate::users::bundle] {
        for options in [
            json!(["iversion", "size=1m", "mode=711"]),
            json!(["ro", "nosuid", "iversion", "sync"]),
            json!(["iversion", "noiversion"]),
        ] {
            mounted(&same(&bundle(make, "tmpfs", "tmpfs", &options)));
        }
        mounted(&same(&bundle(make, "bind", "/usr/share", &json!(["bind", "iversion"]))));
    }
}

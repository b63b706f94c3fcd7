//! Time namespaces: a container's clocks, ours and runc's.

use crate::affinity::process;
use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::{same, same_exec};
use serde_json::json;

/// In thousands of days.
const UP: i64 = 5;

fn with_offsets(mut bundle: Bundle) -> Bundle {
    let linux = &mut bundle.spec["linux"];
    linux["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    linux["timeOffsets"] = json!({
        "boottime": { "secs": UP * 86_400_000, "nanosecs": 7 },
        "monotonic": { "secs": 3600, "nanosecs": 999_999_999 },
    });
    bundle
}

#[test]
fn the_clocks_of_a_container_are_as_with_runc() {
    if !rooted("the_clocks_of_a_container_are_as_with_runc") {
        return;
    }
    let own = std::fs::read_link("/proc/self/ns/time").unwrap();
    for make in [Bundle::new, crate::users::bundle] {
        for (report, what) in [
            (same(&with_offsets(make(&["/probe", "report"]))), "its first process"),
            (same_exec(&with_offsets(make(&["/probe", "sleep"])), &process()), "an exec"),
        ] {
            assert_eq!(report["clocks"]["up"], UP, "{what}: {}", report["clocks"]);
            assert_ne!(report["namespaces"]["time"], own.to_str().unwrap(), "{what}");
            assert_eq!(report["namespaces"]["time"], report["namespaces"]["time_for_children"], "{what}");
        }
    }
}

#[test]
fn a_time_namespace_without_offsets_is_as_with_runc() {
    if !rooted("a_time_namespace_without_offsets_is_as_with_runc") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "report"]);
    bundle.spec["linux"]["namespaces"].as_array_mut().unwrap().push(json!({ "type": "time" }));
    assert_eq!(same(&bundle)["clocks"]["up"], 0);
}

#[test]
fn a_time_namespace_by_path_is_joined_as_with_runc() {
    if !rooted("a_time_namespace_by_path_is_joined_as_with_runc") {
        return;
    }
    let other = with_offsets(Bundle::new(&["/probe", "sleep"])).create().unwrap();
    let path = format!("/proc/{}/ns/time", other.waiting.pid);
    let mut bundle = Bundle::new(&["/probe", "report"]);
    let namespaces = bundle.spec["linux"]["namespaces"].as_array_mut().unwrap();
    namespaces.push(json!({ "type": "time", "path": &path }));
    let report = same(&bundle);
    assert_eq!(report["clocks"]["up"], UP);
    assert_eq!(report["namespaces"]["time"], std::fs::read_link(&path).unwrap().to_str().unwrap());
}

#[test]
fn clocks_that_cannot_be_are_refused_as_by_runc() {
    if !rooted("clocks_that_cannot_be_are_refused_as_by_runc") {
        return;
    }
    // Before the host was booted, and beyond the kernel's range.
    for secs in [-9_000_000_000i64, 9_000_000_000_000_000_000] {
        let mut bundle = with_offsets(Bundle::new(&["/probe", "report"]));
        bundle.spec["linux"]["timeOffsets"]["boottime"]["secs"] = secs.into();
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.starts_with("linux.timeOffsets: step "), "{error}");
        assert!(error.ends_with("numerical result out of range (ERANGE)"), "{error}");
        if let Some(runc) = crate::container::runc() {
            assert!(!bundle.try_runc(&runc).status.success());
        }
    }
}

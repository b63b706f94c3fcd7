//! What a spec may say without effect, and the sentence about it.

use super::case::read;
use super::error::Bad;
use serde_json::{json, Value};
use shoal::spec::Spec;

const WITHOUT_EFFECT: &[Bad] = &[
    (
        |s| s["mounts"][1]["destination"] = json!("dev"),
        "mounts[1].destination: \"dev\" is not absolute, taken from the root",
    ),
    (
        |s| s["process"]["capabilities"]["bounding"] = json!(["CAP_CHOWN", "CAP_NEXT"]),
        "process.capabilities.bounding[1]: unknown capability \"CAP_NEXT\" is ignored",
    ),
    (
        |s| s["linux"]["resources"]["memory"] = json!({"kernel": 4096}),
        "linux.resources.memory.kernel: the kernel has no limit for it any more; ignored",
    ),
    (
        |s| s["linux"]["resources"]["memory"] = json!({"kernelTCP": 4096}),
        "linux.resources.memory.kernelTCP: the kernel has no limit for it any more; ignored",
    ),
    (
        |s| s["linux"]["resources"]["memory"] = json!({"useHierarchy": false}),
        "linux.resources.memory.useHierarchy: memory is always counted hierarchically; ignored",
    ),
    (
        |s| s["linux"]["resources"]["blockIO"] = json!({"leafWeight": 10}),
        "linux.resources.blockIO.leafWeight: the kernel has no such weight since 5.0; ignored",
    ),
    (
        |s| {
            s["linux"]["resources"]["blockIO"] =
                json!({"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]})
        },
        "linux.resources.blockIO.leafWeight: the kernel has no such weight since 5.0; ignored",
    ),
    (
        |s| s["linux"]["personality"] = json!({"domain": "LINUX32", "flags": ["x"]}),
        "linux.personality.flags: ignored, no flag is supported",
    ),
    (
        |s| s["linux"]["intelRdt"] = json!({"enableCMT": true}),
        "linux.intelRdt.enableCMT: enableMonitoring has taken its place in 1.3; ignored",
    ),
    (
        |s| s["linux"]["intelRdt"] = json!({"enableMBM": true}),
        "linux.intelRdt.enableMBM: enableMonitoring has taken its place in 1.3; ignored",
    ),
];

fn warnings(change: fn(&mut Value)) -> Vec<String> {
    let mut spec: Value = serde_json::from_str(&read("ctr-2.1-default")).expect("JSON");
    change(&mut spec);
    Spec::parse(spec.to_string().as_bytes()).expect("taken").warnings
}

#[test]
fn what_has_no_effect_is_told_by_its_field() {
    for (change, expected) in WITHOUT_EFFECT {
        assert_eq!(warnings(*change), [*expected]);
    }
    assert_eq!(warnings(|_| ()), Vec::<String>::new());
}

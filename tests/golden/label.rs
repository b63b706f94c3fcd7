//! `linux.mountLabel`: only a host with SELinux mounts with one.

use super::case::{directories, input, read, Hosts};
use serde_json::{json, Value};
use shoal::plan;
use shoal::spec::Spec;

const LABEL: &str = "system_u:object_r:container_file_t:s0:c1,c2";

/// SELinux cannot label a procfs or a sysfs, and a bind has the label of its source.
#[test]
fn every_filesystem_but_the_kernels_has_the_label_of_the_mounts() {
    let mut spec: Value = serde_json::from_str(&read("ctr-2.1-default")).expect("JSON");
    spec["linux"]["mountLabel"] = LABEL.into();
    spec["mounts"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"destination": "/b", "source": "/b", "options": ["bind"]}));
    let spec = Spec::parse(spec.to_string().as_bytes()).expect("taken");
    let host = Hosts::v2();
    let plan = plan::create(&input(&spec, &host, &directories(&host)));
    let plan = plan.expect("compiled");
    let labelled = |field: &str| {
        let of_mount = plan.steps.iter().filter(|(_, of)| of.as_ref() == field);
        let mut steps = of_mount.map(|(step, _)| step.to_string());
        steps.any(|step| {
            step.contains(&format!("context={LABEL}")) || step.contains(&format!("context=\"{LABEL}\""))
        })
    };
    for (i, mount) in spec.mounts.iter().enumerate() {
        let expected = !["/proc", "/sys", "/b"].contains(&mount.destination.as_str());
        assert_eq!(labelled(&format!("mounts[{i}]")), expected, "{}:\n{plan}", mount.destination);
    }
}

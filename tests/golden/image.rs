//! What is done around CRIU for a container that is restored.

use super::case::{directories, overlay, read, Hosts};
use shoal::plan;
use shoal::spec::Spec;
use std::collections::BTreeMap;
use std::path::Path;

pub fn all() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for name in ["ctr-2.1-default", "cri-default"] {
        let spec = Spec::parse(read(name).as_bytes()).expect(name);
        let host = Hosts::v2();
        let stage = plan::stage(&plan::Input {
            spec: &spec,
            host: &host,
            id: "c1",
            bundle: Path::new("/run/containerd/io.containerd.runtime.v2.task/default/c1"),
            rootfs: &[overlay(2)],
            filter: None,
            cgroup_dirs: &directories(&host),
            no_pivot_root: None,
            no_new_keyring: false,
        });
        let seal = plan::seal(&spec, &|path| path != "/proc/acpi");
        all.insert(format!("{name}.stage.txt"), stage.expect(name).to_string());
        all.insert(format!("{name}.seal.txt"), seal.expect(name).to_string());
    }
    all
}

//! A cgroup tree of plain files for tests: what is written can be read back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use tempfile::TempDir;

use super::layout::{Hierarchy, Layout};
use super::{create, Cgroup, CgroupsPath, Host};
use crate::error::Result;
use crate::spec::resources::Resources;
use crate::tasks::block_on;

pub(super) struct Tree {
    dir: TempDir,
    pub(super) layout: Layout,
}

/// The cgroup that tests create.
const BELOW: &str = "default/c1";

impl Tree {
    pub(super) fn v1(hierarchies: &[&str]) -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let hierarchies = hierarchies
            .iter()
            .map(|names| Hierarchy {
                mount: dir.path().join(if names.is_empty() { "unified" } else { names }),
                names: names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect(),
                own: String::new(),
            })
            .collect();
        Tree { dir, layout: Layout::V1(hierarchies) }
    }

    pub(super) fn v2() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        let mount = dir.path().join("unified");
        let tree =
            Tree { dir, layout: Layout::V2(Hierarchy { mount, names: Vec::new(), own: String::new() }) };
        tree.with("unified", &[("cgroup.controllers", "cpu memory pids"), ("cgroup.subtree_control", "")]);
        tree.with("unified/default", &[("cgroup.subtree_control", "")]);
        tree.with_leaf("unified", &[("cgroup.procs", ""), ("cgroup.controllers", "cpu memory pids")])
    }

    fn root(&self, hierarchy: &str) -> PathBuf {
        self.dir.path().join(hierarchy)
    }

    fn write(&self, path: &Path, text: &str) {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn with(&self, hierarchy: &str, files: &[(&str, &str)]) {
        for (file, text) in files {
            self.write(&self.root(hierarchy).join(file), text);
        }
    }

    /// Adds files that the kernel would create with the cgroup.
    pub(super) fn with_leaf(self, hierarchy: &str, files: &[(&str, &str)]) -> Tree {
        for (file, text) in files {
            self.write(&self.root(hierarchy).join(BELOW).join(file), text);
        }
        self
    }

    pub(super) fn make(&self, json: &str) -> Result<Box<dyn Cgroup>> {
        let resources = Resources::from_json(json.as_bytes(), "linux.resources")?;
        let host = Host { proc: self.root("proc"), run: self.root("run") };
        let path = CgroupsPath::parse(&format!("/{BELOW}"), false, "c1")?;
        block_on(create(&host, &self.layout, &path, &resources, &BTreeMap::new(), &AtomicBool::new(false)))
    }

    pub(super) fn leaf(&self, hierarchy: &str, file: &str) -> String {
        std::fs::read_to_string(self.root(hierarchy).join(BELOW).join(file)).unwrap()
    }

    pub(super) fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(path)).unwrap()
    }
}

pub(super) fn update(cgroup: &dyn Cgroup, json: &str) -> Result<()> {
    block_on(cgroup.update(&Resources::from_json(json.as_bytes(), "resources")?))
}

//! `linux.intelRdt`: a share of the processors' caches and of the memory bandwidth.

use super::raw;
use crate::error::{invalid, Result};
use std::path::{Path, PathBuf};

/// The default class: the root of resctrl.
const DEFAULT: &str = "/";

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntelRdt {
    /// The class of service by name; None is one of the container's own.
    pub class: Option<String>,
    pub l3_cache: Option<String>,
    pub memory_bandwidth: Option<String>,
    pub schemata: Vec<String>,
    pub monitoring: bool,
}

impl IntelRdt {
    /// The lines of the class's schemata, in the specification's order.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let texts = self.l3_cache.iter().chain(&self.memory_bandwidth).chain(&self.schemata);
        texts.flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty())
    }

    /// The group of the class, in the resctrl at `root`.
    pub fn group(&self, root: &Path, id: &str) -> PathBuf {
        match self.class.as_deref() {
            Some(DEFAULT) => root.to_owned(),
            class => root.join(class.unwrap_or(id)),
        }
    }

    /// The monitoring group in it.
    pub fn monitor(&self, root: &Path, id: &str) -> Option<PathBuf> {
        self.monitoring.then(|| self.group(root, id).join("mon_groups").join(id))
    }
}

pub(super) fn check(raw: raw::IntelRdt, warnings: &mut Vec<String>) -> Result<IntelRdt> {
    for (name, wanted) in [("enableCMT", raw.enable_cmt), ("enableMBM", raw.enable_mbm)] {
        if wanted == Some(true) {
            let why = "enableMonitoring has taken its place in 1.3; ignored";
            warnings.push(format!("linux.intelRdt.{name}: {why}"));
        }
    }
    let class = raw.clos_id.filter(|class| !class.is_empty());
    if let Some(class) = class.as_deref().filter(|class| *class != DEFAULT)
        && (matches!(class, "." | "..") || class.contains(['/', '\0', '\n']))
    {
        return Err(invalid(format!("linux.intelRdt.closID: {class:?} is not the name of a class")));
    }
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(IntelRdt {
        class,
        l3_cache: some(raw.l3_cache_schema),
        memory_bandwidth: some(raw.mem_bw_schema),
        schemata: raw.schemata.unwrap_or_default(),
        monitoring: raw.enable_monitoring.unwrap_or(false),
    })
}

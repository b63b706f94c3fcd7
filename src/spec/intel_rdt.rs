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
    /// The lines of the class's schemata, in the specification's order. `memBwSchema` replaces the same lines of
    /// `l3CacheSchema`, and `schemata` those of both.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let later = [true, false].map(|l3| {
            let bandwidth = self.memory_bandwidth.iter().filter(move |_| l3);
            bandwidth.chain(&self.schemata).flat_map(|text| text.lines()).map(resource).collect::<Vec<_>>()
        });
        let [after_l3, after_bandwidth] = later;
        let l3 = lines(&self.l3_cache).filter(move |line| !after_l3.contains(&resource(line)));
        let bandwidth = lines(&self.memory_bandwidth);
        let bandwidth = bandwidth.filter(move |line| !after_bandwidth.contains(&resource(line)));
        l3.chain(bandwidth).chain(lines(&self.schemata))
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

fn lines<'a>(texts: impl IntoIterator<Item = &'a String>) -> impl Iterator<Item = &'a str> {
    texts.into_iter().flat_map(|text| text.lines()).filter(|line| !line.trim().is_empty())
}

/// What a line of schemata is about: `L3`, `MB`, …
fn resource(line: &str) -> &str {
    line.split_once(':').map_or(line, |(resource, _)| resource).trim()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_field_replaces_the_lines_of_the_same_resource() {
        let rdt = |l3: &str, bandwidth: &str, schemata: &[&str]| IntelRdt {
            l3_cache: Some(l3.to_owned()),
            memory_bandwidth: Some(bandwidth.to_owned()),
            schemata: schemata.iter().map(|line| (*line).to_owned()).collect(),
            ..IntelRdt::default()
        };
        for (rdt, expected) in [
            (rdt("L3:0=f\nMB:0=10", "MB:0=20", &[]), ["L3:0=f", "MB:0=20"]),
            (rdt("L3:0=f", " MB: 0=20", &["MB:0=30"]), ["L3:0=f", "MB:0=30"]),
            (rdt("L3:0=f", "MB:0=20", &["L3:0=1"]), ["MB:0=20", "L3:0=1"]),
            (rdt("L3CODE:0=f\n\nL3DATA:0=f", "", &[]), ["L3CODE:0=f", "L3DATA:0=f"]),
        ] {
            assert_eq!(rdt.lines().collect::<Vec<_>>(), expected);
        }
        let alone = IntelRdt { l3_cache: Some("MB:0=10\n".into()), ..IntelRdt::default() };
        assert_eq!(alone.lines().collect::<Vec<_>>(), ["MB:0=10"]);
    }
}

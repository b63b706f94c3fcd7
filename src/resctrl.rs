//! A container's groups in resctrl (Documentation/filesystems/resctrl.rst): a class of service, and a monitoring group
//! in it.
//!
//! The container's processes enter them by a step of the plan, and their children are born there. A class that the
//! specification names belongs to the host: it stays, and if it was there before, it is not changed.

use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::IntelRdt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub const NOT_MOUNTED: &str = "linux.intelRdt: the host has no resctrl filesystem mounted";

/// Directories of the kernel's own: no class can have their names.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];
/// The most that the kernel takes in one write.
const PAGE: usize = 4096;

/// What a container wants of the host's resctrl, checked.
pub struct Groups<'a> {
    root: &'a Path,
    rdt: &'a IntelRdt,
    class: PathBuf,
    monitor: Option<PathBuf>,
    schemata: String,
}

impl<'a> Groups<'a> {
    /// Changes nothing.
    pub fn check(root: Option<&'a Path>, rdt: &'a IntelRdt, id: &str) -> Result<Self> {
        let root = root.ok_or_else(|| Error::new(Kind::Unsupported, NOT_MOUNTED))?;
        for (field, wanted, names) in [
            ("l3CacheSchema", rdt.l3_cache.is_some(), &["L3", "L3CODE"][..]),
            ("memBwSchema", rdt.memory_bandwidth.is_some(), &["MB"]),
            ("enableMonitoring", rdt.monitoring, &["L3_MON"]),
        ] {
            if wanted && !names.iter().any(|name| root.join("info").join(name).exists()) {
                let why = format!("linux.intelRdt.{field}: the host has no {} in {root:?}", names[0]);
                return Err(Error::new(Kind::Unsupported, why));
            }
        }
        let name = rdt.class.as_deref().unwrap_or(id);
        if RESERVED.contains(&name) {
            return Err(invalid(format!("linux.intelRdt.closID: {name:?} is a name of the kernel's own")));
        }
        let schemata: String = rdt.lines().flat_map(|line| [line, "\n"]).collect();
        if schemata.len() > PAGE {
            let why = "the schemata are longer than a page, the kernel takes no more";
            return Err(invalid(format!("linux.intelRdt: {why}")));
        }
        let groups =
            Groups { root, rdt, class: rdt.group(root, id), monitor: rdt.monitor(root, id), schemata };
        match groups.own().into_iter().find(|group| group.exists()) {
            None => Ok(groups),
            Some(group) => {
                let why = format!("linux.intelRdt: {group:?} exists, and is not this container's");
                Err(Error::new(Kind::State, why))
            }
        }
    }

    /// The groups that are the container's alone: made with it and removed with it, an outer one first.
    pub fn own(&self) -> Vec<PathBuf> {
        let class = Some(&self.class).filter(|_| self.rdt.class.is_none());
        class.into_iter().chain(&self.monitor).cloned().collect()
    }

    /// Adds to `made` what has to be removed later, even if it fails.
    pub fn make(&self, made: &mut Vec<PathBuf>) -> Result<()> {
        let Groups { root, rdt, class, monitor, schemata } = self;
        let named = rdt.class.is_some();
        if named && class.is_dir() {
            compare(root, class, schemata)?;
        } else if named && schemata.is_empty() {
            let why = "does not exist, and there is no schema to make it with";
            return Err(invalid(format!("linux.intelRdt.closID: {class:?} {why}")));
        } else {
            make(root, class)?;
            made.push(class.clone());
            set(root, class, schemata)?;
            if named {
                log::info!("made the resctrl class {class:?}, which stays on the host: others may be in it");
                made.clear();
            }
        }
        if let Some(monitor) = monitor {
            make(root, monitor)?;
            made.push(monitor.clone());
        }
        Ok(())
    }
}

/// A group of the container that somebody has removed, so that its processes are in the one above.
pub fn gone(root: Option<&Path>, rdt: Option<&IntelRdt>, id: &str) -> Option<PathBuf> {
    let (root, rdt) = root.zip(rdt)?;
    [Some(rdt.group(root, id)), rdt.monitor(root, id)].into_iter().flatten().find(|group| !group.exists())
}

fn make(root: &Path, group: &Path) -> Result<()> {
    let made = fs::DirBuilder::new().mode(0o755).create(group);
    made.context(|| format!("linux.intelRdt: mkdir({group:?}){}", reason(root)))
}

/// In one write: the kernel takes all of it or nothing.
fn set(root: &Path, group: &Path, schemata: &str) -> Result<()> {
    if schemata.is_empty() {
        return Ok(());
    }
    let path = group.join("schemata");
    let written = fs::write(&path, schemata);
    written.context(|| format!("linux.intelRdt: write({path:?}, {schemata:?}){}", reason(root)))
}

/// The kernel's words about the call that has just failed.
fn reason(root: &Path) -> String {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match status.trim() {
        "" | "ok" => String::new(),
        status => format!(", last_cmd_status {status:?}"),
    }
}

/// Checks that an existing class has these schemata.
fn compare(root: &Path, class: &Path, schemata: &str) -> Result<()> {
    if schemata.is_empty() {
        return Ok(());
    }
    let path = class.join("schemata");
    let text = fs::read_to_string(&path).context(|| format!("linux.intelRdt: read({path:?})"))?;
    let there: Vec<_> = text.lines().flat_map(|line| values(root, line)).collect();
    let other = schemata.lines().find(|line| {
        let wanted = values(root, line);
        wanted.is_empty() || wanted.iter().any(|value| !there.contains(value))
    });
    match other {
        None => Ok(()),
        Some(line) => Err(invalid(format!("linux.intelRdt: {path:?} differs from {line:?}"))),
    }
}

/// `L3:0=ff;1=0f`: the resource, and each domain with its value as the kernel would show it.
fn values<'a>(root: &Path, line: &'a str) -> Vec<(&'a str, &'a str, String)> {
    let (resource, domains) = line.split_once(':').unwrap_or((line, ""));
    let resource = resource.trim();
    // Bandwidth is decimal, and rounded up. All others are masks, which the kernel also takes with 0x.
    let step = ["MB", "SMBA"].contains(&resource).then(|| {
        let path = root.join("info").join(resource).join("bandwidth_gran");
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1)
    });
    let value = |text: &str| match step {
        Some(step) => {
            text.parse::<u64>().ok().and_then(|n| n.checked_next_multiple_of(step)).map(|n| n.to_string())
        }
        None => {
            let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
            u64::from_str_radix(digits, 16).ok().map(|mask| format!("{mask:x}"))
        }
    };
    let parts = domains.split(';').filter(|part| !part.trim().is_empty());
    parts
        .map(|part| {
            let (domain, text) = part.split_once('=').unwrap_or((part, ""));
            (resource, domain.trim(), value(text.trim()).unwrap_or_else(|| text.to_owned()))
        })
        .collect()
}

/// Removes groups, an inner one first; any that are gone are no error. Processes that are still there move to the group
/// above.
pub fn remove(groups: &[PathBuf]) -> Result<()> {
    let mut failed = Ok(());
    for group in groups.iter().rev() {
        match fs::remove_dir(group) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                failed = failed.and(Err(e).context(|| format!("linux.intelRdt: rmdir({group:?})")));
            }
            _ => {}
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much of resctrl as files can be: the kernel would fill a new group.
    fn fake(info: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("info")).unwrap();
        info.iter().for_each(|name| fs::create_dir(path("info").join(name)).unwrap());
        fs::write(path("info/last_cmd_status"), "mask f7 has non-consecutive 1-bits\n").unwrap();
        fs::write(path("schemata"), "    L3:0=fffff;1=fffff\n    MB:0=100;1=30\n").unwrap();
        root
    }

    fn class(name: &str, l3: Option<&str>, mb: Option<&str>) -> IntelRdt {
        IntelRdt {
            class: (!name.is_empty()).then(|| name.to_owned()),
            l3_cache: l3.map(str::to_owned),
            memory_bandwidth: mb.map(str::to_owned),
            ..IntelRdt::default()
        }
    }

    fn monitored(class: IntelRdt) -> IntelRdt {
        IntelRdt { monitoring: true, ..class }
    }

    /// What was made, and the error.
    fn make(root: &Path, rdt: &IntelRdt) -> (Vec<PathBuf>, Option<String>) {
        let mut made = Vec::new();
        let done = Groups::check(Some(root), rdt, "c1").and_then(|groups| groups.make(&mut made));
        (made, done.err().map(|error| error.to_string()))
    }

    #[test]
    fn a_class_of_the_containers_own_has_its_schemata_and_is_removed() {
        let root = fake(&["L3", "MB"]);
        let rdt = IntelRdt { schemata: vec!["L2:0=f".into()], ..class("", Some("L3:0=f"), Some("MB:0=20")) };
        let group = root.path().join("c1");
        assert_eq!(make(root.path(), &rdt), (vec![group.clone()], None));
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=f\nMB:0=20\nL2:0=f\n");
        // In resctrl it goes with its directory.
        fs::remove_file(group.join("schemata")).unwrap();
        remove(std::slice::from_ref(&group)).unwrap();
        assert!(!group.exists());
        remove(&[group]).unwrap();
    }

    #[test]
    fn a_class_with_a_name_is_made_with_its_schema_and_stays() {
        let root = fake(&["L3"]);
        let rdt = class("gold", Some("L3:0=f"), None);
        assert_eq!(make(root.path(), &rdt), (vec![], None));
        assert_eq!(fs::read_to_string(root.path().join("gold/schemata")).unwrap(), "L3:0=f\n");
        let error = make(root.path(), &class("silver", None, None)).1.unwrap();
        assert!(error.ends_with("does not exist, and there is no schema to make it with"), "{error}");
    }

    #[test]
    fn a_class_that_exists_must_be_as_wanted_and_is_not_written() {
        let root = fake(&["L3", "MB"]);
        fs::write(root.path().join("info/MB/bandwidth_gran"), "10\n").unwrap();
        for (l3, mb) in [
            (None, None),
            (Some("L3:1=0fffff; 0=FFFFF"), Some("MB:0=100")),
            (Some("L3:0=0xfffff"), Some("MB:0=95;1=21")),
        ] {
            assert_eq!(make(root.path(), &class("/", l3, mb)), (vec![], None), "{l3:?} {mb:?}");
        }
        for (l3, mb) in [
            (Some("L3:0=f"), None),
            (None, Some("MB:0=64")),
            (None, Some("MB:1=0x1e")),
            (Some("L3:2=f"), None),
            (Some("L3"), None),
        ] {
            let error = make(root.path(), &class("/", l3, mb)).1.unwrap();
            assert!(error.contains("schemata\" differs from \""), "{error}");
        }
        assert!(fs::read_to_string(root.path().join("schemata")).unwrap().starts_with("    L3:0=fffff"));
    }

    #[test]
    fn what_the_host_lacks_or_the_kernel_would_not_take_is_refused() {
        let error = Groups::check(None, &class("", None, None), "c1").err().unwrap();
        assert_eq!((error.kind(), error.to_string()), (Kind::Unsupported, NOT_MOUNTED.to_owned()));
        let (bare, full) = (fake(&[]), fake(&["L3"]));
        let long = format!("L3:{}", "0=f;".repeat(1024));
        for (root, rdt, why) in [
            (&bare, class("", Some("L3:0=f"), None), "linux.intelRdt.l3CacheSchema: the host has no L3 in "),
            (&bare, class("", None, Some("MB:0=f")), "linux.intelRdt.memBwSchema: the host has no MB in "),
            (
                &bare,
                monitored(class("", None, None)),
                "linux.intelRdt.enableMonitoring: the host has no L3_MON in ",
            ),
            (
                &full,
                class("info", None, None),
                "linux.intelRdt.closID: \"info\" is a name of the kernel's own",
            ),
            (&full, class("", Some(&long), None), "linux.intelRdt: the schemata are longer than a page"),
        ] {
            let error = make(root.path(), &rdt).1.unwrap();
            assert!(error.starts_with(why), "{error}");
        }
        assert!(Groups::check(Some(full.path()), &class("", None, None), "mon_groups").is_err());
    }

    #[test]
    fn a_group_that_exists_is_not_taken_for_the_containers_own() {
        let root = fake(&["L3_MON"]);
        for (group, rdt) in
            [("c1", class("", None, None)), ("gold/mon_groups/c1", monitored(class("gold", None, None)))]
        {
            let group = root.path().join(group);
            fs::create_dir_all(&group).unwrap();
            let error = make(root.path(), &rdt).1.unwrap();
            assert!(error.ends_with("exists, and is not this container's"), "{error}");
            assert!(group.exists());
        }
    }

    #[test]
    fn a_failure_has_the_kernels_reason_and_says_what_is_left_to_remove() {
        let root = fake(&["L3", "L3_MON"]);
        let reason = "last_cmd_status \"mask f7 has non-consecutive 1-bits\": ";
        // A fake class has no directory for monitoring groups.
        let (made, error) = make(root.path(), &monitored(class("", None, None)));
        assert_eq!(made, [root.path().join("c1")]);
        assert!(error.unwrap().contains(reason));
    }

    #[test]
    fn a_class_with_a_name_that_cannot_have_its_schema_is_still_to_be_removed() {
        let root = tempfile::tempdir().unwrap();
        // So deep that the class has a path, but its schemata have none.
        let mut deep = root.path().to_owned();
        while let missing @ 2.. = 4085 - deep.as_os_str().len() {
            let length = if missing == 201 { 100 } else { missing.min(200) };
            deep.push("d".repeat(length - 1));
            fs::create_dir(&deep).unwrap();
        }
        fs::create_dir_all(deep.join("info/L3")).unwrap();
        let (made, error) = make(&deep, &class("gold", Some("L3:0=f"), None));
        assert_eq!(made, [deep.join("gold")]);
        assert!(error.unwrap().ends_with("(ENAMETOOLONG)"));
        remove(&made).unwrap();
    }
}

//! A container's groups in resctrl (Documentation/filesystems/resctrl.rst): a class of service, and one that counts.
//!
//! The processes enter them themselves, by a step of the plan, and whoever is born of them is in there, too.

use crate::error::{invalid, Context, Error, Kind, Result};
use crate::spec::IntelRdt;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Makes the groups that are not there, and gives the class its schemata: what was made, the group above first. A failure
/// leaves nothing.
pub fn make(root: Option<&Path>, rdt: &IntelRdt, id: &str) -> Result<Vec<PathBuf>> {
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
    let mut made = Vec::new();
    if let Err(e) = fill(root, rdt, id, &mut made) {
        let _ = remove(&made);
        return Err(e);
    }
    if rdt.class.is_some() {
        // For whoever comes next, too.
        let class = rdt.group(root, id);
        made.retain(|folder| *folder != class);
    }
    Ok(made)
}

pub const NOT_MOUNTED: &str = "linux.intelRdt: the host has no resctrl filesystem mounted";

fn fill(root: &Path, rdt: &IntelRdt, id: &str, made: &mut Vec<PathBuf>) -> Result<()> {
    let (group, lines) = (rdt.group(root, id), rdt.lines().collect::<Vec<_>>());
    let own = rdt.class.is_none();
    if !group.is_dir() {
        if !own && lines.is_empty() {
            let why = "is not there, and no schema is given to make it with";
            return Err(invalid(format!("linux.intelRdt.closID: {group:?} {why}")));
        }
        make_folder(root, &group, made)?;
        set(root, &group, &lines)?;
    } else if own {
        set(root, &group, &lines)?;
    } else {
        compare(&group, &lines)?;
    }
    match rdt.monitor(root, id) {
        Some(monitor) if !monitor.is_dir() => make_folder(root, &monitor, made),
        _ => Ok(()),
    }
}

fn make_folder(root: &Path, folder: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let done = fs::DirBuilder::new().recursive(true).mode(0o755).create(folder);
    done.context(|| format!("linux.intelRdt: mkdir({folder:?}){}", reason(root)))?;
    made.push(folder.to_owned());
    Ok(())
}

/// In one write, as the kernel takes all of it or nothing.
fn set(root: &Path, group: &Path, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let (path, text) = (group.join("schemata"), lines.join("\n") + "\n");
    fs::write(&path, &text).context(|| format!("linux.intelRdt: write({path:?}, {text:?}){}", reason(root)))
}

/// What the kernel says of the call that has just failed.
fn reason(root: &Path) -> String {
    let status = fs::read_to_string(root.join("info/last_cmd_status")).unwrap_or_default();
    match status.trim() {
        "" | "ok" => String::new(),
        status => format!(", last_cmd_status {status:?}"),
    }
}

/// A class that others are in already is not changed: it must be what is wanted.
fn compare(group: &Path, lines: &[&str]) -> Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let path = group.join("schemata");
    let text = fs::read_to_string(&path).context(|| format!("linux.intelRdt: read({path:?})"))?;
    let there: Vec<_> = text.lines().flat_map(values).collect();
    let missing = lines.iter().find(|line| {
        let mut wanted = values(line).peekable();
        wanted.peek().is_none() || wanted.any(|value| !there.contains(&value))
    });
    match missing {
        None => Ok(()),
        Some(line) => Err(invalid(format!("linux.intelRdt: {path:?} is there, and differs from {line:?}"))),
    }
}

/// `L3:0=ff;1=0f`: resource, domain and value of each.
fn values(line: &str) -> impl Iterator<Item = (&str, &str, String)> {
    let (resource, domains) = line.split_once(':').unwrap_or((line, ""));
    let resource = resource.trim();
    domains.split(';').filter(|domain| !domain.trim().is_empty()).map(move |domain| {
        let (domain, value) = domain.split_once('=').unwrap_or((domain, ""));
        let value = value.trim();
        // Masks are written with zeros in front; bandwidth is decimal.
        let value = match u64::from_str_radix(value, 16) {
            Ok(mask) if resource != "MB" => format!("{mask:x}"),
            _ => value.to_owned(),
        };
        (resource, domain.trim(), value)
    })
}

/// Ok where they are gone. Processes that are left are in the group above then.
pub fn remove(made: &[PathBuf]) -> Result<()> {
    let mut failed = Ok(());
    for folder in made.iter().rev() {
        match fs::remove_dir(folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                failed = failed.and(Err(e).context(|| format!("linux.intelRdt: rmdir({folder:?})")));
            }
            _ => {}
        }
    }
    failed
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much of resctrl as files can be: the kernel would make those of a new group.
    fn fake(info: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for name in info {
            fs::create_dir_all(root.path().join("info").join(name)).unwrap();
        }
        fs::create_dir_all(root.path().join("info")).unwrap();
        fs::write(root.path().join("info/last_cmd_status"), "mask f7 has non-consecutive 1-bits\n").unwrap();
        fs::write(root.path().join("schemata"), "    L3:0=fffff;1=fffff\n    MB:0=100;1=100\n").unwrap();
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

    #[test]
    fn a_class_of_the_containers_own_has_its_schemata_and_is_removed() {
        let root = fake(&["L3", "MB", "L3_MON"]);
        let rdt = IntelRdt {
            schemata: vec!["L2:0=f".into()],
            monitoring: true,
            ..class("", Some("L3:0=f"), Some("MB:0=20"))
        };
        let group = root.path().join("c1");
        let made = make(Some(root.path()), &rdt, "c1").unwrap();
        assert_eq!(made, [group.clone(), group.join("mon_groups/c1")]);
        assert_eq!(fs::read_to_string(group.join("schemata")).unwrap(), "L3:0=f\nMB:0=20\nL2:0=f\n");
        // What goes with its folder in resctrl.
        fs::remove_file(group.join("schemata")).unwrap();
        fs::remove_dir(group.join("mon_groups/c1")).unwrap();
        fs::remove_dir(group.join("mon_groups")).unwrap();
        remove(&made).unwrap();
        assert!(!group.exists());
        remove(&made).unwrap();
    }

    #[test]
    fn a_class_with_a_name_is_made_with_its_schema_and_stays() {
        let root = fake(&["L3"]);
        let rdt = class("gold", Some("L3:0=f"), None);
        assert_eq!(make(Some(root.path()), &rdt, "c1").unwrap(), Vec::<PathBuf>::new());
        assert_eq!(fs::read_to_string(root.path().join("gold/schemata")).unwrap(), "L3:0=f\n");
        let none = class("silver", None, None);
        let error = make(Some(root.path()), &none, "c1").unwrap_err().to_string();
        assert!(error.ends_with("is not there, and no schema is given to make it with"), "{error}");
    }

    #[test]
    fn a_class_that_is_there_must_be_what_is_wanted_and_is_not_written() {
        let root = fake(&["L3", "MB"]);
        for (l3, mb) in [(None, None), (Some("L3:1=0fffff; 0=FFFFF"), Some("MB:0=100"))] {
            assert_eq!(make(Some(root.path()), &class("/", l3, mb), "c1").unwrap(), Vec::<PathBuf>::new());
        }
        for (l3, mb) in
            [(Some("L3:0=f"), None), (None, Some("MB:0=64")), (Some("L3:2=f"), None), (Some("L3"), None)]
        {
            let error = make(Some(root.path()), &class("/", l3, mb), "c1").unwrap_err().to_string();
            assert!(error.contains("schemata\" is there, and differs from \""), "{error}");
        }
        assert!(fs::read_to_string(root.path().join("schemata")).unwrap().starts_with("    L3:0=fffff"));
    }

    #[test]
    fn what_the_host_lacks_is_refused_by_its_field() {
        let error = make(None, &class("", None, None), "c1").unwrap_err();
        assert_eq!((error.kind(), error.to_string()), (Kind::Unsupported, NOT_MOUNTED.to_owned()));
        let root = fake(&[]);
        let monitored = IntelRdt { monitoring: true, ..IntelRdt::default() };
        for (rdt, field) in [
            (class("", Some("L3:0=f"), None), "l3CacheSchema: the host has no L3"),
            (class("", None, Some("MB:0=f")), "memBwSchema: the host has no MB"),
            (monitored, "enableMonitoring: the host has no L3_MON"),
        ] {
            let error = make(Some(root.path()), &rdt, "c1").unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.intelRdt.{field} in ")), "{error}");
        }
    }

    #[test]
    fn a_failure_has_the_kernels_reason_and_leaves_nothing() {
        let root = fake(&["L3"]);
        // A folder in the place of the file, which is in the place of a refusal.
        fs::create_dir_all(root.path().join("c1/schemata")).unwrap();
        let error = make(Some(root.path()), &class("", Some("L3:0=f7"), None), "c1").unwrap_err().to_string();
        let reason = "last_cmd_status \"mask f7 has non-consecutive 1-bits\": is a directory (EISDIR)";
        assert!(error.ends_with(reason), "{error}");
    }
}

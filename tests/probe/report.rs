//! The report: one JSON object that does not depend on the run (no pid, no inode, no mount id).

use serde_json::{json, Map, Value};
use std::fs::{read_dir, read_link, read_to_string};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

pub fn all() -> Value {
    // First: what is open.
    let descriptors = descriptors();
    let status = status();
    let uname = nix::sys::utsname::uname().ok();
    let name = |of: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
        uname.as_ref().map(|uname| of(uname).to_string_lossy().into_owned())
    };
    json!({
        "descriptors": descriptors,
        "ids": json!({ "uid": status["Uid"], "gid": status["Gid"], "groups": status["Groups"] }),
        "capabilities": json!({
            "bounding": status["CapBnd"], "effective": status["CapEff"], "permitted": status["CapPrm"],
            "inheritable": status["CapInh"], "ambient": status["CapAmb"],
        }),
        "no_new_privs": status["NoNewPrivs"],
        "seccomp": json!({ "mode": status["Seccomp"], "filters": status["Seccomp_filters"] }),
        "signals": json!({ "blocked": status["SigBlk"], "ignored": status["SigIgn"], "caught": status["SigCgt"] }),
        "umask": status["Umask"],
        "cpus": status["Cpus_allowed_list"],
        "label": lines("/proc/self/attr/current"),
        "mappings": json!({
            "uid": lines("/proc/self/uid_map"), "gid": lines("/proc/self/gid_map"),
            "setgroups": lines("/proc/self/setgroups"),
        }),
        "limits": lines("/proc/self/limits"),
        "environment": std::env::vars().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>(),
        "arguments": std::env::args().collect::<Vec<_>>(),
        "cwd": read_link("/proc/self/cwd").ok(),
        "exe": read_link("/proc/self/exe").ok(),
        "oom_score_adj": lines("/proc/self/oom_score_adj"),
        "schedule": super::kernel::schedule(),
        "personality": lines("/proc/self/personality"),
        "hostname": name(|uname| uname.nodename()),
        "domainname": name(|uname| uname.domainname()),
        "pid": std::process::id(),
        "session": json!({
            "leader": nix::unistd::getsid(None).ok() == Some(nix::unistd::getpid()),
            "tty": read_to_string("/proc/self/stat").ok().and_then(|stat| {
                stat.rsplit(')').next()?.split_whitespace().nth(4).map(str::to_owned)
            }),
        }),
        "window": window(),
        "namespaces": namespaces(),
        "cgroup": lines("/proc/self/cgroup"),
        "mounts": mounts(),
        "devices": devices("/dev"),
        "root": entries("/"),
        "memory_policy": lines("/proc/self/numa_maps").first().and_then(|line| {
            line.split_whitespace().nth(1).map(str::to_owned)
        }),
        "clocks": json!({
            "offsets": lines("/proc/self/timens_offsets"),
            // In units of thousands of days, so that it does not depend on the run.
            "up": read_to_string("/proc/uptime").ok().and_then(|text| {
                let seconds: f64 = text.split_whitespace().next()?.parse().ok()?;
                Some((seconds / 86_400_000.0) as u64)
            }),
        }),
        "interfaces": lines("/proc/net/dev").iter().skip(2).count(),
        "keyring": super::kernel::keyring(),
    })
}

fn lines(path: &str) -> Vec<String> {
    read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn status() -> Map<String, Value> {
    let pairs = lines("/proc/self/status");
    let pairs = pairs.iter().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| (key.to_owned(), value.split_whitespace().collect::<Vec<_>>().join(" ").into()))
        .collect()
}

/// Returns number and kind of the open descriptors, except the one that this function needs.
fn descriptors() -> Vec<String> {
    let Ok(listing) = read_dir("/proc/self/fd") else { return Vec::new() };
    let mut found: Vec<String> = listing
        .flatten()
        .filter_map(|entry| {
            let target = read_link(entry.path()).ok()?.to_string_lossy().into_owned();
            // Pipes and namespaces have numbers that differ between runs.
            let kind = target.split(":[").next().unwrap_or_default().to_owned();
            let own = target.ends_with("/fd");
            (!own).then(|| format!("{} {kind}", entry.file_name().to_string_lossy()))
        })
        .collect();
    found.sort();
    found
}

/// Returns rows and columns, if there is a terminal.
fn window() -> Option<[u16; 2]> {
    let size = shoal::sys::console::size(std::io::stdin().as_fd()).ok()?;
    Some([size.rows, size.columns])
}

fn namespaces() -> Map<String, Value> {
    let Ok(listing) = read_dir("/proc/self/ns") else { return Map::new() };
    let link = |entry: std::fs::DirEntry| {
        let target = read_link(entry.path()).ok()?.to_string_lossy().into_owned();
        Some((entry.file_name().to_string_lossy().into_owned(), target.into()))
    };
    listing.flatten().filter_map(link).collect()
}

/// Returns the point, root, options, propagation and type of each mount, and its filesystem's options.
fn mounts() -> Vec<Value> {
    let mount = |line: &String| {
        let fields: Vec<&str> = line.split(' ').collect();
        let dash = fields.iter().position(|field| *field == "-")?;
        let propagation: Vec<String> = fields
            .get(6..dash)?
            .iter()
            .map(|tag| tag.split(':').next().unwrap_or_default().to_owned())
            .collect();
        let mut of_filesystem: Vec<&str> = fields.get(dash + 3)?.split(',').collect();
        of_filesystem.sort_unstable();
        Some(json!({
            "point": fields.get(4)?, "root": fields.get(3)?, "options": fields.get(5)?,
            "propagation": propagation, "type": fields.get(dash + 1)?, "source": fields.get(dash + 2)?,
            "filesystem": of_filesystem,
        }))
    };
    let mut mounts: Vec<Value> = lines("/proc/self/mountinfo").iter().filter_map(mount).collect();
    mounts.sort_by_key(|mount| mount["point"].to_string());
    mounts
}

fn describe(path: &std::path::Path) -> Option<String> {
    let about = path.symlink_metadata().ok()?;
    let kind = about.file_type();
    let device = format!("{}:{}", nix::sys::stat::major(about.rdev()), nix::sys::stat::minor(about.rdev()));
    let what = if kind.is_symlink() {
        format!("-> {}", read_link(path).ok()?.display())
    } else if kind.is_char_device() {
        format!("char {device}")
    } else if kind.is_block_device() {
        format!("block {device}")
    } else if kind.is_dir() {
        "dir".to_owned()
    } else if kind.is_fifo() {
        "fifo".to_owned()
    } else {
        "file".to_owned()
    };
    Some(format!("{what} {:o} {}:{}", about.mode() & 0o7777, about.uid(), about.gid()))
}

/// Describes what is at each path, for a file also its length.
pub fn stat(paths: &[&str]) -> Value {
    let each = |path: &&str| {
        let mut text = describe(std::path::Path::new(path)).unwrap_or_else(|| "nothing".to_owned());
        if text.starts_with("file") {
            text += &format!(" {}", std::fs::metadata(path).map_or(0, |about| about.len()));
        }
        ((*path).to_owned(), text.into())
    };
    Value::Object(paths.iter().map(each).collect())
}

fn entries(path: &str) -> Map<String, Value> {
    let Ok(listing) = read_dir(path) else { return Map::new() };
    let each = |entry: std::fs::DirEntry| {
        Some((entry.file_name().to_string_lossy().into_owned(), describe(&entry.path())?.into()))
    };
    listing.flatten().filter_map(each).collect()
}

fn devices(path: &str) -> Map<String, Value> {
    let mut all = entries(path);
    all.extend(entries("/dev/pts").into_iter().map(|(name, what)| (format!("pts/{name}"), what)));
    all.insert(".".to_owned(), describe(std::path::Path::new(path)).unwrap_or_default().into());
    all
}

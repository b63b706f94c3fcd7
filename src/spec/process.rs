//! `process` of config.json, and the `Process` of an exec.

mod affinity;
mod limit;
mod schedule;

pub(crate) use affinity::Affinity;
pub(crate) use limit::Rlimit;
pub(crate) use schedule::SchedAttr;

use super::{json, raw, CapabilitySets};
use crate::error::{invalid, Result};
use std::collections::HashSet;
use std::ffi::CString;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub additional_gids: Vec<u32>,
    pub umask: Option<u32>,
}

/// If an exec leaves a field out, its container's applies: see `plan::exec`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    pub terminal: bool,
    pub rows: u16,
    pub columns: u16,
    pub user: User,
    /// Not empty.
    pub args: Vec<CString>,
    /// `NAME=value`, each name once: the last entry wins, as in runc.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: CString,
    pub capabilities: Option<CapabilitySets>,
    pub rlimits: Vec<Rlimit>,
    pub no_new_privileges: bool,
    pub oom_score_adj: Option<i32>,
    pub apparmor_profile: Option<CString>,
    pub selinux_label: Option<CString>,
    pub scheduler: Option<SchedAttr>,
    /// class << 13 | level, as ioprio_set(2) takes it.
    pub io_priority: Option<u32>,
    /// A container's applies to execs that set none themselves.
    pub exec_cpu_affinity: Option<Affinity>,
    pub warnings: Vec<String>,
}

impl Process {
    /// Parses the JSON of an exec request.
    pub fn parse(json: &[u8]) -> Result<Process> {
        Process::check(json::parse(json, "spec")?, "")
    }

    /// `prefix` is the path of the process in its document: `process.`, or empty.
    pub(super) fn check(raw: raw::Process, prefix: &str) -> Result<Process> {
        let at = |name: &str| format!("{prefix}{name}");
        let args = c_strings(&at("args"), &raw.args.unwrap_or_default())?;
        if args.is_empty() {
            return Err(invalid(format!("{}: must not be empty", at("args"))));
        }
        if raw.cwd.is_empty() {
            return Err(invalid(format!("{}: must not be empty", at("cwd"))));
        }
        if !raw.cwd.starts_with('/') {
            return Err(invalid(format!("{}: {:?} is not an absolute path", at("cwd"), raw.cwd)));
        }
        let mut warnings = Vec::new();
        let capabilities =
            raw.capabilities.map(|sets| CapabilitySets::check(&sets, &at("capabilities"), &mut warnings));
        let (rows, columns) = match raw.console_size {
            Some(size) => {
                (cells(&at("consoleSize.height"), size.height)?, cells(&at("consoleSize.width"), size.width)?)
            }
            None => (0, 0),
        };
        if let Some(adj) = raw.oom_score_adj.filter(|adj| !(-1000..=1000).contains(adj)) {
            return Err(invalid(format!("{}: {adj} is not between -1000 and 1000", at("oomScoreAdj"))));
        }
        Ok(Process {
            terminal: raw.terminal.unwrap_or(false),
            rows,
            columns,
            user: user(raw.user, &at("user"))?,
            args,
            env: environment(&at("env"), &raw.env.unwrap_or_default())?,
            cwd: json::c_string(|| at("cwd"), &raw.cwd)?,
            capabilities,
            rlimits: limit::check(raw.rlimits.unwrap_or_default(), &at("rlimits"))?,
            no_new_privileges: raw.no_new_privileges.unwrap_or(false),
            oom_score_adj: raw.oom_score_adj,
            apparmor_profile: json::text(&at("apparmorProfile"), raw.apparmor_profile)?,
            selinux_label: json::text(&at("selinuxLabel"), raw.selinux_label)?,
            scheduler: raw.scheduler.map(|s| schedule::check(s, &at("scheduler"))).transpose()?,
            io_priority: raw.io_priority.map(|p| schedule::io_priority(p, &at("ioPriority"))).transpose()?,
            exec_cpu_affinity: match raw.exec_cpu_affinity {
                Some(affinity) => affinity::check(affinity, &at("execCPUAffinity"))?,
                None => None,
            },
            warnings,
        })
    }

    /// The value of an environment variable, which may be empty.
    pub(crate) fn variable(&self, name: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|pair| pair.to_bytes().strip_prefix(name.as_bytes())?.strip_prefix(b"="))
    }
}

fn c_strings(field: &str, list: &[String]) -> Result<Vec<CString>> {
    list.iter().enumerate().map(|(i, text)| json::c_string(|| format!("{field}[{i}]"), text)).collect()
}

/// Keeps only the last entry for each name, in its place: programs differ in which duplicate they would see.
fn environment(field: &str, list: &[String]) -> Result<Vec<CString>> {
    let mut seen = HashSet::new();
    let mut kept = Vec::with_capacity(list.len());
    for (i, pair) in list.iter().enumerate().rev() {
        let name = match pair.split_once('=') {
            None => return Err(invalid(format!("{field}[{i}]: {pair:?} has no \"=\""))),
            Some(("", _)) => return Err(invalid(format!("{field}[{i}]: {pair:?} has no name"))),
            Some((name, _)) => name,
        };
        if seen.insert(name) {
            kept.push(json::c_string(|| format!("{field}[{i}]"), pair)?);
        }
    }
    kept.reverse();
    Ok(kept)
}

fn user(raw: raw::User, field: &str) -> Result<User> {
    // (uid_t)-1 means "leave unchanged" to setresuid(2): the process would stay root.
    for (name, id) in [("uid", raw.uid), ("gid", raw.gid)] {
        if id == u32::MAX {
            return Err(invalid(format!("{field}.{name}: {id} is not an id")));
        }
    }
    if let Some(umask) = raw.umask.filter(|umask| *umask > 0o777) {
        return Err(invalid(format!("{field}.umask: {umask} is more than 511 (octal 777)")));
    }
    let additional_gids = raw.additional_gids.unwrap_or_default();
    Ok(User { uid: raw.uid, gid: raw.gid, additional_gids, umask: raw.umask })
}

fn cells(field: &str, size: u64) -> Result<u16> {
    u16::try_from(size).map_err(|_| invalid(format!("{field}: {size} is more than a terminal can have")))
}

//! `mounts`: what is mounted below the root, with the options sorted by who interprets them.
//!
//! An option is an attribute of the mount (mount_setattr(2)), a propagation type, an instruction to the runtime
//! (`rbind`, `tmpcopyup`), or else the filesystem's own. The options are those that runc knows (`runc features`,
//! "mountOptions"), with runc's meaning.

mod option;
mod option_list;

use super::{json, mapping, Mappings, Namespaces, Ns};
use crate::error::{invalid, Result};
use oci_spec::runtime as oci;
pub(crate) use option::words;
use option::Options;
use std::ffi::CString;
use std::path::PathBuf;

/// One option of a filesystem for fsconfig(2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FsOption {
    Flag(CString),
    Value(CString, CString),
}

/// Changes to the attributes of a mount: MOUNT_ATTR_* of mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub set: u64,
    pub clear: u64,
    /// Applied to the whole tree (`rro`, `rnosuid`, …).
    pub recursive_set: u64,
    pub recursive_clear: u64,
}

/// A change of propagation: one of MS_SHARED, MS_PRIVATE, MS_SLAVE, MS_UNBINDABLE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    pub flag: u64,
    pub recursive: bool,
}

/// The recursive form of each has an `r` before it.
const PROPAGATIONS: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("shared", libc::MS_SHARED),
    ("slave", libc::MS_SLAVE),
    ("unbindable", libc::MS_UNBINDABLE),
];

impl Propagation {
    pub fn parse(word: &str) -> Option<Self> {
        let one = |word: &str, recursive| {
            let (_, flag) = PROPAGATIONS.into_iter().find(|(known, _)| *known == word)?;
            Some(Propagation { flag, recursive })
        };
        one(word, false).or_else(|| one(word.strip_prefix('r')?, true))
    }

    /// The spec's name for it.
    pub(crate) fn word(self) -> String {
        let word =
            PROPAGATIONS.into_iter().find(|(_, flag)| *flag == self.flag).map_or("?", |(word, _)| word);
        format!("{}{word}", if self.recursive { "r" } else { "" })
    }
}

/// What to mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path on the host, absolute or relative to the bundle; `recursive` includes the mounts below it.
    Bind { path: PathBuf, recursive: bool },
    /// A new filesystem. `options` are its own, and the generic options of its superblock.
    Filesystem { fstype: CString, source: CString, options: Vec<FsOption> },
    /// Only changes the attributes of an existing mount.
    Remount,
}

/// An idmapped bind: the filesystem's `containerID` appears as `hostID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idmap {
    /// None: the mappings of the container's user namespace.
    pub mappings: Option<Mappings>,
    /// `ridmap`: include the mounts below.
    pub recursive: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// As written; resolved relative to the container's root.
    pub destination: String,
    pub source: Source,
    pub attributes: Attributes,
    pub propagation: Option<Propagation>,
    pub idmap: Option<Idmap>,
    /// `tmpcopyup`: copy the image's files there into the new tmpfs.
    pub copy_up: bool,
}

pub(super) fn check(
    list: Vec<oci::Mount>,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
) -> Result<Vec<Mount>> {
    list.iter().enumerate().map(|(i, raw)| check_one(raw, i, namespaces, warnings)).collect()
}

fn check_one(
    raw: &oci::Mount,
    i: usize,
    namespaces: &Namespaces,
    warnings: &mut Vec<String>,
) -> Result<Mount> {
    let at = |name: &str| format!("mounts[{i}].{name}");
    let destination = raw.destination().to_str().unwrap_or_default().to_owned();
    if destination.is_empty() || destination.contains('\0') {
        return Err(invalid(format!("{}: {:?} is not a path", at("destination"), raw.destination())));
    }
    if !destination.starts_with('/') {
        warnings.push(format!("{}: {destination:?} is not absolute, taken from the root", at("destination")));
    }
    let fstype = raw.typ().as_deref().unwrap_or_default();
    let words = raw.options().as_deref().unwrap_or_default();
    let options = Options::parse(words);

    // As in crun, `"type": "bind"` alone is a bind too; with a bind option the type is ignored.
    let bind = options.bind.or((fstype == "bind").then_some(false));
    let mut source = if options.remount {
        no_data(&options, i, "a remount")?;
        Source::Remount
    } else if let Some(recursive) = bind {
        no_data(&options, i, "a bind mount")?;
        bind_source(raw, recursive).map_err(|reason| invalid(format!("{}: {reason}", at("source"))))?
    } else {
        filesystem(raw, fstype, &options, i)?
    };
    let idmap = idmap(raw, &options, i, &source, namespaces)?;
    let tmpfs = matches!(&source, Source::Filesystem { fstype, .. } if fstype.as_c_str() == c"tmpfs");
    if let Some(j) = options.copy_up.filter(|_| !tmpfs) {
        return Err(invalid(format!("{}: tmpcopyup is for a tmpfs", at(&format!("options[{j}]")))));
    }
    let mut attributes = options.attributes;
    if readonly_tmpfs(&mut source) {
        attributes.set |= libc::MOUNT_ATTR_RDONLY;
        attributes.clear &= !libc::MOUNT_ATTR_RDONLY;
    }
    Ok(Mount {
        destination,
        source,
        attributes,
        propagation: options.propagation,
        idmap,
        copy_up: options.copy_up.is_some(),
    })
}

/// Turns a `ro` inside a comma-separated string, which is an option of the filesystem, into one of the mount for a
/// tmpfs: files are still created in it, so it is the mount that becomes read-only, and late.
fn readonly_tmpfs(source: &mut Source) -> bool {
    match source {
        Source::Filesystem { fstype, options, .. } if fstype.as_c_str() == c"tmpfs" => {
            let all = options.len();
            options.retain(|option| !matches!(option, FsOption::Flag(word) if word.as_c_str() == c"ro"));
            options.len() < all
        }
        _ => false,
    }
}

/// As in runc: for a bind only, with both maps or neither.
fn idmap(
    raw: &oci::Mount,
    options: &Options,
    i: usize,
    source: &Source,
    namespaces: &Namespaces,
) -> Result<Option<Idmap>> {
    let check = |name: &str, raw| mapping::check(raw, &format!("mounts[{i}].{name}"));
    let uids = check("uidMappings", raw.uid_mappings().as_ref())?;
    let gids = check("gidMappings", raw.gid_mappings().as_ref())?;
    let field = match (&options.idmap, uids.is_empty(), gids.is_empty()) {
        (None, true, true) => return Ok(None),
        (Some(word), true, true) => format!("mounts[{i}].options[{}]", word.index),
        (_, false, true) => {
            return Err(invalid(format!("mounts[{i}].gidMappings: missing beside uidMappings")))
        }
        (_, true, false) => {
            return Err(invalid(format!("mounts[{i}].uidMappings: missing beside gidMappings")))
        }
        (_, false, false) => format!("mounts[{i}].uidMappings"),
    };
    if !matches!(source, Source::Bind { .. }) {
        return Err(invalid(format!("{field}: only the ids of a bind mount can be mapped")));
    }
    let mappings = Mappings { uids, gids };
    let mappings = Some(mappings).filter(|mappings| !mappings.is_empty());
    if mappings.is_none() && namespaces.user == Ns::Host {
        return Err(invalid(format!("{field}: no mappings, and no user namespace that has some")));
    }
    Ok(Some(Idmap { mappings, recursive: options.idmap.as_ref().is_some_and(|word| word.recursive) }))
}

/// Refuses options of a filesystem: the kernel would silently ignore them, and with them the user's intent.
fn no_data(options: &Options, i: usize, what: &str) -> Result<()> {
    match options.data.first() {
        None => Ok(()),
        Some((j, word)) => {
            Err(invalid(format!("mounts[{i}].options[{j}]: {word:?} is not an option of {what}")))
        }
    }
}

fn bind_source(raw: &oci::Mount, recursive: bool) -> Result<Source, String> {
    let path = raw.source().clone().unwrap_or_default();
    match path.to_str() {
        None | Some("") => Err("a bind mount needs a source".into()),
        Some(text) if text.contains('\0') => Err(format!("a NUL byte in {text:?}")),
        Some(_) => Ok(Source::Bind { path, recursive }),
    }
}

fn filesystem(raw: &oci::Mount, fstype: &str, options: &Options, i: usize) -> Result<Source> {
    if fstype.is_empty() {
        return Err(invalid(format!("mounts[{i}].type: missing, and there is no bind option")));
    }
    let source = raw.source().as_ref().and_then(|s| s.to_str()).filter(|s| !s.is_empty()).unwrap_or(fstype);
    let field = |name: &'static str| move || format!("mounts[{i}].{name}");
    let mut all = Vec::new();
    for flag in &options.superblock {
        all.push(FsOption::Flag(json::c_string(field("options"), flag)?));
    }
    for (j, word) in &options.data {
        let c_string = |text| json::c_string(|| format!("mounts[{i}].options[{j}]"), text);
        for option in option_list::split(fstype, word) {
            all.push(match option.split_once('=') {
                Some((key, value)) => {
                    FsOption::Value(c_string(key)?, c_string(option_list::value(key, value))?)
                }
                None => FsOption::Flag(c_string(option)?),
            });
        }
    }
    Ok(Source::Filesystem {
        fstype: json::c_string(field("type"), fstype)?,
        source: json::c_string(field("source"), source)?,
        options: all,
    })
}

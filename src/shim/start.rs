//! `start`: finds or launches the server for a container and prints its address.
//!
//! On the path of every container: one process, no threads. Nothing but a failure goes to standard error, because
//! containerd reads both streams as the response.

use super::arguments::Arguments;
use super::bootstrap::{self, Bootstrap};
use super::settings;
use super::socket::{self, Socket};
use crate::error::{Context, Error, Kind, Result};
use crate::service::about::{self, Peer};
use crate::service::options::Reading;
use crate::spec::{self, annotation};
use crate::sys::seal::{self, Sealed};
use crate::sys::{process, spawn};
use crate::tasks::block_on;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

/// In the Go shim's order.
const GROUPS: [&str; 2] = [annotation::GROUP, annotation::SANDBOX_ID];

/// The file in the bundle with the server's address.
pub(super) const ADDRESS: &str = "address";

/// A shim may exit just when it is asked, and so may its successor.
const TRIES: usize = 5;
/// The delay after finding a shim that is exiting and about to unlink its socket.
const PAUSE: Duration = Duration::from_millis(20);

/// Passes warnings of a launch, which has no log of its own, to the server.
pub(super) const NOTES: &str = "SHOAL_START_NOTES";

pub(super) fn start(arguments: &Arguments) -> Result<()> {
    let mut bootstrap = bootstrap::read(io::stdin().lock(), &arguments.id, &arguments.namespace)?;
    let operator = || settings::read(Path::new(settings::FILE));
    block_on(bootstrap.options.judge_binary_name(Reading::default(), operator))?;
    let bundle = std::env::current_dir().context(|| "getcwd()")?;
    // A pod is the group that others join; its config.json is not that of a container.
    let group = if bootstrap::is_sandbox(&bundle) { None } else { group(&bundle)? };
    let group = group.unwrap_or_else(|| arguments.id.clone());
    let folder = bootstrap.socket_dir.as_deref();
    let containerd = address(arguments, &bootstrap);
    let path = socket::path(folder, containerd, &arguments.namespace, &group)?;
    let address = socket::address(&path);
    match find(&path, &arguments.namespace, &group)? {
        None => write_address(&bundle, &address)?,
        Some(listener) => {
            let written = write_address(&bundle, &address);
            let launched = written.and_then(|()| launch(arguments, &bootstrap, &group, &path, &listener));
            if let Err(error) = launched {
                // Remove the remains of a failed launch, which must not look like a server.
                let _ = socket::remove(&path);
                let _ = std::fs::remove_file(bundle.join(ADDRESS));
                return Err(error);
            }
        }
    }
    let answer = bootstrap::answer(bootstrap::version(&bootstrap, &bundle), &address);
    io::stdout().write_all(answer.as_bytes()).context(|| "write the answer")
}

/// The socket to serve; None if the group's shim is running. Never joins a server that is not the group's.
fn find(path: &Path, namespace: &str, group: &str) -> Result<Option<UnixListener>> {
    for _ in 0..TRIES {
        let server = match socket::bind(path)? {
            Socket::Bound(listener) => return Ok(Some(listener)),
            Socket::Live(server) => server,
        };
        match about::ask(server, namespace, group) {
            Peer::Same => return Ok(None),
            // It unlinked its socket before it hung up, or is about to.
            Peer::Gone => std::thread::sleep(PAUSE),
            Peer::Other(why) => return Err(taken(path, namespace, group, &why)),
        }
    }
    Err(taken(path, namespace, group, "it hangs up"))
}

fn taken(path: &Path, namespace: &str, group: &str, why: &str) -> Error {
    let what = format!("the socket of {group:?} in the namespace {namespace:?} is taken");
    Error::new(Kind::Exists, format!("{what}: the server at {path:?} is not shoal's shim of it: {why}"))
}

/// The group requested by the bundle's config.json. A sandbox's own bundle has no config.json.
fn group(bundle: &Path) -> Result<Option<String>> {
    #[derive(Deserialize)]
    struct Config {
        #[serde(default)]
        annotations: Option<BTreeMap<String, String>>,
    }
    let path = bundle.join(spec::CONFIG);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e).context(|| format!("read({path:?})")),
    };
    let config: Config = spec::parse_json(&text, spec::CONFIG)?;
    let annotations = config.annotations.unwrap_or_default();
    Ok(GROUPS.iter().find_map(|name| annotations.get(*name)).filter(|id| !id.is_empty()).cloned())
}

/// containerd 1.7 finds the server again through this file.
fn write_address(bundle: &Path, address: &str) -> Result<()> {
    let (path, fresh) = (bundle.join(ADDRESS), bundle.join(".address"));
    std::fs::write(&fresh, address).context(|| format!("write({fresh:?})"))?;
    std::fs::rename(&fresh, &path).context(|| format!("rename({fresh:?}, {path:?})"))
}

fn launch(
    arguments: &Arguments,
    bootstrap: &Bootstrap,
    group: &str,
    path: &Path,
    listener: &UnixListener,
) -> Result<()> {
    let mut notes = bootstrap.options.warnings.clone();
    // Attributes that the server inherits are set on this process, which exits soon anyway.
    if std::env::var_os("SCHED_CORE").is_some() {
        process::own_core_scheduling().context(|| "prctl(PR_SCHED_CORE, CREATE)")?;
    }
    if !bootstrap.options.shim_cgroup.is_empty() {
        super::cgroup::join(&bootstrap.options.shim_cgroup)?;
    }
    if let Err(error) = follow_parent_in_oom() {
        notes.push(error.to_string());
    }
    let sealed = seal(&mut notes)?;
    let words = server_arguments(arguments, bootstrap, group, path);
    let environment = server_environment(bootstrap, &notes);
    let what = || "start the server";
    // Refer to it by our pid: the child closes its own descriptors before the exec.
    let path = format!("/proc/{}/fd/{}", std::process::id(), sealed.program.as_raw_fd());
    let path = strings(vec![path.into()])?.remove(0);
    let descriptors: Vec<_> =
        [listener.as_fd()].into_iter().chain(sealed.mounts.iter().map(AsFd::as_fd)).collect();
    let spawned =
        spawn::spawn(&path, &strings(words)?, &strings(environment)?, &descriptors).context(what)?;
    match spawned.status.errno().context(what)? {
        None => Ok(()),
        Some(errno) => Err(errno).context(what),
    }
}

/// Makes the server a better victim for the OOM killer than its parent: its score is one higher.
fn follow_parent_in_oom() -> Result<()> {
    let parent = format!("/proc/{}/oom_score_adj", std::os::unix::process::parent_id());
    let score = std::fs::read_to_string(&parent).context(|| format!("read({parent:?})"))?;
    let score: i32 = score.trim().parse().unwrap_or(0);
    let score = (score + 1).min(1000).to_string();
    std::fs::write("/proc/self/oom_score_adj", &score)
        .context(|| format!("write(\"/proc/self/oom_score_adj\", \"{score}\")"))
}

/// This program, in a form that no container can write to.
fn seal(notes: &mut Vec<String>) -> Result<Sealed> {
    let path = std::fs::read_link("/proc/self/exe").context(|| "readlink(\"/proc/self/exe\")")?;
    match overlay(&path) {
        Ok(sealed) => return Ok(sealed),
        Err(error) => notes.push(format!("sealed the program in memory instead: {error}")),
    }
    let file = File::open("/proc/self/exe").context(|| "open(\"/proc/self/exe\")")?;
    seal::memory(file.as_fd()).context(|| "seal the program in memory")
}

fn overlay(path: &Path) -> Result<Sealed> {
    let what = || format!("overlayfs over {path:?}");
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Error::new(Kind::Bug, what()));
    };
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|e| Error::caused_by(Kind::Invalid, what(), e));
    let sealed = seal::overlay(&text(folder.as_os_str().as_bytes())?, &text(name.as_bytes())?);
    sealed.context(what)
}

/// containerd's gRPC socket: from BootstrapParams, otherwise from the flag.
fn address<'a>(arguments: &'a Arguments, bootstrap: &'a Bootstrap) -> &'a str {
    match bootstrap.grpc_address.as_str() {
        "" => &arguments.address,
        address => address,
    }
}

fn server_arguments(arguments: &Arguments, bootstrap: &Bootstrap, group: &str, path: &Path) -> Vec<OsString> {
    let mut words: Vec<OsString> = vec![super::NAME.into()];
    let flags = [
        ("-namespace", arguments.namespace.as_str()),
        ("-id", group),
        ("-address", address(arguments, bootstrap)),
    ];
    for (flag, value) in flags {
        words.extend([flag.into(), value.into()]);
    }
    words.extend(["-socket".into(), path.into()]);
    // The flag may also accompany BootstrapParams.
    let least = if arguments.debug { log::LevelFilter::Debug } else { log::LevelFilter::Off };
    let level = bootstrap.level.unwrap_or(log::LevelFilter::Info).max(least);
    words.extend(["-log-level".into(), level.as_str().to_lowercase().into()]);
    words
}

/// Our environment, overridden by BootstrapParams.
fn server_environment(bootstrap: &Bootstrap, notes: &[String]) -> Vec<OsString> {
    let mut variables: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    if !bootstrap.ttrpc_address.is_empty() {
        variables.insert("TTRPC_ADDRESS".into(), bootstrap.ttrpc_address.clone().into());
    }
    // Free the stacks of exited threads instead of caching them: 20 KiB each for the shim's lifetime.
    variables.entry("GLIBC_TUNABLES".into()).or_insert("glibc.pthread.stack_cache_size=0".into());
    if !notes.is_empty() {
        variables.insert(NOTES.into(), notes.join("\n").into());
    }
    let pair = |(mut name, value): (OsString, OsString)| {
        name.push("=");
        name.push(value);
        name
    };
    variables.into_iter().map(pair).collect()
}

fn strings(words: Vec<OsString>) -> Result<Vec<CString>> {
    let string = |word: OsString| {
        CString::new(word.into_vec()).map_err(|e| Error::caused_by(Kind::Invalid, "a NUL in an argument", e))
    };
    words.into_iter().map(string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_the_first_annotation_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let group_of = |json: &str| {
            std::fs::write(folder.path().join("config.json"), json).unwrap();
            group(folder.path())
        };
        let both =
            r#"{"annotations":{"io.kubernetes.cri.sandbox-id":"s","io.containerd.runc.v2.group":"g"}}"#;
        assert_eq!(group_of(both).unwrap().as_deref(), Some("g"));
        let one = r#"{"root":{},"annotations":{"io.kubernetes.cri.sandbox-id":"s"}}"#;
        assert_eq!(group_of(one).unwrap().as_deref(), Some("s"));
        assert_eq!(group_of(r#"{"annotations":null}"#).unwrap(), None);
        assert_eq!(group_of("{}").unwrap(), None);
        assert!(group_of("{").unwrap_err().to_string().contains("config.json"));
        std::fs::remove_file(folder.path().join("config.json")).unwrap();
        assert_eq!(group(folder.path()).unwrap(), None);
    }
}

//! Conversions between messages and the domain's types.

use crate::error::{invalid, Error, Kind, Result};
use crate::launch::ExitStatus;
use crate::plan::RootfsMount;
use crate::sandbox::{Create, Options, ProcessKey, ProcessState, Status};
use crate::stdio::Stdio;
use containerd_shim_protos::api::{CreateTaskRequest, DeleteResponse, StateResponse};
use containerd_shim_protos::types::mount::Mount;
use containerd_shim_protos::types::task::Status as WireStatus;
use protobuf::well_known_types::any::Any;
use protobuf::well_known_types::timestamp::Timestamp;
use protobuf::MessageField;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Go's zero time, 0001-01-01, which the Go shim sends for "not yet".
const ZERO_TIME: i64 = -62_135_596_800;

/// Validates an id, which becomes the name of files and cgroups. containerd has a narrower rule of its own.
pub(super) fn id(what: &str, id: String) -> Result<String> {
    let bad = match id.as_str() {
        "" => Some("is empty"),
        "." | ".." => Some("is a name of the file system"),
        id if id.len() > 255 => Some("is longer than 255 bytes"),
        id if id.contains(['/', '\0', '\n']) => Some("contains a character that a file name cannot have"),
        _ => None,
    };
    match bad {
        Some(why) => Err(invalid(format!("{what} {id:?} {why}"))),
        None => Ok(id),
    }
}

/// An empty exec id means the container's first process.
pub(super) fn key(container: String, exec: String) -> Result<ProcessKey> {
    let exec = if exec.is_empty() { None } else { Some(id("exec_id", exec)?) };
    Ok(ProcessKey { container: id("id", container)?, exec })
}

/// Without its options, which may lie in a file.
pub(super) fn create(r: CreateTaskRequest) -> Result<Create> {
    let bundle = absolute("bundle", &r.bundle)?;
    if !r.parent_checkpoint.is_empty() {
        return Err(Error::new(Kind::Unsupported, "parent_checkpoint: images that build on others"));
    }
    let checkpoint = (!r.checkpoint.is_empty()).then(|| absolute("checkpoint", &r.checkpoint)).transpose()?;
    Ok(Create {
        checkpoint,
        id: id("id", r.id)?,
        bundle,
        rootfs: r.rootfs.into_iter().map(mount).collect(),
        stdio: stdio(r.stdin, r.stdout, r.stderr, r.terminal),
        options: Options::default(),
        deadline: None,
    })
}

pub(super) fn absolute(field: &str, path: &str) -> Result<PathBuf> {
    let path = PathBuf::from(path);
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(invalid(format!("{field} {path:?} is not an absolute path")))
    }
}

fn mount(m: Mount) -> RootfsMount {
    RootfsMount { fstype: m.type_, source: m.source, target: m.target, options: m.options }
}

pub(super) fn wire_mount(m: &RootfsMount) -> Mount {
    Mount {
        type_: m.fstype.clone(),
        source: m.source.clone(),
        target: m.target.clone(),
        options: m.options.clone(),
        ..Default::default()
    }
}

pub(super) fn stdio(stdin: String, stdout: String, stderr: String, terminal: bool) -> Stdio {
    Stdio { stdin, stdout, stderr, terminal }
}

/// The name of a type: the part after the last `/` (typeurl writes bare names, others prefix a host).
pub(super) fn type_name(any: &Any) -> &str {
    any.type_url.rsplit('/').next().unwrap_or_default()
}

/// The JSON in an Any whose type URL ends in `name`, e.g. `…/runtime-spec/1/Process`.
pub(super) fn json(any: MessageField<Any>, name: &str, field: &str) -> Result<Vec<u8>> {
    match any.into_option() {
        None => Err(invalid(format!("{field} is missing"))),
        Some(any) if type_name(&any) != name => {
            Err(invalid(format!("{field} is a {:?}, not a {name}", any.type_url)))
        }
        Some(any) => Ok(any.value),
    }
}

pub(super) fn any(type_url: &str, value: Vec<u8>) -> Any {
    Any { type_url: type_url.into(), value, ..Default::default() }
}

pub(super) fn timestamp(at: SystemTime) -> Timestamp {
    // A time before 1970 means that the clock is wrong: 1970 is then as good as any other value.
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanos: since.subsec_nanos() as i32, ..Default::default() }
}

pub(super) fn state(s: ProcessState) -> StateResponse {
    let status = match s.status {
        Status::Created => WireStatus::CREATED,
        Status::Running => WireStatus::RUNNING,
        Status::Paused => WireStatus::PAUSED,
        Status::Stopped => WireStatus::STOPPED,
    };
    let exited_at = match s.exit {
        Some(exit) => timestamp(exit.at),
        None => Timestamp { seconds: ZERO_TIME, ..Default::default() },
    };
    StateResponse {
        id: s.key.exec.clone().unwrap_or(s.key.container),
        exec_id: s.key.exec.unwrap_or_default(),
        bundle: s.bundle.to_string_lossy().into_owned(),
        pid: s.pid,
        status: status.into(),
        stdin: s.stdio.stdin,
        stdout: s.stdio.stdout,
        stderr: s.stdio.stderr,
        terminal: s.stdio.terminal,
        exit_status: s.exit.map_or(0, |exit| exit.code),
        exited_at: Some(exited_at).into(),
        ..Default::default()
    }
}

pub fn deleted(pid: u32, exit: ExitStatus) -> DeleteResponse {
    DeleteResponse {
        pid,
        exit_status: exit.code,
        exited_at: Some(timestamp(exit.at)).into(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_would_leave_their_folder_are_refused() {
        for bad in ["", ".", "..", "a/b", "../a", "a\0", &"x".repeat(256)] {
            assert!(id("id", bad.into()).is_err(), "{bad:?}");
        }
        assert_eq!(id("id", "a.b-c_d1".into()).unwrap(), "a.b-c_d1");
    }

    #[test]
    fn a_type_is_known_with_and_without_a_host() {
        for url in ["types.containerd.io/opencontainers/runtime-spec/1/Process", "Process", "x/Process"] {
            assert_eq!(json(Some(any(url, b"{}".to_vec())).into(), "Process", "spec").unwrap(), b"{}");
        }
        let wrong = json(Some(any("google.protobuf.Empty", Vec::new())).into(), "Process", "spec");
        assert!(wrong.unwrap_err().to_string().contains("google.protobuf.Empty"));
    }
}

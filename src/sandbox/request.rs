//! Requests to the sandbox and its responses, as plain data.

use crate::criu::Cgroups;
use crate::launch::ExitStatus;
use crate::plan::RootfsMount;
use crate::stdio::Stdio;
use std::fmt;
use std::path::PathBuf;
use std::time::Instant;

/// A process of a container: its first process (`exec` is None) or an exec.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProcessKey {
    pub container: String,
    pub exec: Option<String>,
}

impl ProcessKey {
    pub fn init(container: &str) -> Self {
        ProcessKey { container: container.into(), exec: None }
    }

    /// The id that containerd's events carry.
    pub fn id(&self) -> &str {
        self.exec.as_deref().unwrap_or(&self.container)
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.exec {
            Some(exec) => write!(f, "exec {exec} of container {}", self.container),
            None => write!(f, "container {}", self.container),
        }
    }
}

/// Task options, independent of the message that carried them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    pub no_pivot_root: bool,
    pub no_new_keyring: bool,
    pub systemd_cgroup: bool,
    /// Owner of the fifos, if not root.
    pub io_uid: u32,
    pub io_gid: u32,
    /// A directory that also links to the record: `<Root>/<namespace>/<id>`, as runc lays it out.
    pub root: Option<PathBuf>,
}

/// A validated Task.Create.
#[derive(Clone, Debug, Default)]
pub struct Create {
    pub id: String,
    pub bundle: PathBuf,
    pub rootfs: Vec<RootfsMount>,
    pub stdio: Stdio,
    pub options: Options,
    /// The directory of a checkpoint, whose processes are to continue instead of the program being run.
    pub checkpoint: Option<PathBuf>,
    /// When the caller stops waiting; None means the operator's limit.
    pub deadline: Option<Instant>,
}

/// Task.Checkpoint, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// The folder for the files.
    pub path: PathBuf,
    /// The folder for CRIU's log and statistics, which stays then.
    pub work: Option<PathBuf>,
    /// The container ends.
    pub exit: bool,
    pub open_tcp: bool,
    pub external_unix_sockets: bool,
    pub terminal: bool,
    pub file_locks: bool,
    pub cgroups: Cgroups,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

/// The response to Task.State.
#[derive(Clone, Debug)]
pub struct ProcessState {
    pub key: ProcessKey,
    pub bundle: PathBuf,
    /// 0 until an exec is started.
    pub pid: u32,
    pub status: Status,
    pub stdio: Stdio,
    pub exit: Option<ExitStatus>,
}

/// An event, in the order in which containerd must receive them.
#[derive(Clone, Debug)]
pub enum Event {
    Create {
        container: String,
        bundle: PathBuf,
        rootfs: Vec<RootfsMount>,
        stdio: Stdio,
        pid: u32,
    },
    Start {
        container: String,
        pid: u32,
    },
    ExecAdded {
        container: String,
        exec: String,
    },
    ExecStarted {
        container: String,
        exec: String,
        pid: u32,
    },
    /// `id` is the exec's id, or the container's id for its first process.
    Exit {
        container: String,
        id: String,
        pid: u32,
        exit: ExitStatus,
    },
    Delete {
        container: String,
        pid: u32,
        exit: ExitStatus,
    },
    Paused {
        container: String,
    },
    Resumed {
        container: String,
    },
    Oom {
        container: String,
    },
}

/// The response to Task.Delete.
#[derive(Clone, Copy, Debug)]
pub struct Deleted {
    pub pid: u32,
    pub exit: ExitStatus,
}

/// The response to Task.Connect.
#[derive(Clone, Copy, Debug)]
pub struct Connected {
    pub shim_pid: u32,
    /// 0 if the container is not known.
    pub task_pid: u32,
}

//! The agent of a seccomp profile decides the calls of `SCMP_ACT_NOTIFY`, through the listener of the filter.
//!
//! It gets the listener and the container process state (config-linux.md, "The Container Process State") over a connection
//! of its own, while the process waits at its gate. It need not answer, and what it does with the calls does not concern
//! the shim. If it is gone, the kernel answers them with ENOSYS.

use super::Container;
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{Leash, Waiting};
use crate::sys::epoll::Interest;
use crate::sys::{stream, Errno};
use crate::tasks;
use serde_json::{json, Value};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

const FIELD: &str = "linux.seccomp.listenerPath";

/// Hands over the listener, if the filter of this process has one. `state` is the container's. The shim keeps no copy.
pub(super) async fn hand(
    container: &Container,
    leash: &Leash,
    waiting: &mut Waiting,
    state: impl FnOnce() -> Value,
) -> Result<()> {
    let Some(listener) = waiting.listener.take() else { return Ok(()) };
    let agent = container.spec.seccomp.as_ref().and_then(|profile| profile.listener.as_ref());
    let agent = agent.ok_or_else(|| Error::new(Kind::Bug, "a listener that no profile asks for"))?;
    let mut process = json!({
        "ociVersion": container.spec.version,
        "fds": ["seccompFd"],
        "pid": waiting.pid,
        "state": state(),
    });
    if let Some(metadata) = &agent.metadata {
        process["metadata"] = metadata.as_str().into();
    }
    let told = async {
        let stream = container.world.paths.connect(&agent.at(&container.bundle), leash.deadline).await?;
        send(&stream, process.to_string().as_bytes(), listener, leash.deadline).await
    };
    waiting.meanwhile(leash, told).await.context(|| FIELD)
}

async fn send(stream: &UnixStream, bytes: &[u8], listener: OwnedFd, deadline: Instant) -> Result<()> {
    let (mut rest, mut listener) = (bytes, Some(listener));
    while !rest.is_empty() {
        match stream::send(stream, rest, listener.as_ref().map(|fd| fd.as_fd())) {
            Ok(taken) => {
                rest = rest.get(taken..).unwrap_or_default();
                listener = None;
            }
            Err(Errno::EAGAIN) => {
                let room = Interest { read: false, write: true };
                if !tasks::ready(stream.as_fd(), room, deadline).await? {
                    let late = "sendmsg(): not done within the time limit: the agent does not read";
                    return Err(Error::new(Kind::Deadline, late));
                }
            }
            Err(errno) => return Err(errno).context(|| "sendmsg()"),
        }
    }
    Ok(())
}

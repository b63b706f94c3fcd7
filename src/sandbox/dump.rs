//! The state in words, for a person who looks for what a shim is doing.

use super::freezer::Freezer;
use super::lifecycle::Process;
use super::Sandbox;
use std::sync::TryLockError;

impl Sandbox {
    /// One line per process. Never waits: a container with a request at work is said to be busy.
    pub fn dump(&self) -> Vec<String> {
        let containers = match self.containers.try_lock() {
            Ok(containers) => containers,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return vec!["the list of containers is busy".to_owned()],
        };
        let mut lines = Vec::new();
        for (id, container) in containers.known.iter() {
            let Some(container) = container.here() else {
                lines.push(format!("container {id}: being created"));
                continue;
            };
            let slot = match container.slot.try_lock() {
                Ok(slot) => slot,
                Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
                Err(TryLockError::WouldBlock) => {
                    lines.push(format!("container {id}: busy"));
                    continue;
                }
            };
            let mut line = process(&slot.init);
            for (on, word) in [
                (slot.freezer == Freezer::Frozen, "paused"),
                (slot.freezer == Freezer::Freezing, "being paused"),
                (slot.ending.is_some(), "ending"),
                (slot.deleting, "being deleted"),
            ] {
                if on {
                    line = format!("{line}, {word}");
                }
            }
            lines.push(line);
            lines.extend(slot.execs.values().map(process));
        }
        lines
    }
}

fn process(process: &Process) -> String {
    format!("{}: {}, pid {}", process.name, process.life.word(), process.pid)
}

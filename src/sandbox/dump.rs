//! The state in words, for a person who looks for what a shim is doing.

use super::Sandbox;

impl Sandbox {
    /// One line per process. Never waits: a container with a request at work is said to be busy.
    pub fn dump(&self) -> Vec<String> {
        let Some(containers) = self.containers.try_lock() else {
            return vec!["the list of containers is busy".to_owned()];
        };
        let mut lines = Vec::new();
        for (id, container) in containers.known.iter() {
            let Some(container) = container.here() else {
                lines.push(format!("container {id}: being created"));
                continue;
            };
            match container.lines() {
                Some(all) => lines.extend(all),
                None => lines.push(format!("container {id}: busy")),
            }
        }
        lines
    }
}

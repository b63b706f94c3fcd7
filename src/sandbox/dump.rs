//! A human-readable dump of the state, for diagnosing a running shim.

use super::Sandbox;

impl Sandbox {
    /// Returns one line per process. Never blocks: a container whose state is locked is reported as busy.
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

//! Pause and Resume of a pod: all of its containers stop at the same moment, by one write to its cgroup.
//!
//! That cgroup is the client's, and where something else is in it too, each container is frozen by its own.

use super::{Frozen, Phase, Pod};
use crate::error::{Context, Kind, Result};
use crate::sandbox::container::Container;
use crate::sandbox::Sandbox;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

impl Sandbox {
    /// All containers stop at the same moment: one write to the pod's cgroup.
    pub fn pause_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        {
            let mut life = pod.lock();
            match (life.phase, life.frozen) {
                (Phase::Ready, None) => life.frozen = Some(Frozen::Changing),
                (Phase::Ready, Some(Frozen::Changing)) => {
                    return Err(pod.cannot("pause", "being paused or resumed"))
                }
                (Phase::Ready, Some(_)) => return Err(pod.cannot("pause", "paused")),
                (phase, _) => return Err(pod.cannot("pause", phase.word())),
            }
        }
        let members = self.all();
        // First the word: what is asked of a container from now on is refused instead of hanging.
        let running: Vec<_> = members.iter().filter(|member| member.set_frozen_with_pod(true)).collect();
        match freeze(&pod, &members) {
            Ok(frozen) => {
                pod.settle(Some(frozen));
                running.into_iter().for_each(|member| member.tell_paused(true));
                log::info!(sandbox = id; "paused a sandbox");
                Ok(())
            }
            Err(error) => {
                for member in &members {
                    member.set_frozen_with_pod(false);
                }
                pod.settle(None);
                Err(error.context(format!("pause sandbox {id}")))
            }
        }
    }

    pub fn resume_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let frozen = {
            let mut life = pod.lock();
            match (life.phase, life.frozen) {
                (Phase::Ready, Some(Frozen::Changing)) => {
                    return Err(pod.cannot("resume", "being paused or resumed"))
                }
                (Phase::Ready, Some(frozen)) => {
                    life.frozen = Some(Frozen::Changing);
                    frozen
                }
                (Phase::Ready, None) => return Err(pod.cannot("resume", "not paused")),
                (phase, _) => return Err(pod.cannot("resume", phase.word())),
            }
        };
        let members = self.all();
        match thaw(&pod, &members, frozen) {
            Ok(()) => {
                pod.settle(None);
                for member in members {
                    if member.set_frozen_with_pod(false) {
                        member.tell_paused(false);
                    }
                }
                log::info!(sandbox = id; "resumed a sandbox");
                Ok(())
            }
            Err(error) => {
                pod.settle(Some(frozen));
                Err(error.context(format!("resume sandbox {id}")))
            }
        }
    }

    /// A process that was killed in a frozen pod can only die once its cgroup is thawed (v1); the others stay as they
    /// are, each frozen by its own.
    pub(in crate::sandbox) fn let_die(&self, container: &Container) -> Result<()> {
        let Some(pod) = self.pod() else { return Ok(()) };
        let frozen = {
            let mut life = pod.lock();
            match life.frozen {
                Some(frozen @ (Frozen::AsOne | Frozen::EachByItself)) => {
                    life.frozen = Some(Frozen::Changing);
                    frozen
                }
                _ => return Ok(()),
            }
        };
        let thawed = || -> Result<()> {
            if frozen == Frozen::AsOne {
                for other in self.all().iter().filter(|other| other.id != container.id && other.lives()) {
                    other.cgroup.freeze()?;
                }
                pod.cgroup.thaw()?;
            }
            container.cgroup.thaw()
        }();
        match thawed {
            Ok(()) => {
                pod.settle(Some(Frozen::EachByItself));
                container.set_frozen_with_pod(false);
                Ok(())
            }
            Err(error) => {
                pod.settle(Some(frozen));
                Err(error.context(format!("let container {} of a paused sandbox end", container.id)))
            }
        }
    }
}

impl Pod {
    /// The end of a change, unless the pod has ended meanwhile.
    fn settle(&self, frozen: Option<Frozen>) {
        let mut life = self.lock();
        if life.frozen == Some(Frozen::Changing) {
            life.frozen = frozen;
        }
    }
}

fn freeze(pod: &Pod, members: &[Arc<Container>]) -> Result<Frozen> {
    if alone(pod, members)? {
        match pod.cgroup.freeze() {
            Ok(()) => return Ok(Frozen::AsOne),
            // Nothing is in it yet, or it is the root.
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Unsupported) => {}
            Err(e) => return Err(e),
        }
    }
    let mut done: Vec<&Arc<Container>> = Vec::new();
    for member in members.iter().filter(|member| member.lives()) {
        if let Err(error) = member.cgroup.freeze() {
            for member in done {
                if let Err(e) = member.thaw_unless_paused() {
                    log::warn!(id = member.id.as_str(); "could not be thawed again: {e}");
                }
            }
            return Err(error.context(format!("container {}", member.id)));
        }
        done.push(member);
    }
    Ok(Frozen::EachByItself)
}

fn thaw(pod: &Pod, members: &[Arc<Container>], frozen: Frozen) -> Result<()> {
    if frozen == Frozen::AsOne {
        return pod.cgroup.thaw();
    }
    members.iter().filter(|member| member.lives()).try_for_each(|member| member.thaw_unless_paused())
}

/// Whether nothing is in the pod's cgroup but this pod: no process of its own, no cgroup that is not a member's. Else
/// others would be frozen too, the shim itself where somebody has put it there.
fn alone(pod: &Pod, members: &[Arc<Container>]) -> Result<bool> {
    let mut known: BTreeSet<PathBuf> = BTreeSet::new();
    let own = pod.init_cgroup.iter().map(|cgroup| cgroup.directories());
    for (mount, below) in members.iter().map(|m| m.cgroup.directories()).chain(own).flatten() {
        known.insert(mount.join(below));
    }
    for (mount, below) in pod.cgroup.directories() {
        if below.as_os_str().is_empty() {
            return Ok(false);
        }
        let at = mount.join(below);
        let Ok(entries) = std::fs::read_dir(&at) else { continue };
        for entry in entries.flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) && !known.contains(&entry.path()) {
                return Ok(false);
            }
        }
        let procs = at.join("cgroup.procs");
        if !std::fs::read(&procs).context(|| format!("read({procs:?})"))?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

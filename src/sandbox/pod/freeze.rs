//! Pause and Resume of a pod: all of its containers stop at the same moment, by one write to its cgroup.
//!
//! That cgroup is the client's, and where something else is in it too, each container is frozen by its own.

use super::{Frozen, Phase, Pod};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::container::Container;
use crate::sandbox::undo::Undo;
use crate::sandbox::Sandbox;
use crate::tasks::News;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A freeze of one cgroup gives up after ten seconds.
const CHANGE: Duration = Duration::from_secs(12);

impl Sandbox {
    /// All containers stop at the same moment: one write to the pod's cgroup.
    pub async fn pause_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let change = {
            let mut life = pod.lock();
            match (life.phase, life.frozen) {
                (Phase::Ready, None) => life.begin_change(),
                (Phase::Ready, Some(Frozen::Changing)) => {
                    return Err(pod.cannot("pause", "being paused or resumed"))
                }
                (Phase::Ready, Some(_)) => return Err(pod.cannot("pause", "paused")),
                (phase, _) => return Err(pod.cannot("pause", phase.word())),
            }
        };
        let undo = Undo::new(|| _ = pod.settle(&change, None));
        // No other begins any more. In a frozen cgroup a process does not get to its gate.
        if self.creates_are_at_work() {
            return Err(pod.cannot("pause", "getting a container"));
        }
        let members = self.all();
        // First the word: what is asked of a container from now on is refused instead of hanging.
        members.iter().for_each(|member| member.pod_pauses());
        let frozen =
            freeze(&pod, &members).await.and_then(|frozen| match pod.settle(&change, Some(frozen)) {
                true => Ok(()),
                false => {
                    // Who has ended it may have thawed it too early.
                    thaw_to_die(&pod, &members);
                    Err(pod.cannot("pause", pod.lock().phase.word()))
                }
            });
        match frozen {
            Ok(()) => {
                undo.done();
                members.iter().for_each(|member| member.pod_paused());
                log::info!(sandbox = id; "paused a sandbox");
                Ok(())
            }
            Err(error) => {
                members.iter().for_each(|member| member.pod_resumed());
                Err(error.context(format!("pause sandbox {id}")))
            }
        }
    }

    pub fn resume_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let by_others = pod.cgroup.frozen().unwrap_or(false);
        let (change, frozen) = {
            let mut life = pod.lock();
            match (life.phase, life.frozen) {
                (Phase::Ready, None) if by_others => (life.begin_change(), Frozen::AsOne),
                (Phase::Ready, Some(Frozen::Changing)) => {
                    return Err(pod.cannot("resume", "being paused or resumed"))
                }
                (Phase::Ready, Some(frozen)) => (life.begin_change(), frozen),
                (Phase::Ready, None) => return Err(pod.cannot("resume", "not paused")),
                (phase, _) => return Err(pod.cannot("resume", phase.word())),
            }
        };
        let undo = Undo::new(|| _ = pod.settle(&change, Some(frozen)));
        let members = self.all();
        match thaw(&pod, &members, frozen) {
            Ok(()) => {
                undo.done();
                pod.settle(&change, None);
                members.iter().for_each(|member| member.pod_resumed());
                log::info!(sandbox = id; "resumed a sandbox");
                Ok(())
            }
            Err(error) => Err(error.context(format!("resume sandbox {id}"))),
        }
    }

    /// A process that was killed in a frozen pod can only die once its cgroup is thawed (v1); the others stay as they
    /// are, each frozen by its own.
    pub(in crate::sandbox) async fn let_die(&self, container: &Container) -> Result<()> {
        let Some(pod) = self.pod() else { return Ok(()) };
        let Some((change, frozen)) = pod.begin_thaw().await? else { return Ok(()) };
        let undo = Undo::new(|| _ = pod.settle(&change, Some(frozen)));
        let thawed = async {
            if frozen == Frozen::AsOne {
                for other in self.all().iter().filter(|other| other.id != container.id && other.lives()) {
                    other.cgroup.freeze().await?;
                }
                pod.cgroup.thaw()?;
            }
            container.cgroup.thaw()
        };
        let thawed = thawed.await;
        undo.done();
        match thawed {
            Ok(()) => {
                container.pod_let_die();
                if !pod.settle(&change, Some(Frozen::EachByItself)) {
                    thaw_to_die(&pod, &self.all());
                }
                Ok(())
            }
            Err(error) => {
                if !pod.settle(&change, Some(frozen)) {
                    thaw_to_die(&pod, &self.all());
                }
                Err(error.context(format!("let container {} of a paused sandbox end", container.id)))
            }
        }
    }
}

impl Pod {
    /// The end of a change; false where the pod is being stopped meanwhile or has ended: nothing may stay frozen then.
    fn settle(&self, change: &News<()>, frozen: Option<Frozen>) -> bool {
        let settled = {
            let mut life = self.lock();
            let mine = life.frozen == Some(Frozen::Changing) && life.changed.is(change);
            let settled = mine && life.phase == Phase::Ready;
            if mine {
                life.frozen = frozen.filter(|_| settled);
            }
            settled
        };
        change.set(());
        settled
    }

    /// Begins a change of what is frozen; None: nothing is. Waits for another change, which has a limit of its own: what
    /// is killed while it is being frozen would not die.
    async fn begin_thaw(&self) -> Result<Option<(News<()>, Frozen)>> {
        let deadline = Instant::now() + CHANGE;
        loop {
            let changed = {
                let mut life = self.lock();
                match life.frozen {
                    Some(Frozen::Changing) => life.changed.clone(),
                    None => return Ok(None),
                    Some(frozen) => return Ok(Some((life.begin_change(), frozen))),
                }
            };
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || changed.within(left).await.is_none() {
                let what = format!("sandbox {} is still being paused or resumed", self.id);
                return Err(Error::new(Kind::Deadline, what));
            }
        }
    }
}

/// Of a pod that ends; what cannot be thawed may be gone. What another pause has frozen since, or freezes, is that one's.
fn thaw_to_die(pod: &Pod, members: &[Arc<Container>]) {
    if pod.lock().frozen.is_some() {
        return;
    }
    for thawed in [pod.cgroup.thaw()].into_iter().chain(members.iter().map(|member| member.cgroup.thaw())) {
        if let Err(e) = thawed {
            log::debug!(sandbox = pod.id.as_str(); "the freezer of a pod that ends: {e}");
        }
    }
}

async fn freeze(pod: &Pod, members: &[Arc<Container>]) -> Result<Frozen> {
    if alone(pod, members)? {
        match pod.cgroup.freeze().await {
            Ok(()) => return Ok(Frozen::AsOne),
            // Nothing is in it yet, or it is the root.
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Unsupported) => {}
            Err(e) => return Err(e),
        }
    }
    let mut done: Vec<&Arc<Container>> = Vec::new();
    for member in members.iter().filter(|member| member.lives()) {
        if let Err(error) = member.cgroup.freeze().await {
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
        pod.cgroup.thaw()?;
    }
    // Also where it was frozen as one: a `let_die` that failed may have left some frozen by their own.
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
        let entries = match std::fs::read_dir(&at) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.context(|| format!("readdir({at:?})"))?,
        };
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

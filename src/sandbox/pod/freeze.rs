//! Pause and Resume of a pod: a single write to its cgroup stops all of its containers at once.
//!
//! That cgroup belongs to the client; if it holds anything else, each container is frozen through its own cgroup.

use super::life::{Change, Effect, Frozen, Input, Refused};
use super::namespaces::Held;
use super::{Pod, State};
use crate::error::{Context, Error, Kind, Result};
use crate::sandbox::container::Container;
use crate::sandbox::undo::Undo;
use crate::sandbox::Sandbox;
use crate::tasks::News;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Exceeds the ten seconds after which freezing one cgroup gives up.
const CHANGE: Duration = Duration::from_secs(12);

impl Sandbox {
    /// Pauses all containers of the pod, at the same moment if one write to the pod's cgroup can do it.
    pub async fn pause_pod(&self, id: &str) -> Result<()> {
        let pod = self.pod_of(id)?;
        let (change, _) = pod.begin("pause", Input::Pause)?;
        let undo = Undo::new(|| _ = pod.settle(&change, None));
        // No other change can begin now. In a frozen cgroup a process would not reach its gate.
        if self.creates_are_at_work() {
            return Err(pod.cannot("pause", "getting a container"));
        }
        let members = self.all();
        // Announce the pause first: requests to a container are refused from now on instead of hanging.
        members.iter().for_each(|member| member.pod_pauses());
        let frozen = freeze(&pod, &members).await.and_then(|frozen| {
            // Whoever ended the pod may have thawed it before it was frozen.
            if pod.settle_or_thaw(&change, Some(frozen), &members) {
                Ok(())
            } else {
                Err(pod.cannot("pause", pod.lock().life.word()))
            }
        });
        match frozen {
            Ok(()) => {
                undo.done();
                members.iter().for_each(|member| member.pod_paused());
                log::info!(sandbox = id; "paused the sandbox");
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
        let (change, frozen) = pod.begin("resume", Input::Resume { by_others })?;
        let undo = Undo::new(|| _ = pod.settle(&change, Some(frozen)));
        let members = self.all();
        match thaw(&pod, &members, frozen) {
            Ok(()) => {
                undo.done();
                pod.settle(&change, None);
                members.iter().for_each(|member| member.pod_resumed());
                log::info!(sandbox = id; "resumed the sandbox");
                Ok(())
            }
            Err(error) => Err(error.context(format!("resume sandbox {id}"))),
        }
    }

    /// Lets a killed process of a frozen pod die, for which its cgroup must be thawed (v1); the other containers stay
    /// frozen, each through its own cgroup.
    pub(in crate::sandbox) async fn thaw_to_die(&self, container: &Container) -> Result<()> {
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
                container.pod_thaw_to_die();
                pod.settle_or_thaw(&change, Some(Frozen::EachByItself), &self.all());
                Ok(())
            }
            Err(error) => {
                pod.settle_or_thaw(&change, Some(frozen), &self.all());
                Err(error.context(format!("let container {} of a paused sandbox end", container.id)))
            }
        }
    }
}

impl Pod {
    /// Begins a freezer change; also returns what is frozen so far.
    fn begin(&self, verb: &str, input: Input) -> Result<(Changing, Frozen)> {
        let mut state = self.lock();
        let begun = state.life.on(input).map_err(|Refused(word)| self.cannot(verb, word))?;
        state.begun(begun).ok_or_else(|| Error::new(Kind::Bug, "a change of a pod's freezer was lost"))
    }

    /// Ends a freezer change.
    fn settle(&self, changing: &Changing, frozen: Option<Frozen>) -> Effect<Arc<Held>> {
        let settled = self.lock().life.on(Input::Settle { change: changing.change, frozen });
        changing.over.set(());
        settled.unwrap_or(Effect::Nothing)
    }

    /// Like [`Pod::settle`], but thaws everything and returns false if the pod has ended or is being stopped.
    fn settle_or_thaw(
        &self,
        changing: &Changing,
        frozen: Option<Frozen>,
        members: &[Arc<Container>],
    ) -> bool {
        let settled = self.settle(changing, frozen);
        if let Effect::Settled { thaw: true, .. } = settled {
            thaw_to_die(self, members);
        }
        matches!(settled, Effect::Settled { done: true, .. })
    }

    /// Like [`Pod::begin`], for a kill; None if nothing is frozen. Waits for another change, which has a time limit of
    /// its own: a process killed while being frozen would not die.
    async fn begin_thaw(&self) -> Result<Option<(Changing, Frozen)>> {
        let deadline = Instant::now() + CHANGE;
        loop {
            let changed = {
                let mut state = self.lock();
                match state.life.on(Input::LetDie) {
                    Ok(Effect::Wait) => state.changed.clone(),
                    begun => return Ok(begun.ok().and_then(|begun| state.begun(begun))),
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

impl State {
    fn begun(&mut self, begun: Effect<Arc<Held>>) -> Option<(Changing, Frozen)> {
        let Effect::Begin(change, frozen) = begun else { return None };
        self.changed = News::default();
        let changing = Changing { change, over: self.changed.clone() };
        Some((changing, frozen.unwrap_or(Frozen::AsOne)))
    }
}

/// A freezer change in progress.
struct Changing {
    change: Change,
    over: News<()>,
}

/// Thaws everything, best effort: a cgroup that cannot be thawed may be gone.
fn thaw_to_die(pod: &Pod, members: &[Arc<Container>]) {
    for thawed in [pod.cgroup.thaw()].into_iter().chain(members.iter().map(|member| member.cgroup.thaw())) {
        if let Err(e) = thawed {
            log::debug!(sandbox = pod.id.as_str(); "could not thaw a cgroup of an ending pod: {e}");
        }
    }
}

async fn freeze(pod: &Pod, members: &[Arc<Container>]) -> Result<Frozen> {
    if alone(pod, members)? {
        match pod.cgroup.freeze().await {
            Ok(()) => return Ok(Frozen::AsOne),
            // The cgroup does not exist yet, or is the root.
            Err(e) if matches!(e.kind(), Kind::NotFound | Kind::Unsupported) => {}
            Err(e) => return Err(e),
        }
    }
    let mut done: Vec<&Arc<Container>> = Vec::new();
    for member in members.iter().filter(|member| member.lives()) {
        if let Err(error) = member.cgroup.freeze().await {
            for member in done {
                if let Err(e) = member.thaw_unless_paused() {
                    log::warn!(container = member.id.as_str(); "could not thaw the container again: {e}");
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
    // Even if the pod was frozen as one: a failed `thaw_to_die` may have left containers frozen individually.
    members.iter().filter(|member| member.lives()).try_for_each(|member| member.thaw_unless_paused())
}

/// Whether the pod's cgroup contains only this pod: no process of its own, and no child cgroup but its members'.
/// Otherwise freezing it would stop others too, even the shim itself if somebody put it there.
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

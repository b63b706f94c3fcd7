//! Exhaustive test of the life cycle of a container with an exec: visits every reachable state, with all events in
//! every order.

mod demands;
mod nothing;

use super::*;
use crate::launch::KILLED;
use nothing::Nothing;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

const EXEC: &str = "e";
const NEVER_RAN: ExitStatus = ExitStatus { code: 255, at: UNIX_EPOCH };

fn exec() -> Who {
    Some(EXEC.to_owned())
}

/// A process, as the kernel and the reaper see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ProcessParts {
    None,
    Alive,
    /// Its exit was delivered.
    Reaped,
}

/// What is in progress, and what has been reported.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Around {
    init: ProcessParts,
    exec: ProcessParts,
    /// Whether the first process was killed.
    killed: bool,
    making: bool,
    starting: bool,
    starting_exec: bool,
    pausing: bool,
    deleting: bool,
    again: Vec<Who>,
    settling: Vec<Who>,
    oom_watched: bool,
    told: Vec<&'static str>,
    exec_told: Vec<&'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scene {
    life: Life<Nothing>,
    around: Around,
}

/// An event, with a name for failure messages.
type Step = (&'static str, fn() -> Input<Nothing>);

fn exit_of(killed: bool) -> ExitStatus {
    ExitStatus { code: if killed { KILLED } else { 0 }, at: UNIX_EPOCH + Duration::from_secs(1) }
}

/// What clients may request at any time.
const REQUESTS: [Step; 24] = [
    ("Start", || Input::Start { handle: (), frozen: false }),
    ("Start, frozen", || Input::Start { handle: (), frozen: true }),
    ("Add", || Input::Add { id: EXEC.into(), wanted: (), facts: (), frozen: false }),
    ("Add, frozen", || Input::Add { id: EXEC.into(), wanted: (), facts: (), frozen: true }),
    ("StartExec", || Input::StartExec { id: EXEC.into(), handle: (), frozen: false }),
    ("StartExec, frozen", || Input::StartExec { id: EXEC.into(), handle: (), frozen: true }),
    ("Signal", || Input::Signal { who: None, signal: libc::SIGTERM, all: false }),
    ("Signal all", || Input::Signal { who: None, signal: libc::SIGTERM, all: true }),
    ("Kill", || Input::Signal { who: None, signal: libc::SIGKILL, all: false }),
    ("Kill all", || Input::Signal { who: None, signal: libc::SIGKILL, all: true }),
    ("Signal exec", || Input::Signal { who: exec(), signal: libc::SIGTERM, all: false }),
    ("Kill exec", || Input::Signal { who: exec(), signal: libc::SIGKILL, all: false }),
    ("Pause", || Input::Pause { frozen: false }),
    ("Pause, frozen", || Input::Pause { frozen: true }),
    ("Resume", || Input::Resume { frozen: false }),
    ("Resume, frozen", || Input::Resume { frozen: true }),
    ("PodPauses", || Input::PodPauses),
    ("PodPaused", || Input::PodPaused),
    ("PodResumed", || Input::PodResumed),
    ("PodLetDie", || Input::PodLetDie),
    ("OomKill", || Input::OomKill),
    ("OomGone", || Input::OomGone),
    ("Delete", || Input::Delete),
    ("DeleteExec", || Input::DeleteExec { id: EXEC.into() }),
];

impl Scene {
    fn first() -> Scene {
        let around = Around {
            init: ProcessParts::None,
            exec: ProcessParts::None,
            killed: false,
            making: true,
            starting: false,
            starting_exec: false,
            pausing: false,
            deleting: false,
            again: Vec::new(),
            settling: Vec::new(),
            oom_watched: true,
            told: Vec::new(),
            exec_told: Vec::new(),
        };
        Scene { life: Life::making((), ()), around }
    }

    /// What the shim's own work and the kernel can deliver now.
    fn news(&self) -> Vec<Step> {
        let a = &self.around;
        let mut steps: Vec<Step> = Vec::new();
        if a.making && a.init == ProcessParts::None {
            steps.push(("born", || Input::OomKill));
        }
        if a.making && a.init != ProcessParts::None {
            steps.push(("Made", || Input::Made(())));
        }
        if a.starting {
            steps.push(("StartOver, ran", || Input::StartOver { handle: (), ran: true }));
            steps.push(("StartOver", || Input::StartOver { handle: (), ran: false }));
        }
        if a.starting_exec {
            if a.exec != ProcessParts::None {
                steps.push(("ExecStarted", || Input::ExecStarted { id: EXEC.into(), handle: () }));
            }
            if a.exec == ProcessParts::None {
                steps.push(("exec born", || Input::OomKill));
            }
            steps.push(("ExecFailed", || Input::ExecFailed { id: EXEC.into(), exit: NEVER_RAN }));
        }
        if a.init == ProcessParts::Alive {
            steps.push(("Exited", || Input::Exited { who: None, exit: exit_of(false) }));
            steps.push(("Exited, killed", || Input::Exited { who: None, exit: exit_of(true) }));
        }
        if a.exec == ProcessParts::Alive {
            steps.push(("exec Exited", || Input::Exited { who: exec(), exit: exit_of(false) }));
        }
        if a.again.contains(&None) {
            steps.push(if a.killed {
                ("Again", || Input::Exited { who: None, exit: exit_of(true) })
            } else {
                ("Again", || Input::Exited { who: None, exit: exit_of(false) })
            });
        }
        if a.again.contains(&exec()) {
            steps.push(("exec Again", || Input::Exited { who: exec(), exit: exit_of(false) }));
        }
        if a.settling.contains(&None) {
            steps.push(("Settled", || Input::Settled { who: None }));
        }
        if a.settling.contains(&exec()) {
            steps.push(("exec Settled", || Input::Settled { who: exec() }));
        }
        if a.pausing {
            steps.push(("PauseOver, frozen", || Input::PauseOver { frozen: true }));
            steps.push(("PauseOver", || Input::PauseOver { frozen: false }));
        }
        if a.deleting {
            steps.push(("DeleteFailed", || Input::DeleteFailed));
            // Deleted waits for the exit.
            if self.life.init.exited().is_some() {
                steps.push(("Deleted", || Input::Deleted));
            }
        }
        if a.told.contains(&"delete") {
            steps.retain(|(name, _)| name.contains("exec") || name.contains("PauseOver"));
        }
        steps
    }

    /// Applies a step; None if it was refused.
    fn after(&self, (name, input): Step) -> Option<Scene> {
        let mut next = self.clone();
        match name {
            "born" => {
                next.around.init = ProcessParts::Alive;
                return Some(next);
            }
            "exec born" => {
                next.around.exec = ProcessParts::Alive;
                return Some(next);
            }
            // The watch begins after the Create event.
            "OomGone" | "OomKill" if !self.around.oom_watched || self.around.making => return None,
            "OomGone" => next.around.oom_watched = false,
            // A pod resumes only what it has paused.
            "PodPauses" if self.life.freezer.with_pod() => return None,
            "PodPaused" | "PodResumed" | "PodLetDie" if !self.life.freezer.with_pod() => return None,
            _ => {}
        }
        let answer = next.life.on(input());
        let Ok(effects) = answer else {
            assert_eq!(next.life, self.life, "{name} was refused, and changed it");
            let asked = REQUESTS.iter().any(|(request, _)| *request == name);
            assert!(asked, "{name} was refused, which is no request");
            return None;
        };
        let a = &mut next.around;
        match name {
            "Made" => a.making = false,
            "Start" => a.starting = true,
            "StartOver" | "StartOver, ran" => a.starting = false,
            "StartExec" => a.starting_exec = true,
            "ExecStarted" | "ExecFailed" => a.starting_exec = false,
            "Pause" => a.pausing = true,
            "PauseOver" | "PauseOver, frozen" => a.pausing = false,
            "Delete" => a.deleting = true,
            "DeleteFailed" | "Deleted" => a.deleting = false,
            "Exited" | "Exited, killed" => {
                (a.init, a.killed) = (ProcessParts::Reaped, name.ends_with("killed"))
            }
            "exec Exited" => a.exec = ProcessParts::Reaped,
            "Again" => a.again.retain(|who| who.is_some()),
            "exec Again" => a.again.retain(|who| who.is_none()),
            "Settled" => a.settling.retain(|who| who.is_some()),
            "exec Settled" => a.settling.retain(|who| who.is_none()),
            _ => {}
        }
        self.demand(name, &effects);
        let was = self.life.freezer.own();
        for effect in effects {
            next.see(name, was, effect);
        }
        next.check(name);
        Some(next)
    }

    fn see(&mut self, step: &str, was: Own, effect: Effect<Nothing>) {
        let Around { told, exec_told, .. } = &mut self.around;
        let over = told.contains(&"exit");
        match effect {
            Effect::Emit(news) => {
                assert!(!told.contains(&"delete"), "{step}: {news:?} after Delete");
                match news {
                    News::Create => {
                        assert!(told.is_empty(), "{step}: a second Create, or a late one");
                        told.push("create");
                    }
                    News::Start => {
                        assert!(told[..] == ["create"], "{step}: Start after {told:?}");
                        told.push("start");
                    }
                    News::ExecAdded(_) => {
                        assert!(
                            !over && exec_told.is_empty(),
                            "{step}: ExecAdded after {told:?}, {exec_told:?}"
                        );
                        exec_told.push("added");
                    }
                    News::ExecStarted(_) => {
                        assert!(
                            !over && exec_told[..] == ["added"],
                            "{step}: ExecStarted after {told:?}, {exec_told:?}"
                        );
                        exec_told.push("started");
                    }
                    News::Exit(Some(_), _) => {
                        assert!(
                            !over && exec_told[..] == ["added", "started"],
                            "{step}: an exec's Exit after {told:?}, {exec_told:?}"
                        );
                        exec_told.push("exit");
                    }
                    News::Exit(None, _) => {
                        assert!(!over && told.contains(&"create"), "{step}: Exit after {told:?}");
                        told.push("exit");
                    }
                    News::Delete(_) => {
                        assert!(told.contains(&"told"), "{step}: Delete after {told:?}");
                        told.push("delete");
                    }
                    // Others may thaw and freeze the container meanwhile, so the two need not alternate.
                    News::Paused | News::Resumed => {
                        assert!(!over && told.contains(&"create"), "{step}: {news:?} after {told:?}");
                    }
                    News::Oom => assert!(told.contains(&"create") || !over, "{step}: Oom"),
                }
            }
            Effect::Tell(None, _) => {
                assert_eq!(told.last(), Some(&"exit"), "{step}: told before the event, or twice");
                told.push("told");
            }
            Effect::Tell(Some(_), _) => {
                assert!(!exec_told.contains(&"told"), "{step}: told twice");
                let behind = if exec_told.contains(&"started") { "exit" } else { "added" };
                assert_eq!(exec_told.last(), Some(&behind), "{step}: told before its exit");
                exec_told.push("told");
            }
            Effect::Again(who, _) => self.around.again.push(who),
            Effect::Settle(who, _) => {
                assert!(!self.around.settling.contains(&who), "{step}: settled twice");
                self.around.settling.push(who);
            }
            Effect::Removed((), _) => {
                self.around.exec_told.clear();
                self.around.exec = ProcessParts::None;
            }
            Effect::LetDie { who, thaw, beyond } => {
                let own = who.is_none() && was != Own::Thawed;
                assert!(
                    thaw == own && (thaw || beyond || self.life.freezer.with_pod()),
                    "{step}: it cannot die"
                );
            }
            // A kill came before the freeze.
            Effect::Fail(_) if step.starts_with("PauseOver") => {}
            Effect::Thaw if step == "PauseOver, frozen" => {}
            Effect::Thaw => assert!(step.starts_with("Resume")),
            Effect::Open(()) | Effect::Make(()) | Effect::KillOthers | Effect::KillAtGate => {}
            Effect::Signal(..) | Effect::SignalAll(_) => {}
            Effect::Fail(refused) => panic!("{step}: {refused:?}"),
        }
    }

    /// Checks that no exit is lost: once both processes have exited and nothing is in progress, it has been reported.
    fn check(&self, step: &str) {
        let Around { init, exec, making, starting, starting_exec, again, settling, told, .. } = &self.around;
        let quiet = !making && !starting && !starting_exec && again.is_empty() && settling.is_empty();
        if *init == ProcessParts::Reaped && *exec != ProcessParts::Alive && quiet {
            assert!(self.life.init.exited().is_some(), "{step}: the exit was lost");
            assert!(told.contains(&"told"), "{step}: nobody was told");
        }
        if *exec == ProcessParts::Reaped && quiet {
            assert!(self.around.exec_told.contains(&"told"), "{step}: nobody was told of the exec");
        }
        if told.contains(&"start") && *init != ProcessParts::Reaped {
            assert!(self.life.init.exited().is_none(), "{step}: told before its end");
        }
    }
}

/// The steps that led to a scene.
fn path(from: &HashMap<Scene, Option<(Scene, &'static str)>>, scene: &Scene) -> Vec<&'static str> {
    let mut steps = Vec::new();
    let mut at = scene.clone();
    while let Some(Some((before, step))) = from.get(&at) {
        steps.push(*step);
        at = before.clone();
    }
    steps.reverse();
    steps
}

#[test]
fn whatever_happens_in_whatever_order_is_told_once_and_in_its_order() {
    let first = Scene::first();
    let mut from = HashMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    let mut steps = 0;
    while let Some(scene) = queue.pop_front() {
        for step in REQUESTS.into_iter().chain(scene.news()) {
            steps += 1;
            let next = std::panic::catch_unwind(|| scene.after(step));
            let Ok(next) = next else { panic!("after {:?}, {}: {scene:?}", path(&from, &scene), step.0) };
            let Some(next) = next else { continue };
            // Resume thaws under the lock.
            let next = if step.0.starts_with("Resume") {
                let above = next.life.clone().on(Input::Thawed { frozen: true });
                assert_eq!(above, Ok(vec![Effect::Fail(Refused::FrozenAbove)]));
                next.after(("Thawed", || Input::Thawed { frozen: false })).expect("it is never refused")
            } else {
                next
            };
            // If the thaw for a kill fails, the container can still be resumed or killed again.
            if step.0 == "Kill" && scene.life.freezer.own() == Own::Frozen {
                let mut left = next.life.clone();
                left.on(Input::NotThawed).expect("it is never refused");
                assert_eq!(left.freezer, scene.life.freezer);
            }
            if !from.contains_key(&next) {
                from.insert(next.clone(), Some((scene.clone(), step.0)));
                queue.push_back(next);
            }
        }
    }
    let told: std::collections::BTreeSet<_> = from.keys().map(|scene| scene.around.told.clone()).collect();
    assert!(told.contains(&vec!["create", "start", "exit", "told", "delete"]), "{told:?}");
    assert!(from.len() > 1000, "only {} states were reached", from.len());
    println!("{} states, {steps} steps", from.len());
}

#[test]
fn what_is_in_the_wrong_state_is_refused_by_its_word() {
    let mut life: Life<Nothing> = Life::making((), ());
    let start = || Input::Start { handle: (), frozen: false };
    assert_eq!(life.on(start()).unwrap_err(), Refused::Is("being created"));
    life.on(Input::Made(())).unwrap();
    assert_eq!(life.on(Input::Pause { frozen: false }).unwrap_err(), Refused::InitIs("created"));
    life.on(start()).unwrap();
    life.on(Input::StartOver { handle: (), ran: true }).unwrap();
    assert_eq!(life.on(start()).unwrap_err(), Refused::Is("running"));
    assert_eq!(life.on(Input::Resume { frozen: false }).unwrap_err(), Refused::NotPaused);
    assert_eq!(life.on(Input::Delete).unwrap_err(), Refused::InitIs("running"));
    life.on(Input::Pause { frozen: false }).unwrap();
    assert_eq!(life.on(Input::Pause { frozen: false }).unwrap_err(), Refused::InitIs("being paused"));
    assert_eq!(life.on(Input::PauseOver { frozen: true }).unwrap(), [Effect::Emit(News::Paused)]);
    assert_eq!(life.on(Input::Delete).unwrap_err(), Refused::InitIs("paused"));
    life.on(Input::Exited { who: None, exit: exit_of(true) }).unwrap();
    life.on(Input::Settled { who: None }).unwrap();
    assert_eq!(
        life.on(Input::Signal { who: None, signal: libc::SIGKILL, all: true }).unwrap_err(),
        Refused::Gone
    );
    life.on(Input::Delete).unwrap();
    assert_eq!(life.on(Input::Delete).unwrap_err(), Refused::BeingDeleted);
}

#[test]
fn an_oom_kill_that_was_heard_of_late_is_told_where_the_first_process_was_killed() {
    for (gone_first, killed) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut life: Life<Nothing> = Life::making((), ());
        life.on(Input::Made(())).unwrap();
        let exited = || Input::Exited { who: None, exit: exit_of(killed) };
        let settled = || Input::Settled { who: None };
        let inputs = if gone_first {
            [Input::OomGone, exited(), settled()]
        } else {
            [exited(), settled(), Input::OomGone]
        };
        let effects: Vec<_> = inputs.into_iter().flat_map(|input| life.on(input).unwrap()).collect();
        assert_eq!(effects.contains(&Effect::Emit(News::Oom)), killed, "{gone_first}");
    }
}

//! Exhaustive test of the life cycle of a pod: visits every reachable state, with all events in every order.

use super::*;
use std::collections::{BTreeSet, HashMap, VecDeque};

/// A pod with its requests in progress.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Scene {
    life: Life<()>,
    /// Changes that have begun and are not settled; at most two.
    changes: Vec<u64>,
    stopping: bool,
    /// The namespaces were released.
    dropped: bool,
    started: bool,
    ended: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Start,
    Join,
    Pause,
    Resume(bool),
    LetDie,
    Settle(usize, Option<Frozen>),
    Stop,
    Thaw,
    NotThawed,
    Release,
    StopFailed,
    Ended,
}

impl Scene {
    fn first() -> Scene {
        let life = Life::created(());
        Scene { life, changes: Vec::new(), stopping: false, dropped: false, started: false, ended: false }
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps = vec![Step::Start, Step::Join, Step::Pause, Step::Resume(true), Step::Resume(false)];
        steps.extend([Step::LetDie, Step::Stop, Step::Ended]);
        for at in 0..self.changes.len() {
            let ends = [None, Some(Frozen::AsOne), Some(Frozen::EachByItself)];
            steps.extend(ends.map(|frozen| Step::Settle(at, frozen)));
        }
        if self.stopping {
            steps.extend([Step::Thaw, Step::NotThawed, Step::Release, Step::StopFailed]);
        }
        steps
    }

    /// Applies a step; None if it was refused.
    fn after(&self, step: Step) -> Option<Scene> {
        let mut next = self.clone();
        let input = match step {
            Step::Start => Input::Start,
            Step::Join => Input::Join,
            Step::Pause => Input::Pause,
            Step::Resume(by_others) => Input::Resume { by_others },
            Step::LetDie => Input::LetDie,
            Step::Settle(at, frozen) => Input::Settle { change: Change(self.changes[at]), frozen },
            Step::Stop => Input::Stop,
            Step::Thaw => Input::Thaw,
            Step::NotThawed => Input::NotThawed,
            Step::Release => Input::Release,
            Step::StopFailed => Input::StopFailed,
            Step::Ended => Input::Ended,
        };
        let Ok(effect) = next.life.on(input) else {
            assert_eq!(next.life, self.life, "{step:?} was refused, and changed it");
            return None;
        };
        match (step, effect) {
            (Step::Start, _) => {
                assert!(!self.started && !self.dropped, "a second start, or a late one");
                next.started = true;
            }
            (Step::Join, _) => assert!(
                self.life.held().is_some() && self.life.frozen().is_none() && self.changes_at_work() == 0
            ),
            (Step::Pause | Step::Resume(_) | Step::LetDie, Effect::Begin(change, before)) => {
                assert_eq!(self.changes_at_work(), 0, "two changes at once");
                assert_eq!(step == Step::Pause, before.is_none());
                next.changes.push(change.0);
            }
            (Step::LetDie, Effect::Wait) => assert_eq!(self.changes_at_work(), 1),
            (Step::LetDie, Effect::Nothing) => assert_eq!(self.life.frozen(), None),
            (Step::Settle(at, frozen), Effect::Settled { done, thaw }) => {
                next.changes.remove(at);
                let own = self.life.freezer == Freezer::Changing(Change(self.changes[at]));
                assert!(own || next.life.freezer == self.life.freezer, "it settled another's change");
                assert!(!done || next.life.frozen() == frozen);
                assert_eq!(thaw, !done && next.life.freezer == Freezer::Thawed);
            }
            (Step::Stop, Effect::Wait) => assert!(self.stopping),
            (Step::Stop, Effect::Nothing) => {
                // Several requests may stop a pod that has ended.
                assert!(!self.stopping || self.life.phase == Phase::Stopped, "two stops at once");
                next.stopping = true;
            }
            (Step::Thaw | Step::NotThawed, _) => {}
            (Step::Release | Step::Ended, Effect::Drop(held)) => {
                assert!(held.is_none() || !self.dropped, "given away twice");
                next.dropped |= held.is_some();
                next.ended |= step == Step::Ended;
                next.stopping &= step != Step::Ended;
            }
            (Step::StopFailed, _) => next.stopping = false,
            other => panic!("{other:?}"),
        }
        assert_eq!(next.dropped, next.life.held().is_none());
        assert!(!next.ended || next.life.word() == "stopped" || next.stopping);
        // Numbers only distinguish changes.
        next.renumber();
        (next.changes.len() <= 2).then_some(next)
    }

    /// Changes in progress, as the life cycle sees them.
    fn changes_at_work(&self) -> usize {
        usize::from(self.life.is_changing())
    }

    fn renumber(&mut self) {
        let numbers: BTreeSet<u64> = self.changes.iter().copied().collect();
        let new = |old: u64| numbers.iter().position(|known| *known == old).map_or(0, |at| at as u64 + 1);
        if let Freezer::Changing(Change(number)) = self.life.freezer {
            self.life.freezer = Freezer::Changing(Change(new(number)));
        }
        self.changes.iter_mut().for_each(|number| *number = new(*number));
        self.life.changes = self.changes.len() as u64;
    }
}

#[test]
fn whatever_happens_in_whatever_order_leaves_a_pod_that_can_be_stopped() {
    let first = Scene::first();
    let mut from = HashMap::from([(first.clone(), None)]);
    let mut queue = VecDeque::from([first]);
    while let Some(scene) = queue.pop_front() {
        for step in scene.steps() {
            let next = std::panic::catch_unwind(|| scene.after(step));
            let Ok(next) = next else { panic!("{step:?} after {scene:?}, from {:?}", from[&scene]) };
            let Some(next) = next else { continue };
            if !from.contains_key(&next) {
                from.insert(next.clone(), Some((scene.clone(), step)));
                queue.push_back(next);
            }
        }
        // In every state a stop ends the pod, and nothing stays frozen once the changes in progress have settled.
        let mut end = scene.clone();
        if !end.stopping {
            end = end.after(Step::Stop).expect("a stop is never refused");
        }
        for step in [Step::Thaw, Step::Release, Step::Ended] {
            end = end.after(step).expect("it is never refused");
        }
        while !end.changes.is_empty() {
            end = end.after(Step::Settle(0, Some(Frozen::AsOne))).expect("it is never refused");
        }
        assert!(end.dropped && end.life.frozen().is_none() && end.life.word() == "stopped", "{end:?}");
    }
    assert!(from.len() > 50, "only {} states were reached", from.len());
    println!("{} states", from.len());
}

#[test]
fn what_is_in_the_wrong_phase_is_refused_by_its_word() {
    let mut life = Life::created(());
    assert_eq!(life.on(Input::Pause), Err(Refused("not started")));
    life.on(Input::Start).unwrap();
    assert_eq!(life.on(Input::Start), Err(Refused("running")));
    assert_eq!(life.on(Input::Resume { by_others: false }), Err(Refused("not paused")));
    let Ok(Effect::Begin(change, None)) = life.on(Input::Pause) else { panic!("no pause") };
    assert_eq!(life.on(Input::Pause), Err(Refused("being paused or resumed")));
    assert_eq!(life.on(Input::Join), Err(Refused("paused")));
    let frozen = Some(Frozen::AsOne);
    assert_eq!(life.on(Input::Settle { change, frozen }), Ok(Effect::Settled { done: true, thaw: false }));
    assert_eq!(life.on(Input::Pause), Err(Refused("paused")));
    life.on(Input::Stop).unwrap();
    assert_eq!(life.on(Input::Join), Err(Refused("paused")));
    assert_eq!(life.on(Input::Resume { by_others: true }), Err(Refused("being stopped")));
}

//! What is attacked, and what was seen of it.

use crate::calls::{exec_request, LIMIT};
use crate::containerd::eventually;
use crate::judge::{counts, OWN};
use crate::trap::Trap;
use crate::wire::{decode, Refusal, Wire, DE, TASK_V3};
use crate::world::{members, World, PATIENCE};
use containerd_shim_protos::api::*;
use serde_json::Value;
use std::time::Duration;

impl World {
    /// A program of an exec, as both sides see it.
    pub fn learn(&mut self) {
        let secret = format!("OWN={OWN}");
        let process = self.attacker.process(&["/probe", "sleep"], &[&secret]);
        self.exec("c1", "program", &process);
        let pid = self.start("c1", "program", LIMIT).unwrap();
        self.learn_of(pid);
        self.kill("c1", "program");
        self.wait("c1", "program").expect("it ends");
        self.delete("c1", "program").expect("Delete is answered").unwrap();
    }

    /// What a process that runs its program is like, for the host and for the attacker.
    #[track_caller]
    pub fn learn_of(&mut self, pid: u32) {
        let program = || crate::look::stat(pid).is_some_and(|stat| stat.name == "probe");
        assert!(eventually(program), "{pid} does not run its program: {:?}", crate::look::stat(pid));
        self.facts.outside.push(self.host.look(pid));
        let known = self.facts.inside.len();
        let programs = |trap: &Trap| -> Vec<Value> {
            trap.looks().into_iter().filter(|look| look["mode"] == "Wait" && look["program"] == true).collect()
        };
        assert!(eventually(|| programs(&self.trap).len() > known), "the attacker sees no program");
        self.facts.inside = programs(&self.trap);
    }

    /// An exec that is attacked from its first instruction to its end. Says whether the shim still answers.
    pub fn victim(&mut self, program: &[&str]) -> bool {
        self.count += 1;
        let exec = format!("v{}", self.count);
        let secret = format!("OWN={OWN}");
        let request = exec_request("c1", &exec, &self.attacker.process(program, &[&secret]));
        if self.ask::<Empty>("Exec", &request, Duration::ZERO).is_none() {
            self.verdict.add("Exec is not answered");
            return false;
        }
        let request = StartRequest { id: "c1".into(), exec_id: exec.clone(), ..Default::default() };
        let Some(started) = self.ask::<StartResponse>("Start", &request, LIMIT) else {
            self.verdict.add("Start of an attacked exec is not answered");
            return false;
        };
        if started.is_ok() && self.wait("c1", &exec).is_none() {
            // It may be stopped for good.
            self.kill("c1", &exec);
            if self.wait("c1", &exec).is_none() {
                self.verdict.add("Wait for an attacked exec is not answered, although it was killed");
                return false;
            }
        }
        if self.delete("c1", &exec).is_none() {
            self.verdict.add("Delete of an attacked exec is not answered");
            return false;
        }
        true
    }

    /// Execs that are started while everything is held; each has a time limit. The connections wait for the answers.
    pub fn held(&mut self, count: u32, limit: Duration) -> Vec<(String, Wire)> {
        let secret = format!("OWN={OWN}");
        let process = self.attacker.process(&["/probe", "sleep"], &[&secret]);
        let each = |number| {
            let exec = format!("h{number}");
            self.exec("c1", &exec, &process);
            let mut wire = self.wire();
            let request = StartRequest { id: "c1".into(), exec_id: exec.clone(), ..Default::default() };
            wire.ask(TASK_V3, "Start", &request, limit);
            (exec, wire)
        };
        let all = (self.count + 1..=self.count + count).map(each).collect();
        self.count += count;
        all
    }

    /// The end of an exec that is held: its time is over soon, or it was stopped only when it had begun.
    pub fn give_up(&mut self, exec: &str, mut wire: Wire) {
        if !wire.ready(PATIENCE) {
            self.verdict.add("Start of a held exec is not answered when its time is over");
            return;
        }
        let answer: Result<StartResponse, Refusal> = decode(wire.next().expect("the shim lives").1);
        match answer {
            Ok(_) => {
                self.kill("c1", exec);
                if self.wait("c1", exec).is_none() {
                    self.verdict.add("a program that is held does not die of SIGKILL");
                }
            }
            Err((code, _)) if code == DE => {}
            Err((code, words)) => self.verdict.add(format!("Start of a held exec: {code:?}: {words}")),
        }
        if self.delete("c1", exec).is_none() {
            self.verdict.add("Delete of a held exec is not answered");
        }
    }

    /// Deletes what is about to end, or has ended.
    #[track_caller]
    pub fn delete_when_over(&self, id: &str, exec: &str) {
        assert!(self.wait(id, exec).is_some(), "{exec} does not end");
        self.delete(id, exec).expect("Delete is answered").ok(); // a start that failed may have left nothing
    }

    /// Looks from the host at everything in the containers' pid namespaces that is no program yet, and judges it.
    pub fn look_from_outside(&mut self) -> usize {
        let mut count = 0;
        let members = self.namespaces.iter().flat_map(|namespace| members(namespace)).collect::<Vec<_>>();
        for pid in members {
            let stat = crate::look::stat(pid);
            if stat.is_none_or(|stat| stat.name == "probe" || stat.state == 'Z') || is_first(pid) {
                continue;
            }
            let look = self.host.look(pid);
            if counts(&look) {
                count += 1;
                self.verdict.all(self.facts.judge(&look, "outside"));
            }
        }
        count
    }

    /// Judges all that the attacker has written down; how much of it could be judged.
    pub fn judge(&mut self) -> usize {
        let looks = self.trap.looks();
        let counted: Vec<&Value> = looks.iter().filter(|look| counts(look)).collect();
        for look in &counted {
            self.verdict.all(self.facts.judge(look, "inside"));
        }
        counted.len()
    }

}

/// The first one of its pid namespace.
fn is_first(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("NSpid:"));
    line.is_some_and(|line| line.split_whitespace().last() == Some("1"))
}

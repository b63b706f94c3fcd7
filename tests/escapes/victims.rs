//! What is attacked, and what was seen of it.

use crate::calls::{exec_request, LIMIT};
use crate::judge::OWN;
use crate::world::{World, PATIENCE};
use containerd_shim_protos::api::*;
use std::time::Duration;
use testbed::wire::{decode, Refusal, Wire, DE, TASK_V3};

impl World {
    /// Learns how the program of an exec looks to both sides.
    pub fn learn(&mut self) {
        let secret = format!("OWN={OWN}");
        let process = self.attacker.process(&["/probe", "sleep"], &[&secret]);
        self.exec("c1", "program", &process);
        let pid = self.start("c1", "program", LIMIT).unwrap();
        self.ambush.learn(pid);
        self.kill("c1", "program");
        self.wait("c1", "program").expect("it ends");
        self.delete("c1", "program").expect("Delete is answered").unwrap();
    }

    /// Runs an exec that is attacked from its first instruction to its end. Returns whether the shim still answers.
    pub fn victim(&mut self, program: &[&str]) -> bool {
        self.count += 1;
        let exec = format!("v{}", self.count);
        let secret = format!("OWN={OWN}");
        let mut request = exec_request("c1", &exec, &self.attacker.process(program, &[&secret]));
        request.terminal = self.attacker.terminal;
        if self.ask::<Empty>("Exec", &request, Duration::ZERO).is_none() {
            self.ambush.verdict.add("Exec is not answered");
            return false;
        }
        let request = StartRequest { id: "c1".into(), exec_id: exec.clone(), ..Default::default() };
        let Some(started) = self.ask::<StartResponse>("Start", &request, LIMIT) else {
            self.ambush.verdict.add("Start of an attacked exec is not answered");
            return false;
        };
        if started.is_ok() && self.wait("c1", &exec).is_none() {
            // It may be stopped for good.
            self.kill("c1", &exec);
            if self.wait("c1", &exec).is_none() {
                self.ambush.verdict.add("Wait for an attacked exec is not answered, although it was killed");
                return false;
            }
        }
        if self.delete("c1", &exec).is_none() {
            self.ambush.verdict.add("Delete of an attacked exec is not answered");
            return false;
        }
        true
    }

    /// Starts execs while everything is held, each with a time limit. The connections wait for the answers.
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

    /// Ends a held exec: its time is over soon, or it was stopped only after it had begun.
    pub fn give_up(&mut self, exec: &str, mut wire: Wire) {
        if !wire.ready(PATIENCE) {
            self.ambush.verdict.add("Start of a held exec is not answered when its time is over");
            return;
        }
        let answer: Result<StartResponse, Refusal> = decode(wire.next().expect("the shim lives").1);
        match answer {
            Ok(_) => {
                self.kill("c1", exec);
                if self.wait("c1", exec).is_none() {
                    self.ambush.verdict.add("a program that is held does not die of SIGKILL");
                }
            }
            Err((code, _)) if code == DE => {}
            Err((code, words)) => self.ambush.verdict.add(format!("Start of a held exec: {code:?}: {words}")),
        }
        if self.delete("c1", exec).is_none() {
            self.ambush.verdict.add("Delete of a held exec is not answered");
        }
    }

    /// Deletes what is about to end, or has ended.
    #[track_caller]
    pub fn delete_when_over(&self, id: &str, exec: &str) {
        assert!(self.wait(id, exec).is_some(), "{exec} does not end");
        self.delete(id, exec).expect("Delete is answered").ok(); // a failed start may have left nothing
    }
}

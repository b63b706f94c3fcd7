//! A client's calls, each with a time limit.

use crate::world::{World, PATIENCE};
use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::Value;
use std::time::Duration;
use testbed::wire::{decode, Refusal, Wire, TASK_V3};

/// The time limit of a start that the attacker lets through or kills.
pub const LIMIT: Duration = Duration::from_secs(5);

impl World {
    pub fn wire(&self) -> Wire {
        self.containerd.connect(&self.shim)
    }

    /// Makes a request with a time limit; returns `None` if no answer comes.
    pub fn ask<R: Message>(
        &self,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Option<Result<R, Refusal>> {
        let mut wire = self.wire();
        wire.ask(TASK_V3, method, request, limit);
        wire.ready(limit + PATIENCE).then(|| decode(wire.next().expect("the shim lives").1))
    }

    #[track_caller]
    pub fn call<R: Message>(&self, method: &str, request: &impl Message) -> R {
        let answer = self.ask(method, request, Duration::ZERO);
        answer
            .unwrap_or_else(|| panic!("{method} is not answered"))
            .unwrap_or_else(|e| panic!("{method}: {e:?}"))
    }

    /// Creates and starts a container whose bundle exists; returns its pid.
    #[track_caller]
    pub fn run(&mut self, id: &str) -> u32 {
        let pid = self.create(id, Duration::ZERO).expect("Create is answered").unwrap();
        self.start(id, "", LIMIT).unwrap();
        pid
    }

    pub fn create(&mut self, id: &str, limit: Duration) -> Option<Result<u32, Refusal>> {
        let request = self.create_request(id);
        let answer = self.ask::<CreateTaskResponse>("Create", &request, limit)?;
        self.ids.push(id.to_owned());
        Some(answer.map(|created| {
            self.ambush.watch(created.pid);
            created.pid
        }))
    }

    pub fn create_request(&self, id: &str) -> CreateTaskRequest {
        let bundle = self.containerd.bundle(id);
        let out = bundle.join("out");
        let stdout = if out.exists() { out.to_str().unwrap().to_owned() } else { String::new() };
        CreateTaskRequest {
            id: id.into(),
            bundle: bundle.to_str().unwrap().into(),
            stdout,
            ..Default::default()
        }
    }

    #[track_caller]
    pub fn exec(&self, id: &str, exec: &str, process: &Value) {
        self.call::<Empty>("Exec", &exec_request(id, exec, process));
    }

    #[track_caller]
    pub fn start(&self, id: &str, exec: &str, limit: Duration) -> Result<u32, Refusal> {
        let request = StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let answer = self.ask::<StartResponse>("Start", &request, limit).expect("Start is answered");
        answer.map(|started| started.pid)
    }

    #[track_caller]
    pub fn kill(&self, id: &str, exec: &str) {
        let request = kill_request(id, exec);
        let answer = self.ask::<Empty>("Kill", &request, Duration::ZERO);
        answer.expect("Kill is answered").ok(); // it may have ended
    }

    /// Waits for an exit that comes soon.
    pub fn wait(&self, id: &str, exec: &str) -> Option<u32> {
        let request = WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        let answer = self.ask::<WaitResponse>("Wait", &request, Duration::ZERO)?;
        Some(answer.map_or(0, |exit| exit.exit_status))
    }

    /// Deletes a process. The outcome does not matter, but the call must be answered.
    pub fn delete(&self, id: &str, exec: &str) -> Option<Result<DeleteResponse, Refusal>> {
        let request = DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() };
        self.ask("Delete", &request, Duration::ZERO)
    }
}

pub fn exec_request(id: &str, exec: &str, process: &Value) -> ExecProcessRequest {
    let spec = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: process.to_string().into_bytes(),
        ..Default::default()
    };
    ExecProcessRequest { id: id.into(), exec_id: exec.into(), spec: Some(spec).into(), ..Default::default() }
}

pub fn kill_request(id: &str, exec: &str) -> KillRequest {
    let signal = libc::SIGKILL as u32;
    KillRequest { id: id.into(), exec_id: exec.into(), signal, all: exec.is_empty(), ..Default::default() }
}

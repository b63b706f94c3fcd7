//! Requests that are sent without waiting for the answer, each on a connection of its own.

use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use protobuf::Message;
use serde_json::{json, Value};
use std::time::{Duration, Instant};
use testbed::fake::{Containerd, Shim};
use testbed::wire::{decode, Refusal, Wire, TASK_V3};

/// A request in flight.
pub struct Asked {
    pub what: String,
    pub begun: Instant,
    pub wire: Wire,
}

/// The outcome of a request.
pub struct Answered {
    pub what: String,
    /// `None` if no answer came.
    pub answer: Option<(Duration, Result<(), Refusal>)>,
}

impl Answered {
    pub fn good(&self) -> bool {
        matches!(&self.answer, Some((_, Ok(()))))
    }

    pub fn refusal(&self) -> Option<&Refusal> {
        self.answer.as_ref()?.1.as_ref().err()
    }
}

impl std::fmt::Display for Answered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.answer {
            None => write!(f, "{}: no answer", self.what),
            Some((time, Ok(()))) => write!(f, "{}: OK after {time:.2?}", self.what),
            Some((time, Err((code, words)))) => {
                write!(f, "{}: {code:?} after {time:.2?}: {words}", self.what)
            }
        }
    }
}

/// The shim that requests go to.
#[derive(Clone, Copy)]
pub struct Line<'a> {
    pub containerd: &'a Containerd,
    pub shim: &'a Shim,
}

impl Line<'_> {
    pub fn ask(
        &self,
        what: &str,
        service: &str,
        method: &str,
        request: &impl Message,
        limit: Duration,
    ) -> Asked {
        let mut wire = self.containerd.connect(self.shim);
        let begun = Instant::now();
        wire.ask(service, method, request, limit);
        Asked { what: what.into(), begun, wire }
    }

    pub fn task(&self, what: &str, method: &str, request: &impl Message, limit: Duration) -> Asked {
        self.ask(what, TASK_V3, method, request, limit)
    }

    /// Waits for the answer, with a time limit.
    #[track_caller]
    pub fn call<R: Message>(&self, method: &str, request: &impl Message) -> Result<R, Refusal> {
        let Asked { mut wire, .. } = self.task(method, method, request, Duration::ZERO);
        assert!(wire.ready(PATIENCE), "{method} is not answered");
        decode(wire.next().expect("the shim lives").1)
    }
}

/// The limit for requests that should not wait at all.
const PATIENCE: Duration = Duration::from_secs(15);

/// Collects the answers that come within this time.
pub fn answers(mut asked: Vec<Asked>, within: Duration) -> Vec<Answered> {
    let end = Instant::now() + within;
    let mut all = Vec::new();
    while !asked.is_empty() && Instant::now() < end {
        let before = asked.len();
        asked.retain_mut(|Asked { what, begun, wire }| {
            if !wire.ready(Duration::ZERO) {
                return true;
            }
            let time = begun.elapsed();
            let answer = wire.next().expect("the shim lives").1;
            let answer = decode::<Empty>(answer).map(drop);
            all.push(Answered { what: what.clone(), answer: Some((time, answer)) });
            false
        });
        if asked.len() == before {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    all.extend(asked.into_iter().map(|Asked { what, .. }| Answered { what, answer: None }));
    all
}

pub fn exec_request(id: &str, exec: &str, process: &Value) -> ExecProcessRequest {
    let spec = Any {
        type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
        value: process.to_string().into_bytes(),
        ..Default::default()
    };
    ExecProcessRequest { id: id.into(), exec_id: exec.into(), spec: Some(spec).into(), ..Default::default() }
}

pub fn process(args: &[&str]) -> Value {
    json!({ "cwd": "/", "args": args, "env": ["PATH=/", "HOME=/"], "user": { "uid": 0, "gid": 0 } })
}

pub fn start_request(id: &str, exec: &str) -> StartRequest {
    StartRequest { id: id.into(), exec_id: exec.into(), ..Default::default() }
}

pub fn kill_request(id: &str, exec: &str) -> KillRequest {
    let signal = libc::SIGKILL as u32;
    KillRequest { id: id.into(), exec_id: exec.into(), signal, all: exec.is_empty(), ..Default::default() }
}

pub fn wait_request(id: &str, exec: &str) -> WaitRequest {
    WaitRequest { id: id.into(), exec_id: exec.into(), ..Default::default() }
}

pub fn delete_request(id: &str, exec: &str) -> DeleteRequest {
    DeleteRequest { id: id.into(), exec_id: exec.into(), ..Default::default() }
}

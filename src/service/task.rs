//! The Task service: decode, call the sandbox, encode.

use super::answer::{answer, answer_later, decode, encode, Rest};
use super::checkpoint::checkpoint;
use super::convert;
use super::options;
use super::pod::{limit, Pod};
use super::reply::Reply;
use crate::error::{invalid, Result};
use crate::sandbox::{Create, Sandbox};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::types::task::ProcessInfo;
use protobuf::MessageField;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Instant;
use ttrpc::proto::Code;

pub(super) struct Task {
    pod: Pod,
    sandbox: Arc<Sandbox>,
    /// Set if a shutdown was requested while containers were left. containerd sends one after deleting each container
    /// of a pod, in any order, and does not repeat it, so the last Delete ends the shim.
    asked_to_end: AtomicBool,
}

impl Task {
    pub(super) fn new(pod: Pod) -> Self {
        Task { sandbox: pod.sandbox.clone(), pod, asked_to_end: AtomicBool::new(false) }
    }

    pub(super) fn call(self: &Arc<Self>, method: &str, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (task, by) = (self, reply.deadline());
        match method {
            "Create" => {
                answer_later!(
                    task,
                    reply,
                    payload,
                    CreateTaskRequest,
                    |r| (&r.id, ""),
                    task.create(r, by),
                    |_good| task.end_if_asked()
                )
            }
            "Start" => {
                answer_later!(task, reply, payload, StartRequest, |r| (&r.id, &r.exec_id), task.start(r, by))
            }
            "State" => answer!(reply, payload, StateRequest, |r| (&r.id, &r.exec_id), self.state(r)),
            "Pids" => answer!(reply, payload, PidsRequest, |r| (&r.id, ""), self.pids(r)),
            "Exec" => answer!(reply, payload, ExecProcessRequest, |r| (&r.id, &r.exec_id), self.exec(r)),
            "ResizePty" => answer!(reply, payload, ResizePtyRequest, |r| (&r.id, &r.exec_id), self.resize(r)),
            "CloseIO" => answer!(reply, payload, CloseIORequest, |r| (&r.id, &r.exec_id), self.close_io(r)),
            "Kill" => {
                answer_later!(task, reply, payload, KillRequest, |r| (&r.id, &r.exec_id), task.kill(r))
            }
            "Pause" => answer_later!(task, reply, payload, PauseRequest, |r| (&r.id, ""), task.pause(r)),
            "Resume" => answer!(reply, payload, ResumeRequest, |r| (&r.id, ""), self.resume(r)),
            "Update" => {
                answer_later!(task, reply, payload, UpdateTaskRequest, |r| (&r.id, ""), task.update(r, by))
            }
            "Stats" => answer!(reply, payload, StatsRequest, |r| (&r.id, ""), self.stats(r)),
            "Connect" => answer!(reply, payload, ConnectRequest, |r| (&r.id, ""), self.connect(r)),
            "Checkpoint" => {
                answer_later!(
                    task,
                    reply,
                    payload,
                    CheckpointTaskRequest,
                    |r| (&r.id, ""),
                    task.checkpoint(r, by)
                )
            }
            "Wait" => self.wait(payload, reply),
            "Delete" => {
                answer_later!(
                    task,
                    reply,
                    payload,
                    DeleteRequest,
                    |r| (&r.id, &r.exec_id),
                    task.delete(r),
                    |_good| task.end_if_asked()
                )
            }
            "Shutdown" => self.shutdown(payload, reply),
            _ => {
                reply.refuse(Code::UNIMPLEMENTED, format!("method {method} of Task is not implemented"));
                None
            }
        }
    }

    /// A pod ends through its own services, with one exception: if containerd does not know the pod of a shim that it
    /// finds, it shuts it down by the pod's id. containerd 2.4 also sends a Shutdown after each task of a pod, which
    /// means nothing.
    fn shutdown(self: &Arc<Self>, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (request, mut reply) = decode::<ShutdownRequest>(payload, reply)?;
        reply.about(&request.id, "");
        let pod = self.sandbox.pod_id();
        if pod.as_ref() == Some(&request.id) {
            let task = Arc::clone(self);
            return Some(Box::pin(async move {
                let down = task.sandbox.shutdown_pod(&request.id, limit(0)).await;
                let ends = down.is_ok();
                reply.send(down.and_then(|()| encode(Empty::new())));
                if ends {
                    (task.pod.end)();
                }
            }));
        }
        reply.send(encode(Empty::new()));
        if pod.is_none() {
            self.asked_to_end.store(true, Ordering::SeqCst);
            self.end_if_asked();
        }
        None
    }

    fn end_if_asked(&self) {
        if self.asked_to_end.load(Ordering::SeqCst) && self.sandbox.shutdown() {
            (self.pod.end)();
        }
    }

    async fn create(&self, r: CreateTaskRequest, by: Option<Instant>) -> Result<CreateTaskResponse> {
        let (any, id) = (r.options.clone(), r.id.clone());
        let create = convert::create(r)?;
        let read = async |deadline| {
            let options = options::of_container(any.as_ref(), &id, &self.sandbox, deadline).await?;
            for warning in &options.warnings {
                log::warn!(container = id; "{warning}");
            }
            Ok(options.container)
        };
        let pid = self.sandbox.create(Create { deadline: by, ..create }, read).await?;
        Ok(CreateTaskResponse { pid, ..Default::default() })
    }

    async fn start(&self, r: StartRequest, by: Option<Instant>) -> Result<StartResponse> {
        let pid = self.sandbox.start(&convert::key(r.id, r.exec_id)?, by).await?;
        Ok(StartResponse { pid, ..Default::default() })
    }

    fn state(&self, r: StateRequest) -> Result<StateResponse> {
        self.sandbox.state(&convert::key(r.id, r.exec_id)?).map(convert::state)
    }

    fn pids(&self, r: PidsRequest) -> Result<PidsResponse> {
        let mut response = PidsResponse::new();
        for (pid, exec) in self.sandbox.pids(&r.id)? {
            let mut process = ProcessInfo { pid, ..Default::default() };
            if let Some(exec_id) = exec {
                let details = ProcessDetails { exec_id, ..Default::default() };
                process.info =
                    Some(convert::any("containerd.runc.v1.ProcessDetails", encode(details)?)).into();
            }
            response.processes.push(process);
        }
        Ok(response)
    }

    fn exec(&self, r: ExecProcessRequest) -> Result<Empty> {
        let process = convert::json(r.spec, "Process", "spec")?;
        if r.exec_id.is_empty() {
            return Err(invalid("exec_id is empty"));
        }
        let stdio = convert::stdio(r.stdin, r.stdout, r.stderr, r.terminal);
        self.sandbox.exec(&convert::key(r.id, r.exec_id)?, &process, stdio)?;
        Ok(Empty::new())
    }

    fn resize(&self, r: ResizePtyRequest) -> Result<Empty> {
        let size = |what: &str, value: u32| {
            u16::try_from(value).map_err(|_| invalid(format!("{what} {value} is above {}", u16::MAX)))
        };
        let (columns, rows) = (size("width", r.width)?, size("height", r.height)?);
        self.sandbox.resize(&convert::key(r.id, r.exec_id)?, columns, rows)?;
        Ok(Empty::new())
    }

    fn close_io(&self, r: CloseIORequest) -> Result<Empty> {
        let key = convert::key(r.id, r.exec_id)?;
        if r.stdin {
            self.sandbox.close_stdin(&key)?;
        } else {
            // Nothing to close, but an unknown process is still an error.
            self.sandbox.state(&key)?;
        }
        Ok(Empty::new())
    }

    async fn kill(&self, r: KillRequest) -> Result<Empty> {
        self.sandbox.kill(&convert::key(r.id, r.exec_id)?, r.signal, r.all).await?;
        Ok(Empty::new())
    }

    async fn pause(&self, r: PauseRequest) -> Result<Empty> {
        self.sandbox.pause(&r.id).await?;
        Ok(Empty::new())
    }

    fn resume(&self, r: ResumeRequest) -> Result<Empty> {
        self.sandbox.resume(&r.id)?;
        Ok(Empty::new())
    }

    async fn update(&self, r: UpdateTaskRequest, by: Option<Instant>) -> Result<Empty> {
        let resources = convert::json(r.resources, "LinuxResources", "resources")?;
        self.sandbox.update(&r.id, &resources, by).await?;
        Ok(Empty::new())
    }

    async fn checkpoint(&self, r: CheckpointTaskRequest, by: Option<Instant>) -> Result<Empty> {
        let request = checkpoint(&r.path, r.options.as_ref())?;
        self.sandbox.checkpoint(&r.id, &request, by).await?;
        Ok(Empty::new())
    }

    fn stats(&self, r: StatsRequest) -> Result<StatsResponse> {
        let stats = super::metrics::to_any(&self.sandbox.stats(&r.id)?)?;
        Ok(StatsResponse { stats: MessageField::some(stats), ..Default::default() })
    }

    fn connect(&self, r: ConnectRequest) -> Result<ConnectResponse> {
        let connected = self.sandbox.connect(&r.id);
        Ok(ConnectResponse {
            shim_pid: connected.shim_pid,
            task_pid: connected.task_pid,
            version: env!("CARGO_PKG_VERSION").into(),
            ..Default::default()
        })
    }

    async fn delete(&self, r: DeleteRequest) -> Result<DeleteResponse> {
        let deleted = self.sandbox.delete(&convert::key(r.id, r.exec_id)?).await?;
        Ok(convert::deleted(deleted.pid, deleted.exit))
    }

    /// Blocks no thread: the thread that publishes the exit responds.
    fn wait(&self, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (request, mut reply) = decode::<WaitRequest>(payload, reply)?;
        reply.about(&request.id, &request.exec_id);
        let key = match convert::key(request.id, request.exec_id) {
            Ok(key) => key,
            Err(e) => {
                reply.send(Err(e));
                return None;
            }
        };
        let later = reply.later().map(Arc::new)?;
        let waiter = later.clone();
        let known = self.sandbox.on_exit(
            &key,
            Box::new(move |exit| {
                let response = WaitResponse {
                    exit_status: exit.code,
                    exited_at: Some(convert::timestamp(exit.at)).into(),
                    ..Default::default()
                };
                waiter.send(encode(response));
            }),
        );
        match known {
            Ok(waits) => later.keep(waits),
            Err(e) => later.send(Err(e)),
        }
        None
    }
}

//! `containerd.services.sandbox.v1.Controller`, see protos/: decode, call the domain, encode.

use super::answer::{answer, answer_later, decode, encode, Rest};
use super::convert;
use super::pod::{limit, status, Pod, Wanted};
use super::protos::sandbox::*;
use super::reply::Reply;
use crate::error::Result;
use protobuf::MessageField;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use ttrpc::proto::Code;

pub const CONTROLLER: &str = "containerd.services.sandbox.v1.Controller";

pub(super) struct Controller {
    pub(super) pod: Pod,
}

impl Controller {
    pub(super) fn call(self: &Arc<Self>, method: &str, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (this, by) = (self, reply.deadline());
        match method {
            "Start" => answer_later!(
                this,
                reply,
                payload,
                ControllerStartRequest,
                |r| (&r.sandbox_id, ""),
                this.start(r, by)
            ),
            "Shutdown" => answer_later!(
                this,
                reply,
                payload,
                ControllerShutdownRequest,
                |r| (&r.sandbox_id, ""),
                this.shutdown(r),
                |good| if good {
                    (this.pod.end)()
                }
            ),
            "Wait" => self.wait(payload, reply),
            "Pause" => {
                answer_later!(
                    this,
                    reply,
                    payload,
                    ControllerPauseRequest,
                    |r| (&r.sandbox_id, ""),
                    this.pause(r)
                )
            }
            "Resume" => {
                answer!(reply, payload, ControllerResumeRequest, |r| (&r.sandbox_id, ""), self.resume(r))
            }
            "Ping" => answer!(reply, payload, ControllerPingRequest, |r| (&r.sandbox_id, ""), self.ping(r)),
            "Status" => {
                answer!(reply, payload, ControllerStatusRequest, |r| (&r.sandbox_id, ""), self.status(r))
            }
            _ => {
                let text = format!("method {method} of Controller is not implemented");
                reply.refuse(Code::UNIMPLEMENTED, text);
                None
            }
        }
    }

    async fn start(&self, r: ControllerStartRequest, by: Option<Instant>) -> Result<ControllerStartResponse> {
        self.pod
            .create(Wanted {
                id: r.sandbox_id.clone(),
                rootfs: r.rootfs,
                options: r.options.into_option(),
                bundle: String::new(),
                netns: String::new(),
                annotations: BTreeMap::new(),
                deadline: by,
            })
            .await?;
        let pid = self.pod.sandbox.start_pod(&r.sandbox_id)?.pid;
        Ok(ControllerStartResponse { sandbox_id: r.sandbox_id, pid, ..Default::default() })
    }

    async fn shutdown(&self, r: ControllerShutdownRequest) -> Result<ControllerShutdownResponse> {
        self.pod.known(&r.sandbox_id)?;
        self.pod.sandbox.shutdown_pod(&r.sandbox_id, limit(r.timeout_secs)).await?;
        Ok(ControllerShutdownResponse::new())
    }

    fn wait(&self, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (request, mut reply) = decode::<ControllerWaitRequest>(payload, reply)?;
        reply.about(&request.sandbox_id, "");
        self.pod.wait(&request.sandbox_id, reply, |exit| {
            encode(ControllerWaitResponse {
                exit_status: exit.code,
                exited_at: MessageField::some(convert::timestamp(exit.at)),
                ..Default::default()
            })
        });
        None
    }

    async fn pause(&self, r: ControllerPauseRequest) -> Result<ControllerPauseResponse> {
        self.pod.sandbox.pause_pod(&r.sandbox_id).await?;
        Ok(ControllerPauseResponse::new())
    }

    fn resume(&self, r: ControllerResumeRequest) -> Result<ControllerResumeResponse> {
        self.pod.sandbox.resume_pod(&r.sandbox_id)?;
        Ok(ControllerResumeResponse::new())
    }

    fn ping(&self, r: ControllerPingRequest) -> Result<ControllerPingResponse> {
        self.pod.sandbox.ping_pod(&r.sandbox_id)?;
        Ok(ControllerPingResponse::new())
    }

    fn status(&self, r: ControllerStatusRequest) -> Result<ControllerStatusResponse> {
        let pod = self.pod.sandbox.pod_status(&r.sandbox_id)?;
        Ok(ControllerStatusResponse {
            pid: pod.pid,
            state: status::word(pod.state).into(),
            exit_status: pod.exit.map_or(0, |exit| exit.code),
            exited_at: status::exited_at(pod.exit).into(),
            extra: MessageField::some(status::extra(&pod)?),
            id: pod.id,
            ..Default::default()
        })
    }
}

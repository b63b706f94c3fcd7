//! `containerd.runtime.sandbox.v1.Sandbox`, the service that containerd calls: decode, call the domain, encode.

use super::answer::{answer, answer_later, decode, encode, Rest};
use super::convert;
use super::pod::{limit, status, Pod, Wanted};
use super::reply::Reply;
use crate::error::Result;
use containerd_shim_protos::sandbox_api::*;
use containerd_shim_protos::types::platform;
use protobuf::MessageField;
use std::sync::Arc;
use std::time::{Instant, SystemTime};
use ttrpc::proto::Code;

pub const SANDBOX: &str = "containerd.runtime.sandbox.v1.Sandbox";

const SPEC: &str = "types.containerd.io/opencontainers/runtime-spec/1/Spec";

pub(super) struct Sandbox {
    pub(super) pod: Pod,
}

impl Sandbox {
    pub(super) fn call(self: &Arc<Self>, method: &str, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (this, by) = (self, reply.deadline());
        match method {
            "CreateSandbox" => answer_later!(
                this,
                reply,
                payload,
                CreateSandboxRequest,
                |r| (&r.sandbox_id, ""),
                this.create(r, by)
            ),
            "StartSandbox" => {
                answer!(reply, payload, StartSandboxRequest, |r| (&r.sandbox_id, ""), self.start(r))
            }
            "Platform" => answer!(reply, payload, PlatformRequest, |r| (&r.sandbox_id, ""), self.platform(r)),
            "StopSandbox" => {
                answer_later!(this, reply, payload, StopSandboxRequest, |r| (&r.sandbox_id, ""), this.stop(r))
            }
            "WaitSandbox" => self.wait(payload, reply),
            "SandboxStatus" => {
                answer!(reply, payload, SandboxStatusRequest, |r| (&r.sandbox_id, ""), self.status(r))
            }
            "PingSandbox" => answer!(reply, payload, PingRequest, |r| (&r.sandbox_id, ""), self.ping(r)),
            "ShutdownSandbox" => answer_later!(
                this,
                reply,
                payload,
                ShutdownSandboxRequest,
                |r| (&r.sandbox_id, ""),
                this.shutdown(r),
                |good| if good {
                    (this.pod.end)()
                }
            ),
            "SandboxMetrics" => {
                answer!(reply, payload, SandboxMetricsRequest, |r| (&r.sandbox_id, ""), self.metrics(r))
            }
            _ => {
                reply.refuse(Code::UNIMPLEMENTED, format!("method {method} of Sandbox is not implemented"));
                None
            }
        }
    }

    async fn create(&self, r: CreateSandboxRequest, by: Option<Instant>) -> Result<CreateSandboxResponse> {
        self.pod
            .create(Wanted {
                id: r.sandbox_id,
                rootfs: r.rootfs,
                options: r.options.into_option(),
                bundle: r.bundle_path,
                netns: r.netns_path,
                annotations: r.annotations.into_iter().collect(),
                deadline: by,
            })
            .await?;
        Ok(CreateSandboxResponse::new())
    }

    fn start(&self, r: StartSandboxRequest) -> Result<StartSandboxResponse> {
        let started = self.pod.sandbox.start_pod(&r.sandbox_id)?;
        Ok(StartSandboxResponse {
            pid: started.pid,
            created_at: MessageField::some(convert::timestamp(started.created_at)),
            spec: MessageField::some(convert::any(SPEC, started.spec)),
            ..Default::default()
        })
    }

    fn platform(&self, r: PlatformRequest) -> Result<PlatformResponse> {
        self.pod.known(&r.sandbox_id)?;
        let platform = platform::Platform {
            os: "linux".into(),
            architecture: architecture().into(),
            ..Default::default()
        };
        Ok(PlatformResponse { platform: MessageField::some(platform), ..Default::default() })
    }

    async fn stop(&self, r: StopSandboxRequest) -> Result<StopSandboxResponse> {
        self.pod.sandbox.stop_pod(&r.sandbox_id, limit(r.timeout_secs)).await?;
        Ok(StopSandboxResponse::new())
    }

    fn wait(&self, payload: &[u8], reply: Reply) -> Option<Rest> {
        let (request, mut reply) = decode::<WaitSandboxRequest>(payload, reply)?;
        reply.about(&request.sandbox_id, "");
        self.pod.wait(&request.sandbox_id, reply, |exit| {
            encode(WaitSandboxResponse {
                exit_status: exit.code,
                exited_at: MessageField::some(convert::timestamp(exit.at)),
                ..Default::default()
            })
        });
        None
    }

    fn status(&self, r: SandboxStatusRequest) -> Result<SandboxStatusResponse> {
        let pod = self.pod.sandbox.pod_status(&r.sandbox_id)?;
        let mut response = SandboxStatusResponse {
            pid: pod.pid,
            state: status::cri_word(pod.state).into(),
            created_at: MessageField::some(convert::timestamp(pod.created_at)),
            exited_at: status::exited_at(pod.exit).into(),
            extra: MessageField::some(status::extra(&pod)?),
            ..Default::default()
        };
        if r.verbose {
            response.info.insert("info".into(), status::info(&pod));
        }
        response.sandbox_id = pod.id;
        Ok(response)
    }

    fn ping(&self, r: PingRequest) -> Result<PingResponse> {
        self.pod.sandbox.ping_pod(&r.sandbox_id)?;
        Ok(PingResponse::new())
    }

    async fn shutdown(&self, r: ShutdownSandboxRequest) -> Result<ShutdownSandboxResponse> {
        self.pod.known(&r.sandbox_id)?;
        self.pod.sandbox.shutdown_pod(&r.sandbox_id, limit(0)).await?;
        Ok(ShutdownSandboxResponse::new())
    }

    fn metrics(&self, r: SandboxMetricsRequest) -> Result<SandboxMetricsResponse> {
        let data = super::metrics::to_any(&self.pod.sandbox.pod_stats(&r.sandbox_id)?)?;
        let mut response = SandboxMetricsResponse::new();
        let metric = response.metrics.mut_or_insert_default();
        metric.timestamp = MessageField::some(convert::timestamp(SystemTime::now()));
        metric.id = r.sandbox_id;
        metric.data = MessageField::some(data);
        Ok(response)
    }
}

/// Go's name for the architecture of this program.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "x86" => "386",
        "aarch64" => "arm64",
        "powerpc64" => "ppc64le",
        "loongarch64" => "loong64",
        // arm, riscv64 and s390x have the same name in Go.
        other => other,
    }
}

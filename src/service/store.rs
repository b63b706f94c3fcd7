//! The Store service: forwards requests to containerd's own and keeps nothing.
//!
//! containerd serves its Store over gRPC only, and clients of the shim's socket speak ttrpc. Requests and responses
//! pass through as raw bytes, so that fields of a newer containerd are not lost.

use super::answer::Rest;
use super::grpc::{Call, Peer, Status};
use super::protos::record;
use super::protos::sandbox::{StoreCreateRequest, StoreUpdateRequest};
use super::reply::Reply;
use protobuf::{Message, MessageField};
use std::sync::Arc;
use std::time::{Duration, Instant};
use ttrpc::proto::{Code, Request};

pub const STORE: &str = "containerd.services.sandbox.v1.Store";

/// ttrpc's metadata key for containerd's namespace.
const NAMESPACE: &str = "containerd-namespace-ttrpc";
/// The time limit of requests that specify none.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct Store {
    containerd: Peer,
    /// The shim's own namespace, for requests that specify none.
    namespace: String,
}

impl Store {
    pub(super) fn new(address: &str, namespace: String) -> Self {
        Store { containerd: Peer::new(address), namespace }
    }

    pub(super) fn call(self: &Arc<Self>, request: Request, reply: Reply) -> Option<Rest> {
        let store = Arc::clone(self);
        Some(Box::pin(async move {
            match store.forward(&request).await {
                Ok(payload) => reply.send(Ok(payload)),
                Err(Status { code, message }) => {
                    reply.refuse(code, format!("Store.{}: {message}", request.method));
                }
            }
        }))
    }

    async fn forward(&self, request: &Request) -> Result<Vec<u8>, Status> {
        let decoded = match request.method.as_str() {
            "Create" => StoreCreateRequest::parse_from_bytes(&request.payload).map(|r| complete(&r.sandbox)),
            "Update" => StoreUpdateRequest::parse_from_bytes(&request.payload).map(|r| complete(&r.sandbox)),
            "Delete" | "List" | "Get" => Ok(Ok(())),
            _ => {
                return Err(Status {
                    code: Code::UNIMPLEMENTED,
                    message: "the method is not implemented".into(),
                })
            }
        };
        decoded.unwrap_or_else(|e| Err(invalid(format!("decode the request: {e}"))))?;
        let named = request.metadata.iter().find(|pair| pair.key == NAMESPACE && !pair.value.is_empty());
        let limit = u64::try_from(request.timeout_nano).ok().filter(|&nanos| nanos > 0);
        let call = Call {
            path: format!("/{STORE}/{}", request.method),
            namespace: named.map_or(&self.namespace, |pair| &pair.value),
            payload: &request.payload,
            deadline: Instant::now() + limit.map_or(TIMEOUT, Duration::from_nanos),
        };
        self.containerd.call(&call).await
    }
}

fn invalid(message: impl Into<String>) -> Status {
    Status { code: Code::INVALID_ARGUMENT, message: message.into() }
}

/// Rejects a record without a runtime: containerd dereferences it unchecked and would crash.
fn complete(sandbox: &MessageField<record::Sandbox>) -> Result<(), Status> {
    match sandbox.as_ref() {
        None => Err(invalid("sandbox is missing")),
        Some(sandbox) if sandbox.runtime.is_none() => Err(invalid("sandbox.runtime is missing")),
        Some(_) => Ok(()),
    }
}

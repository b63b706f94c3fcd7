//! Maps services and methods to handlers.
//!
//! Task v2 and v3 differ only in the package name, so both are one service here. Unknown methods answer Unimplemented:
//! containerd's fallback from v3 to v2 depends on that code.

use super::about::{About, SHIM};
use super::answer::Rest;
use super::controller::{Controller, CONTROLLER};
use super::pod::Pod;
use super::reply::Reply;
use super::sandbox::{Sandbox, SANDBOX};
use super::store::{Store, STORE};
use super::task::Task;
use crate::sandbox;
use std::path::PathBuf;
use std::sync::Arc;
use ttrpc::proto::{Code, Request};

pub(crate) const TASK_V2: &str = "containerd.task.v2.Task";
pub(crate) const TASK_V3: &str = "containerd.task.v3.Task";

/// The context of the services.
pub struct Config {
    pub sandbox: Arc<sandbox::Sandbox>,
    /// The id of the shim and of its pod.
    pub id: String,
    /// containerd's namespace.
    pub namespace: String,
    /// The directory in which the shim was launched.
    pub bundle: PathBuf,
    /// containerd's gRPC socket; empty if it is not known.
    pub address: String,
    /// Ends the shim; called once the response is sent.
    pub end: Arc<dyn Fn() + Send + Sync>,
}

pub struct Router {
    task: Arc<Task>,
    sandbox: Arc<Sandbox>,
    controller: Arc<Controller>,
    store: Arc<Store>,
    about: About,
}

impl Router {
    pub fn new(config: Config) -> Self {
        let Config { sandbox, id, namespace, bundle, address, end } = config;
        let about = About { id: id.clone(), namespace: namespace.clone(), sandbox: sandbox.clone() };
        let pod = Pod { sandbox, id, bundle, end };
        Router {
            task: Arc::new(Task::new(pod.clone())),
            sandbox: Arc::new(Sandbox { pod: pod.clone() }),
            controller: Arc::new(Controller { pod }),
            store: Arc::new(Store::new(&address, namespace)),
            about,
        }
    }

    pub fn route(&self, request: Request, reply: Reply) -> Option<Rest> {
        match request.service.as_str() {
            TASK_V2 | TASK_V3 => self.task.call(&request.method, &request.payload, reply),
            SANDBOX => self.sandbox.call(&request.method, &request.payload, reply),
            CONTROLLER => self.controller.call(&request.method, &request.payload, reply),
            STORE => self.store.call(request, reply),
            SHIM => self.about.call(&request.method, &request.payload, reply),
            service => {
                let text = format!("service {service} is not implemented");
                reply.refuse(Code::UNIMPLEMENTED, text);
                None
            }
        }
    }
}

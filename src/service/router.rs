//! Which handler a service and a method are.
//!
//! Task v2 and v3 differ in their package's name alone, so both are one service here. What is not known
//! answers Unimplemented: containerd's fall-back from v3 to v2 depends on that very code.

use super::reply::Reply;
use super::task::Task;
use ttrpc::proto::{Code, Request};

pub const TASK_V2: &str = "containerd.task.v2.Task";
pub const TASK_V3: &str = "containerd.task.v3.Task";

pub struct Router {
    pub task: Task,
}

impl Router {
    pub fn route(&self, request: Request, reply: Reply) {
        match request.service.as_str() {
            TASK_V2 | TASK_V3 => self.task.call(&request.method, &request.payload, reply),
            service => {
                let text = format!("service {service} is not implemented");
                reply.refuse(Code::UNIMPLEMENTED, text);
            }
        }
    }
}

//! A node without a kubelet: a private containerd with the CRI and CNI, and the calls that a kubelet makes.

mod case;
mod cgroup;
mod client;
mod node;
mod pod;
mod websocket;

use std::io::{Read, Write};

pub use case::{case, Case};
pub use node::{Mode, Node};
pub use pod::{number, Container, Pod};
pub use websocket::WebSocket;

/// Returns the body that an HTTP server at `address` serves for `/`; `None` if there is no server.
pub fn http_get(machine: &crate::Machine, address: &str) -> Option<String> {
    let mut stream = machine.connect(address).ok()?;
    stream.set_read_timeout(Some(crate::patience(5))).ok()?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer.split_once("\r\n\r\n")?.1.to_owned())
}

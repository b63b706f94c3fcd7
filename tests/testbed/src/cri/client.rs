//! A CRI client: a request is JSON, as in the files that crictl takes, and so is the answer. The messages come from
//! `api.proto`, read when the tests start. Each call has an HTTP/2 connection of its own, so that a server may come
//! and go.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use protobuf::reflect::{FileDescriptor, MessageDescriptor};
use serde_json::Value;

use crate::patience;

/// A failed call: the gRPC code and message.
#[derive(Clone, Debug)]
pub struct Failure {
    pub code: i32,
    pub message: String,
}

impl Failure {
    fn local(message: impl std::fmt::Display) -> Failure {
        Failure { code: -1, message: message.to_string() }
    }
}

#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

impl Client {
    pub fn new(socket: PathBuf) -> Client {
        Client { socket }
    }

    /// Calls `Method` of the runtime service; the messages are `MethodRequest` and `MethodResponse`.
    pub fn call(&self, method: &str, request: &Value) -> Result<Value, Failure> {
        self.call_of("RuntimeService", method, request)
    }

    pub fn call_of(&self, service: &str, method: &str, request: &Value) -> Result<Value, Failure> {
        let request = encode(&message(&format!("{method}Request")), request);
        let path = format!("/runtime.v1.{service}/{method}");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("make a runtime for one call");
        let answer = runtime.block_on(async {
            let limit: Duration = patience(60);
            tokio::time::timeout(limit, unary(&self.socket, &path, &request))
                .await
                .unwrap_or_else(|_| panic!("{path}: no answer after {limit:?}"))
        })?;
        Ok(decode(&message(&format!("{method}Response")), &answer))
    }
}

/// Makes one call: a length-prefixed message each way, the status in the trailers.
async fn unary(socket: &Path, path: &str, request: &[u8]) -> Result<Vec<u8>, Failure> {
    let stream = tokio::net::UnixStream::connect(socket).await.map_err(Failure::local)?;
    let (mut sender, connection) = h2::client::handshake(stream).await.map_err(Failure::local)?;
    let connection = tokio::spawn(connection);
    let head = http::Request::post(format!("http://localhost{path}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())
        .expect("a request's head");
    let (answer, mut body) = sender.send_request(head, false).map_err(Failure::local)?;
    let mut frame = vec![0];
    frame.extend((request.len() as u32).to_be_bytes());
    frame.extend(request);
    body.send_data(Bytes::from(frame), true).map_err(Failure::local)?;
    let (head, mut body) = answer.await.map_err(Failure::local)?.into_parts();
    let mut all = Vec::new();
    while let Some(part) = body.data().await {
        let part = part.map_err(Failure::local)?;
        body.flow_control().release_capacity(part.len()).map_err(Failure::local)?;
        all.extend_from_slice(&part);
    }
    let trailers = body.trailers().await.map_err(Failure::local)?.unwrap_or(head.headers);
    connection.abort();
    let field =
        |name: &str| trailers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match field("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(all.split_off(5)),
        Some(code) => Err(Failure { code, message: field("grpc-message").unwrap_or_default() }),
        None => Err(Failure::local("no grpc-status")),
    }
}

fn message(name: &str) -> MessageDescriptor {
    static FILE: OnceLock<FileDescriptor> = OnceLock::new();
    let file = FILE.get_or_init(|| {
        let dir = crate::source("tests/testbed/src/cri");
        let parsed = protobuf_parse::Parser::new()
            .pure()
            .include(&dir)
            .input(dir.join("api.proto"))
            .parse_and_typecheck()
            .expect("api.proto is right");
        let file = parsed.file_descriptors.into_iter().find(|file| file.name() == "api.proto");
        FileDescriptor::new_dynamic(file.expect("it was parsed"), &[]).expect("api.proto is complete")
    });
    file.message_by_package_relative_name(name).unwrap_or_else(|| panic!("api.proto has no {name}"))
}

fn encode(kind: &MessageDescriptor, value: &Value) -> Vec<u8> {
    let message = protobuf_json_mapping::parse_dyn_from_str(kind, &value.to_string());
    let message = message.unwrap_or_else(|e| panic!("{}: {e}: {value}", kind.name()));
    message.write_to_bytes_dyn().expect("encode a request")
}

fn decode(kind: &MessageDescriptor, bytes: &[u8]) -> Value {
    let message = kind.parse_from_bytes(bytes).unwrap_or_else(|e| panic!("{}: {e}", kind.name()));
    let text = protobuf_json_mapping::print_to_string_with_options(
        &*message,
        &protobuf_json_mapping::PrintOptions {
            proto_field_name: true,
            always_output_default_values: true,
            ..Default::default()
        },
    );
    serde_json::from_str(&text.expect("print a message")).expect("it is JSON")
}

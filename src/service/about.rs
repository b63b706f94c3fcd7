//! `io.containerd.shoal.v1.Shim`: identifies this shim to a `start` that finds its socket taken.
//!
//! The socket has the name that the shim of any runtime would use for this group, so another runtime's shim may answer;
//! containerd's own shims do not have this service. Besides, a group id is the text of an annotation, and path.Join
//! changes it if it contains `..`: only the ids themselves tell whose shim it is.

use super::answer::{answer, Rest};
use super::call::call;
use super::protos::shim::{AboutRequest, AboutResponse};
use super::reply::Reply;
use crate::error::words;
use crate::sandbox::Sandbox;
use protobuf::Message;
use std::io;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;
use ttrpc::proto::{Code, Request};

pub const SHIM: &str = "io.containerd.shoal.v1.Shim";
const METHOD: &str = "About";
/// Ample: a shim that is still being launched answers once it serves.
const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct About {
    pub(super) id: String,
    pub(super) namespace: String,
    pub(super) sandbox: Arc<Sandbox>,
}

impl About {
    pub(super) fn call(&self, method: &str, payload: &[u8], reply: Reply) -> Option<Rest> {
        match method {
            // A client that joined now would lose its server.
            METHOD if self.sandbox.is_ending() => {
                reply.refuse(Code::UNAVAILABLE, "the shim is ending");
                None
            }
            METHOD => {
                let about = AboutResponse {
                    version: env!("CARGO_PKG_VERSION").into(),
                    namespace: self.namespace.clone(),
                    id: self.id.clone(),
                    ..Default::default()
                };
                answer!(reply, payload, AboutRequest, |_r| ("", ""), Ok(about))
            }
            _ => {
                reply.refuse(Code::UNIMPLEMENTED, format!("method {method} of Shim is not implemented"));
                None
            }
        }
    }
}

/// The result of asking a server who it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Peer {
    /// The expected shim.
    Same,
    /// Somebody else, described in words.
    Other(String),
    /// The server is gone or is exiting.
    Gone,
}

/// Asks whether the server of this connection is a shoal shim of this group.
pub(crate) fn ask(mut connection: UnixStream, namespace: &str, id: &str) -> Peer {
    let request = Request {
        service: SHIM.into(),
        method: METHOD.into(),
        timeout_nano: TIMEOUT.as_nanos() as i64,
        ..Default::default()
    };
    let timed = [connection.set_read_timeout(Some(TIMEOUT)), connection.set_write_timeout(Some(TIMEOUT))];
    let answered =
        timed.into_iter().collect::<io::Result<()>>().and_then(|()| call(&mut connection, 1, &request));
    let response = match answered {
        Ok(response) => response,
        Err(e) => return not_answered(&e),
    };
    if let Some(status) = response.status.as_ref().filter(|status| status.code() != Code::OK) {
        if status.code() == Code::UNAVAILABLE {
            return Peer::Gone;
        }
        return Peer::Other(format!("it does not know {SHIM} ({:?})", status.code()));
    }
    match AboutResponse::parse_from_bytes(&response.payload) {
        Ok(about) if about.namespace == namespace && about.id == id => Peer::Same,
        Ok(about) if !about.id.is_empty() => {
            Peer::Other(format!("it is that of {:?} in the namespace {:?}", about.id, about.namespace))
        }
        _ => Peer::Other("its answer is none of shoal's".into()),
    }
}

fn not_answered(error: &io::Error) -> Peer {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, TimedOut, UnexpectedEof, WouldBlock};
    match error.kind() {
        UnexpectedEof | ConnectionReset | BrokenPipe => Peer::Gone,
        WouldBlock | TimedOut => Peer::Other(format!("it did not say within {TIMEOUT:?} whose it is")),
        _ => Peer::Other(words(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::frame::{response, Header, HEADER};
    use std::io::{Read, Write};
    use ttrpc::proto::{Response, Status};

    /// Asks a server that sends this response, or hangs up if it is None.
    fn asked(answer: Option<Response>) -> Peer {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut header = [0; HEADER];
                theirs.read_exact(&mut header).unwrap();
                let mut payload = vec![0; Header::parse(header).length as usize];
                theirs.read_exact(&mut payload).unwrap();
                if let Some(answer) = answer {
                    theirs.write_all(&response(1, &answer.write_to_bytes().unwrap()).unwrap()).unwrap();
                }
            });
            ask(ours, "default", "g1")
        })
    }

    fn about(namespace: &str, id: &str) -> Response {
        let about = AboutResponse { namespace: namespace.into(), id: id.into(), ..Default::default() };
        Response { payload: about.write_to_bytes().unwrap(), ..Default::default() }
    }

    #[test]
    fn only_a_shim_of_shoal_s_and_of_this_very_group_is_the_same() {
        assert_eq!(asked(Some(about("default", "g1"))), Peer::Same);
        assert_eq!(asked(None), Peer::Gone);
        let refused = |code: Code| {
            let status = Status { code: code.into(), ..Default::default() };
            Response { status: Some(status).into(), ..Default::default() }
        };
        assert_eq!(asked(Some(refused(Code::UNAVAILABLE))), Peer::Gone);
        for (answer, words) in [
            (about("default", "g2"), "\"g2\" in the namespace \"default\""),
            (about("other", "g1"), "\"g1\" in the namespace \"other\""),
            (Response::default(), "none of shoal's"),
            (refused(Code::UNIMPLEMENTED), "UNIMPLEMENTED"),
        ] {
            let Peer::Other(why) = asked(Some(answer)) else { panic!("{words}") };
            assert!(why.contains(words), "{why}");
        }
    }
}

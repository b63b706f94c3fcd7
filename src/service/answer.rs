//! What every handler does around its call.

use super::reply::Reply;
use crate::error::{Error, Kind, Result};
use protobuf::Message;
use ttrpc::proto::Code;

/// Decodes, names the object of the call for the log, calls, encodes, answers. Its value: whether all went well.
macro_rules! answered {
    ($reply:ident, $payload:ident, $request:ty, |$r:ident| ($id:expr, $exec:expr), $call:expr) => {{
        match crate::service::answer::decode::<$request>($payload, $reply) {
            Some(($r, mut reply)) => {
                reply.about($id, $exec);
                let answer = $call.and_then(crate::service::answer::encode);
                let good = answer.is_ok();
                reply.send(answer);
                good
            }
            None => false,
        }
    }};
}

/// The same, where nothing comes after it.
macro_rules! answer {
    ($($all:tt)*) => {{
        let _ = crate::service::answer::answered!($($all)*);
    }};
}

pub(super) use {answer, answered};

/// The request and what is to answer it; None: it was no such request, and that is answered.
pub(super) fn decode<R: Message>(payload: &[u8], reply: Reply) -> Option<(R, Reply)> {
    match R::parse_from_bytes(payload) {
        Ok(request) => Some((request, reply)),
        Err(e) => {
            reply.refuse(Code::INVALID_ARGUMENT, format!("decode the request: {e}"));
            None
        }
    }
}

pub(super) fn encode(message: impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|e| Error::caused_by(Kind::Bug, "encode the response", e))
}

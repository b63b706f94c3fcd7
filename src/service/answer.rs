//! What every handler does around its call.

use crate::error::{Error, Kind, Result};
use protobuf::Message;

/// Decodes, names the object of the call for the log, calls, encodes, answers. Its value: whether all went well.
macro_rules! answered {
    ($reply:ident, $payload:ident, $request:ty, |$r:ident| ($id:expr, $exec:expr), $call:expr) => {{
        let mut reply = $reply;
        match <$request>::parse_from_bytes($payload) {
            Ok($r) => {
                reply.about($id, $exec);
                let answer = $call.and_then(crate::service::answer::encode);
                let good = answer.is_ok();
                reply.send(answer);
                good
            }
            Err(e) => {
                reply.refuse(ttrpc::proto::Code::INVALID_ARGUMENT, format!("decode the request: {e}"));
                false
            }
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

pub(super) fn encode(message: impl Message) -> Result<Vec<u8>> {
    message.write_to_bytes().map_err(|e| Error::caused_by(Kind::Bug, "encode the response", e))
}

//! What every handler does around its call.

use super::reply::Reply;
use crate::error::{Error, Kind, Result};
use crate::tasks::Answer;
use protobuf::Message;
use ttrpc::proto::Code;

/// The rest of an asynchronous call, which nobody waits for.
pub type Rest = Answer<'static, ()>;

/// Decodes the request, names the call's object for the log, calls, encodes and responds.
macro_rules! answer {
    ($reply:ident, $payload:ident, $request:ty, |$r:ident| ($id:expr, $exec:expr), $call:expr) => {{
        crate::service::answer::apart(|| {
            let ($r, mut reply) = crate::service::answer::decode::<$request>($payload, $reply)?;
            reply.about($id, $exec);
            reply.send($call.and_then(crate::service::answer::encode));
            None
        })
    }};
}

/// Like [`answer`], for an asynchronous call: a future, and what follows the response, successful or not.
macro_rules! answer_later {
    ($this:ident, $reply:ident, $payload:ident, $request:ty, |$r:ident| ($id:expr, $exec:expr), $call:expr) => {
        crate::service::answer::answer_later!(
            $this,
            $reply,
            $payload,
            $request,
            |$r| ($id, $exec),
            $call,
            |_good| {}
        )
    };
    (
        $this:ident, $reply:ident, $payload:ident, $request:ty, |$r:ident| ($id:expr, $exec:expr), $call:expr,
        |$good:ident| $after:expr
    ) => {{
        crate::service::answer::apart(|| {
            let ($r, mut reply) = crate::service::answer::decode::<$request>($payload, $reply)?;
            reply.about($id, $exec);
            let $this = Arc::clone($this);
            let rest: Rest = Box::pin(async move {
                let answer = $call.await.and_then(crate::service::answer::encode);
                let $good = answer.is_ok();
                reply.send(answer);
                $after
            });
            Some(rest)
        })
    }};
}

pub(super) use {answer, answer_later};

/// Gives the work a stack frame of its own. In the frame of the method that tells all requests apart, each would have
/// room: several pages of the stack, which a clone makes the kernel copy when they are next used.
#[inline(never)]
pub(super) fn apart<R>(work: impl FnOnce() -> R) -> R {
    work()
}

/// Decodes the request. If that fails, responds with an error and returns None.
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

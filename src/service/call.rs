//! A blocking ttrpc client call.

use super::frame::{frame, Header, HEADER};
use protobuf::Message;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use ttrpc::proto::{Request, Response, MESSAGE_TYPE_REQUEST, MESSAGE_TYPE_RESPONSE};

/// Sends the request and reads up to its response. A client's stream ids are odd and increasing.
pub(super) fn call(connection: &mut UnixStream, stream: u32, request: &Request) -> io::Result<Response> {
    let request = request.write_to_bytes().map_err(io::Error::other)?;
    let frame = frame(stream, MESSAGE_TYPE_REQUEST, &request)
        .ok_or_else(|| io::Error::other("a request larger than the protocol allows"))?;
    connection.write_all(&frame)?;
    loop {
        let mut header = [0; HEADER];
        connection.read_exact(&mut header)?;
        let header = Header::parse(header);
        if header.oversized() {
            return Err(io::Error::other("a response larger than the protocol allows"));
        }
        let mut payload = vec![0; header.length as usize];
        connection.read_exact(&mut payload)?;
        // Skip late responses to earlier attempts that timed out.
        if header.kind == MESSAGE_TYPE_RESPONSE && header.stream == stream {
            return Response::parse_from_bytes(&payload).map_err(io::Error::other);
        }
    }
}

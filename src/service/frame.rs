//! ttrpc frames: a header of ten bytes, then a protobuf message.
//!
//! Source: github.com/containerd/ttrpc, PROTOCOL.md. Lengths and ids are big-endian.

use ttrpc::proto::{MESSAGE_LENGTH_MAX, MESSAGE_TYPE_RESPONSE};

pub const HEADER: usize = ttrpc::proto::MESSAGE_HEADER_LENGTH;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub length: u32,
    pub stream: u32,
    pub kind: u8,
    pub flags: u8,
}

impl Header {
    pub fn parse(bytes: [u8; HEADER]) -> Self {
        let [a, b, c, d, e, f, g, h, kind, flags] = bytes;
        Header {
            length: u32::from_be_bytes([a, b, c, d]),
            stream: u32::from_be_bytes([e, f, g, h]),
            kind,
            flags,
        }
    }

    pub fn bytes(self) -> [u8; HEADER] {
        let [a, b, c, d] = self.length.to_be_bytes();
        let [e, f, g, h] = self.stream.to_be_bytes();
        [a, b, c, d, e, f, g, h, self.kind, self.flags]
    }

    /// Whether the payload is larger than any peer accepts.
    pub fn oversized(self) -> bool {
        self.length as usize > MESSAGE_LENGTH_MAX
    }
}

/// A complete frame of `kind`; None if the payload is larger than the protocol allows.
pub fn frame(stream: u32, kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
    if payload.len() > MESSAGE_LENGTH_MAX {
        return None;
    }
    let header = Header { length: payload.len() as u32, stream, kind, flags: 0 };
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&header.bytes());
    bytes.extend_from_slice(payload);
    Some(bytes)
}

pub fn response(stream: u32, payload: &[u8]) -> Option<Vec<u8>> {
    frame(stream, MESSAGE_TYPE_RESPONSE, payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_survives_the_wire() {
        let header = Header { length: 0x01020304, stream: 0x0a0b0c0d, kind: 1, flags: 2 };
        assert_eq!(header.bytes(), [1, 2, 3, 4, 10, 11, 12, 13, 1, 2]);
        assert_eq!(Header::parse(header.bytes()), header);
    }

    #[test]
    fn a_response_above_the_limit_is_not_framed() {
        assert!(response(1, &vec![0; MESSAGE_LENGTH_MAX]).is_some());
        assert!(response(1, &vec![0; MESSAGE_LENGTH_MAX + 1]).is_none());
    }
}

//! The client's side of RFC 6455, as far as containerd's streaming server needs it: one upgrade, binary messages.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::{patience, Machine};

pub struct WebSocket {
    stream: TcpStream,
    rest: Vec<u8>,
}

impl WebSocket {
    /// Opens `url` (http://HOST:PORT/PATH) with `protocol`, from inside `machine`'s network.
    #[track_caller]
    pub fn open(machine: &Machine, url: &str, protocol: &str) -> WebSocket {
        let (host, path) =
            url.trim_start_matches("http://").split_once('/').unwrap_or_else(|| panic!("{url} has no path"));
        let mut stream = machine.connect(host).unwrap_or_else(|e| panic!("{host}: {e}"));
        stream.set_read_timeout(Some(patience(20))).expect("set a limit of time");
        let request = format!(
            "GET /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: c2hvYWwtc2hvYWwtc2hvYQ==\r\n\
             Sec-WebSocket-Protocol: {protocol}\r\nOrigin: http://{host}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).expect("ask for the upgrade");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            assert_eq!(stream.read(&mut byte).expect("read the answer"), 1, "the server has hung up");
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        WebSocket { stream, rest: Vec::new() }
    }

    /// Sends one message on `channel`. The mask is zero: its purpose does not matter here.
    pub fn send(&mut self, channel: u8, data: &[u8]) {
        let size = data.len() + 1;
        let mut frame = vec![0x82];
        match size {
            0..=125 => frame.push(0x80 | size as u8),
            _ => {
                frame.push(0x80 | 126);
                frame.extend((size as u16).to_be_bytes());
            }
        }
        frame.extend([0; 4]);
        frame.push(channel);
        frame.extend(data);
        self.stream.write_all(&frame).expect("send to the server");
    }

    /// Returns the next message: its channel and its bytes. `None` once the server closes.
    pub fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            let head = self.take(2)?;
            let size = match head[1] & 0x7f {
                126 => self.take(2)?.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)),
                127 => self.take(8)?.iter().fold(0, |all, byte| all << 8 | usize::from(*byte)),
                size => usize::from(size),
            };
            let data = self.take(size)?;
            match head[0] & 0xf {
                0x8 => return None,
                0x0..=0x2 if !data.is_empty() => return Some((data[0], data[1..].to_vec())),
                _ => {} // a ping or an empty message
            }
        }
    }

    /// Returns everything on `channel` until `text` arrives.
    #[track_caller]
    pub fn until(&mut self, channel: u8, text: &str) -> String {
        let mut seen = Vec::new();
        loop {
            let now = String::from_utf8_lossy(&seen).into_owned();
            if now.contains(text) {
                return now;
            }
            let (on, data) = self.receive().unwrap_or_else(|| panic!("{text:?} did not come: {now:?}"));
            if on == channel {
                seen.extend(data);
            }
        }
    }

    /// Returns, as text, what arrives on each channel until the server closes.
    pub fn drain(&mut self) -> [String; 4] {
        let mut all: [Vec<u8>; 4] = Default::default();
        while let Some((channel, data)) = self.receive() {
            all[usize::from(channel)].extend(data);
        }
        all.map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    fn take(&mut self, size: usize) -> Option<Vec<u8>> {
        while self.rest.len() < size {
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return None,
                Ok(n) => self.rest.extend(&buffer[..n]),
                Err(e) if e.kind() == std::io::ErrorKind::ConnectionReset => return None,
                Err(e) => panic!("the server says nothing: {e}"),
            }
        }
        let rest = self.rest.split_off(size);
        Some(std::mem::replace(&mut self.rest, rest))
    }
}

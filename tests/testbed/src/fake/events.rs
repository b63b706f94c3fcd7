//! containerd's side of `containerd.services.events.ttrpc.v1.Events`.

use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use protobuf::Message;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{channel, Receiver, Sender};
use std::sync::Mutex;
use std::time::Duration;
use ttrpc::proto::{Code, Request, Response, Status};

/// What the service does with the next event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Acknowledge,
    Refuse,
    /// Hangs up instead of answering, as a killed containerd does.
    HangUp,
}

pub struct EventService {
    received: Mutex<Receiver<Envelope>>,
}

impl EventService {
    /// Listens at `path`; `script` has an act for each event in turn, and later events are acknowledged.
    pub fn listen(path: &Path, script: &[Act]) -> Self {
        let _ = std::fs::remove_file(path);
        let listener = UnixListener::bind(path).unwrap();
        let (sender, received) = channel();
        let script: Vec<Act> = script.to_vec();
        let mut script = script.into_iter();
        std::thread::spawn(move || {
            for connection in listener.incoming() {
                serve(connection.unwrap(), &mut script, &sender);
            }
        });
        EventService { received: Mutex::new(received) }
    }

    /// Returns the next event that was acknowledged.
    pub fn next(&self) -> Envelope {
        self.received.lock().unwrap().recv_timeout(Duration::from_secs(20)).expect("an event")
    }

    pub fn none(&self, time: Duration) -> bool {
        self.received.lock().unwrap().recv_timeout(time).is_err()
    }
}

/// Serves until the client hangs up.
fn serve(mut connection: UnixStream, script: &mut impl Iterator<Item = Act>, sender: &Sender<Envelope>) {
    let mut last = 0;
    let mut header = [0; 10];
    while connection.read_exact(&mut header).is_ok() {
        let number = |at: usize| u32::from_be_bytes(header[at..at + 4].try_into().unwrap());
        let (length, stream) = (number(0), number(4));
        assert!(
            stream % 2 == 1 && stream > last,
            "stream ids of a client are odd and grow: {stream} after {last}"
        );
        last = stream;
        let mut payload = vec![0; length as usize];
        connection.read_exact(&mut payload).unwrap();
        let request = Request::parse_from_bytes(&payload).unwrap();
        assert_eq!(request.service, "containerd.services.events.ttrpc.v1.Events");
        assert_eq!(request.method, "Forward");
        let envelope = ForwardRequest::parse_from_bytes(&request.payload).unwrap().envelope.unwrap();
        let mut response = Response::new();
        match script.next().unwrap_or(Act::Acknowledge) {
            Act::Acknowledge => {
                // The receiver may be gone.
                let _ = sender.send(envelope);
            }
            Act::Refuse => {
                let mut status = Status::new();
                status.set_code(Code::INTERNAL);
                response.status = Some(status).into();
            }
            Act::HangUp => return,
        }
        let payload = response.write_to_bytes().unwrap();
        let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[2, 0]);
        frame.extend_from_slice(&payload);
        if connection.write_all(&frame).is_err() {
            return; // the shim was killed
        }
    }
}

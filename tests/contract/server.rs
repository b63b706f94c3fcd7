//! The server by itself: frames, threads, limits, and which peers may connect.

mod waits;

use nix::unistd::{gettid, Pid};
use protobuf::well_known_types::empty::Empty;
use protobuf::well_known_types::wrappers::StringValue;
use protobuf::Message;
use shoal::error::{Error, Kind};
use shoal::service::reply::Later;
use shoal::service::server::{Admission, Server, Stopper};
use std::collections::BTreeSet;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use testbed::wire::{decode, Wire};
use ttrpc::proto::{Code, Response};

/// A server with one service, whose methods misbehave.
struct Served {
    _folder: tempfile::TempDir,
    path: PathBuf,
    stopper: Stopper,
    thread: Option<JoinHandle<()>>,
    parked: Arc<Mutex<Vec<Later>>>,
    /// The threads that handled requests: other tests of this process have servers too.
    workers: Arc<Mutex<BTreeSet<Pid>>>,
}

/// Long enough for a thousand requests to wait at once.
const SLEEP: Duration = Duration::from_secs(5);

const HANG: Duration = Duration::from_secs(2);

fn serve(admission: Admission) -> Served {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    let stopper = Stopper::new().unwrap();
    let parked = Arc::new(Mutex::new(Vec::new()));
    let (waiting, together) = (parked.clone(), Barrier::new(8));
    let workers = Arc::new(Mutex::new(BTreeSet::new()));
    let seen = workers.clone();
    let server = Server::new(
        listener,
        admission,
        stopper.clone(),
        Box::new(move |request, reply| {
            seen.lock().unwrap().insert(gettid());
            match request.method.as_str() {
                "Echo" => reply.send(Ok(request.payload)),
                "Panic" => panic!("on purpose"),
                "Drop" => drop(reply),
                "Park" => waiting.lock().unwrap().extend(reply.later()),
                // Answers only once eight are here at the same time.
                "Together" => {
                    together.wait();
                    reply.send(Ok(Vec::new()));
                }
                "Sleep" => {
                    return Some(Box::pin(async move {
                        shoal::tasks::sleep(SLEEP).await.unwrap();
                        reply.send(Ok(Vec::new()));
                    }))
                }
                "PanicLater" => {
                    return Some(Box::pin(async move {
                        let _reply = reply;
                        shoal::tasks::sleep(Duration::from_millis(20)).await.unwrap();
                        panic!("on purpose");
                    }))
                }
                // Blocks, as a filesystem that does not answer would.
                "Hang" => {
                    std::thread::sleep(HANG);
                    reply.send(Ok(Vec::new()));
                }
                "HangAndPark" => {
                    std::thread::sleep(HANG);
                    waiting.lock().unwrap().extend(reply.later());
                }
                // One of the methods that are taken for quick.
                "Kill" => {
                    std::thread::sleep(HANG / 4);
                    reply.send(Ok(Vec::new()));
                }
                "Huge" => reply.send(Ok(vec![0; 5 << 20])),
                "Large" => reply.send(Ok(vec![0; 4_000_000])),
                _ => reply.send(Err(Error::new(Kind::State, "cannot do that"))),
            }
            None
        }),
    );
    let server = Arc::new(server.unwrap());
    let thread = std::thread::spawn(move || server.serve());
    Served { _folder: folder, path, stopper, thread: Some(thread), parked, workers }
}

impl Served {
    fn connect(&self) -> Wire {
        Wire::connect(&self.path)
    }

    /// Returns how many of the workers still exist.
    fn threads(&self) -> usize {
        let workers = self.workers.lock().unwrap();
        workers.iter().filter(|id| Path::new(&format!("/proc/self/task/{id}")).exists()).count()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.stopper.stop();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn text(value: &str) -> StringValue {
    StringValue { value: value.into(), ..Default::default() }
}

fn refusal(response: Response) -> (Code, String) {
    decode::<Empty>(response).expect_err("an error was expected")
}

#[test]
fn a_request_is_answered_on_its_stream() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    for word in ["a", "b", ""] {
        let answer: StringValue = wire.call("x.Y", "Echo", &text(word)).unwrap();
        assert_eq!(answer.value, word);
    }
    let error = wire.call::<Empty>("x.Y", "Other", &Empty::new()).unwrap_err();
    assert_eq!(error, (Code::FAILED_PRECONDITION, "cannot do that".into()));
}

#[test]
fn a_panic_becomes_internal_and_the_server_goes_on() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    for method in ["Panic", "Drop", "PanicLater", "Panic"] {
        let (code, message) = wire.call::<Empty>("x.Y", method, &Empty::new()).unwrap_err();
        assert_eq!(code, Code::INTERNAL);
        assert!(message.contains(&format!("Y.{method}")), "{message}");
    }
    assert_eq!(wire.call::<StringValue>("x.Y", "Echo", &text("still here")).unwrap().value, "still here");
}

#[test]
fn what_is_not_a_request_is_refused_on_its_stream() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let request =
        ttrpc::proto::Request { service: "x.Y".into(), method: "Echo".into(), ..Default::default() };
    let good = request.write_to_bytes().unwrap();
    for (stream, kind, flags, payload, code) in [
        (1, 1, 0, &[0xff, 0xff, 0xff][..], Code::INVALID_ARGUMENT),
        (2, 1, 0, &good, Code::INVALID_ARGUMENT),
        (3, 1, 2, &good, Code::UNIMPLEMENTED),
        (5, 3, 0, b"data", Code::UNIMPLEMENTED),
    ] {
        wire.raw(stream, kind, flags, payload);
        let (answered, response) = wire.next().unwrap();
        assert_eq!(answered, stream);
        assert_eq!(refusal(response).0, code, "stream {stream}");
    }
    // An unsolicited response is not answered.
    wire.raw(7, 2, 0, b"");
    wire.raw(9, 1, 0, &good);
    assert_eq!(wire.next().unwrap().0, 9);
}

#[test]
fn an_oversized_frame_is_refused_and_its_payload_skipped() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let length = (4 << 20) + 1;
    wire.header(length, 1, 1, 0);
    wire.bytes(&vec![0xaa; length as usize]);
    let (stream, response) = wire.next().unwrap();
    assert_eq!(stream, 1);
    let (code, message) = refusal(response);
    assert_eq!(code, Code::RESOURCE_EXHAUSTED);
    assert!(message.contains("4194305"), "{message}");
    let request =
        ttrpc::proto::Request { service: "x.Y".into(), method: "Echo".into(), ..Default::default() };
    wire.raw(3, 1, 0, &request.write_to_bytes().unwrap());
    assert_eq!(wire.next().unwrap().0, 3);
}

#[test]
fn an_oversized_response_becomes_an_error_and_a_large_one_arrives() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let (code, _) = wire.call::<Empty>("x.Y", "Huge", &Empty::new()).unwrap_err();
    assert_eq!(code, Code::RESOURCE_EXHAUSTED);
    // More than a socket takes at once, and read slowly: the rest is written when there is room.
    let streams: Vec<u32> = (0..3).map(|_| wire.ask("x.Y", "Large", &Empty::new(), Duration::ZERO)).collect();
    std::thread::sleep(Duration::from_millis(200));
    let mut answered: Vec<u32> = (0..3)
        .map(|_| {
            let (stream, response) = wire.next().unwrap();
            assert_eq!(response.payload.len(), 4_000_000);
            stream
        })
        .collect();
    answered.sort();
    assert_eq!(answered, streams);
}

/// Returns the bytes of a request on stream 1.
fn frame() -> Vec<u8> {
    let request =
        ttrpc::proto::Request { service: "x.Y".into(), method: "Echo".into(), ..Default::default() };
    let payload = request.write_to_bytes().unwrap();
    let mut frame = (payload.len() as u32).to_be_bytes().to_vec();
    frame.extend_from_slice(&[0, 0, 0, 1, 1, 0]);
    frame.extend_from_slice(&payload);
    frame
}

#[test]
fn a_frame_may_come_byte_by_byte() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    for byte in frame() {
        wire.bytes(&[byte]);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(wire.next().unwrap().0, 1);
}

#[test]
fn nonsense_stops_neither_the_server_nor_other_connections() {
    let served = serve(Admission::ours());
    let mut good = served.connect();
    // xorshift: the same bytes each time.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..300 {
        let mut wire = served.connect();
        let payload: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
        match round % 3 {
            // A frame of the right length with random contents.
            0 => wire.raw(random() as u32, random() as u8 % 4, random() as u8, &payload),
            // A random header, followed by less or more than it announces.
            1 => {
                let length = random() as u32 % (8 << 20);
                wire.header(length, random() as u32, random() as u8, random() as u8);
                wire.bytes(&payload);
            }
            _ => wire.bytes(&payload),
        }
        drop(wire);
        assert_eq!(good.call::<StringValue>("x.Y", "Echo", &text("ok")).unwrap().value, "ok");
    }
}

#[test]
fn requests_that_block_do_not_block_others() {
    let served = serve(Admission::ours());
    let mut wires: Vec<Wire> = (0..4).map(|_| served.connect()).collect();
    let seven: Vec<usize> = (0..7).map(|i| i % 4).collect();
    for &i in &seven {
        wires[i].ask("x.Y", "Together", &Empty::new(), Duration::ZERO);
    }
    let mut other = served.connect();
    assert_eq!(other.call::<StringValue>("x.Y", "Echo", &text("quick")).unwrap().value, "quick");
    other.call::<Empty>("x.Y", "Together", &Empty::new()).unwrap();
    for &i in &seven {
        assert!(wires[i].next().is_some());
    }
}

#[test]
fn a_hundred_calls_wait_without_a_thread_each() {
    let served = serve(Admission::ours());
    let mut wires: Vec<Wire> = (0..100).map(|_| served.connect()).collect();
    for wire in &mut wires {
        wire.ask("x.Y", "Park", &Empty::new(), Duration::ZERO);
    }
    let end = Instant::now() + Duration::from_secs(10);
    while served.parked.lock().unwrap().len() < 100 {
        assert!(Instant::now() < end, "not all calls have arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
    let threads = served.threads();
    assert!(threads < 50, "{threads} threads for 100 calls that wait");
    for later in served.parked.lock().unwrap().drain(..) {
        later.send(Ok(text("done").write_to_bytes().unwrap()));
    }
    for wire in &mut wires {
        let (stream, response) = wire.next().unwrap();
        assert_eq!(stream, 1);
        assert_eq!(decode::<StringValue>(response).unwrap().value, "done");
    }
}

#[test]
fn a_call_whose_connection_is_gone_answers_nobody() {
    let served = serve(Admission::ours());
    let mut gone = served.connect();
    gone.ask("x.Y", "Park", &Empty::new(), Duration::ZERO);
    let mut other = served.connect();
    while served.parked.lock().unwrap().is_empty() {
        std::thread::sleep(Duration::from_millis(5));
    }
    drop(gone);
    other.call::<StringValue>("x.Y", "Echo", &text("x")).unwrap();
    for later in served.parked.lock().unwrap().drain(..) {
        later.send(Ok(Vec::new()));
    }
    assert_eq!(other.call::<StringValue>("x.Y", "Echo", &text("y")).unwrap().value, "y");
}

#[test]
fn another_user_is_turned_away() {
    let ours = Admission::ours();
    let served = serve(Admission { uid: ours.uid + 1 });
    let mut wire = served.connect();
    let request =
        ttrpc::proto::Request { service: "x.Y".into(), method: "Echo".into(), ..Default::default() };
    let bytes = request.write_to_bytes().unwrap();
    // The server may hang up before or after this is written.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wire.raw(1, 1, 0, &bytes)));
    assert!(wire.next().is_none(), "a peer with another uid was answered");
}

/// The peer is root of another user namespace: unshare(1) maps us to ourselves, so that the uid is right.
#[test]
fn a_peer_of_another_user_namespace_is_turned_away() {
    let served = serve(Admission::ours());
    let file = served.path.with_file_name("frame");
    std::fs::write(&file, frame()).unwrap();
    let ask = |before: &[&str]| {
        let mut command = std::process::Command::new("env");
        command.args(before).arg(env!("CARGO_BIN_EXE_probe")).arg("send").arg(&served.path).arg(&file);
        let output = command.output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        (String::from_utf8_lossy(&output.stdout).trim().to_owned(), errors)
    };
    let (answered, errors) = ask(&[]);
    assert!(answered.parse::<u32>().is_ok_and(|length| length >= 10), "{answered}, {errors}");
    let (answered, errors) = ask(&["unshare", "--user", "--map-current-user"]);
    if errors.starts_with("unshare:") {
        return testbed::skip::other_machine(&errors);
    }
    assert_eq!((answered.as_str(), errors.as_str()), ("0", ""), "it was answered");
}

#[test]
fn what_was_answered_before_the_end_arrives() {
    let mut served = serve(Admission::ours());
    let mut wire = served.connect();
    for _ in 0..3 {
        wire.ask("x.Y", "Large", &Empty::new(), Duration::ZERO);
    }
    std::thread::sleep(Duration::from_millis(200));
    served.stopper.stop();
    std::thread::sleep(Duration::from_millis(50));
    for _ in 0..3 {
        assert_eq!(wire.next().unwrap().1.payload.len(), 4_000_000);
    }
    assert!(wire.next().is_none());
    // A peer that reads nothing does not delay the end for long.
    served.thread.take().unwrap().join().unwrap();
    let served = serve(Admission::ours());
    let mut silent = served.connect();
    silent.ask("x.Y", "Large", &Empty::new(), Duration::ZERO);
    std::thread::sleep(Duration::from_millis(100));
    let begun = Instant::now();
    drop(served);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn whoever_connects_to_a_server_that_ends_is_not_answered() {
    let served = serve(Admission::ours());
    // The peer may hang up first, and does not.
    let mut peer = served.connect();
    peer.call::<StringValue>("x.Y", "Echo", &text("early")).unwrap();
    served.stopper.stop_after_peers();
    std::thread::sleep(Duration::from_millis(50));
    let mut late = served.connect();
    late.ask("x.Y", "Echo", &text("late"), Duration::ZERO);
    assert!(late.next().is_none());
}

#[test]
fn the_server_ends_when_told() {
    let mut served = serve(Admission::ours());
    let mut wire = served.connect();
    wire.ask("x.Y", "Park", &Empty::new(), Duration::ZERO);
    served.stopper.stop();
    served.thread.take().unwrap().join().unwrap();
    assert!(wire.next().is_none());
}

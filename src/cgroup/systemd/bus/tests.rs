//! Tests against a bus of their own: it answers like a D-Bus daemon with systemd behind it, or not at all.

use super::*;
use crate::tasks::block_on;
use serde::Serialize;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;
use zbus::wire::{serialized::Context, to_bytes, LE};
use zbus::{Type, Variant};

/// What the bus does once the client has authenticated.
#[derive(Clone, Copy)]
enum Manner {
    Polite,
    /// The same, as a user's systemd, to which the client is another user than to itself.
    Users,
    /// Refuses every call.
    Refusing,
    /// Reads what is sent, and never answers.
    Silent,
    /// Rejects every client.
    Locked,
    /// Hangs up after the greeting.
    Gone,
}

/// Creates a directory such as `/run`; the thread returns the calls in order when the client has hung up.
fn bus(socket: &str, manner: Manner) -> (tempfile::TempDir, JoinHandle<Vec<String>>) {
    let run = tempfile::tempdir().unwrap();
    let path = run.path().join(socket);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(path).unwrap();
    let thread = std::thread::spawn(move || serve(listener.accept().unwrap().0, manner));
    (run, thread)
}

fn serve(mut client: UnixStream, manner: Manner) -> Vec<String> {
    let mut greeting = Vec::new();
    while !greeting.ends_with(b"BEGIN\r\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        greeting.extend(byte);
    }
    let uid: String =
        nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    let name = if matches!(manner, Manner::Users) { "\r\nDATA".into() } else { format!(" {uid}") };
    assert_eq!(String::from_utf8(greeting).unwrap(), format!("\0AUTH EXTERNAL{name}\r\nBEGIN\r\n"));
    match manner {
        Manner::Users => client.write_all(b"DATA\r\nOK 0123456789abcdef\r\n").unwrap(),
        Manner::Locked => client.write_all(b"REJECTED EXTERNAL\r\n").unwrap(),
        Manner::Silent => {}
        _ => client.write_all(b"OK 0123456789abcdef\r\n").unwrap(),
    }
    let mut calls = Vec::new();
    if matches!(manner, Manner::Gone) {
        return calls;
    }
    let mut start = [0; wire::START];
    while client.read_exact(&mut start).is_ok() {
        let mut bytes = start.to_vec();
        bytes.resize(wire::START + wire::rest_length(&start).unwrap(), 0);
        client.read_exact(&mut bytes[wire::START..]).unwrap();
        let call = wire::parse(&bytes).unwrap();
        let text = Reader::new(&call.body).text().unwrap_or_default().to_owned();
        calls.push(format!("{} {text}", call.member).trim_end().to_owned());
        let serial = u32::from_le_bytes(bytes[8..12].try_into().unwrap());
        let reply_to = (5, serial.into());
        let reply = match manner {
            Manner::Polite if call.member == "StopUnit" => {
                // The job ends before the call that created it is answered: signals can arrive at any time.
                client.write_all(&job_removed("/job/1", "done")).unwrap();
                message(wire::METHOD_RETURN, &[reply_to], &"/job/1")
            }
            Manner::Users => message(wire::METHOD_RETURN, &[reply_to], &Variant::from("/user.slice/a")),
            Manner::Polite => message(wire::METHOD_RETURN, &[reply_to], &()),
            Manner::Refusing => {
                let name = (4, "org.freedesktop.DBus.Error.AccessDenied".into());
                message(wire::ERROR, &[name, reply_to], &"not for you")
            }
            Manner::Silent | Manner::Locked | Manner::Gone => continue,
        };
        client.write_all(&reply).unwrap();
    }
    calls
}

fn job_removed(job: &str, result: &str) -> Vec<u8> {
    message(wire::SIGNAL, &[(3, "JobRemoved".into())], &(1u32, job, "t-c1.scope", result))
}

/// Encodes a message from the peer, as zbus lays it out.
fn message(kind: u8, fields: &[(u8, Variant<'_>)], body: &(impl Serialize + Type)) -> Vec<u8> {
    let context = Context::new(LE, 0);
    let body = to_bytes(context, body).unwrap();
    let header = (b'l', kind, 0u8, 1u8, body.len() as u32, 7u32, fields);
    let mut bytes = to_bytes(context, &header).unwrap().to_vec();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body.iter());
    bytes
}

const SYSTEM: &str = "dbus/system_bus_socket";
const PRIVATE: &str = "systemd/private";

#[test]
fn on_the_system_bus_it_says_hello_and_asks_for_the_ends_of_jobs() {
    let (run, thread) = bus(SYSTEM, Manner::Polite);
    let mut bus = block_on(Bus::connect_within(run.path(), LIMIT, false)).unwrap();
    let mut body = Writer::default();
    body.text("t-c1.scope");
    let answer = block_on(bus.manager("StopUnit", "s", &body)).unwrap().unwrap();
    let job = Reader::new(&answer).text().unwrap().to_owned();
    assert_eq!(block_on(bus.wait(&job)).unwrap(), "done");
    drop(bus);
    let rule = "type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
    let expected = ["Hello", &format!("AddMatch {rule}"), "Subscribe", "StopUnit t-c1.scope"];
    assert_eq!(thread.join().unwrap(), expected);
}

#[test]
fn on_the_private_socket_there_is_no_daemon_to_greet() {
    let (run, thread) = bus(PRIVATE, Manner::Polite);
    drop(block_on(Bus::connect_within(run.path(), LIMIT, false)).unwrap());
    assert_eq!(thread.join().unwrap(), Vec::<String>::new());
}

#[test]
fn a_users_systemd_is_not_told_a_name_and_has_a_cgroup_of_its_own() {
    let (run, thread) = bus(PRIVATE, Manner::Users);
    let mut bus = block_on(Bus::connect_within(run.path(), LIMIT, true)).unwrap();
    assert_eq!(block_on(bus.root()).unwrap(), Path::new("user.slice/a"));
    drop(bus);
    assert_eq!(thread.join().unwrap(), ["Get org.freedesktop.systemd1.Manager"]);
}

#[test]
fn a_refusal_names_the_call_and_the_reason() {
    let (run, thread) = bus(SYSTEM, Manner::Refusing);
    let error = block_on(Bus::connect_within(run.path(), LIMIT, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    let text = error.to_string();
    assert_eq!(text, "systemd refused Hello: not for you (org.freedesktop.DBus.Error.AccessDenied)");
    assert_eq!(thread.join().unwrap(), ["Hello"]);
    let (run, thread) = bus(PRIVATE, Manner::Locked);
    let error = block_on(Bus::connect_within(run.path(), LIMIT, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().ends_with("refused us: REJECTED EXTERNAL"), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_bus_that_never_answers_is_given_up_in_time() {
    let (run, thread) = bus(SYSTEM, Manner::Silent);
    let begun = Instant::now();
    let error = block_on(Bus::connect_within(run.path(), Duration::from_millis(200), false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Deadline);
    assert_eq!(error.to_string(), "systemd did not answer within 200ms");
    let took = begun.elapsed();
    assert!((200..5000).contains(&took.as_millis()), "{took:?}");
    thread.join().unwrap();
    // One limit covers everything: a job that never ends is given up, too.
    let (run, thread) = bus(PRIVATE, Manner::Polite);
    let mut bus = block_on(Bus::connect_within(run.path(), Duration::from_millis(200), false)).unwrap();
    assert_eq!(block_on(bus.wait("/job/of/nobody")).unwrap_err().kind(), Kind::Deadline);
    drop(bus);
    thread.join().unwrap();
}

#[test]
fn a_bus_that_is_not_there_or_hangs_up_is_named() {
    let nothing = tempfile::tempdir().unwrap();
    let error = block_on(Bus::connect_within(nothing.path(), LIMIT, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    let text = error.to_string();
    assert!(text.contains(PRIVATE) && text.contains(SYSTEM), "{text}");
    let (run, thread) = bus(SYSTEM, Manner::Gone);
    let error = block_on(Bus::connect_within(run.path(), LIMIT, false)).unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    thread.join().unwrap();
}

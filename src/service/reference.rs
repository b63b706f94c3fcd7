//! Compares events and times with those of `containerd-shim`, the containerd project's crate for shims in Rust. It is
//! linked into tests only (see ARCHITECTURE.md).

use super::{convert, events};
use crate::launch::ExitStatus;
use crate::sandbox::Event;
use crate::stdio::Stdio;
use containerd_shim::event::Event as Theirs;
use containerd_shim::protos::events::task::*;
use containerd_shim::util::{convert_to_any, convert_to_timestamp, timestamp};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The crate derives the topic of an event from its message.
fn same(event: &Event, theirs: impl Theirs + Default) {
    let (topic, body) = events::message(event);
    assert_eq!(topic, theirs.topic(), "{event:?}");
    assert_eq!(body.type_url, convert_to_any(Box::new(theirs)).unwrap().type_url, "{event:?}");
}

#[test]
fn events_have_the_topics_and_the_types_of_the_crates() {
    let (container, exec) = (String::from("c1"), String::from("e1"));
    let exit = ExitStatus { code: 7, at: SystemTime::now() };
    let id = container.clone();
    let (bundle, rootfs, stdio) = ("/b".into(), Vec::new(), Stdio::default());
    same(&Event::Create { container: id.clone(), bundle, rootfs, stdio, pid: 1 }, TaskCreate::default());
    same(&Event::Start { container: id.clone(), pid: 1 }, TaskStart::default());
    same(&Event::ExecAdded { container: id.clone(), exec: exec.clone() }, TaskExecAdded::default());
    same(&Event::ExecStarted { container: id.clone(), exec, pid: 1 }, TaskExecStarted::default());
    same(&Event::Exit { container, id: id.clone(), pid: 1, exit }, TaskExit::default());
    same(&Event::Delete { container: id.clone(), pid: 1, exit }, TaskDelete::default());
    same(&Event::Paused { container: id.clone() }, TaskPaused::default());
    same(&Event::Resumed { container: id.clone() }, TaskResumed::default());
    same(&Event::Oom { container: id }, TaskOOM::default());
}

#[test]
fn a_time_is_the_same_on_the_wire() {
    for (seconds, nanos) in [(0, 0), (1, 999_999_999), (1_700_000_000, 5), (1 << 33, 123_456_789)] {
        let at = UNIX_EPOCH + Duration::new(seconds, nanos);
        let theirs = convert_to_timestamp(Some(at.into()));
        let ours = convert::timestamp(at);
        assert_eq!((ours.seconds, ours.nanos), (theirs.seconds, theirs.nanos));
        let deleted = convert::deleted(5, ExitStatus { code: 137, at });
        assert_eq!((deleted.pid, deleted.exit_status, deleted.exited_at.unwrap()), (5, 137, theirs));
    }
    let before = convert::timestamp(SystemTime::now());
    let now = timestamp().unwrap();
    let after = convert::timestamp(SystemTime::now());
    let pair = |t: &protobuf::well_known_types::timestamp::Timestamp| (t.seconds, t.nanos);
    assert!(pair(&before) <= pair(&now) && pair(&now) <= pair(&after));
}

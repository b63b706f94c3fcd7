//! Events reach containerd in order and without loss, whatever containerd does meanwhile.

use containerd_shim_protos::events::task::{TaskCreate, TaskExit};
use protobuf::Message;
use shoal::launch::ExitStatus;
use shoal::sandbox::Event;
use shoal::service::events::Events;
use shoal::stdio::Stdio;
use std::path::Path;
use std::time::{Duration, SystemTime};
use testbed::fake::{Act, EventService};

fn events(path: &Path) -> Events {
    Events::new("ns1", Some(path.to_str().unwrap().into()))
}

fn start(pid: u32) -> Event {
    Event::Start { container: "c1".into(), pid }
}

/// Returns the pids of the next events, all of which must be starts.
fn pids(service: &EventService, count: u32) -> Vec<u32> {
    let next = |_| {
        let event = service.next().event.unwrap();
        containerd_shim_protos::events::task::TaskStart::parse_from_bytes(&event.value).unwrap().pid
    };
    (0..count).map(next).collect()
}

#[test]
fn an_event_has_the_form_that_containerd_knows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let service = EventService::listen(&path, &[]);
    let events = Events::new("ns1", Some(format!("unix://{}", path.display())));
    let stdio = Stdio { stdout: "/out".into(), terminal: true, ..Default::default() };
    let create = Event::Create { container: "c1".into(), bundle: "/b".into(), rootfs: vec![], stdio, pid: 7 };
    events.push(create);
    let at = SystemTime::UNIX_EPOCH + Duration::new(1000, 5);
    let exit = ExitStatus { code: 137, at };
    events.push(Event::Exit { container: "c1".into(), id: "e1".into(), pid: 8, exit });

    let envelope = service.next();
    assert_eq!((envelope.namespace.as_str(), envelope.topic.as_str()), ("ns1", "/tasks/create"));
    assert!(envelope.timestamp.seconds > 1_000_000_000);
    let event = envelope.event.unwrap();
    assert_eq!(event.type_url, "containerd.events.TaskCreate");
    let create = TaskCreate::parse_from_bytes(&event.value).unwrap();
    assert_eq!((create.container_id.as_str(), create.bundle.as_str(), create.pid), ("c1", "/b", 7));
    assert_eq!((create.io.stdout.as_str(), create.io.terminal), ("/out", true));

    let envelope = service.next();
    assert_eq!(envelope.topic, "/tasks/exit");
    let exit = TaskExit::parse_from_bytes(&envelope.event.unwrap().value).unwrap();
    assert_eq!(
        (exit.container_id.as_str(), exit.id.as_str(), exit.pid, exit.exit_status),
        ("c1", "e1", 8, 137)
    );
    assert_eq!((exit.exited_at.seconds, exit.exited_at.nanos), (1000, 5));
}

#[test]
fn events_wait_for_a_containerd_that_is_away() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let events = events(&path);
    (1..=50).for_each(|pid| events.push(start(pid)));
    std::thread::sleep(Duration::from_millis(700));
    assert_eq!(events.waiting(), 50);
    let service = EventService::listen(&path, &[]);
    assert_eq!(pids(&service, 50), (1..=50).collect::<Vec<_>>());
    assert_eq!(events.drain(Duration::from_secs(5)), 0);
}

#[test]
fn an_event_that_was_not_acknowledged_is_sent_again_in_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let script = [Act::Acknowledge, Act::HangUp, Act::HangUp, Act::Refuse, Act::Acknowledge, Act::HangUp];
    let service = EventService::listen(&path, &script);
    let events = events(&path);
    (1..=6).for_each(|pid| events.push(start(pid)));
    assert_eq!(pids(&service, 6), [1, 2, 3, 4, 5, 6]);
    assert!(service.none(Duration::from_millis(100)));
}

#[test]
fn an_event_that_containerd_never_takes_does_not_hold_up_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let service = EventService::listen(&path, &[Act::Refuse; 5]);
    let events = events(&path);
    (1..=2).for_each(|pid| events.push(start(pid)));
    assert_eq!(pids(&service, 1), [2]);
}

#[test]
fn a_containerd_that_restarts_gets_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let first = EventService::listen(&path, &[Act::Acknowledge, Act::Acknowledge, Act::HangUp]);
    let events = events(&path);
    (1..=2).for_each(|pid| events.push(start(pid)));
    assert_eq!(pids(&first, 2), [1, 2]);
    std::fs::remove_file(&path).unwrap();
    (3..=4).for_each(|pid| events.push(start(pid)));
    std::thread::sleep(Duration::from_millis(100));
    let second = EventService::listen(&path, &[]);
    assert_eq!(pids(&second, 2), [3, 4]);
}

#[test]
fn the_queue_is_bounded_and_keeps_the_newest() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let events = events(&path);
    (1..=2100).for_each(|pid| events.push(start(pid)));
    assert_eq!(events.waiting(), 2048);
    let service = EventService::listen(&path, &[]);
    assert_eq!(pids(&service, 2048), (53..=2100).collect::<Vec<_>>());
}

#[test]
fn draining_ends_at_its_limit() {
    let folder = tempfile::tempdir().unwrap();
    let events = events(&folder.path().join("nobody"));
    events.push(start(1));
    let begun = std::time::Instant::now();
    assert_eq!(events.drain(Duration::from_millis(200)), 1);
    assert!(begun.elapsed() < Duration::from_secs(2));
    assert_eq!(Events::new("ns1", None).drain(Duration::from_secs(5)), 0);
}

//! Publishes events to containerd: a queue, in order, each event sent until containerd acknowledges it.
//!
//! Events are kept while containerd restarts. The sending thread exists only while there is something to send, and a
//! little longer, because an idle thread costs every shim on the node memory.

use super::convert::{any, timestamp, wire_mount};
use super::publish::{Forwarded, Publisher};
use crate::plan::RootfsMount;
use crate::sandbox::Event;
use crate::stdio::Stdio;
use crate::sync::{Condvar, Mutex};
use crate::sys::memory::unforked_stack;
use containerd_shim_protos::events::task::*;
use containerd_shim_protos::shim::event::Envelope;
use containerd_shim_protos::shim::events::ForwardRequest;
use containerd_shim_protos::topics;
use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// As many as the Go shim keeps; beyond that the oldest are dropped with a warning.
const QUEUE_MAX: usize = 2048;
/// How long the thread waits for another event before it exits.
const IDLE: Duration = Duration::from_secs(2);
/// The delay between attempts to reach an unavailable containerd.
const RETRY: Duration = Duration::from_millis(500);
/// How often an event that containerd rejects is sent.
const REFUSALS_MAX: u32 = 5;
const STACK: usize = 128 << 10;

#[derive(Clone)]
pub struct Events(Arc<Shared>);

struct Shared {
    namespace: String,
    /// containerd's ttrpc socket; None if events are not published.
    address: Option<String>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Encoded `ForwardRequest`s with their topics.
    queue: VecDeque<(&'static str, Vec<u8>)>,
    running: bool,
    draining: bool,
}

impl Events {
    pub fn new(namespace: &str, address: Option<String>) -> Self {
        Events(Arc::new(Shared {
            namespace: namespace.to_owned(),
            address,
            state: Mutex::default(),
            changed: Condvar::default(),
        }))
    }

    /// Queues an event. Never blocks.
    pub fn push(&self, event: Event) {
        let (topic, body) = message(&event);
        report(&event);
        if self.0.address.is_none() {
            return;
        }
        let envelope = Envelope {
            timestamp: Some(timestamp(SystemTime::now())).into(),
            namespace: self.0.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(body).into(),
            ..Default::default()
        };
        let request = ForwardRequest { envelope: Some(envelope).into(), ..Default::default() };
        let request = match request.write_to_bytes() {
            Ok(bytes) => bytes,
            Err(e) => return log::error!("could not encode an event for {topic}: {e}"),
        };
        let mut state = self.0.state.lock();
        if state.queue.len() >= QUEUE_MAX
            && let Some((topic, _)) = state.queue.pop_front()
        {
            log::warn!("dropped the oldest event ({topic}): {QUEUE_MAX} are queued for containerd");
        }
        state.queue.push_back((topic, request));
        self.0.changed.notify_all();
        if !state.running {
            state.running = true;
            let shared = self.0.clone();
            let thread = std::thread::Builder::new().name("events".into()).stack_size(STACK);
            if let Err(e) = thread.spawn(move || shared.send()) {
                // The next event tries again.
                state.running = false;
                log::error!("could not start the thread that publishes events: {e}");
            }
        }
    }

    /// Waits until all events are sent or `limit` has passed; returns how many are left.
    pub fn drain(&self, limit: Duration) -> usize {
        let end = Instant::now() + limit;
        let mut state = self.0.state.lock();
        state.draining = true;
        self.0.changed.notify_all();
        while !state.queue.is_empty() {
            let Some(left) = end.checked_duration_since(Instant::now()) else { break };
            state = self.0.changed.wait_timeout(state, left);
        }
        state.queue.len()
    }

    pub fn waiting(&self) -> usize {
        self.0.state.lock().queue.len()
    }
}

impl Shared {
    /// The sending thread: sends the oldest event until it is acknowledged, then the next.
    fn send(&self) {
        let _own = unforked_stack();
        let mut publisher = Publisher::new(self.address.as_deref().unwrap_or_default());
        let mut refusals = 0;
        let mut away = false;
        loop {
            let mut state = self.state.lock();
            let deadline = Instant::now() + IDLE;
            while state.queue.is_empty() {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() || state.draining {
                    state.running = false;
                    return;
                }
                state = self.changed.wait_timeout(state, left);
            }
            // The event stays in the queue until it is acknowledged.
            let Some((topic, request)) = state.queue.front().cloned() else { continue };
            drop(state);
            let done = match publisher.forward(&request) {
                Forwarded::Acknowledged => true,
                Forwarded::Refused(why) => {
                    refusals += 1;
                    let last = refusals >= REFUSALS_MAX;
                    log::warn!(topic; "containerd rejected an event{}: {why}", if last { ", dropped" } else { "" });
                    last
                }
                Forwarded::Away(why) => {
                    if !std::mem::replace(&mut away, true) {
                        log::warn!("containerd is unavailable, keeping events: {why}");
                    }
                    false
                }
            };
            let mut state = self.state.lock();
            if done {
                refusals = 0;
                if std::mem::take(&mut away) {
                    log::info!("containerd is accepting events again");
                }
                // A full queue may have dropped it meanwhile.
                if state.queue.front().is_some_and(|(_, front)| *front == request) {
                    state.queue.pop_front();
                }
                self.changed.notify_all();
            } else {
                drop(self.changed.wait_timeout(state, RETRY));
            }
        }
    }
}

/// Logs the change of state.
fn report(event: &Event) {
    match event {
        Event::Create { container, pid, .. } => log::info!(container, pid; "created the container"),
        Event::Start { container, pid } => log::info!(container, pid; "started the container"),
        Event::ExecAdded { container, exec } => log::debug!(container, exec; "added the exec"),
        Event::ExecStarted { container, exec, pid } => log::info!(container, exec, pid; "started the exec"),
        Event::Exit { container, id, pid, exit } => {
            log::info!(container, process = id, pid, code = exit.code; "the process exited");
        }
        Event::Delete { container, .. } => log::info!(container; "deleted the container"),
        Event::Paused { container } => log::info!(container; "paused the container"),
        Event::Resumed { container } => log::info!(container; "resumed the container"),
        Event::Oom { container } => log::warn!(container; "the OOM killer killed a process"),
    }
}

pub(super) fn message(event: &Event) -> (&'static str, Any) {
    match event {
        Event::Create { container, bundle, rootfs, stdio, pid } => (
            topics::TASK_CREATE_EVENT_TOPIC,
            pack("TaskCreate", &create(container, bundle, rootfs, stdio, *pid)),
        ),
        Event::Start { container, pid } => {
            let body = TaskStart { container_id: container.clone(), pid: *pid, ..Default::default() };
            (topics::TASK_START_EVENT_TOPIC, pack("TaskStart", &body))
        }
        Event::ExecAdded { container, exec } => {
            let body = TaskExecAdded {
                container_id: container.clone(),
                exec_id: exec.clone(),
                ..Default::default()
            };
            (topics::TASK_EXEC_ADDED_EVENT_TOPIC, pack("TaskExecAdded", &body))
        }
        Event::ExecStarted { container, exec, pid } => {
            let (container_id, exec_id) = (container.clone(), exec.clone());
            let body = TaskExecStarted { container_id, exec_id, pid: *pid, ..Default::default() };
            (topics::TASK_EXEC_STARTED_EVENT_TOPIC, pack("TaskExecStarted", &body))
        }
        Event::Exit { container, id, pid, exit } => {
            let body = TaskExit {
                container_id: container.clone(),
                id: id.clone(),
                pid: *pid,
                exit_status: exit.code,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            };
            (topics::TASK_EXIT_EVENT_TOPIC, pack("TaskExit", &body))
        }
        Event::Delete { container, pid, exit } => {
            let body = TaskDelete {
                container_id: container.clone(),
                pid: *pid,
                exit_status: exit.code,
                exited_at: Some(timestamp(exit.at)).into(),
                ..Default::default()
            };
            (topics::TASK_DELETE_EVENT_TOPIC, pack("TaskDelete", &body))
        }
        Event::Paused { container } => {
            let body = TaskPaused { container_id: container.clone(), ..Default::default() };
            (topics::TASK_PAUSED_EVENT_TOPIC, pack("TaskPaused", &body))
        }
        Event::Resumed { container } => {
            let body = TaskResumed { container_id: container.clone(), ..Default::default() };
            (topics::TASK_RESUMED_EVENT_TOPIC, pack("TaskResumed", &body))
        }
        Event::Oom { container } => {
            let body = TaskOOM { container_id: container.clone(), ..Default::default() };
            (topics::TASK_OOM_EVENT_TOPIC, pack("TaskOOM", &body))
        }
    }
}

fn create(container: &str, bundle: &Path, rootfs: &[RootfsMount], stdio: &Stdio, pid: u32) -> TaskCreate {
    let io = TaskIO {
        stdin: stdio.stdin.clone(),
        stdout: stdio.stdout.clone(),
        stderr: stdio.stderr.clone(),
        terminal: stdio.terminal,
        ..Default::default()
    };
    TaskCreate {
        container_id: container.to_owned(),
        bundle: bundle.to_string_lossy().into_owned(),
        rootfs: rootfs.iter().map(wire_mount).collect(),
        io: MessageField::some(io),
        pid,
        ..Default::default()
    }
}

/// containerd identifies events by the bare type name.
fn pack(name: &str, message: &impl Message) -> Any {
    any(&format!("containerd.events.{name}"), message.write_to_bytes().unwrap_or_default())
}

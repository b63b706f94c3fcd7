//! The events that containerd publishes, as `ctr events` prints them.

use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use super::containerd::Containerd;
use super::run::until;

pub struct Events {
    child: Child,
    lines: Arc<Mutex<Vec<Event>>>,
}

/// One event: its topic and its fields.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub topic: String,
    pub fields: serde_json::Value,
}

impl Event {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).and_then(|value| value.as_str()).unwrap_or("")
    }

    pub fn number(&self, name: &str) -> u64 {
        self.fields.get(name).and_then(serde_json::Value::as_u64).unwrap_or(0)
    }
}

impl Events {
    pub fn listen(containerd: &Containerd) -> Events {
        let mut child =
            containerd.ctr_command(["events"]).stdout(Stdio::piped()).spawn().expect("start ctr events");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (to, from) = (lines.clone(), child.stdout.take().expect("it is piped"));
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let Some(event) = parse(&line) {
                    to.lock().expect("no holder panics").push(event);
                }
            }
        });
        let events = Events { child, lines };
        // The subscription is active once an event of our own comes through.
        let mut n = 0;
        until("ctr events to listen", 10, || {
            n += 1;
            containerd.ctr(["namespaces", "label", containerd.namespace(), &format!("probe={n}")]).ok();
            (!events.all().is_empty()).then_some(())
        });
        events
    }

    fn all(&self) -> Vec<Event> {
        self.lines.lock().expect("no holder panics").clone()
    }

    /// Returns the task events of container `id` so far.
    pub fn of(&self, id: &str) -> Vec<Event> {
        self.all()
            .into_iter()
            .filter(|event| event.topic.starts_with("/tasks/") && event.field("container_id") == id)
            .collect()
    }

    /// Returns the task events of container `id`, once one with `topic` has come.
    #[track_caller]
    pub fn until(&self, id: &str, topic: &str) -> Vec<Event> {
        until(&format!("event {topic} of {id}"), 10, || {
            let events = self.of(id);
            events.iter().any(|event| event.topic == topic).then_some(events)
        })
    }

    /// Returns the topics of these events, without `/tasks/`.
    #[track_caller]
    pub fn topics(&self, id: &str, last: &str) -> Vec<String> {
        let events = self.until(id, last);
        events.iter().map(|event| event.topic.trim_start_matches("/tasks/").to_owned()).collect()
    }
}

/// Parses `2026-01-02 03:04:05.6 +0000 UTC namespace /topic {json}`.
fn parse(line: &str) -> Option<Event> {
    let (head, json) = line.split_at(line.find('{')?);
    let topic = head.split_whitespace().next_back()?.to_owned();
    Some(Event { topic, fields: serde_json::from_str(json).ok()? })
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may be gone already, with its containerd
        let _ = self.child.wait();
    }
}

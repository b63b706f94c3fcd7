//! The Store under real containerd 1.7 and 2.x: what shoal's Store writes is in containerd's, and vice versa.
//!
//! The shim is started by hand with containerd's address, since no client of containerd asks a shim for its Store.

use protobuf::well_known_types::any::Any;
use protobuf::{Message, MessageField};
use shoal::service::protos::record::{sandbox::Runtime, Sandbox};
use shoal::service::protos::sandbox::*;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use testbed::wire::{code, decode, Refusal, Wire, AE, DE, IA, NF, STORE, UNAVAILABLE};
use testbed::{Containerd, Suite};
use ttrpc::proto::{KeyValue, Request};

/// A shim without containers, and a connection to it.
struct Shim {
    wire: Wire,
    namespace: String,
}

impl Shim {
    fn start(containerd: &Containerd) -> Shim {
        let folder = containerd.dir("store");
        std::fs::create_dir_all(&folder).unwrap();
        let namespace = containerd.namespace().to_owned();
        // nsenter(1) changes to the root, where the starts of two tests would share one `address` file.
        let mut command = containerd.machine.server("env");
        command.arg(format!("--chdir={}", folder.display()));
        command.arg(env!("CARGO_BIN_EXE_containerd-shim-shoal-v2"));
        command.args(["-namespace", &namespace, "-address", containerd.socket().to_str().unwrap()]);
        command.args(["-id", "store", "start"]).stdin(Stdio::null());
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let answer: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| {
            panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr));
        });
        let path = answer["address"].as_str().unwrap().strip_prefix("unix://").unwrap().to_owned();
        let path: PathBuf = containerd.machine.inside(&path);
        Shim { wire: Wire::connect(&path), namespace }
    }

    fn call<R: Message>(
        &mut self,
        method: &str,
        message: &impl Message,
        limit: Duration,
    ) -> Result<R, Refusal> {
        let pair = KeyValue {
            key: "containerd-namespace-ttrpc".into(),
            value: self.namespace.clone(),
            ..Default::default()
        };
        self.wire.send(&Request {
            service: STORE.into(),
            method: method.into(),
            payload: message.write_to_bytes().unwrap(),
            timeout_nano: limit.as_nanos() as i64,
            metadata: vec![pair],
            ..Default::default()
        });
        decode(self.wire.next().unwrap().1)
    }

    fn ask<R: Message>(&mut self, method: &str, message: &impl Message) -> Result<R, Refusal> {
        self.call(method, message, Duration::from_secs(20))
    }

    fn get(&mut self, id: &str) -> Result<StoreGetResponse, Refusal> {
        self.ask("Get", &StoreGetRequest { sandbox_id: id.into(), ..Default::default() })
    }

    /// Ends the shim, which has nothing to serve.
    fn end(mut self) {
        let request =
            containerd_shim_protos::api::ShutdownRequest { id: "store".into(), ..Default::default() };
        self.wire.task::<containerd_shim_protos::api::Empty>("Shutdown", &request).unwrap();
        assert!(self.wire.next().is_none());
    }
}

fn sandbox(id: &str) -> Sandbox {
    let any =
        |url: &str, value: &[u8]| Any { type_url: url.into(), value: value.into(), ..Default::default() };
    let runtime = Runtime { name: "io.containerd.shoal.v2".into(), ..Default::default() };
    Sandbox {
        sandbox_id: id.into(),
        runtime: MessageField::some(runtime),
        spec: MessageField::some(any("runtime.v1.PodSandboxConfig", b"\x12\x03web")),
        labels: [("app".to_owned(), "web".to_owned())].into(),
        extensions: [("x".to_owned(), any("some.Type", &[1, 2, 3]))].into(),
        sandboxer: "shim".into(),
        ..Default::default()
    }
}

fn create(id: &str) -> StoreCreateRequest {
    StoreCreateRequest { sandbox: MessageField::some(sandbox(id)), ..Default::default() }
}

fn list(shim: &mut Shim, filters: &[&str]) -> Vec<String> {
    let filters = filters.iter().map(|filter| (*filter).to_owned()).collect();
    let request = StoreListRequest { filters, ..Default::default() };
    let response: StoreListResponse = shim.ask("List", &request).unwrap();
    let mut ids: Vec<String> = response.list.into_iter().map(|sandbox| sandbox.sandbox_id).collect();
    ids.sort();
    ids
}

fn life(suite: Suite) {
    let mut containerd = Containerd::start(suite);
    let mut shim = Shim::start(&containerd);

    let created: StoreCreateResponse = shim.ask("Create", &create("s1")).unwrap();
    let created = created.sandbox.unwrap();
    assert!(created.created_at.seconds > 1_000_000_000, "containerd has put the time in");
    let got = shim.get("s1").unwrap().sandbox.unwrap();
    assert_eq!((&got.sandbox_id, &got.created_at), (&created.sandbox_id, &created.created_at));
    let sent = sandbox("s1");
    assert_eq!((&got.runtime, &got.spec, &got.extensions), (&sent.runtime, &sent.spec, &sent.extensions));
    assert_eq!(got.labels["app"], "web");
    // containerd itself has it.
    let seen = containerd.ctr(["sandboxes", "ls"]);
    assert!(seen.ok().lines().any(|line| line.starts_with("s1 ")), "{seen}");

    let mut changed = got.clone();
    changed.labels.insert("app".into(), "api".into());
    changed.labels.insert("new".into(), "1".into());
    let fields = vec!["labels.app".to_owned()];
    let request = StoreUpdateRequest { sandbox: MessageField::some(changed), fields, ..Default::default() };
    let updated: StoreUpdateResponse = shim.ask("Update", &request).unwrap();
    assert_eq!(updated.sandbox.labels["app"], "api");
    assert!(!shim.get("s1").unwrap().sandbox.labels.contains_key("new"), "only the field that was named");

    shim.ask::<StoreCreateResponse>("Create", &create("s2")).unwrap();
    assert_eq!(list(&mut shim, &[]), ["s1", "s2"]);
    assert_eq!(list(&mut shim, &["labels.app==api"]), ["s1"]);
    let deletion = StoreDeleteRequest { sandbox_id: "s2".into(), ..Default::default() };
    shim.ask::<StoreDeleteResponse>("Delete", &deletion).unwrap();
    assert_eq!(list(&mut shim, &[]), ["s1"]);
    assert!(!containerd.ctr(["sandboxes", "ls"]).ok().contains("s2"));

    // Each namespace has its own.
    let own = std::mem::replace(&mut shim.namespace, format!("{}-b", containerd.namespace()));
    assert!(list(&mut shim, &[]).is_empty());
    shim.namespace = own;
    refusals(&mut shim);
    restart(&mut shim, &mut containerd);
    shim.end();
}

fn refusals(shim: &mut Shim) {
    let exists = shim.ask::<StoreCreateResponse>("Create", &create("s1")).unwrap_err();
    assert_eq!(exists.0, AE);
    assert!(exists.1.contains("s1") && exists.1.contains("already exists"), "{exists:?}");
    let missing = shim.get("nobody").unwrap_err();
    assert!(missing.0 == NF && missing.1.contains("not found"), "{missing:?}");
    assert_eq!(code(shim.ask::<StoreCreateResponse>("Create", &create("not/an/id"))), IA);
    let request = StoreListRequest { filters: vec!["labels.=".into()], ..Default::default() };
    assert_eq!(code(shim.ask::<StoreListResponse>("List", &request)), IA);
    // This would end containerd.
    let mut bare = create("s3");
    bare.sandbox.mut_or_insert_default().runtime = MessageField::none();
    assert_eq!(code(shim.ask::<StoreCreateResponse>("Create", &bare)), IA);
}

fn restart(shim: &mut Shim, containerd: &mut Containerd) {
    // Stopped, it does not answer.
    let pid = nix::unistd::Pid::from_raw(containerd.pid() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    // Each thread stops when it sees the signal; one that has not yet may answer.
    testbed::until("containerd to stop", 10, || {
        let mut tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with('T'))
        };
        tasks.all(stopped).then_some(())
    });
    let begun = Instant::now();
    let late = shim.call::<StoreListResponse>("List", &StoreListRequest::new(), Duration::from_millis(500));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGCONT).unwrap();
    assert_eq!(code(late), DE);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    containerd.kill();
    let (code, message) = shim.get("s1").unwrap_err();
    assert!(code == UNAVAILABLE && message.contains("containerd is away"), "{message}");
    containerd.serve();
    assert_eq!(shim.get("s1").unwrap().sandbox.labels["app"], "api");
}

#[test]
fn the_store_is_containerd_s_under_1_7() {
    life(Suite::Trixie);
}

#[test]
fn the_store_is_containerd_s_under_2_1() {
    life(Suite::Forky);
}

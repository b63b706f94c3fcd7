//! Compares shoal with a shim built on `containerd-shim`, the crate that containerd's own project offers to shims:
//! the answer of `start`, and how an exit is reported. The crate's `run` is a whole program, and so is this one:
//! called as containerd calls a shim, it is the reference. (What needs no program is compared in `shim/reference.rs`
//! and `service/reference.rs`.)

// The tests of the real binary cover the rest.

use containerd_shim::api::{DeleteResponse, ShutdownRequest};
use containerd_shim::bootstrap::{BootstrapParams, BootstrapResult, Extension};
use containerd_shim::monitor::{monitor_subscribe, Subject, Topic};
use containerd_shim::protos::protobuf::well_known_types::any::Any;
use containerd_shim::protos::protobuf::Message;
use containerd_shim::publisher::RemotePublisher;
use containerd_shim::{Config, Flags, Shim, StartOpts, Task};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use testbed::fake::{Containerd, Version};

/// The shim of this build.
const SHIM: &str = env!("CARGO_BIN_EXE_containerd-shim-shoal-v2");

struct Nothing;

impl Task for Nothing {}

struct Reference;

/// The script whose exit the reference reports as a container's.
const SCRIPT: &str = "SHOAL_REFERENCE_SCRIPT";

impl Shim for Reference {
    type T = Nothing;

    fn new(_runtime: &str, _flags: &Flags, _config: &mut Config) -> Self {
        Reference
    }

    fn start_shim(&mut self, options: StartOpts) -> containerd_shim::Result<String> {
        Ok(options.socket_address(&options.id))
    }

    /// The crate's reaper is at work here.
    fn delete_shim(&mut self) -> containerd_shim::Result<DeleteResponse> {
        let exits = monitor_subscribe(Topic::Pid)?;
        let script = std::env::var(SCRIPT).expect("a script");
        let pid = Command::new("sh").args(["-c", &script]).spawn().expect("run sh").id();
        let ours = |subject: &Subject| matches!(subject, Subject::Pid(ended) if *ended == pid as i32);
        let exit = exits.rx.iter().find(|exit| ours(&exit.subject)).expect("its end");
        Ok(DeleteResponse { pid, exit_status: exit.exit_code as u32, ..Default::default() })
    }

    fn wait(&mut self) {}

    fn create_task_service(&self, _publisher: RemotePublisher) -> Nothing {
        Nothing
    }
}

/// Runs a verb of `program`, and returns its output.
fn verb(program: &Path, containerd: &Containerd, verb: &str, input: &[u8], script: &str) -> Vec<u8> {
    let address = containerd.address();
    let mut child = Command::new(program)
        .args(["-namespace", &containerd.namespace, "-address", &address, "-publish-binary", "/bin/true"])
        .args(["-id", "c1", verb])
        .env("TTRPC_ADDRESS", format!("{address}.ttrpc"))
        .env("GRPC_ADDRESS", &address)
        .env(SCRIPT, script)
        .current_dir(containerd.bundle("c1"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run a shim");
    child.stdin.take().expect("it is piped").write_all(input).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{program:?} {verb}: {:?}", output.status);
    output.stdout
}

/// Parses the message of containerd 2.3, or the JSON of older shims, as all containerds do. (Go's protobuf refuses
/// input that begins with an unterminated group; Rust's accepts it.)
fn understand(answer: &[u8]) -> BootstrapResult {
    if !answer.starts_with(b"{") {
        return BootstrapResult::parse_from_bytes(answer).expect("a message");
    }
    let json: serde_json::Value = serde_json::from_slice(answer).expect("JSON");
    let text = |key: &str| json[key].as_str().expect("a string").to_owned();
    BootstrapResult {
        version: json["version"].as_i64().expect("a number") as i32,
        address: text("address"),
        protocol: text("protocol"),
        ..Default::default()
    }
}

fn a_start_answers_what_the_crates_answers(reference: &Path) {
    let options = Any { type_url: "containerd.runc.v1.Options".into(), ..Default::default() };
    for (version, with_options) in
        [(Version::V1_7, false), (Version::V2_0, true), (Version::V2_3, false), (Version::V2_3, true)]
    {
        let containerd = Containerd::new(version);
        containerd.prepare("c1", &["/probe", "sleep"], serde_json::json!({}));
        let params = BootstrapParams {
            instance_id: "c1".into(),
            namespace: containerd.namespace.clone(),
            containerd_grpc_address: containerd.address(),
            containerd_ttrpc_address: format!("{}.ttrpc", containerd.address()),
            extensions: with_options
                .then(|| Extension { value: Some(options.clone()).into(), ..Default::default() })
                .into_iter()
                .collect(),
            ..Default::default()
        };
        let input = match (version.modern(), with_options) {
            (true, _) => params.write_to_bytes().expect("a message"),
            (false, true) => options.write_to_bytes().expect("a message"),
            (false, false) => Vec::new(),
        };
        let theirs = understand(&verb(reference, &containerd, "start", &input, ""));
        let ours = understand(&verb(Path::new(SHIM), &containerd, "start", &input, ""));
        assert_eq!((&ours.address, &ours.protocol), (&theirs.address, &theirs.protocol), "{version:?}");
        // The crate does not work with 1.7, which refuses version 3 and cannot be told from 2.0 in time.
        let version = if version.modern() { theirs.version } else { 2 };
        assert_eq!((theirs.version, ours.version), (3, version));
        let mut wire =
            testbed::wire::Wire::connect(Path::new(ours.address.strip_prefix("unix://").expect("a path")));
        let shutdown = ShutdownRequest { id: "c1".into(), ..Default::default() };
        wire.task::<containerd_shim::api::Empty>("Shutdown", &shutdown).expect("it ends");
        assert!(wire.next().is_none());
        containerd.delete("c1");
        containerd.remove_bundle("c1");
    }
}

fn an_exit_is_told_as_the_crate_tells_it(reference: &Path) {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], serde_json::json!({}));
    for script in
        ["exit 0", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$", "ulimit -c 0; kill -SEGV $$"]
    {
        let theirs = verb(reference, &containerd, "delete", b"", script);
        let theirs = DeleteResponse::parse_from_bytes(&theirs).expect("a DeleteResponse").exit_status;
        let mut child = Command::new("sh").args(["-c", script]).spawn().expect("run sh");
        let ours = shoal::sys::wait::reap(child.id()).expect("it is our child").code;
        child.wait().expect_err("it is reaped already");
        assert_eq!(ours, theirs, "{script}");
    }
    containerd.remove_bundle("c1");
}

fn main() {
    if std::env::args().any(|argument| argument == "-namespace") {
        return containerd_shim::run::<Reference>("io.containerd.reference.v2", None);
    }
    if !nix::unistd::geteuid().is_root() {
        return println!("skipped: needs root");
    }
    let reference = std::env::current_exe().expect("our own path");
    for (name, test) in [
        ("a_start_answers_what_the_crates_answers", a_start_answers_what_the_crates_answers as fn(&Path)),
        ("an_exit_is_told_as_the_crate_tells_it", an_exit_is_told_as_the_crate_tells_it),
    ] {
        test(&reference);
        println!("test {name} ... ok");
    }
}

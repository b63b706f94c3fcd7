//! The options of Task.Create, in each message that can carry them, checked by their effect on the container.

use crate::{connect, create_request, delete, kill, kill_process, runc, shut_down, start, wait};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci;
use protobuf::well_known_types::any::Any;
use serde_json::{json, Value};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use testbed::fake::{Containerd, Version};
use testbed::wire::{Refusal, Wire, TASK_V3};
use ttrpc::proto::Code;

/// Builds a `runtimeoptions.v1.Options` with a string or bytes in one field.
fn runtime(field: u8, value: &str) -> Any {
    let length = u8::try_from(value.len()).ok().filter(|length| *length < 128).expect("a short one");
    let value = [&[field << 3 | 2, length], value.as_bytes()].concat();
    Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Default::default() }
}

fn config_path(path: &Path) -> Any {
    runtime(2, path.to_str().unwrap())
}

fn config_body(toml: &str) -> Any {
    runtime(3, toml)
}

struct World {
    containerd: Containerd,
    wire: Wire,
}

impl World {
    /// Prepares a container `c1` without creating it.
    fn new(args: &[&str]) -> Self {
        let containerd = Containerd::new(Version::V2_3);
        containerd.prepare("c1", args, json!({}));
        let shim = containerd.start("c1");
        let wire = containerd.connect(&shim);
        World { containerd, wire }
    }

    fn create(&mut self, options: &Any, change: impl FnOnce(&mut CreateTaskRequest)) -> Result<u32, Refusal> {
        let mut request = create_request(&self.containerd, "c1");
        request.options = Some(options.clone()).into();
        change(&mut request);
        self.wire.task::<CreateTaskResponse>("Create", &request).map(|response| response.pid)
    }

    /// Runs the container to its end, and returns the probe's report.
    fn report(mut self, options: &Any) -> Value {
        self.create(options, |_| {}).unwrap();
        start(&mut self.wire, TASK_V3, "c1");
        assert_eq!(wait(&mut self.wire, TASK_V3, "c1"), 0);
        delete(&mut self.wire, TASK_V3, "c1");
        let report = std::fs::read(self.containerd.bundle("c1").join("rootfs/report")).unwrap();
        self.end();
        serde_json::from_slice(&report).unwrap()
    }

    /// Checks that nothing of a container is left.
    fn end(self) {
        shut_down(self.wire, "c1");
        self.containerd.delete("c1");
        self.containerd.remove_bundle("c1");
        assert!(self.containerd.cgroups().is_empty());
    }
}

/// The user that the process runs as becomes the owner, as with runc; the group stays.
#[test]
fn the_streams_belong_to_the_group_of_the_options_in_every_form_of_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("shoal.toml");
    std::fs::write(&file, "IoUid = 1234\nIoGid = 2345\nWhat = 1\n").unwrap();
    let message = runc(oci::Options { io_uid: 1234, io_gid: 2345, ..Default::default() });
    let body = config_body("IoUid = 1234\nIoGid = 2345\nWhat = 1");
    let none = Any::default();
    for (options, owner, unknown) in [
        (none, (77, 0), None),
        (message, (77, 2345), None),
        (body, (77, 2345), Some("options: ConfigBody: the key What is not known".to_owned())),
        (
            config_path(&file),
            (77, 2345),
            Some(format!("options: {}: the key What is not known", file.display())),
        ),
    ] {
        let mut world = World::new(&["/probe", "sleep"]);
        world.containerd.configure("c1", |config| config["process"]["user"]["uid"] = 77.into());
        let fifos = ["in", "out", "err"].map(|name| world.containerd.dir.path().join(name));
        for fifo in &fifos {
            nix::unistd::mkfifo(fifo, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        }
        let [stdin, stdout, stderr] = fifos.clone().map(|fifo| fifo.to_str().unwrap().to_owned());
        let streams = |request: &mut CreateTaskRequest| {
            (request.stdin, request.stdout, request.stderr) = (stdin, stdout, stderr);
        };
        world.create(&options, streams).unwrap();
        for fifo in &fifos {
            let about = std::fs::metadata(fifo).unwrap();
            assert_eq!((about.uid(), about.gid()), owner, "{fifo:?} with {options:?}");
        }
        if let Some(words) = unknown {
            assert!(world.containerd.logged(&words), "{words}");
        }
        kill(&mut world.wire, TASK_V3, "c1");
        delete(&mut world.wire, TASK_V3, "c1");
        world.end();
    }
}

#[test]
fn a_container_has_a_session_keyring_of_its_own_unless_the_options_say_no() {
    // What the shim inherits from us.
    let outside = Command::new(env!("CARGO_BIN_EXE_probe")).arg("report").output().unwrap();
    let outside = &serde_json::from_slice::<Value>(&outside.stdout).unwrap()["keyring"];
    let report = World::new(&["/probe", "save", "/report"]).report(&config_body("NoNewKeyring = false"));
    assert_eq!(report["keyring"]["name"], "_ses.c1");
    let message = oci::Options { no_new_keyring: true, ..Default::default() };
    for options in [config_body("NoNewKeyring = true"), runc(message)] {
        let report = World::new(&["/probe", "save", "/report"]).report(&options);
        assert_eq!(report["keyring"], *outside, "{options:?}");
    }
}

/// Without pivot_root(2) a container runs as well, but a propagation that only pivot_root makes safe is refused.
#[test]
fn a_root_is_not_pivoted_to_where_the_options_say_so() {
    let message = oci::Options { no_pivot_root: true, ..Default::default() };
    for options in [config_body("NoPivotRoot = true"), runc(message)] {
        let report = World::new(&["/probe", "save", "/report"]).report(&options);
        assert_eq!(report["root"]["probe"].as_str().unwrap().split(' ').next(), Some("file"));

        let mut world = World::new(&["/probe", "sleep"]);
        world.containerd.configure("c1", |config| config["linux"]["rootfsPropagation"] = "rprivate".into());
        let (code, message) = world.create(&options, |_| {}).unwrap_err();
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
        assert!(
            message.contains("linux.rootfsPropagation: private is not safe without pivot_root"),
            "{message}"
        );
        world.create(&config_body("NoPivotRoot = false"), |_| {}).unwrap();
        delete(&mut world.wire, TASK_V3, "c1");
        world.end();
    }
}

/// The path is then a unit's name: a directory path is refused, with systemd and without.
#[test]
fn the_path_of_a_cgroup_is_read_as_systemds_where_the_options_say_so() {
    let message = oci::Options { systemd_cgroup: true, ..Default::default() };
    for options in [config_body("SystemdCgroup = true"), runc(message)] {
        let mut world = World::new(&["/probe", "sleep"]);
        let path = format!("/{}/c1", world.containerd.namespace);
        world.containerd.configure("c1", |config| config["linux"]["cgroupsPath"] = path.clone().into());
        let (code, message) = world.create(&options, |_| {}).unwrap_err();
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
        assert!(message.contains("cgroupsPath") && message.contains(&path), "{message}");
        world.create(&config_body("SystemdCgroup = false"), |_| {}).unwrap();
        delete(&mut world.wire, TASK_V3, "c1");
        world.end();
    }
}

#[test]
fn options_that_are_wrong_are_refused_by_their_name() {
    let mut world = World::new(&["/probe", "sleep"]);
    let missing = world.containerd.dir.path().join("missing.toml");
    for (options, part) in [
        (config_body("IoUid = 'root'"), "IoUid must be a number"),
        (config_body("NoPivotRoot = 1"), "NoPivotRoot must be true or false"),
        (config_body("Root = 'run/runc'"), "Root \"run/runc\" is not an absolute path"),
        (
            config_body("BinaryName = 'no-such-runc'"),
            "BinaryName \"no-such-runc\": executable file not found",
        ),
        (config_body("BinaryName = 'sh'"), "BinaryName \"sh\": this shim is the runtime itself"),
        (config_body("no toml"), "ConfigBody is not TOML"),
        (config_path(&missing), "missing.toml"),
        (config_path(Path::new("shoal.toml")), "is not an absolute path"),
    ] {
        let (code, message) = world.create(&options, |_| {}).unwrap_err();
        assert_eq!(code, Code::INVALID_ARGUMENT, "{message}");
        assert!(message.contains(part), "{message}");
    }
    world.end();
}

/// containerd's own tests look for `<Root>/<namespace>/<id>`, and so do monitors of runc's containers.
#[test]
fn the_folder_below_the_root_of_the_options_has_the_record_while_the_container_is_there() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("runtime/root");
    let message = runc(oci::Options { root: root.to_str().unwrap().into(), ..Default::default() });
    for (options, lost) in [(message, false), (config_body(&format!("Root = '{}'", root.display())), true)] {
        let mut world = World::new(&["/probe", "sleep"]);
        let place = root.join(&world.containerd.namespace).join("c1");
        let pid = world.create(&options, |_| {}).unwrap();
        let record: Value =
            serde_json::from_slice(&std::fs::read(place.join("shoal.json")).unwrap()).unwrap();
        assert_eq!((&record["id"], &record["pid"]), (&"c1".into(), &pid.into()));
        if lost {
            kill_process(connect(&mut world.wire, TASK_V3, "c1").shim_pid);
            assert_eq!(world.containerd.delete("c1").pid, pid);
            assert!(!place.exists());
            world.containerd.remove_bundle("c1");
            continue;
        }
        // A failed create removes what it made; and a second container's directory stays as long as the container.
        world.containerd.prepare("c2", &["/no-such-program"], json!({}));
        let mut request = create_request(&world.containerd, "c2");
        request.options = Some(options.clone()).into();
        world.wire.task::<CreateTaskResponse>("Create", &request).unwrap_err();
        assert!(!place.with_file_name("c2").exists());
        world.containerd.remove_bundle("c2");
        kill(&mut world.wire, TASK_V3, "c1");
        wait(&mut world.wire, TASK_V3, "c1");
        assert!(place.join("shoal.json").exists());
        delete(&mut world.wire, TASK_V3, "c1");
        assert!(!place.exists());
        world.end();
    }
    // What belongs to somebody else stays.
    let mut world = World::new(&["/probe", "sleep"]);
    let place = root.join(&world.containerd.namespace).join("c1");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("state.json"), "{}").unwrap();
    world.create(&config_body(&format!("Root = '{}'", root.display())), |_| {}).unwrap();
    delete(&mut world.wire, TASK_V3, "c1");
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 1);
    world.end();
}

#[test]
fn another_runtime_by_name_is_refused_when_the_shim_starts_and_when_it_creates() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    for (name, why) in [("no-such-runc", "executable file not found in $PATH"), ("sh", "ignore_binary_name")]
    {
        let message = runc(oci::Options { binary_name: name.into(), ..Default::default() });
        for options in [message, config_body(&format!("BinaryName = '{name}'"))] {
            let error = containerd.try_start("c1", &bundle, Some(&options)).unwrap_err();
            assert!(error.contains(&format!("BinaryName {name:?}: ")) && error.contains(why), "{error}");
        }
    }
    assert!(!bundle.join("address").exists());
    containerd.remove_bundle("c1");
}

//! What a request itself names by path: followed by a process that can be killed, wherever it leads.

use crate::ask::{self, answers, Asked};
use crate::files::{forget, streams};
use crate::fuse::Waits;
use crate::world::World;
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use protobuf::well_known_types::any::Any;
use std::time::Duration;

/// How long a create that was killed may take to be answered.
const GRACE: Duration = Duration::from_secs(1);

/// What else a Create names by a path.
pub fn named(world: &mut World, host: &str) -> Vec<CreateTaskRequest> {
    let mut all = Vec::new();
    for (id, target) in
        [("config.json", "dir-config/hang"), ("config-open", "passwd-c"), ("config-read", "slow-c")]
    {
        let request = world.create_request(id);
        std::fs::create_dir_all(&request.bundle).unwrap();
        std::os::unix::fs::symlink(format!("{host}/{target}"), format!("{}/config.json", request.bundle))
            .unwrap();
        all.push(request);
    }
    all.push(CreateTaskRequest {
        bundle: format!("{host}/dir-bundle/hang"),
        ..world.create_request("bundle")
    });
    for (key, target) in [
        ("BinaryName", "dir-binary/hang"),
        ("Root", "dir-root-option/hang"),
        ("Root-mkdir", "dir-mkdir"),
        ("Root-link", "dir-mkdir"),
        ("ConfigPath", "slow-o"),
    ] {
        world.prepare(key, &["/probe", "sleep"], |_| ());
        let path = format!("{host}/{target}");
        // `runtimeoptions.v1.Options`: a path (2), or a body (3).
        let name = key.split('-').next().unwrap();
        let path = match key {
            // On the filesystem of the bundle, but what it leads to is not.
            "Root-link" => {
                let link = world.containerd.dir.path().join("link");
                std::os::unix::fs::symlink(path, &link).unwrap();
                link.to_str().unwrap().to_owned()
            }
            _ => path,
        };
        let (tag, text) = if key == "ConfigPath" { (18, path) } else { (26, format!("{name} = '{path}'")) };
        let mut value = vec![tag, u8::try_from(text.len()).unwrap()];
        value.extend_from_slice(text.as_bytes());
        let options = Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Default::default() };
        all.push(CreateTaskRequest { options: Some(options).into(), ..world.create_request(key) });
    }
    world.prepare("IoUid", &["/probe", "sleep"], |_| ());
    let body = b"IoUid = 7";
    let value = [&[26, body.len() as u8], &body[..]].concat();
    let options = Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Default::default() };
    let stdout = format!("{host}/fifo-stdout");
    all.push(CreateTaskRequest { stdout, options: Some(options).into(), ..world.create_request("IoUid") });
    all
}

/// A file is closed where nobody waits for it, even one that no terminal was attached to.
#[test]
fn a_create_that_fails_does_not_wait_for_the_file_of_its_terminal() {
    apart("launch_timeout = 2", || {
        let mut world = World::new(Waits::UntilKilled);
        let host = world.fuse.path.to_str().unwrap().to_owned();
        world.prepare("c1", &["/probe", "sleep"], |config| config["process"]["terminal"] = true.into());
        let stdout = format!("{host}/flush-log");
        let request = CreateTaskRequest { stdout, terminal: true, ..world.create_request("c1") };
        let asked = vec![world.line().task("c1", "Create", &request, Duration::ZERO)];
        for answer in answers(asked, slow(GRACE)) {
            // It has no devpts.
            if !answer.refusal().is_some_and(|(_, words)| words.contains("process.terminal: ")) {
                world.complain(format!("{answer}"));
            }
        }
        assert!(world.fuse.held() > 0, "nobody closes the file");
        world.fuse.kill();
        world.end("a terminal's file");
    });
}

/// Whoever waits for a path is no container yet, and ends all the same.
#[test]
fn a_create_that_waits_for_a_path_of_its_request_can_be_killed() {
    apart("launch_timeout = 100", || {
        let mut world = World::new(Waits::UntilKilled);
        let host = world.fuse.path.to_str().unwrap().to_owned();
        let mut all = named(&mut world, &host);
        for (id, [stdin, stdout, stderr]) in streams(&host) {
            world.prepare(id, &["/probe", "sleep"], |_| ());
            all.push(CreateTaskRequest { stdin, stdout, stderr, ..world.create_request(id) });
        }
        // Its limit is its own, and shorter than any kill: see the tests of loggers.
        all.retain(|request| !request.id.starts_with("logger"));
        let ask =
            |request: &CreateTaskRequest| world.line().task(&request.id, "Create", request, Duration::ZERO);
        let asked: Vec<Asked> = all.iter().map(ask).collect();
        std::thread::sleep(slow(Duration::from_millis(500)));
        for request in &all {
            if let Err(e) = world.line().call::<Empty>("Kill", &ask::kill_request(&request.id, "")) {
                world.complain(format!("kill {}: {e:?}", request.id));
            }
        }
        for answer in answers(asked, slow(GRACE)) {
            println!("  {answer}");
            if !answer.refusal().is_some_and(|(_, words)| words.contains("it was killed")) {
                world.complain(format!("{answer}"));
            }
        }
        for request in &all {
            forget(&mut world, &request.id);
        }
        world.end("creates that were killed");
    });
}

/// What is not on the filesystem of the shim's own bundle, and answers, is as good as what is.
#[test]
fn paths_on_another_filesystem_that_answers_are_opened() {
    apart("", || {
        let mut world = World::new(Waits::UntilKilled);
        let other = world.containerd.dir.path().join("other");
        std::fs::create_dir(&other).unwrap();
        nix::mount::mount(
            Some("tmpfs"),
            &other,
            Some("tmpfs"),
            nix::mount::MsFlags::empty(),
            Some("size=8m"),
        )
        .unwrap();
        let fifo = |name: &str| {
            let path = other.join(name);
            nix::unistd::mkfifo(&path, nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let [stdin, stdout, exec_out] = ["in", "out", "exec"].map(fifo);
        let options = other.join("options.toml");
        std::fs::write(&options, format!("Root = '{}'", other.join("root").display())).unwrap();
        let mut value = vec![18, u8::try_from(options.as_os_str().len()).unwrap()];
        value.extend_from_slice(options.as_os_str().as_encoded_bytes());
        let options = Any { type_url: "runtimeoptions.v1.Options".into(), value, ..Default::default() };
        world.prepare("c1", &["/probe", "stat", "/"], |_| ());
        let bundle = world.containerd.bundle("c1");
        std::fs::copy(bundle.join("config.json"), other.join("config.json")).unwrap();
        std::fs::remove_file(bundle.join("config.json")).unwrap();
        std::os::unix::fs::symlink(other.join("config.json"), bundle.join("config.json")).unwrap();
        let request = CreateTaskRequest {
            stdin,
            stdout: stdout.clone(),
            options: Some(options).into(),
            ..world.create_request("c1")
        };
        let read = |path: &str| {
            let path = path.to_owned();
            std::thread::spawn(move || std::fs::read_to_string(path).unwrap())
        };
        let output = read(&stdout);
        world.line().call::<CreateTaskResponse>("Create", &request).unwrap();
        let shown = other.join("root").join(&world.containerd.namespace).join("c1/shoal.json");
        assert!(shown.exists(), "{shown:?}");
        world.line().call::<StartResponse>("Start", &ask::start_request("c1", "")).unwrap();
        // It ends since nobody but the container has the fifo open for writing.
        assert!(!output.join().unwrap().is_empty());
        world.line().call::<WaitResponse>("Wait", &ask::wait_request("c1", "")).unwrap();
        world.line().call::<DeleteResponse>("Delete", &ask::delete_request("c1", "")).unwrap();
        assert!(!shown.exists());

        let log = other.join("made/for/log");
        world.prepare("c2", &["/probe", "sleep"], |_| ());
        let stdout = format!("file://{}", log.display());
        let request = CreateTaskRequest { stdout, ..world.create_request("c2") };
        world.line().call::<CreateTaskResponse>("Create", &request).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c2", "")).unwrap();
        assert!(log.exists());
        let request = ask::exec_request("c2", "null", &ask::process(&["/probe", "stat", "/"]));
        let request = ExecProcessRequest { stdout: "file:///dev/null".into(), ..request };
        world.line().call::<Empty>("Exec", &request).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c2", "null")).unwrap();
        world.line().call::<WaitResponse>("Wait", &ask::wait_request("c2", "null")).unwrap();
        world.line().call::<DeleteResponse>("Delete", &ask::delete_request("c2", "null")).unwrap();
        let output = read(&exec_out);
        let request = ask::exec_request("c2", "e", &ask::process(&["/probe", "stat", "/"]));
        world.line().call::<Empty>("Exec", &ExecProcessRequest { stdout: exec_out, ..request }).unwrap();
        world.line().call::<StartResponse>("Start", &ask::start_request("c2", "e")).unwrap();
        world.line().call::<WaitResponse>("Wait", &ask::wait_request("c2", "e")).unwrap();
        world.line().call::<DeleteResponse>("Delete", &ask::delete_request("c2", "e")).unwrap();
        assert!(!output.join().unwrap().is_empty());
        world.end_container("c2");
        nix::mount::umount2(&other, nix::mount::MntFlags::MNT_DETACH).unwrap();
        world.end("another filesystem");
    });
}

//! A filesystem whose server is gone, wherever a path of a request or of a specification can lead. Each request is
//! answered within its time, even if the waiting process cannot be killed; all others are served meanwhile, and
//! nothing is left once that server has ended.

use crate::ask::{self, answers, Answered, Asked};
use crate::fuse::Waits;
use crate::hear::threads;
use crate::named::named;
use crate::world::{World, NEIGHBOUR};
use crate::{apart, slow};
use containerd_shim_protos::api::*;
use serde_json::{json, Value};
use std::time::Duration;
use testbed::fake::eventually;
use testbed::wire::NF;

/// The time limit of each request.
const LIMIT: Duration = Duration::from_secs(1);
/// How late an answer may be.
const GRACE: Duration = Duration::from_secs(1);
/// When an answer counts as missing.
const NEVER: Duration = Duration::from_secs(7);

/// More than the shim has workers for requests that wait for nothing.
const MANY: usize = 70;

/// Who accesses the filesystem.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    /// The shim itself, before it makes a process.
    Shim,
    /// The process of a create or an exec, on its way to its program.
    Process,
}

fn who(place: &str) -> Who {
    match place {
        "stdin" | "stdout" | "stdout-open" | "stderr" | "log-file" | "log-open" | "logger"
        | "logger-read" => Who::Shim,
        "bundle" | "config.json" | "config-open" | "config-read" | "ConfigPath" | "BinaryName" | "Root"
        | "Root-mkdir" => Who::Shim,
        _ => Who::Process,
    }
}

/// Returns changes to a container's specification that make its Create hang; `host` is the filesystem's path outside.
fn specifications(host: &str) -> Vec<(&'static str, Value)> {
    let mount = |destination: &str, source: &str, kind: &str, options: &[&str]| {
        json!({ "mounts+": [
            { "destination": destination, "source": source, "type": kind, "options": options },
        ] })
    };
    let whole = json!({
        "root": { "path": format!("{host}/dir-whole") },
        "mounts": [{ "destination": "/hang", "source": "tmpfs", "type": "tmpfs" }],
    });
    let device = json!({ "path": "/f/dir-device/hang/null", "type": "c", "major": 1, "minor": 3 });
    let hook = json!([{ "path": format!("{host}/dir-hook/hang") }]);
    let ipc = json!({ "type": "ipc", "path": format!("{host}/dir-namespace/hang") });
    let mut passwd = mount("/etc", &format!("{host}/dir-etc"), "none", &["rbind"]);
    passwd["process"] = json!({ "env": [] });
    vec![
        ("bind-source", mount("/mnt", &format!("{host}/dir-source/hang"), "none", &["rbind"])),
        ("mount-target", mount("/f/dir-target/hang/t", "tmpfs", "tmpfs", &[])),
        ("rootfs", json!({ "root": { "path": format!("{host}/dir-root/hang") } })),
        ("rootfs-target", whole),
        ("cwd", json!({ "process": { "cwd": "/f/dir-cwd/hang" } })),
        ("program", json!({ "process": { "args": ["/f/dir-program/hang"] } })),
        ("passwd", passwd),
        ("device", json!({ "linux": { "devices": [device] } })),
        ("masked", json!({ "linux": { "maskedPaths": ["/f/dir-masked/hang"] } })),
        ("readonly", json!({ "linux": { "readonlyPaths": ["/f/dir-readonly/hang"] } })),
        ("hook", json!({ "hooks": { "createRuntime": hook } })),
        ("namespace", json!({ "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }, ipc] } })),
    ]
}

/// Streams of a request: its input, its output and its errors.
pub fn streams(host: &str) -> Vec<(&'static str, [String; 3])> {
    let none = String::new;
    vec![
        ("stdin", [format!("{host}/dir-stdin/hang"), none(), none()]),
        ("stdout", [none(), format!("{host}/dir-stdout/hang"), none()]),
        ("stdout-open", [none(), format!("{host}/passwd-stdout"), none()]),
        ("stderr", [none(), none(), format!("{host}/dir-stderr/hang")]),
        ("log-file", [none(), format!("file://{host}/dir-log/hang"), none()]),
        ("log-open", [none(), format!("file://{host}/passwd-log"), none()]),
        ("logger", [none(), format!("binary://{host}/dir-logger/hang"), none()]),
        ("logger-read", [none(), format!("binary://{host}/slow-logger"), none()]),
    ]
}

/// The field, and the path as the request has it.
fn words(place: &str) -> &str {
    match place {
        "stdout-open" | "log-file" | "log-open" => "stdout: ",
        "IoUid" => "stdout: ",
        "stdin" => "stdin: ",
        "stdout" => "stdout: ",
        "stderr" => "stderr: ",
        "logger" | "logger-read" => "start logging program: ",
        "bundle" => "bundle: ",
        "config.json" | "config-open" | "config-read" => "config.json",
        "ConfigPath" | "BinaryName" | "Root" | "Root-mkdir" | "Root-link" => "options: ",
        other => panic!("{other}"),
    }
}

/// Merges objects; `mounts+` appends.
fn merge(config: &mut Value, change: &Value) {
    for (key, value) in change.as_object().unwrap() {
        if let Some(list) = key.strip_suffix('+') {
            config[list].as_array_mut().unwrap().extend(value.as_array().unwrap().iter().cloned());
        } else if value.is_object() && config[key].is_object() {
            merge(&mut config[key], value);
        } else {
            config[key] = value.clone();
        }
    }
}

fn in_time(answer: &Answered) -> bool {
    let soon = |(time, _): &(Duration, _)| *time < LIMIT + slow(GRACE);
    !answer.good() && answer.answer.as_ref().is_some_and(soon)
}

/// Collects the answers, and checks before and after that neighbours are served.
fn judge(world: &mut World, asked: Vec<Asked>, neighbours: &[&str]) -> Vec<Answered> {
    std::thread::sleep(Duration::from_millis(200));
    world.hear(neighbours);
    let answered = answers(asked, slow(NEVER));
    world.hear(neighbours);
    println!("  {} requests are held by the filesystem", world.fuse.held());
    answered
}

fn complain(world: &mut World, answered: Vec<Answered>) {
    for answer in answered {
        println!("  {answer}");
        if !in_time(&answer) {
            world.complain(format!("{answer}"));
        }
    }
}

/// Complains about late answers. If the shim follows the path, the error must name it and no thread may stay lost.
fn complain_of(world: &mut World, of: Who, answered: Vec<Answered>, before: usize) {
    if of == Who::Shim {
        for answer in &answered {
            let refusal = answer.refusal().map(|(_, text)| text.clone()).unwrap_or_default();
            if !refusal.contains(words(&answer.what)) || !refusal.contains("not done within") {
                world.complain(format!("{}: {refusal}", answer.what));
            }
        }
        threads_are_back(world, before);
    }
    complain(world, answered);
}

/// Checks that no thread waits for the filesystem, which still holds the requests. Idle threads end in a moment.
fn threads_are_back(world: &mut World, before: usize) {
    if !eventually(|| threads(world.server) <= before) {
        world.complain(format!("{} threads, {before} before", threads(world.server)));
    }
}

fn creates(of: Who, waits: Waits) {
    apart("launch_timeout = 2", || {
        let mut world = World::new(waits);
        let host = world.fuse.path.to_str().unwrap().to_owned();
        let mut all = Vec::new();
        for (id, change) in specifications(&host).into_iter().filter(|(id, _)| who(id) == of) {
            world.prepare(id, &["/probe", "sleep"], |config| merge(config, &change));
            all.push(world.create_request(id));
        }
        for (id, [stdin, stdout, stderr]) in streams(&host).into_iter().filter(|(id, _)| who(id) == of) {
            world.prepare(id, &["/probe", "sleep"], |_| ());
            all.push(CreateTaskRequest { stdin, stdout, stderr, ..world.create_request(id) });
        }
        if of == Who::Shim {
            all.extend(named(&mut world, &host));
        }
        let before = threads(world.server);
        let ask = |request: &CreateTaskRequest| world.line().task(&request.id, "Create", request, LIMIT);
        let asked = all.iter().map(ask).collect();
        let answered = judge(&mut world, asked, &[NEIGHBOUR]);
        complain_of(&mut world, of, answered, before);
        world.fuse.kill();
        for request in all {
            forget(&mut world, &request.id);
        }
        world.end("creates");
    });
}

/// It comes to its end once the filesystem's server is gone, also where that is too late: NotFound says that its create
/// has ended, and has left nothing.
pub fn forget(world: &mut World, id: &str) {
    let _ = world.line().call::<DeleteResponse>("Delete", &ask::delete_request(id, ""));
    let state = StateRequest { id: id.into(), ..Default::default() };
    let found = world.line().call::<StateResponse>("State", &state);
    if !matches!(found, Err((NF, _))) {
        world.complain(format!("{id} is there after its Delete"));
    }
}

#[test]
fn a_create_is_answered_wherever_its_process_waits_for_a_filesystem() {
    creates(Who::Process, Waits::UntilKilled);
}

#[test]
fn a_create_is_answered_wherever_its_process_cannot_be_killed() {
    creates(Who::Process, Waits::ForEver);
}

#[test]
fn a_create_is_answered_where_a_path_of_its_request_does_not_answer() {
    creates(Who::Shim, Waits::UntilKilled);
}

#[test]
fn a_create_is_answered_where_whoever_follows_a_path_of_its_request_cannot_be_killed() {
    creates(Who::Shim, Waits::ForEver);
}

fn exec_process(key: &str, value: Value) -> Value {
    let mut process = ask::process(&["/probe", "sleep"]);
    process[key] = value;
    process
}

fn execs(of: Who, waits: Waits) {
    apart("launch_timeout = 2", || {
        let mut world = World::new(waits);
        let host = world.fuse.path.to_str().unwrap().to_owned();
        // A container for these execs alone, since an exec that cannot be killed keeps it from ending.
        world.prepare("c1", &["/probe", "sleep"], |config| {
            config["process"]["env"] = json!(["HOME=/"]);
            let etc =
                json!({ "destination": "/etc", "source": format!("{host}/dir-etc"), "options": ["rbind"] });
            merge(config, &json!({ "mounts+": [etc] }));
        });
        world.run("c1");
        let plain = ask::process(&["/probe", "sleep"]);
        let mut requests = vec![
            ask::exec_request("c1", "cwd", &exec_process("cwd", json!("/f/dir-cwd/hang"))),
            ask::exec_request("c1", "path", &exec_process("args", json!(["/f/dir-path/hang"]))),
            ask::exec_request("c1", "program", &exec_process("args", json!(["/f/slow"]))),
            ask::exec_request("c1", "passwd", &exec_process("env", json!([]))),
        ];
        for (exec, [stdin, stdout, stderr]) in streams(&host) {
            let request = ask::exec_request("c1", exec, &plain);
            requests.push(ExecProcessRequest { stdin, stdout, stderr, ..request });
        }
        let before = threads(world.server);
        let mut asked = Vec::new();
        for request in requests.iter().filter(|request| who(&request.exec_id) == of) {
            world.line().call::<Empty>("Exec", request).unwrap();
            let start = ask::start_request("c1", &request.exec_id);
            asked.push(world.line().task(&request.exec_id, "Start", &start, LIMIT));
        }
        let answered = judge(&mut world, asked, &["c1", NEIGHBOUR]);
        complain_of(&mut world, of, answered, before);
        world.fuse.kill();
        world.end_container("c1");
        world.end("starts of execs");
    });
}

#[test]
fn an_exec_is_answered_wherever_its_process_waits_for_a_filesystem() {
    execs(Who::Process, Waits::UntilKilled);
}

#[test]
fn an_exec_is_answered_wherever_its_process_cannot_be_killed() {
    execs(Who::Process, Waits::ForEver);
}

#[test]
fn an_exec_is_answered_where_a_path_of_its_request_does_not_answer() {
    execs(Who::Shim, Waits::UntilKilled);
}

#[test]
fn an_exec_is_answered_where_whoever_follows_a_path_of_its_request_cannot_be_killed() {
    execs(Who::Shim, Waits::ForEver);
}

/// Runs many requests of one kind. The kinds hang in different places: in the shim, in a process on its way, and in a
/// process that the container can already see.
fn many(what: &str, request: fn(&World, usize) -> Asked) {
    apart("launch_timeout = 2", || {
        let mut world = World::new(Waits::ForEver);
        world.prepare("c1", &["/probe", "sleep"], |_| ());
        world.run("c1");
        let before = threads(world.server);
        let asked: Vec<Asked> = (0..MANY).map(|number| request(&world, number)).collect();
        let answered = judge(&mut world, asked, &["c1", NEIGHBOUR]);
        threads_are_back(&mut world, before);
        let late: Vec<&Answered> = answered.iter().filter(|answer| !in_time(answer)).collect();
        if let Some(first) = late.first() {
            world.complain(format!("{} of {MANY} are late, e.g. {first}", late.len()));
        }
        world.fuse.kill();
        world.end_container("c1");
        world.end(what);
    });
}

fn start_exec(world: &World, exec: &str, request: ExecProcessRequest) -> Asked {
    world.line().call::<Empty>("Exec", &request).unwrap();
    world.line().task(exec, "Start", &ask::start_request("c1", exec), LIMIT)
}

#[test]
fn many_execs_whose_directory_does_not_answer_are_answered() {
    many("directories", |world, number| {
        let exec = format!("e{number}");
        let process = exec_process("cwd", format!("/f/dir-cwd{number}/hang").into());
        start_exec(world, &exec, ask::exec_request("c1", &exec, &process))
    });
}

#[test]
fn many_execs_whose_program_is_not_read_are_answered() {
    many("programs", |world, number| {
        let exec = format!("e{number}");
        let process = exec_process("args", json!([format!("/f/slow{number}")]));
        start_exec(world, &exec, ask::exec_request("c1", &exec, &process))
    });
}

#[test]
fn many_execs_whose_output_is_not_opened_are_answered() {
    many("streams", |world, number| {
        let exec = format!("e{number}");
        let stdout = format!("{}/dir-out{number}/hang", world.fuse.path.display());
        let request = ask::exec_request("c1", &exec, &ask::process(&["/probe", "sleep"]));
        start_exec(world, &exec, ExecProcessRequest { stdout, ..request })
    });
}

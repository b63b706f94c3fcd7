//! The same attacks under real servers: docker, containerd with ctr, and a CRI pod whose containers share their
//! processes. runc is the control for what holds for it too: its processes are in all of the container's namespaces
//! when they first become visible, but have more rights and descriptors than the program will have.

use crate::ambush::{members, Ambush};
use crate::judge::OWN;
use crate::planted::Host;
use crate::trap::Trap;
use nix::sys::signal::{kill, Signal};
use nix::unistd::Pid;
use serde_json::json;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use testbed::cri;
use testbed::{end, patience, until, Case, Containerd, DockerCase, Runtime};

const PROBE: &str = env!("CARGO_BIN_EXE_probe");

/// A server's exec takes a tenth of a second.
const ATTACKS: &[(&str, u32)] = &[("stop", 10), ("step", 4), ("trace", 4)];

/// What holds for runc as well.
const EVERYBODYS: &[&str] = &["root is not", "mountinfo is", "host_", "PLANTED"];

const VICTIM: &[&str] = &["/probe", "linger", "3"];

mod under_docker {
    use testbed::{docker_case, Ids, Runtime::*, Suite::*};
    #[test]
    fn runc_on_docker_28() {
        docker_case(Forky, Ids::Plain, Runc, "attacked", super::docker)
    }
    #[test]
    fn shoal_on_docker_28() {
        docker_case(Forky, Ids::Plain, Shoal, "attacked", super::docker)
    }
}

mod under_containerd {
    use testbed::{case, Runtime::*, Suite::*};
    #[test]
    fn runc_on_2_1() {
        case(Forky, Runc, "attacked", super::containerd)
    }
    #[test]
    fn shoal_on_2_1() {
        case(Forky, Shoal, "attacked", super::containerd)
    }
}

mod in_a_pod {
    use testbed::cri::{case, Mode::*};
    use testbed::Suite::*;
    #[test]
    fn runc_podsandbox_on_2_1() {
        case(Forky, Runc, "attacked", super::pod)
    }
    #[test]
    fn shoal_podsandbox_on_2_1() {
        case(Forky, Shoal, "attacked", super::pod)
    }
    #[test]
    fn shoal_shim_on_2_1() {
        case(Forky, Shim, "attacked", super::pod)
    }
}

/// Makes an attacker's directory, and plants in the machine of a server.
fn plant(containerd: &Containerd, exact: bool) -> (Ambush, Vec<String>) {
    let dir = containerd.dir("ambush");
    let _ = std::fs::remove_dir_all(&dir); // of another case
    std::fs::create_dir_all(&dir).expect("make a folder");
    let host = Host::plant_in(&dir, containerd.pid());
    let program = host.attack("/catch");
    let mut ambush = Ambush::new(host, Trap::set(&dir.join("catch")), exact);
    ambush.facts.streams = ["-stdin", "-stdout", "-stderr"].map(str::to_owned).to_vec();
    (ambush, program)
}

/// Learns of the program of a detached exec.
fn learn_of_exec(ambush: &mut Ambush) {
    let pid = until("the exec to run", 20, || {
        let members = ambush.namespaces.iter().flat_map(|namespace| members(namespace)).collect::<Vec<_>>();
        let sleeps = |pid: &u32| {
            std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|words| words == b"/probe\0sleep\0")
        };
        members.into_iter().find(sleeps)
    });
    ambush.learn(pid);
    let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL); // it sleeps for ever
}

/// Makes every attack on what `victim` creates.
fn attack(ambush: &mut Ambush, mut victim: impl FnMut(u32)) {
    let mut number = 0;
    for (mode, count) in ATTACKS {
        ambush.trap.mode(mode);
        let before = ambush.trap.seen();
        for _ in 0..*count {
            number += 1;
            victim(number);
        }
        let seen = ambush.trap.seen() - before;
        assert!(*mode != "stop" || seen >= u64::from(count / 3), "the attacker has seen {seen} of {count}");
    }
}

/// Reports what was found before anything is removed: the removal may fail too.
fn judge(ambush: &mut Ambush, control: bool, what: &str) {
    let inside = ambush.judge();
    println!("{what}: {inside} caught from inside, of {}", ambush.trap.seen());
    if control {
        ambush.verdict.keep(EVERYBODYS);
    }
    for (complaint, count) in &ambush.verdict.0 {
        println!("  {count:4} x {complaint}");
    }
}

fn words(program: &[String]) -> Vec<&str> {
    program.iter().map(String::as_str).collect()
}

/// Checks that clients of held processes end with the container.
fn gone(clients: Vec<Child>) {
    for mut client in clients {
        assert!(end(&mut client, patience(10)).is_some(), "a client waits for what is gone");
    }
}

fn docker(case: &DockerCase<'_>) {
    for added in [&[][..], &["--cap-add", "SYS_PTRACE"]] {
        let (mut ambush, program) = plant(&case.docker.containerd, true);
        let volumes = [format!("{PROBE}:/probe:ro"), format!("{}:/catch", ambush.trap.0.display())];
        let flags = ["--network", "none", "-v", &volumes[0], "-v", &volumes[1]];
        case.detach(&[&flags[..], added].concat(), &words(&program));
        ambush.watch(case.inspect(".State.Pid").parse().expect("a pid"));
        ambush.trap.mode("wait");
        let own = format!("OWN={OWN}");
        case.exec(&["-d", "-e", &own], &["/probe", "sleep"]).ok();
        learn_of_exec(&mut ambush);
        attack(&mut ambush, |_| drop(case.exec(&["-e", &own], VICTIM)));
        ambush.trap.mode("hold");
        let client = || {
            let mut command = case.docker.command(["exec", &case.name, "/probe", "sleep"]);
            command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("run docker")
        };
        let clients = vec![client(), client()];
        std::thread::sleep(Duration::from_secs(1));
        ambush.look_from_outside();
        judge(&mut ambush, case.runtime == Runtime::Runc, "docker");
        case.remove();
        gone(clients);
        ambush.verdict.assert_empty("docker");
    }
}

fn containerd(case: &mut Case<'_>) {
    for added in [&[][..], &["--cap-add", "CAP_SYS_PTRACE"]] {
        let (mut ambush, program) = plant(case.containerd, true);
        let mount =
            |from: &Path, to: &str| format!("type=bind,src={},dst={to},options=rbind:rw", from.display());
        let mounts = [mount(Path::new(PROBE), "/probe"), mount(&ambush.trap.0, "/catch")];
        let flags = ["--mount", &mounts[0], "--mount", &mounts[1]];
        case.detach(&[&flags[..], added].concat(), &words(&program));
        ambush.watch(case.pid());
        ambush.trap.mode("wait");
        let client = |exec: &str| {
            let mut command = case.exec_command(&["--exec-id", exec], &["/probe", "sleep"]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.spawn().expect("run ctr")
        };
        let first = client("program");
        learn_of_exec(&mut ambush);
        gone(vec![first]);
        attack(&mut ambush, |number| drop(case.exec(&["--exec-id", &format!("v{number}")], VICTIM)));
        ambush.trap.mode("hold");
        let clients = vec![client("h1"), client("h2")];
        std::thread::sleep(Duration::from_secs(1));
        ambush.look_from_outside();
        judge(&mut ambush, case.runtime == Runtime::Runc, "containerd");
        case.remove();
        gone(clients);
        ambush.verdict.assert_empty("containerd");
    }
}

fn pod(case: &mut cri::Case<'_>) {
    let (mut ambush, program) = plant(&case.node.containerd, false);
    let pod = case.pod(json!({ "linux": { "security_context": { "namespace_options": { "pid": "POD" } } } }));
    let config = |command: &[&str]| {
        json!({
            "command": command,
            "mounts": [
                { "container_path": "/probe", "host_path": PROBE, "readonly": true },
                { "container_path": "/catch", "host_path": ambush.trap.0 },
            ],
            "envs": [{ "key": "OWN", "value": OWN }],
            "linux": { "security_context": { "capabilities": { "add_capabilities": ["SYS_PTRACE"] } } },
        })
    };
    let attacker = pod.start("attacker", config(&words(&program)));
    let member = config(&["/probe", "sleep"]);
    ambush.watch(attacker.pid());
    ambush.trap.mode("wait");
    let first = pod.start("first", member.clone());
    ambush.learn(first.pid());
    first.stop(0);
    first.remove();
    // runc makes a container's root when the members of the pod can already see it, so only its execs are a control.
    // And runc never answers a held exec, whatever its limit.
    let control = case.mode == cri::Mode::Runc;
    attack(&mut ambush, |number| {
        if control || number % 2 == 0 {
            drop(attacker.try_exec(10, VICTIM)); // it may be killed
            return;
        }
        let Ok(victim) = pod.try_create(&format!("v{number}"), member.clone()) else { return };
        drop(victim.try_call("StartContainer"));
        // It may be killed too. CRI learns of an exit in its own way, and takes a container that died at its start for
        // running a moment longer.
        let end = std::time::Instant::now() + patience(10);
        let removed = || {
            victim.stop(0);
            victim.try_call("RemoveContainer").is_ok()
        };
        while !removed() {
            assert!(std::time::Instant::now() < end, "v{number} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let (tell, told) = std::sync::mpsc::channel();
    if !control {
        ambush.trap.mode("hold");
        let container = attacker.clone();
        std::thread::spawn(move || {
            drop(container.try_exec(3, &["/probe", "sleep"])); // there is no good end of it
            let _ = tell.send(());
        });
        std::thread::sleep(Duration::from_secs(1));
        ambush.look_from_outside();
        ambush.trap.mode("wait");
    }
    judge(&mut ambush, control, "a pod of the CRI");
    // A held process is killed with the others.
    attacker.stop(0);
    // CRI counts the time of an ExecSync from its start, so it lasts as long as its container at most.
    if !control && told.recv_timeout(patience(10)).is_err() {
        ambush.verdict.add("an ExecSync that is held is not answered when its container has ended");
    }
    attacker.remove();
    pod.remove();
    ambush.verdict.assert_empty("a pod of the CRI");
}

//! The server as a process: what it inherits, its size, its log, its signals.

use crate::{connect, create, delete, kill, runc, shut_down, start, SHIM};
use containerd_shim_protos::api::*;
use containerd_shim_protos::shim::oci;
use serde_json::json;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use testbed::fake::{ended, eventually, Containerd, Version};
use testbed::wire::TASK_V3;

#[test]
fn the_server_is_a_process_of_its_own() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap();

    let stat = read("stat");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(
        [fields[2], fields[3]],
        [pid.to_string(), pid.to_string()],
        "its process group and session are its own"
    );
    let ours = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    let ours: i32 = ours.trim().parse().unwrap();
    assert_eq!(read("oom_score_adj").trim().parse(), Ok((ours + 1).min(1000)));
    // Executed from a sealed copy: the host's program cannot be reached through it.
    let exe = format!("/proc/{pid}/exe");
    let (sealed, host) = (std::fs::metadata(&exe).unwrap(), std::fs::metadata(SHIM).unwrap());
    assert_ne!((sealed.dev(), sealed.ino()), (host.dev(), host.ino()));
    let error = std::fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    let errno = error.raw_os_error().unwrap();
    assert!([libc::EROFS, libc::ETXTBSY, libc::EPERM].contains(&errno), "{error}");

    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&shim.path), 0o600);
    assert_eq!(std::fs::read_link(format!("/proc/{pid}/cwd")).unwrap(), Path::new("/"));
    shut_down(wire, "c1");
    assert!(eventually(|| ended(pid)));
}

#[test]
fn where_the_program_has_no_path_the_server_runs_from_sealed_memory() {
    let mut containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    containerd.program = containerd.dir.path().join("shim");
    containerd.unlink = true;
    std::fs::hard_link(SHIM, &containerd.program)
        .or_else(|_| std::fs::copy(SHIM, &containerd.program).map(drop))
        .unwrap();
    let shim = containerd.try_start("c1", &bundle, None).unwrap();
    assert!(containerd.logged("sealed the program in memory instead: overlayfs over"));
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let exe = format!("/proc/{pid}/exe");
    let link = std::fs::read_link(&exe).unwrap();
    assert!(link.to_str().unwrap().starts_with("/memfd:"), "{link:?}");
    assert_eq!(std::fs::read(&exe).unwrap(), std::fs::read(SHIM).unwrap());
    std::fs::OpenOptions::new().write(true).open(&exe).unwrap_err();
    create(&containerd, &mut wire, TASK_V3, "c1");
    start(&mut wire, TASK_V3, "c1");
    kill(&mut wire, TASK_V3, "c1");
    wire.task::<WaitResponse>("Wait", &WaitRequest { id: "c1".into(), ..Default::default() }).unwrap();
    delete(&mut wire, TASK_V3, "c1");
    shut_down(wire, "c1");
    containerd.program = SHIM.into();
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

#[test]
fn an_option_without_an_effect_is_in_the_log() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let options = oci::Options { criu_image_path: "/images".into(), ..Default::default() };
    let shim = containerd.try_start("c1", &bundle, Some(&runc(options))).unwrap();
    assert!(containerd.logged("start: options: CriuImagePath has no effect"));
    shut_down(containerd.connect(&shim), "c1");
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

#[test]
fn a_server_at_rest_is_small() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    create(&containerd, &mut wire, TASK_V3, "c1");
    start(&mut wire, TASK_V3, "c1");
    wire.ask(TASK_V3, "Wait", &WaitRequest { id: "c1".into(), ..Default::default() }, Duration::ZERO);
    let mut other = containerd.connect(&shim);
    let pid = connect(&mut other, TASK_V3, "c1").shim_pid;
    let number = |key: &str| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u32>().unwrap()
    };
    // The first thread, the reaper and the watch: workers and the events thread have ended.
    assert!(eventually(|| number("Threads:") == 3), "{} threads", number("Threads:"));
    let private = number("RssAnon:");
    assert!(private < 400, "{private} KiB of private memory");
    kill(&mut other, TASK_V3, "c1");
    assert!(wire.next().is_some());
    delete(&mut other, TASK_V3, "c1");
    shut_down(other, "c1");
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

#[test]
fn the_log_survives_a_containerd_that_goes_and_comes_back() {
    let mut containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    assert!(containerd.logged("level=info msg=serving"));
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    assert!(containerd.logged("rpc=Task.Connect object=c1 code=OK"), "BootstrapParams asked for debug lines");
    // containerd does not read the log; the dump that a signal requests meanwhile is logged later.
    containerd.log = std::sync::Arc::default();
    std::thread::sleep(Duration::from_millis(50));
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    send(nix::sys::signal::Signal::SIGUSR1);
    connect(&mut wire, TASK_V3, "c1");
    containerd.read_log(&bundle);
    assert!(containerd.logged("end of state dump"));
    shut_down(wire, "c1");
    assert!(containerd.logged("level=info msg=exiting"));
}

#[test]
fn a_server_with_containers_ignores_a_request_to_terminate() {
    let containerd = Containerd::new(Version::V2_3);
    containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    create(&containerd, &mut wire, TASK_V3, "c1");
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let send = |signal| nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid as i32), signal).unwrap();
    send(nix::sys::signal::Signal::SIGTERM);
    send(nix::sys::signal::Signal::SIGUSR1);
    assert!(containerd.logged("ignored signal 15"));
    assert!(containerd.logged("container c1: created"));
    assert!(!ended(pid));
    delete(&mut wire, TASK_V3, "c1");
    send(nix::sys::signal::Signal::SIGTERM);
    assert!(eventually(|| ended(pid)));
    assert!(!shim.path.exists());
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

/// The client has died before a Create, or during one that then failed.
#[test]
fn a_server_that_nobody_needs_ends() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    // The server survives a restart of the client.
    drop(wire);
    std::thread::sleep(Duration::from_secs(12));
    assert!(!ended(pid));
    let wire = containerd.connect(&shim);
    containerd.remove(&bundle);
    std::thread::sleep(Duration::from_secs(12));
    assert!(!ended(pid));
    drop(wire);
    std::thread::sleep(Duration::from_secs(3));
    assert!(!ended(pid));
    std::thread::sleep(Duration::from_secs(7));
    assert!(eventually(|| ended(pid)) && !shim.path.exists());
}

#[test]
fn the_socket_is_where_the_parameters_say() {
    let mut containerd = Containerd::new(Version::V2_3);
    let folder = containerd.dir.path().join("sockets/here");
    containerd.socket_dir = Some(folder.clone());
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let shim = containerd.start("c1");
    assert_eq!(shim.path.parent(), Some(&*folder));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&folder), mode(&shim.path)), (0o700, 0o600));
    let address = std::fs::read_to_string(bundle.join("address")).unwrap();
    assert_eq!(address, format!("unix://{}", shim.path.display()));
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    // A second launch finds the same server.
    assert_eq!(containerd.start("c1").path, shim.path);
    shut_down(wire, "c1");
    assert!(eventually(|| ended(pid)));
    assert!(!shim.path.exists());
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

/// Returns the core-scheduling cookie of a process, or the kernel's error without core scheduling.
fn cookie(pid: u32) -> nix::Result<u64> {
    let mut cookie = 0u64;
    // SAFETY: PR_SCHED_CORE_GET writes one u64 to where the last argument points, which lives for the call.
    let answer =
        unsafe { libc::prctl(libc::PR_SCHED_CORE, libc::PR_SCHED_CORE_GET, pid, 0, &raw mut cookie) };
    nix::errno::Errno::result(answer).map(|_| cookie)
}

/// As with the Go shim: with a core-scheduling cookie of its own, or not at all.
#[test]
fn a_shim_that_is_to_share_its_core_with_nobody_does_not_or_fails() {
    let mut containerd = Containerd::new(Version::V2_3);
    containerd.environment.push(("SCHED_CORE", "1"));
    containerd.socket_dir = Some(containerd.dir.path().join("s"));
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    let started = containerd.try_start("c1", &bundle, None);
    if let Err(errno) = cookie(0) {
        println!("this kernel has no core scheduling: {errno}");
        let error = started.unwrap_err();
        assert!(error.contains("prctl(PR_SCHED_CORE, CREATE): "), "{error}");
        assert!(error.contains(&format!("({errno:?})")), "{error}");
        assert!(!bundle.join("address").exists());
        let sockets = std::fs::read_dir(containerd.socket_dir.as_ref().unwrap()).unwrap();
        assert_eq!(sockets.count(), 0, "a socket is left");
        return;
    }
    let mut wire = containerd.connect(&started.unwrap());
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let (theirs, ours) = (cookie(pid).unwrap(), cookie(0).unwrap());
    assert!(theirs != 0 && theirs != ours, "{theirs}, {ours}");
    let container = create(&containerd, &mut wire, TASK_V3, "c1");
    assert_eq!(cookie(container).unwrap(), theirs, "its containers inherit it");
    delete(&mut wire, TASK_V3, "c1");
    shut_down(wire, "c1");
    containerd.delete("c1");
    containerd.remove_bundle("c1");
}

#[test]
fn the_shim_joins_the_cgroup_that_it_is_told() {
    let containerd = Containerd::new(Version::V2_3);
    let bundle = containerd.prepare("c1", &["/probe", "sleep"], json!({}));
    // In a hierarchy without controllers, or one that limits nothing by itself.
    let places = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup/freezer", "/sys/fs/cgroup"];
    let place = places.map(Path::new).into_iter().find(|place| place.join("cgroup.procs").exists()).unwrap();
    let cgroup = place.join(&containerd.namespace);
    std::fs::create_dir(&cgroup).unwrap();
    let options = oci::Options { shim_cgroup: format!("/{}", containerd.namespace), ..Default::default() };
    let shim = containerd.try_start("c1", &bundle, Some(&runc(options))).unwrap();
    let mut wire = containerd.connect(&shim);
    let pid = connect(&mut wire, TASK_V3, "c1").shim_pid;
    let procs = std::fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
    shut_down(wire, "c1");
    assert!(procs.lines().any(|line| line == pid.to_string()), "{pid} is not in {procs:?}");
    assert!(eventually(|| ended(pid)));
    assert!(eventually(|| std::fs::remove_dir(&cgroup).is_ok()));
}

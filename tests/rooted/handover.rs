//! How the shim gets a filter's listener under tight limits and profiles.

use crate::bench::{program, rooted};
use crate::container::{launch, runc, Bundle};
use crate::listeners::{notify, served, MKDIR};
use serde_json::json;
use shoal::plan::Step;
use shoal::sys::seccomp::{Filter, SockFilter};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};
use testbed::agent::{emulate, Agent};

/// A launch that fails under an early filter has descriptors open, which only its exit may close.
#[test]
fn a_launch_that_fails_closes_nothing_by_leave_of_an_agent() {
    if !rooted("a_launch_that_fails_closes_nothing_by_leave_of_an_agent") {
        return;
    }
    for late in [true, false] {
        let mut bundle = Bundle::new(&["/missing"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["linux"]["maskedPaths"] = json!(["/proc/kcore", "/proc/acpi"]);
        // Where debug assertions are on, the standard library calls fcntl(2) before close(2).
        notify(&mut bundle, &["close", "fcntl", "exit", "exit_group"]);
        let begun = Instant::now();
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.contains("no such file or directory"), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(5), "late: {late}: {:?}", begun.elapsed());
    }
}

/// The container's user may have too many descriptors in flight to send another one: unix(7), ETOOMANYREFS.
#[test]
fn a_user_with_many_descriptors_in_flight_has_a_listener() {
    if !rooted("a_user_with_many_descriptors_in_flight_has_a_listener") {
        return;
    }
    const UID: u32 = 31_337;
    let (full, _far) = std::os::unix::net::UnixStream::pair().unwrap();
    std::thread::scope(|scope| {
        let send = || {
            // SAFETY: takes integers; the ids of this thread alone, which ends then.
            assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, UID, UID, UID) }, 0);
            let many = [full.as_raw_fd(); 200];
            let rights = [nix::sys::socket::ControlMessage::ScmRights(&many)];
            let (part, flags) = ([std::io::IoSlice::new(b"x")], nix::sys::socket::MsgFlags::empty());
            nix::sys::socket::sendmsg::<()>(full.as_raw_fd(), &part, &rights, flags, None).unwrap();
        };
        scope.spawn(send).join().unwrap();
    });
    for late in [true, false] {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["process"]["user"] = json!({ "uid": UID, "gid": UID });
        bundle.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 64, "soft": 64 }]);
        notify(&mut bundle, &MKDIR);
        let made = bundle.root().join("made");
        assert_eq!(served(bundle.create().unwrap(), emulate).0, json!({ "/made": "ok" }), "late: {late}");
        std::fs::remove_dir(made).unwrap();
    }
}

/// A listener needs a descriptor number.
#[test]
fn a_limit_without_room_for_a_listener_is_told() {
    if !rooted("a_limit_without_room_for_a_listener_is_told") {
        return;
    }
    for late in [true, false] {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        bundle.spec["process"]["rlimits"] = json!([{ "type": "RLIMIT_NOFILE", "hard": 3, "soft": 3 }]);
        notify(&mut bundle, &MKDIR);
        let error = bundle.create().err().expect("refused").to_string();
        assert!(error.contains("linux.seccomp") && error.contains("EMFILE"), "late: {late}: {error}");
        let Some(runc) = runc() else { continue };
        let _agent = Agent::listen(&bundle.dir.path().join("agent"), emulate);
        assert!(!bundle.try_runc(&runc).status.success(), "runc");
    }
}

/// A profile may refuse or fake what the launch calls after its filter.
#[test]
fn a_profile_that_allows_little_has_a_listener() {
    if !rooted("a_profile_that_allows_little_has_a_listener") {
        return;
    }
    for (late, action) in
        [(true, "SCMP_ACT_KILL_PROCESS"), (true, "SCMP_ACT_ERRNO"), (false, "SCMP_ACT_ERRNO")]
    {
        let mut bundle = Bundle::new(&["/probe", "mkdir", "/made"]);
        bundle.spec["process"]["noNewPrivileges"] = late.into();
        notify(&mut bundle, &MKDIR);
        let refused =
            json!({ "names": ["setsid", "close_range", "pidfd_getfd", "sendmsg"], "action": action });
        bundle.spec["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap().push(refused);
        let faked = json!({ "names": ["clone"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0 });
        bundle.spec["linux"]["seccomp"]["syscalls"].as_array_mut().unwrap().push(faked);
        let made = bundle.root().join("made");
        assert_eq!(served(bundle.create().unwrap(), emulate).0, json!({ "/made": "ok" }), "{late} {action}");
        std::fs::remove_dir(made).unwrap();
    }
}

/// A plan whose filter is behind its last step.
#[test]
fn a_launch_without_its_listener_fails() {
    if !rooted("a_launch_without_its_listener_fails") {
        return;
    }
    let filter =
        Filter { program: [SockFilter { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 }].into(), flags: 1 << 3 };
    let mut plan = program(&["sleep", "1000"], vec![]);
    plan.steps.push((Step::SeccompEarly(filter), "linux.seccomp".into()));
    let error = launch(&plan, None).err().expect("refused").to_string();
    assert_eq!(error, "linux.seccomp: the filter's listener was not reported");
}

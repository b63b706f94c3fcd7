//! Profiles that refuse calls that a container's process makes between its filter and its program: the program runs,
//! or there is an error; nothing else may happen, and nothing may wait. Needs root.
//!
//! `cargo test --test profiles -- --nocapture` prints every outcome, with runc's beside it.

mod case;
mod program;
mod runc;
mod shoal;

use case::{Act, Calls, Case, Kind, Outcome};
use runc::Runc;
use shoal::Shoal;

/// All calls that a child may make after its filter, and those that a program's start and end consist of.
const CALLS: &[&str] = &[
    "read",
    "write",
    "sendmsg",
    "recvmsg",
    "clone",
    "clone3",
    "setsid",
    "ioctl",
    "execve",
    "exit_group",
    "exit",
    "close",
    "fcntl",
    "dup3",
    "prctl",
    "capset",
    "setresuid",
    "setresgid",
    "setuid",
    "setgid",
    "setgroups",
    "chdir",
    "getcwd",
    "openat",
    "openat2",
    "faccessat2",
    "newfstatat",
    "fstat",
    "futex",
    "rt_sigprocmask",
    "rt_sigaction",
    "munmap",
    "mmap",
    "madvise",
    "kill",
];

const KINDS: [Kind; 3] = [Kind::Container, Kind::Exec { terminal: false }, Kind::Exec { terminal: true }];

fn can_run() -> bool {
    let (native, root) = (cfg!(target_arch = "x86_64"), nix::unistd::geteuid().is_root());
    if !native {
        testbed::skip::other_machine("the containers' program is for x86_64");
    } else if !root {
        testbed::skip::missing("root");
    }
    native && root
}

/// Returns whether runc runs the case too. It has many threads, and waits forever for one that is killed; and the
/// three calls that it takes for an exec are slow.
fn controlled(case: &Case, kind: Kind) -> bool {
    match kind {
        Kind::Container => case.act != Act::KillThread,
        Kind::Exec { .. } => case.act == Act::Refuse,
    }
}

/// Runs all cases, so that a failure names each.
fn run(cases: &[Case]) {
    if !can_run() {
        return;
    }
    let mut shoal = Shoal::new();
    let mut runc = Runc::new();
    let mut faults = Vec::new();
    for case in cases {
        let mut control = None;
        for kind in KINDS {
            // An exec with a terminal is compared with one without.
            if kind != (Kind::Exec { terminal: true }) {
                let asked = runc.as_mut().filter(|_| controlled(case, kind));
                control = asked.map(|runc| runc.run(case, kind));
            }
            let (outcome, others) = shoal.run(case, kind);
            println!("{case}, {kind:?}: {outcome:?}, runc: {control:?}");
            let fault = case.fault(&outcome, control.as_ref());
            faults.extend(fault.into_iter().chain(others).map(|fault| format!("{case}, {kind:?}: {fault}")));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n  {}", faults.len(), faults.join("\n  "));
}

/// Tests each call by itself, with and without noNewPrivileges.
fn each(act: Act) {
    let cases = [true, false].map(|no_new_privileges| {
        CALLS.iter().map(move |name| Case { act, calls: Calls::One(name), no_new_privileges })
    });
    run(&cases.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn a_call_that_is_refused_keeps_no_program_from_running_that_runc_runs() {
    each(Act::Refuse);
}

#[test]
fn a_call_that_is_faked_keeps_no_program_from_running_that_runc_runs() {
    each(Act::Fake);
}

#[test]
fn a_call_that_traps_keeps_no_program_from_running_that_runc_runs() {
    each(Act::Trap);
}

#[test]
fn a_call_for_a_tracer_keeps_no_program_from_running_that_runc_runs() {
    each(Act::Trace);
}

#[test]
fn a_call_that_kills_its_thread_ends_in_the_program_or_in_an_error() {
    each(Act::KillThread);
}

#[test]
fn a_call_that_kills_its_process_keeps_no_program_from_running_that_runc_runs() {
    each(Act::KillProcess);
}

/// The second list leaves a program that can sleep, and the third one that can be executed. statx(2) has the highest
/// number; without it, calls above pause(2) would get ENOSYS as newer than the profile.
#[test]
fn a_profile_that_allows_nothing_or_next_to_nothing_ends_in_the_program_or_in_an_error() {
    let mut cases = Vec::new();
    for act in [Act::Refuse, Act::Fake, Act::Trap, Act::Trace, Act::KillThread, Act::KillProcess] {
        for names in [&[][..], &["pause", "statx"], &["pause", "execve", "statx"]] {
            for no_new_privileges in [true, false] {
                cases.push(Case { act, calls: Calls::AllBut(names), no_new_privileges });
            }
        }
    }
    run(&cases);
}

/// What the program needs, including its execve(2). The highest number is that of faccessat2(2).
const OF_PROGRAM: &[&str] = &["write", "exit_group", "pause", "execve"];
/// What our process needs besides: nothing if its filter comes last; if it comes early, calls to drop capabilities
/// and to look up the program.
const EARLY: &[&str] =
    &["write", "exit_group", "pause", "execve", "capset", "prctl", "newfstatat", "faccessat2"];
/// A list for runc, from strace(1).
const OF_RUNC: &[&str] = &[
    "write",
    "exit_group",
    "pause",
    "execve",
    "capset",
    "prctl",
    "newfstatat",
    "faccessat2",
    "capget",
    "chdir",
    "close",
    "close_range",
    "fcntl",
    "fstat",
    "futex",
    "getcwd",
    "getdents64",
    "getppid",
    "mmap",
    "openat",
    "read",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "sigaltstack",
    "gettid",
    "tgkill",
    "setgid",
    "setgroups",
    "setuid",
    "clone",
    "clone3",
    "madvise",
    "munmap",
    "epoll_ctl",
    "epoll_pwait",
    "nanosleep",
    "sched_yield",
    "getpid",
    "fstatfs",
    "lseek",
    "openat2",
    "readlinkat",
    "getrandom",
    "mprotect",
    "rseq",
    "set_robust_list",
    "restart_syscall",
    "statx",
    "fchown",
    "exit",
];

/// Any other call kills the process.
#[test]
fn under_its_filter_a_process_makes_no_call_that_runc_does_not_make() {
    if !can_run() {
        return;
    }
    assert!(EARLY.iter().all(|name| OF_RUNC.contains(name)));
    let mut shoal = Shoal::new();
    let mut runc = Runc::new();
    let case = |act, names, no_new_privileges| Case { act, calls: Calls::AllBut(names), no_new_privileges };
    for no_new_privileges in [true, false] {
        let names = if no_new_privileges { OF_PROGRAM } else { EARLY };
        for act in [Act::KillProcess, Act::Refuse] {
            let case = case(act, names, no_new_privileges);
            for kind in KINDS {
                let (outcome, others) = shoal.run(&case, kind);
                assert!(matches!(outcome, Outcome::Ran(program::CODE, _)), "{case}, {kind:?}: {outcome:?}");
                assert_eq!((case.fault(&outcome, None), others), (None, vec![]), "{case}, {kind:?}");
            }
        }
        let case = case(Act::Refuse, OF_RUNC, no_new_privileges);
        let control = runc.as_mut().map(|runc| runc.run(&case, Kind::Container));
        assert!(matches!(control, None | Some(Outcome::Ran(program::CODE, _))), "runc: {control:?}");
    }
    // runc makes each of them.
    for name in EARLY.iter().filter(|name| !OF_PROGRAM.contains(name)) {
        let names: Vec<&str> = OF_RUNC.iter().copied().filter(|other| other != name).collect();
        let case = case(Act::KillProcess, names.leak(), false);
        let control = runc.as_mut().map(|runc| runc.run(&case, Kind::Container));
        assert!(!matches!(control, Some(Outcome::Ran(..))), "runc without {name}: {control:?}");
    }
}

/// Shows that the test can see a program run.
#[test]
fn a_profile_about_other_calls_changes_nothing() {
    let case =
        |no_new_privileges| Case { act: Act::KillProcess, calls: Calls::One("reboot"), no_new_privileges };
    if !can_run() {
        return;
    }
    let mut shoal = Shoal::new();
    for case in [case(true), case(false)] {
        for kind in KINDS {
            let (outcome, others) = shoal.run(&case, kind);
            assert!(matches!(outcome, Outcome::Ran(program::CODE, _)), "{kind:?}: {outcome:?}");
            assert_eq!((case.fault(&outcome, None), others), (None, vec![]));
        }
    }
}

//! The plan of a hook, by where it runs.

use super::{exec, run, ExecInput, Host, Open, Plan, Slot, Step};
use crate::error::{invalid, Result};
use crate::spec::{Affinity, Hook, Namespaces, Ns, Process, Spec};
use crate::sys::seccomp::Filter;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where a hook runs.
pub enum HookPlace<'a> {
    /// On the host: prestart, createRuntime, poststart, poststop.
    Host { bundle: &'a Path },
    /// In the container's namespaces, while its root is still the host's: createContainer.
    /// A pid namespace is joined only if nobody but the container's process is in it. Others would see a program of the
    /// host's with all its rights.
    Namespaces { bundle: &'a Path, namespaces: &'a Namespaces },
    /// In the container: startContainer. The program is a file of the image, so it has no more rights than the
    /// container's program.
    Container { spec: &'a Spec, host: &'a Host, id: &'a str, filter: Option<Filter> },
}

/// Returns the plan of one hook. Its environment is exactly what the spec gives it: variables inherited from an image
/// were CVE-2025-23266.
pub fn hook(hook: &Hook, place: HookPlace<'_>) -> Result<Plan> {
    let program = Program::of(hook)?;
    match place {
        HookPlace::Host { bundle } => outside(program, bundle, Vec::new(), false),
        HookPlace::Namespaces { bundle, namespaces } => {
            let alone = namespaces.pid == Ns::New;
            let pids = if alone { libc::CLONE_NEWPID } else { 0 };
            // Not every kernel has one.
            let time = if namespaces.time == Ns::Host { 0 } else { libc::CLONE_NEWTIME };
            let flags = libc::CLONE_NEWNS
                | libc::CLONE_NEWNET
                | libc::CLONE_NEWIPC
                | libc::CLONE_NEWUTS
                | libc::CLONE_NEWCGROUP
                | pids
                | time;
            let join = vec![
                Step::SetNs { slot: Slot::Lent(0), flags: flags as u64 },
                // As root of the container's user namespace, if it has one: as in runc.
                Step::JoinUser { slot: Slot::Lent(0), unless_own: true },
                Step::BecomeRoot { unshare: 0 },
            ];
            let mut plan = outside(program, bundle, join, alone)?;
            plan.opens.push((Open::Init, "".into()));
            Ok(plan)
        }
        HookPlace::Container { spec, host, id, filter } => inside(program, spec, host, id, filter),
    }
}

struct Program {
    path: CString,
    argv: Vec<CString>,
    envp: Vec<CString>,
}

impl Program {
    fn of(hook: &Hook) -> Result<Self> {
        let all = |list: &[String], what: &str| {
            list.iter().map(|entry| text(entry.as_bytes(), what)).collect::<Result<Vec<_>>>()
        };
        let path = text(hook.path.as_os_str().as_bytes(), "path")?;
        let mut argv = all(&hook.args, "args")?;
        if argv.is_empty() {
            argv.push(path.clone());
        }
        Ok(Program { path, argv, envp: all(&hook.env, "env")? })
    }
}

fn text(bytes: &[u8], what: &str) -> Result<CString> {
    CString::new(bytes)
        .map_err(|_| invalid(format!("{what}: a NUL byte in {:?}", bytes.escape_ascii().to_string())))
}

/// A host program that runs in the bundle, after the steps of `join`.
fn outside(program: Program, bundle: &Path, join: Vec<Step>, born: bool) -> Result<Plan> {
    let Program { path, argv, envp } = program;
    // The specification's hooks have absolute paths.
    let search = envp.iter().find_map(|pair| pair.to_bytes().strip_prefix(b"PATH="));
    let candidates = run::candidates(&path, search);
    let bundle = text(bundle.as_os_str().as_bytes(), "bundle")?;
    let mut steps = join;
    steps.extend([
        Step::Stdio { uid: 0 },
        Step::Umask(0o22),
        Step::Descriptors,
        Step::Workdir { path: bundle, retry: false },
        Step::FindProgram { name: path, candidates },
        Step::Bare,
    ]);
    steps.extend(born.then_some(Step::Birth));
    steps.extend([Step::SetSid, Step::Exec { argv, envp }]);
    Ok(Plan { steps: steps.into_iter().map(|step| (step, "".into())).collect(), ..Plan::default() })
}

/// An exec with the privileges of the container's program. If the spec gives no environment, it gets the program's, as
/// in runc.
fn inside(program: Program, spec: &Spec, host: &Host, id: &str, filter: Option<Filter>) -> Result<Plan> {
    let Program { path, argv, envp } = program;
    let own = !envp.is_empty();
    let process = Process {
        terminal: false,
        args: argv,
        env: if own { envp } else { spec.process.env.clone() },
        cwd: c"/".into(),
        oom_score_adj: None,
        // The affinity is for execs, and a hook is not one.
        exec_cpu_affinity: Some(Affinity::default()),
        // As an exec inherits it.
        scheduler: None,
        warnings: Vec::new(),
        ..spec.process.clone()
    };
    // The session keyring is the program's, and the program has not started.
    let no_new_keyring = true;
    let mut plan = exec(&ExecInput { spec, process: &process, host, id, filter, no_new_keyring })?;
    plan.steps.retain(|(step, _)| !own || !matches!(step, Step::Home { .. }));
    for (step, _) in &mut plan.steps {
        // args[0] is only a name; the file that runs is `path`.
        if let Step::FindProgram { name, candidates } = step {
            (*name, *candidates) = (path.clone(), vec![path.clone()]);
        }
    }
    Ok(plan)
}

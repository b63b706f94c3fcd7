//! The launcher that clones.

use super::reaper::{died, Kept, Reaper};
use super::waiting::{Waiting, GONE};
use super::{failure, opens, Launcher, OnExit, Order};
use crate::cgroup::Entry;
use crate::error::{Context, Error, Kind, Result};
use crate::init::{self, Lent, Opened, Report};
use crate::plan::{Plan, Step};
use crate::stdio::Ends;
use crate::sys::clone::{clone, Child};
use crate::sys::exec::Arguments;
use crate::sys::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::{namespace, signal, socket, wait, Errno};
use std::convert::Infallible;
use std::ffi::CString;

/// Makes processes by clone3(2). May be called from any thread: it is the calling thread's for the time of the call
/// (its signals are blocked during the clone; where the plan joins a pid namespace, it joins it and goes back).
pub struct Real {
    reaper: Reaper,
    ignored: signal::Ignored,
    /// The shim's pid namespace, for a thread that has joined another one to come back.
    own_pids: OwnedFd,
}

impl Real {
    pub fn new(reaper: Reaper) -> Result<Self> {
        let ignored = signal::ignored().context(|| "sigaction")?;
        let own_pids = fd::open(c"/proc/self/ns/pid", libc::O_RDONLY, 0);
        let own_pids = own_pids.context(|| "open(\"/proc/self/ns/pid\")")?;
        Ok(Real { reaper, ignored, own_pids })
    }

    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }
}

/// What the child will have, owned by the shim until the clone has been made.
struct Prepared {
    opened: Vec<opens::Lending>,
    ends: Option<[OwnedFd; 3]>,
    procs: Vec<OwnedFd>,
    into: Option<OwnedFd>,
    gate: OwnedFd,
    birth: Option<OwnedFd>,
    cgroup: Option<OwnedFd>,
}

impl Launcher for Real {
    fn launch(&self, order: Order<'_>) -> Result<Waiting> {
        let Order { plan, ends, mut entry, init, hooks, on_exit } = order;
        // Until the child is in its cgroup, which it is when it has come to the gate.
        let _hold = entry.hold.take();
        let opened = opens::all(&plan.opens, init, &self.reaper)?;
        let (gate, theirs) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
        let mut prepared = prepare(opened, ends, entry, theirs)?;
        let process = if plan.steps.iter().any(|(step, _)| matches!(step, Step::Sibling { .. })) {
            self.launch_sibling(plan, prepared, &gate, on_exit)?
        } else {
            let process = self.reaper.spawn(|| self.make_in_cgroup(plan, &mut prepared), on_exit)?;
            // The child has its copies; as long as ours are open, their ends are not seen.
            drop(prepared);
            process
        };
        match listen(plan, &gate, &process, hooks) {
            Ok(console) => {
                let later = failure::after_gate(plan);
                process
                    .keep()
                    .map_err(|status| died("the process ended before it could be started", status))?;
                let Kept { child, ended, .. } = process;
                Ok(Waiting::new(child.pid, child.pidfd, console, gate).of_plan(later, ended))
            }
            Err(error) => {
                drop(gate);
                end(&process);
                Err(error)
            }
        }
    }
}

/// It ends by itself, but for one that hangs in a call, e.g. on a dead network filesystem.
fn end(process: &Kept) {
    let _ = wait::signal(process.child.pidfd.as_fd(), libc::SIGKILL);
    process.ended.wait(GONE);
}

impl Real {
    /// Makes the process that walks up to the plan's `Sibling`, and then, as the reaper holds still, has it make the
    /// process that the plan is for: that one is entered before its exit can come. The first one ends by itself.
    fn launch_sibling(
        &self,
        plan: &Plan,
        mut prepared: Prepared,
        gate: &OwnedFd,
        on_exit: OnExit,
    ) -> Result<Kept> {
        let (birth, theirs) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
        prepared.birth = Some(fd::above_standard(theirs).context(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        // It is the second process that enters the cgroup: two may be more than its limit.
        if let Some(directory) = prepared.into.take() {
            prepared.procs.push(open_procs(&directory)?);
            prepared.cgroup = Some(fd::above_standard(directory).context(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        }
        let first = self.reaper.spawn(|| self.make(plan, &prepared), Box::new(|_| {}))?;
        drop(prepared);
        let made = listen(plan, gate, &first, &mut |_, _| Ok(()))
            .and_then(|_| self.reaper.spawn(|| born(plan, gate, &birth), on_exit));
        if made.is_err() {
            end(&first);
        }
        made
    }
}

/// Says the word to the process that waits at `Sibling`; the process that it has made.
fn born(plan: &Plan, gate: &OwnedFd, birth: &OwnedFd) -> Result<Child> {
    socket::send(gate.as_fd(), &[1], None).context(|| "send(gate)")?;
    let mut bytes = [0; 4];
    match socket::receive(birth.as_fd(), &mut bytes).context(|| "recvmsg(birth)")? {
        (4, Some(pidfd)) => Ok(Child { pid: u32::from_ne_bytes(bytes), pidfd }),
        // Nobody has the other end any more: so there is a report, or nobody who could send one.
        _ => {
            let mut bytes = [0; Report::SIZE];
            match socket::receive(gate.as_fd(), &mut bytes).context(|| "recvmsg(gate)")? {
                (Report::SIZE, _) => match Report::from_bytes(bytes) {
                    Report { errno: 0, .. } => Err(unfinished()),
                    // As in `in_pid_namespace`.
                    Report { errno: libc::ENOMEM, .. } if joins_pids(plan) => Err(gone(Errno::ENOMEM)),
                    report => Err(failure::error(plan, report)),
                },
                _ => Err(unfinished()),
            }
        }
    }
}

fn unfinished() -> Error {
    Error::new(Kind::System, "the process ended while it was made")
}

fn joins_pids(plan: &Plan) -> bool {
    let pid = libc::CLONE_NEWPID as u64;
    plan.steps.iter().any(|(step, _)| matches!(step, Step::SetNs { flags, .. } if *flags == pid))
}

fn open_procs(directory: &OwnedFd) -> Result<OwnedFd> {
    let procs = fd::open_at(directory.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0);
    let procs = procs.context(|| "open(cgroup.procs)")?;
    fd::above_standard(procs).context(|| "fcntl(F_DUPFD_CLOEXEC)")
}

fn prepare(opened: Vec<opens::Lending>, ends: Option<Ends>, entry: Entry, gate: OwnedFd) -> Result<Prepared> {
    let move_up = |fd: OwnedFd| fd::above_standard(fd).context(|| "fcntl(F_DUPFD_CLOEXEC)");
    let ends = match ends {
        Some(Ends { stdin, stdout, stderr }) => Some([move_up(stdin)?, move_up(stdout)?, move_up(stderr)?]),
        None => None,
    };
    let procs = entry.procs.into_iter().map(move_up).collect::<Result<Vec<_>>>()?;
    Ok(Prepared { opened, ends, procs, into: entry.into, gate: move_up(gate)?, birth: None, cgroup: None })
}

impl Real {
    /// clone3(2) puts the child into its cgroup; where it cannot, the child is to write cgroup.procs itself.
    fn make_in_cgroup(&self, plan: &Plan, prepared: &mut Prepared) -> Result<Child> {
        let refused = match self.make(plan, prepared) {
            Err(refused) if prepared.into.is_some() => refused,
            made => return made,
        };
        let instead = [libc::ENOSYS, libc::EINVAL, libc::E2BIG, libc::EOPNOTSUPP];
        let enters = plan.steps.iter().any(|(step, _)| matches!(step, Step::EnterCgroup));
        match prepared.into.take() {
            Some(directory) if enters && refused.errno().is_some_and(|errno| instead.contains(&errno)) => {
                prepared.procs.push(open_procs(&directory)?);
                self.make(plan, prepared)
            }
            _ => Err(refused),
        }
    }

    /// Clones. What the child needs is on this stack, or in memory that it has a copy of.
    fn make(&self, plan: &Plan, prepared: &Prepared) -> Result<Child> {
        let nothing: (&[CString], &[CString]) = (&[], &[]);
        let (argv, envp) = plan
            .steps
            .iter()
            .find_map(|(step, _)| match step {
                Step::Exec { argv, envp } => Some((argv.as_slice(), envp.as_slice())),
                _ => None,
            })
            .unwrap_or(nothing);
        let arguments = Arguments::new(argv, envp);
        let opened: Vec<Opened<'_>> = prepared
            .opened
            .iter()
            .map(|lending| Opened { fd: lending.fd.as_fd(), directory: lending.directory })
            .collect();
        let ends = prepared
            .ends
            .as_ref()
            .map(|[stdin, stdout, stderr]| [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        let cgroups: Vec<BorrowedFd<'_>> = prepared.procs.iter().map(|fd| fd.as_fd()).collect();
        let lent_fds = opened.iter().map(|opened| opened.fd).chain(ends.into_iter().flatten());
        let birth = prepared.birth.as_ref().map(|fd| fd.as_fd());
        let lent_fds = lent_fds.chain(cgroups.iter().copied()).chain([prepared.gate.as_fd()]).chain(birth);
        let cgroup = prepared.cgroup.as_ref().map(|fd| fd.as_fd());
        let lent_fds = lent_fds.chain(cgroup);
        let mut keep: Vec<_> = lent_fds.map(|fd| fd.as_raw_fd()).collect();
        keep.sort_unstable();
        let lent = Lent {
            steps: &plan.steps,
            keep: &keep,
            gate: prepared.gate.as_fd(),
            birth,
            ends,
            opened: &opened,
            cgroup,
            cgroups: &cgroups,
            arguments: &arguments,
            ignored: self.ignored,
        };
        let into = prepared.into.as_ref().map(|fd| fd.as_fd());
        let pid_namespace = match plan.pid_namespace {
            Some(slot) => Some(
                opened
                    .get(usize::from(slot.0))
                    .ok_or_else(|| Error::new(Kind::Bug, "a slot that the plan has not"))?
                    .fd,
            ),
            None => None,
        };
        let mask = signal::block_all().context(|| "sigprocmask")?;
        let child = self.in_pid_namespace(pid_namespace, || {
            clone(plan.clone_flags, into, || -> Infallible { init::run(&lent) })
                .context(|| format!("clone3({:#x})", plan.clone_flags))
        });
        signal::restore(mask).context(|| "sigprocmask")?;
        child
    }

    /// Runs `make` with the calling thread's children being born in the pid namespace, and goes back.
    fn in_pid_namespace<T>(
        &self,
        namespace: Option<BorrowedFd<'_>>,
        make: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let Some(namespace) = namespace else { return make() };
        let kind = libc::CLONE_NEWPID as u64;
        match namespace::join(namespace, kind) {
            Err(Errno::ESRCH) => return Err(gone(Errno::ESRCH)),
            joined => joined.context(|| "setns(CLONE_NEWPID)")?,
        }
        // pid_namespaces(7): no process can be born where the first one has ended; fork(2) says ENOMEM then.
        let made = make().map_err(|e| if e.errno() == Some(libc::ENOMEM) { gone(Errno::ENOMEM) } else { e });
        if let Err(errno) = namespace::join(self.own_pids.as_fd(), kind) {
            // This thread's next children would be born in the container.
            return Err(errno).context(|| "setns(CLONE_NEWPID) back").map_err(|e| e.with_kind(Kind::Bug));
        }
        made
    }
}

fn gone(errno: Errno) -> Error {
    Error::system("the first process of the pid namespace has ended", errno as i32).with_kind(Kind::State)
}

/// Follows the child to its gate; the master of its terminal comes on the way.
fn listen(
    plan: &Plan,
    gate: &OwnedFd,
    process: &Kept,
    hooks: &mut dyn FnMut(u32, BorrowedFd<'_>) -> Result<()>,
) -> Result<Option<OwnedFd>> {
    let mut console = None;
    loop {
        let mut bytes = [0; Report::SIZE];
        let (length, passed) = socket::receive(gate.as_fd(), &mut bytes).context(|| "recvmsg(gate)")?;
        if length == 0 {
            return Err(silent(plan, process));
        }
        let report = Report::from_bytes(bytes);
        if length != Report::SIZE || report.errno != 0 {
            return Err(failure::error(plan, report));
        }
        match plan.steps.get(report.step as usize) {
            Some((Step::Gate | Step::Sibling { .. }, _)) => return Ok(console),
            Some((Step::Console { .. }, _)) => console = passed,
            Some((Step::Hooks, _)) => {
                hooks(process.child.pid, process.child.pidfd.as_fd())?;
                socket::send(gate.as_fd(), &[1], None).context(|| "send(gate)")?;
            }
            _ => return Err(Error::new(Kind::Bug, format!("a report from step {}", report.step))),
        }
    }
}

/// The child is gone, or runs its program, without a report: killed, e.g. for lack of memory in its cgroup.
fn silent(plan: &Plan, process: &Kept) -> Error {
    if !plan.steps.iter().any(|(step, _)| matches!(step, Step::Gate)) {
        return Error::new(Kind::Bug, "the plan has no gate");
    }
    match process.ended.wait(GONE) {
        Some(status) => died("the process ended while it was made", status),
        None => Error::new(Kind::Bug, "the process closed its gate"),
    }
}

//! The launcher that clones.

use super::birth::Birth;
use super::ended::{GONE, LATE};
use super::leash::Leash;
use super::reaper::{died, Kept, Reaper};
use super::waiting::{end, Waiting, REAPED};
use super::{failure, last, lend, Launched, Launcher, Order};
use crate::cgroup::{Entry, PlaceHolder};
use crate::error::{Context, Error, Kind, Result};
use crate::init::{self, Lent, Report};
use crate::plan::{Plan, Step};
use crate::stdio::StdioFds;
use crate::sys::board::Board;
use crate::sys::clone::{clone, Child};
use crate::sys::epoll::Interest;
use crate::sys::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::layout::Layout;
use crate::sys::{signal, socket, wait};
use crate::tasks::{self, Answer};
use std::cell::OnceCell;
use std::convert::Infallible;
use std::sync::{Arc, OnceLock};

/// Creates processes by clone3(2), from any thread: its signals are blocked during the clone.
pub struct CloneLauncher {
    reaper: Reaper,
    ignored: signal::Ignored,
    layout: OnceLock<Layout>,
}

impl CloneLauncher {
    pub fn new(reaper: Reaper) -> Result<Self> {
        let ignored = signal::ignored().context(|| "sigaction")?;
        Ok(CloneLauncher { reaper, ignored, layout: OnceLock::new() })
    }

    fn layout(&self) -> Result<&Layout> {
        if let Some(layout) = self.layout.get() {
            return Ok(layout);
        }
        let layout = Layout::probe().context(|| "read(\"/proc/self/maps\")")?;
        Ok(self.layout.get_or_init(|| layout))
    }
}

/// What the child will get, owned by the shim until the clone is done.
struct Prepared {
    opened: Vec<OwnedFd>,
    ends: Option<[OwnedFd; 3]>,
    procs: Vec<OwnedFd>,
    into: Option<OwnedFd>,
    gate: OwnedFd,
    cgroup: Option<OwnedFd>,
    board: Arc<Board>,
    last: Option<last::Last>,
    outpost: Option<last::Outpost>,
}

impl Launcher for CloneLauncher {
    fn launch<'a>(&'a self, order: Order<'a>) -> Answer<'a, Result<Launched<'a>>> {
        Box::pin(async move {
            let mut underway = self.clone_child(order)?;
            match underway.follow().await {
                Ok(Reached::Hooks(pidfd)) => {
                    let pid = underway.process.child.pid;
                    Ok(Launched::AtHooks(AtHooks { pid, pidfd, underway: Some(underway) }))
                }
                reached => underway.settle(reached.map(drop)).await.map(Launched::Waiting),
            }
        })
    }
}

impl CloneLauncher {
    /// The part that never waits.
    fn clone_child<'a>(&'a self, order: Order<'a>) -> Result<Underway<'a>> {
        let Order { plan, ends, mut entry, init, leash, on_exit } = order;
        let _hold = entry.hold.take();
        let opened = lend::all(&plan.opens, init, &self.reaper)?;
        let (gate, theirs) = socket::pair().context(|| "socketpair(SOCK_SEQPACKET)")?;
        let board = Arc::new(Board::new().context(|| "mmap(MAP_SHARED)")?);
        let mut prepared = prepare(opened, ends, entry, theirs, &board)?;
        if plan.steps.iter().any(|(step, _)| matches!(step, Step::Bare)) {
            prepared.last = Some(last::prepare(plan, &prepared.gate, &board, self.layout()?)?);
        }
        let shows_pids = |step: &Step| {
            matches!(step, Step::MountFs { pids: Some(_), .. } | Step::OpenProc { pids: Some(_) })
        };
        if plan.steps.iter().any(|(step, _)| shows_pids(step)) {
            prepared.outpost = Some(last::outpost(self.layout()?)?);
        }
        leash.check()?;
        if leash.is_over() {
            let what = "its time was over before a process could be made";
            return Err(Error::new(Kind::Deadline, what));
        }
        let birth = Birth::new(&board);
        let process = if births(plan) || stands_in(plan) {
            self.reaper.spawn_parent(|| self.make_in_cgroup(plan, &mut prepared), &birth, on_exit)?
        } else {
            self.reaper.spawn(|| self.make_in_cgroup(plan, &mut prepared), on_exit)?
        };
        // The child has its copies; as long as ours (in `prepared`) are open, their end of file is not seen.
        let (reaper, expected) = (&self.reaper, births(plan));
        let (hooked, console) = (false, None);
        Ok(Underway { reaper, plan, gate, board, birth, leash, process, expected, hooked, console, _hold })
    }
}

/// Whether another process continues in the first one's place.
fn births(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::Sibling { .. } | Step::Birth))
}

/// Whether the process waits for its start.
fn opens_at_gate(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::Gate | Step::StandIn))
}

/// Whether it waits for another one to be there in its stead.
fn stands_in(plan: &Plan) -> bool {
    plan.steps.iter().any(|(step, _)| matches!(step, Step::StandIn))
}

/// A process that waits at `Step::Hooks`. Dropping it kills the process.
pub struct AtHooks<'a> {
    pub pid: u32,
    pub pidfd: OwnedFd,
    /// None once it has continued.
    underway: Option<Underway<'a>>,
}

impl AtHooks<'_> {
    /// Lets the process continue to its gate if the hooks `ran` well; otherwise ends it, and returns their error.
    pub async fn go_on(mut self, ran: Result<()>) -> Result<Waiting> {
        let Some(mut underway) = self.underway.take() else {
            return Err(Error::new(Kind::Bug, "a process has left its hooks twice"));
        };
        let made = match ran {
            Ok(()) => underway.pass_hooks().await,
            failed => failed,
        };
        underway.settle(made).await
    }
}

impl Drop for AtHooks<'_> {
    fn drop(&mut self) {
        if self.underway.is_some() {
            let _ = wait::signal(self.pidfd.as_fd(), libc::SIGKILL);
        }
    }
}

/// Where a process waits for the shim.
enum Reached {
    /// With its pidfd.
    Hooks(OwnedFd),
    /// Its gate; or, if the plan has no gate, the process is the one that becomes the program.
    Gate,
}

/// A process being launched, as the shim follows it.
struct Underway<'a> {
    reaper: &'a Reaper,
    plan: &'a Plan,
    gate: OwnedFd,
    board: Arc<Board>,
    birth: Arc<Birth>,
    leash: &'a Leash,
    process: Kept,
    /// Another process is to continue in its place.
    expected: bool,
    /// It has been at its hooks.
    hooked: bool,
    /// The master of the terminal, once received.
    console: Option<OwnedFd>,
    /// Kept until the child is in its cgroup, which it is once it has reached the gate.
    _hold: Option<PlaceHolder>,
}

impl Underway<'_> {
    /// Returns the process at its gate, or ends what was created.
    async fn settle(self, made: Result<()>) -> Result<Waiting> {
        let Underway { plan, gate, board, birth, leash, process, console, .. } = self;
        match made {
            Ok(()) => {
                let gated = opens_at_gate(plan);
                if gated {
                    let kept = process.keep().await;
                    kept.map_err(|status| died("the process ended before it could be started", status))?;
                } else {
                    process.keep_or_tell().await;
                }
                let Kept { child, ended, .. } = process;
                let later = failure::behind_bare(plan);
                let waiting =
                    Waiting::new(child.pid, child.pidfd, console, gate).of_plan(later, ended, board, gated);
                Ok(if stands_in(plan) { waiting.with_successor(birth) } else { waiting })
            }
            Err(error) => {
                drop(gate);
                let patience = if leash.is_over() { LATE } else { GONE };
                end(process.child.pidfd.as_fd(), Some(&process.ended), patience).await;
                // A process that was born at the last moment before that has no owner.
                let heir = if births(plan) { birth.within(REAPED).await } else { None };
                if let Some((_, Some(heir), ended)) = heir {
                    end(heir.as_fd(), Some(&ended), patience).await;
                }
                Err(error)
            }
        }
    }

    /// Waits until the process reaches the hooks or the gate, whichever comes next.
    async fn follow(&mut self) -> Result<Reached> {
        // Again after the hooks, which held the leash.
        self.leash.hold(&self.process.child)?;
        let born_last = self.plan.steps.iter().any(|(step, _)| matches!(step, Step::Birth));
        loop {
            let (gate, deadline) = (self.gate.as_fd(), self.leash.deadline);
            let pidfd = self.process.child.pidfd.as_fd();
            let [said, ended] = match (self.expected, born_last) {
                (true, true) => tasks::either([gate, pidfd], deadline).await?,
                // What arrives is from the new process, and is read once that is known.
                (true, false) => [false, tasks::ready(pidfd, Interest::READ, deadline).await?],
                // The gate also reports its end.
                (false, _) => [tasks::ready(gate, Interest::READ, deadline).await?, false],
            };
            if said {
                let mut bytes = [0; Report::SIZE];
                let received = socket::receive(self.gate.as_fd(), &mut bytes).context(|| "recvmsg(gate)")?;
                match received {
                    (0, _) if self.expected => {}
                    (0, _) if !born_last && !opens_at_gate(self.plan) => {
                        // A host program that is not born into a namespace: it runs, or has reported why not.
                        return match self.board.failed() {
                            Some(_) => Err(self.silent().await),
                            None => Ok(Reached::Gate),
                        };
                    }
                    (0, _) => return Err(self.silent().await),
                    (Report::SIZE, passed) => {
                        let report = Report::from_bytes(bytes);
                        match self.plan.steps.get(report.step as usize) {
                            // Whoever is born last shares this socket, and may be made to send anything by the container
                            // that it is in. What the invisible process has to say comes first, and each of it once.
                            Some((Step::Gate | Step::StandIn, _)) if !self.expected => {
                                return Ok(Reached::Gate)
                            }
                            Some((Step::Console { .. }, _)) if self.console.is_none() && passed.is_some() => {
                                self.console = passed;
                            }
                            Some((Step::Hooks, _)) if !self.hooked => {
                                self.hooked = true;
                                let pidfd = self.process.child.pidfd.try_clone();
                                return pidfd.map(Reached::Hooks).context(|| "dup(pidfd)");
                            }
                            _ => {
                                let what = format!("a report from step {}", report.step);
                                return Err(Error::new(Kind::Bug, what));
                            }
                        }
                        continue;
                    }
                    (length, _) => {
                        return Err(Error::new(Kind::Bug, format!("a report of {length} bytes")));
                    }
                }
            } else if !ended {
                return Err(failure::late(self.plan, self.board.step()));
            }
            if self.expected {
                self.expected = false;
                let Some((pid, pidfd, ended)) = self.birth.within(GONE).await else {
                    return Err(self.silent().await);
                };
                let pidfd = match pidfd {
                    Some(pidfd) => pidfd,
                    // Of a process that has ended: the parent's is as good as its own.
                    None => self.process.child.pidfd.try_clone().context(|| "dup(pidfd)")?,
                };
                self.process = self.reaper.kept(Child { pid, pidfd }, ended);
                self.leash.hold(&self.process.child)?;
                if born_last {
                    return Ok(Reached::Gate);
                }
            }
        }
    }

    /// Waits from the hooks to the gate.
    async fn pass_hooks(&mut self) -> Result<()> {
        loop {
            self.leash.check()?;
            socket::send(self.gate.as_fd(), &[1], None).context(|| "send(gate)")?;
            if let Reached::Gate = self.follow().await? {
                return Ok(());
            }
        }
    }

    /// The error for a gate that closed too early: a step failed, or the process was killed, e.g. for lack of memory in
    /// its cgroup.
    async fn silent(&self) -> Error {
        if let Some((step, errno)) = self.board.failed() {
            return failure::error(self.plan, Report { step, errno });
        }
        if let Err(killed) = self.leash.check() {
            return killed;
        }
        match self.process.ended.within(GONE).await {
            Some(status) => died("the process ended while it was made", status),
            None => Error::new(Kind::Bug, "the process closed its gate"),
        }
    }
}

fn open_procs(directory: &OwnedFd) -> Result<OwnedFd> {
    let procs = fd::open_at(directory.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0);
    let procs = procs.context(|| "open(cgroup.procs)")?;
    fd::above_standard(procs).context(|| "fcntl(F_DUPFD_CLOEXEC)")
}

fn prepare(
    opened: Vec<OwnedFd>,
    ends: Option<StdioFds>,
    entry: Entry,
    gate: OwnedFd,
    board: &Arc<Board>,
) -> Result<Prepared> {
    let move_up = |fd: OwnedFd| fd::above_standard(fd).context(|| "fcntl(F_DUPFD_CLOEXEC)");
    let ends = match ends {
        Some(StdioFds { stdin, stdout, stderr }) => {
            Some([move_up(stdin)?, move_up(stdout)?, move_up(stderr)?])
        }
        None => None,
    };
    let procs = entry.procs.into_iter().map(move_up).collect::<Result<Vec<_>>>()?;
    let (into, gate, board) = (entry.into, move_up(gate)?, Arc::clone(board));
    Ok(Prepared { opened, ends, procs, into, gate, cgroup: None, board, last: None, outpost: None })
}

impl CloneLauncher {
    /// Lets clone3(2) put the child into its cgroup; if that is impossible, the child writes cgroup.procs itself.
    fn make_in_cgroup(&self, plan: &Plan, prepared: &mut Prepared) -> Result<Child> {
        // With a user namespace, the second process enters the cgroup: two may exceed its pids limit.
        if plan.steps.iter().any(|(step, _)| matches!(step, Step::Sibling { .. } | Step::GiveCgroup { .. }))
            && let Some(directory) = prepared.into.take()
        {
            prepared.procs.push(open_procs(&directory)?);
            prepared.cgroup = Some(fd::above_standard(directory).context(|| "fcntl(F_DUPFD_CLOEXEC)")?);
        }
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
        let opened: Vec<BorrowedFd<'_>> = prepared.opened.iter().map(|fd| fd.as_fd()).collect();
        let slots: Vec<OnceCell<OwnedFd>> = (0..plan.opened()).map(|_| OnceCell::new()).collect();
        let ends = prepared
            .ends
            .as_ref()
            .map(|[stdin, stdout, stderr]| [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()]);
        let cgroups: Vec<BorrowedFd<'_>> = prepared.procs.iter().map(|fd| fd.as_fd()).collect();
        let cgroup = prepared.cgroup.as_ref().map(|fd| fd.as_fd());
        let lent_fds = opened.iter().copied().chain(ends.into_iter().flatten());
        let lent_fds = lent_fds.chain(cgroups.iter().copied()).chain([prepared.gate.as_fd()]).chain(cgroup);
        let outpost = prepared.outpost.as_ref();
        let lent_fds = lent_fds.chain(outpost.into_iter().flat_map(|o| [o.answers.as_fd(), o.gate.as_fd()]));
        let mut keep: Vec<_> = lent_fds.map(|fd| fd.as_raw_fd()).collect();
        keep.sort_unstable();
        let lent = Lent {
            steps: &plan.steps,
            keep: &keep,
            gate: prepared.gate.as_fd(),
            ends,
            opened: &opened,
            slots: &slots,
            cgroup,
            cgroups: &cgroups,
            board: &prepared.board,
            last: prepared.last.as_ref().map(|last| &last.prepared),
            outpost: outpost.map(|outpost| init::Outpost {
                last: &outpost.prepared,
                board: &outpost.board,
                answers: outpost.answers.as_fd(),
            }),
            reaps: plan.steps.iter().any(|(step, _)| matches!(step, Step::Reap)),
            filter: prepared.last.as_ref().and_then(|last| last.filter.as_ref()),
            ignored: self.ignored,
        };
        let into = prepared.into.as_ref().map(|fd| fd.as_fd());
        let mask = signal::block_all().context(|| "sigprocmask")?;
        let child = clone(plan.clone_flags, into, |forked| -> Infallible { init::run(forked, &lent) });
        signal::restore(mask).context(|| "sigprocmask")?;
        child.context(|| format!("clone3({:#x})", plan.clone_flags))
    }
}

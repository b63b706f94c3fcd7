//! The launcher that clones.

use super::birth::Birth;
use super::reaper::Reaper;
use super::underway::{births, stands_in, Underway};
use super::{last, lend, Launched, Launcher, Order};
use crate::cgroup::Entry;
use crate::error::{Context, Error, Kind, Result};
use crate::init::{self, Lent};
use crate::plan::{Plan, Step};
use crate::stdio::StdioFds;
use crate::sys::board::Board;
use crate::sys::clone::{clone, Child};
use crate::sys::fd::{self, AsFd, AsRawFd, BorrowedFd, OwnedFd};
use crate::sys::layout::Layout;
use crate::sys::{signal, socket, Key};
use crate::tasks::Answer;
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
    procs: Vec<Arc<OwnedFd>>,
    into: Option<OwnedFd>,
    gate: OwnedFd,
    cgroup: Option<OwnedFd>,
    board: Arc<Board>,
    last: Option<last::Last>,
    outpost: Option<last::Outpost>,
}

impl Launcher for CloneLauncher {
    fn launch<'a>(&'a self, order: Order<'a>) -> Answer<'a, Result<Launched<'a>>> {
        Box::pin(async move { self.clone_child(order)?.launched().await })
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
        let (hooked, console, listener) = (false, None, None);
        Ok(Underway {
            reaper,
            plan,
            gate,
            board,
            birth,
            leash,
            process,
            expected,
            hooked,
            console,
            listener,
            _hold,
        })
    }
}

fn open_procs(directory: &OwnedFd) -> Result<Arc<OwnedFd>> {
    let procs = fd::open_at(directory.as_fd(), c"cgroup.procs", libc::O_WRONLY, 0);
    let procs = procs.context(|| "open(cgroup.procs)")?;
    fd::above_standard(procs).map(Arc::new).context(|| "fcntl(F_DUPFD_CLOEXEC)")
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
    let Entry { into, procs, .. } = entry;
    let (gate, board) = (move_up(gate)?, Arc::clone(board));
    Ok(Prepared { opened, ends, procs, into, gate, cgroup: None, board, last: None, outpost: None })
}

impl CloneLauncher {
    /// Lets clone3(2) put the child into its cgroup; if that is impossible, the child writes cgroup.procs itself.
    fn make_in_cgroup(&self, plan: &Plan, prepared: &mut Prepared) -> Result<Child> {
        // With a user namespace, the second process enters the cgroup: two may exceed its pids limit. An exec that has
        // CPUs for the time before its cgroup cannot be born in it.
        let enters_itself = |step: &Step| {
            matches!(
                step,
                Step::Sibling { .. } | Step::GiveCgroup { .. } | Step::Affinity { initial: true, .. }
            )
        };
        if plan.steps.iter().any(|(step, _)| enters_itself(step))
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
            key: prepared.last.as_ref().map_or_else(Key::default, |last| last.key),
            ignored: self.ignored,
        };
        let into = prepared.into.as_ref().map(|fd| fd.as_fd());
        let mask = signal::block_all().context(|| "sigprocmask")?;
        let child = clone(plan.clone_flags, into, |forked| -> Infallible { init::run(forked, &lent) });
        signal::restore(mask).context(|| "sigprocmask")?;
        child.context(|| format!("clone3({:#x})", plan.clone_flags))
    }
}

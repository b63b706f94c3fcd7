//! The phase of each step, and the slot it fills.

use super::step::{Phase, Slot, Step};

impl Step {
    pub fn phase(&self) -> Phase {
        match self {
            Step::OpenNamespace { .. }
            | Step::OpenOwner { .. }
            | Step::EnterCgroup
            | Step::Affinity { .. }
            | Step::EnterResctrl { .. }
            | Step::OomScoreAdj(_)
            | Step::OpenExecLabel { .. }
            | Step::OpenKeyLabel
            | Step::SetNs { .. }
            | Step::LeaveGroups
            | Step::GiveStreams { .. }
            | Step::RaiseLimit { .. }
            | Step::GiveCgroup { .. }
            | Step::Unshare { .. }
            | Step::TimeOffsets(_)
            | Step::EnterTime
            | Step::OwnNetwork { .. }
            | Step::FindNetDevice { .. }
            | Step::NetDevice { .. }
            | Step::LoopbackUp => Phase::Isolate,
            Step::OpenTree { .. }
            | Step::OpenDevice { .. }
            | Step::OpenLoop { .. }
            | Step::MapTree { .. }
            | Step::MakeSlave
            | Step::LockMounts { .. }
            | Step::Idmap { .. }
            | Step::MoveBelow { .. }
            | Step::MountRootfs { .. }
            | Step::BindRoot { .. }
            | Step::OpenRoot { .. }
            | Step::BecomeRoot { .. }
            | Step::OpenProc { .. }
            | Step::Sysctl { .. }
            | Step::MountFs { .. }
            | Step::Attach { .. }
            | Step::Remount { .. }
            | Step::Mkdir { .. }
            | Step::MountPoint { .. }
            | Step::Symlink { .. }
            | Step::Mknod { .. }
            | Step::Console { .. }
            | Step::Mask { .. }
            | Step::ReadonlyPath { .. }
            | Step::ReadonlyRoot
            | Step::Hooks => Phase::Root,
            Step::Pivot
            | Step::Detach { .. }
            | Step::MoveRoot
            | Step::RootPropagation(_)
            | Step::JoinUser { .. }
            | Step::Hostname(_)
            | Step::Domainname(_) => Phase::Enter,
            Step::Terminal
            | Step::Stdio { .. }
            | Step::Keyring { .. }
            | Step::Descriptors
            | Step::Rlimit { .. }
            | Step::Umask(_)
            | Step::Personality(_)
            | Step::MemoryPolicy(_)
            | Step::Scheduler(_)
            | Step::IoPriority(_)
            | Step::Home { .. }
            | Step::ExecLabel { .. } => Phase::Session,
            Step::Aim { .. }
            | Step::NoNewPrivs
            | Step::Regain
            | Step::SeccompEarly(_)
            | Step::BoundingSet { .. }
            | Step::SetGroups(_)
            | Step::SetIds { .. }
            | Step::Workdir { .. }
            | Step::Capabilities(_) => Phase::Privileges,
            Step::Sibling { .. }
            | Step::FindProgram { .. }
            | Step::Bare
            | Step::Birth
            | Step::SetSid
            | Step::ControlTerminal
            | Step::Gate
            | Step::StandIn
            | Step::Reap
            | Step::Seccomp(_)
            | Step::Exec { .. } => Phase::Run,
        }
    }

    /// The slot into which the step opens something.
    pub fn fills(&self) -> Option<Slot> {
        match self {
            Step::OpenNamespace { slot, .. }
            | Step::OpenOwner { slot, .. }
            | Step::OpenTree { slot, .. }
            | Step::OpenDevice { slot, .. }
            | Step::OpenLoop { slot, .. } => Some(*slot),
            _ => None,
        }
    }
}

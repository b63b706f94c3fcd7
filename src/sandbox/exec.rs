//! Starting a further process in a running container.

use super::container::Container;
use super::create::io_owner;
use super::watch::{ExitOf, Watch};
use super::Exit;
use crate::error::Result;
use crate::launch::{Launcher, Leash, Order};
use crate::plan::{self, Host};
use crate::seccomp::Cache;
use crate::spec;
use crate::stdio::{Io, Labels, Stdio, Whose};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Weak};

/// What an exec needs besides its container.
pub(super) struct Starter<'a> {
    pub namespace: &'a str,
    pub host: &'a Host,
    pub launcher: &'a dyn Launcher,
    pub watch: &'a Watch,
    pub filters: &'a Cache,
    pub container: Weak<Container>,
    pub leash: &'a Leash,
}

pub(super) struct Started {
    pub pid: u32,
    pub pidfd: OwnedFd,
    pub io: Io,
}

/// What was asked for, taken out of the slot: a start is made without it.
pub(super) struct Wanted {
    pub process: Box<spec::Process>,
    pub stdio: Stdio,
    pub exit: Exit,
    /// The container's first process.
    pub init: OwnedFd,
    pub init_pid: u32,
}

impl Starter<'_> {
    pub async fn exec(&self, container: &Container, id: &str, wanted: &Wanted) -> Result<Started> {
        let compiled = super::create::filter(self.filters, &container.spec)?;
        let plan = plan::exec(&plan::ExecInput {
            spec: &container.spec,
            process: &wanted.process,
            host: self.host,
            id: &container.id,
            filter: compiled.map(|compiled| compiled.filter),
            no_new_keyring: container.options.no_new_keyring,
        })?;
        super::create::warn(&container.id, &plan.warnings);
        let labels = Labels { container: id, namespace: self.namespace };
        let (ends, io) = container
            .streams
            .open(&wanted.stdio, &labels, io_owner(&container.options), Whose::Exec, self.leash.deadline)
            .await?;
        let exit_of =
            ExitOf { container: self.container.clone(), exec: Some(id.into()), exit: wanted.exit.clone() };
        let queue = Arc::clone(self.watch.queue());
        let order = Order {
            plan: &plan,
            ends,
            entry: container.cgroup.entry(Some(wanted.init_pid))?,
            init: Some(wanted.init.as_fd()),
            hooks: None,
            leash: self.leash,
            on_exit: Box::new(move |status| queue.push(exit_of, status)),
        };
        let mut waiting = self.launcher.launch(order).await?;
        if let Some(master) = waiting.console.take() {
            io.attach_console(master)?;
        }
        let pid = waiting.pid;
        Ok(Started { pid, pidfd: waiting.start_by(self.leash).await?, io })
    }
}

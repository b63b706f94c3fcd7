//! The thread that makes all copies of a container: for its consoles, log files and execs.
//!
//! It also handles everything that takes time: it closes a fifo whose reader arrives late, and kills a logging program
//! that does not exit when told to.

use super::copy::{Copy, Outcome, Sink};
use super::copy_queue::{After, Command, CopyQueue, Line};
use super::fifo::Output;
use super::logger;
use crate::sys::edge_epoll::{Edge, EdgeEpoll};
use crate::sys::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The interval between checks for a missing reader, doubled from the first to the last value.
const FIRST_LOOK: Duration = Duration::from_millis(2);
const LAST_LOOK: Duration = Duration::from_millis(500);
/// How long the thread stays idle before it exits.
const IDLE: Duration = Duration::from_secs(1);
const SCRATCH: usize = 32 * 1024;

/// An output that had no reader when it ended.
struct Lingering {
    number: u64,
    output: Output,
    /// Where to leave it once it has had one.
    after: After,
    until: Instant,
    next: Instant,
    pause: Duration,
}

struct Retired {
    pidfd: OwnedFd,
    until: Instant,
    killed: bool,
}

/// The descriptors of a line, encoded in the low bits of an edge's token.
#[derive(Clone, Copy)]
#[repr(u64)]
enum Role {
    OutputFrom,
    OutputTo,
    InputFrom,
    InputTo,
    Logger,
}

const ROLES: u64 = 8;

fn token(number: u64, role: Role) -> u64 {
    number * ROLES + role as u64
}

/// The work of a [`CopyQueue`]'s thread.
pub fn run(copy_queue: &Arc<CopyQueue>, edges: &EdgeEpoll) {
    Copier::new(copy_queue, edges).run();
}

/// The state of the copying thread.
struct Copier<'a> {
    copy_queue: &'a Arc<CopyQueue>,
    edges: &'a EdgeEpoll,
    lines: BTreeMap<u64, Line>,
    hot: BTreeSet<u64>,
    lingering: Vec<Lingering>,
    retired: BTreeMap<u64, Retired>,
}

impl<'a> Copier<'a> {
    fn new(copy_queue: &'a Arc<CopyQueue>, edges: &'a EdgeEpoll) -> Self {
        Copier {
            copy_queue,
            edges,
            lines: BTreeMap::new(),
            hot: BTreeSet::new(),
            lingering: Vec::new(),
            retired: BTreeMap::new(),
        }
    }

    fn run(mut self) {
        let mut scratch = vec![0; SCRATCH];
        let mut edges = Vec::new();
        loop {
            let commands = self.copy_queue.take();
            for command in commands {
                if matches!(command, Command::Stop) {
                    self.copy_queue.thread_ends();
                    return;
                }
                self.obey(command);
            }
            self.look_for_readers();
            self.look_after_loggers();
            for number in std::mem::take(&mut self.hot) {
                self.turn(number, &mut scratch);
            }
            edges.clear();
            let rests = self.lines.is_empty() && self.lingering.is_empty() && self.retired.is_empty();
            let limit = match self.hot.is_empty() {
                true if rests => Some(IDLE),
                true => self.next_look(),
                false => Some(Duration::ZERO),
            };
            let begun = Instant::now();
            if self.edges.wait(&mut edges, limit).is_err() {
                // epoll_wait(2) fails only for a descriptor that is not an epoll instance.
                self.copy_queue.thread_ends();
                return;
            }
            for edge in &edges {
                self.note(edge);
            }
            if rests && begun.elapsed() >= IDLE && self.copy_queue.thread_rests() {
                return;
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Add(number, line) => {
                for (copy, from, to) in [
                    (&line.output, Role::OutputFrom, Role::OutputTo),
                    (&line.input, Role::InputFrom, Role::InputTo),
                ] {
                    let Some(copy) = copy else { continue };
                    self.watch(copy.from.as_fd(), token(number, from));
                    if let Some(fd) = copy.to.watched() {
                        self.watch(fd, token(number, to));
                    }
                }
                self.lines.insert(number, line);
                self.hot.insert(number);
            }
            Command::End(number) => {
                if let Some(line) = self.lines.get_mut(&number) {
                    end(self.edges, line);
                    self.hot.insert(number);
                }
            }
            Command::Close(number, output, after) => self.linger(number, output, after),
            Command::Drop(number) => {
                if let Some(mut line) = self.lines.remove(&number) {
                    for copy in [line.output.take(), line.input.take()].into_iter().flatten() {
                        forget(self.edges, &copy);
                    }
                    line.settled.set(());
                    line.progress.set(());
                }
                self.lingering.retain(|lingering| lingering.number != number);
            }
            Command::Retire(pidfd) => {
                let number = self.copy_queue.number();
                self.watch(pidfd.as_fd(), token(number, Role::Logger));
                let until = Instant::now() + self.copy_queue.limits.logger;
                self.retired.insert(number, Retired { pidfd, until, killed: false });
            }
            Command::KillLoggers => {
                for retired in self.retired.values_mut() {
                    retired.until = Instant::now();
                }
            }
            Command::Stop => {}
        }
    }

    fn watch(&self, fd: BorrowedFd<'_>, token: u64) {
        match self.edges.watch(fd, token) {
            // EPERM: a regular file never blocks, so it needs no edges.
            Ok(()) | Err(Errno::EPERM) => {}
            // ENOMEM, ENOSPC: without edges this copy continues only when something else wakes its line.
            Err(_) => {}
        }
    }

    fn note(&mut self, edge: &Edge) {
        let number = edge.token / ROLES;
        if edge.token % ROLES == Role::Logger as u64 {
            if edge.readable && self.retired.remove(&number).is_some() {
                self.copy_queue.logger_ended();
            }
            return;
        }
        let Some(line) = self.lines.get_mut(&number) else { return };
        self.hot.insert(number);
        let from = |role: Role| edge.readable && edge.token == token(number, role);
        // Opening a terminal again yields an edge on one side only, so let it count for both directions.
        let terminal = edge.token == token(number, Role::OutputFrom);
        if let Some(copy) = &mut line.output {
            copy.on_edge(
                from(Role::OutputFrom),
                edge.writable && edge.token == token(number, Role::OutputTo),
            );
        }
        if let Some(copy) = &mut line.input {
            let to = edge.token == token(number, Role::InputTo);
            copy.on_edge(from(Role::InputFrom), terminal || (edge.writable && to));
        }
    }

    fn turn(&mut self, number: u64, scratch: &mut [u8]) {
        let Some(line) = self.lines.get_mut(&number) else { return };
        let edges = self.edges;
        let mut hot = false;
        match line.input.as_mut().map(|copy| copy.turn(scratch)) {
            Some(Outcome::Hot) => hot = true,
            // Nobody can type any more: hang up the terminal after its remaining output.
            Some(Outcome::Done) => end(edges, line),
            Some(Outcome::Waits) | None => {}
        }
        let mut lingers = None;
        let outcome = line.output.as_mut().map(|copy| copy.turn(scratch));
        if line.output.as_ref().is_some_and(Copy::is_settled) {
            line.settled.set(());
        }
        match outcome {
            Some(Outcome::Hot) => hot = true,
            Some(Outcome::Done) => {
                end(edges, line);
                if let Some(copy) = line.output.take() {
                    forget(edges, &copy);
                    if let Sink::Fifo(mut output) = copy.to {
                        if output.has_reader() {
                            let ended = output.end();
                            line.after.lock().extend(ended);
                        } else {
                            lingers = Some((output, line.after.clone()));
                        }
                    }
                }
            }
            Some(Outcome::Waits) | None => {}
        }
        if line.output.is_none() && line.input.is_none() {
            line.settled.set(());
            line.progress.set(());
            self.lines.remove(&number);
        } else if hot {
            self.hot.insert(number);
        }
        if let Some((output, after)) = lingers {
            self.linger(number, output, after);
        }
    }

    fn linger(&mut self, number: u64, output: Output, after: After) {
        let now = Instant::now();
        self.lingering.push(Lingering {
            number,
            output,
            after,
            until: now + self.copy_queue.limits.reader,
            next: now + FIRST_LOOK,
            pause: FIRST_LOOK,
        });
    }

    fn look_for_readers(&mut self) {
        let now = Instant::now();
        for mut lingering in std::mem::take(&mut self.lingering) {
            if now >= lingering.next {
                if lingering.output.has_reader() {
                    let ended = lingering.output.end();
                    lingering.after.lock().extend(ended);
                    continue;
                }
                if now >= lingering.until {
                    continue;
                }
                lingering.pause = (lingering.pause * 2).min(LAST_LOOK);
                lingering.next = now + lingering.pause;
            }
            self.lingering.push(lingering);
        }
    }

    fn look_after_loggers(&mut self) {
        let now = Instant::now();
        for retired in self.retired.values_mut().filter(|r| !r.killed && r.until <= now) {
            logger::kill(retired.pidfd.as_fd());
            retired.killed = true;
        }
    }

    /// When the next check without an edge is due.
    fn next_look(&self) -> Option<Duration> {
        let readers = self.lingering.iter().map(|lingering| lingering.next);
        let loggers = self.retired.values().filter(|retired| !retired.killed).map(|retired| retired.until);
        readers.chain(loggers).min().map(|next| next.saturating_duration_since(Instant::now()))
    }
}

/// Ends the input; the output ends once its remaining data is copied.
fn end(edges: &EdgeEpoll, line: &mut Line) {
    if let Some(copy) = line.input.take() {
        forget(edges, &copy);
    }
    if let Some(copy) = &mut line.output {
        copy.end();
    }
}

fn forget(edges: &EdgeEpoll, copy: &Copy) {
    edges.forget(&copy.from);
    if let Some(fd) = copy.to.watched() {
        edges.forget(fd);
    }
}

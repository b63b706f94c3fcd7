//! Limits how many system calls it takes to run a container and an exec in it: those of the shim's threads, and those
//! of the child from its clone to its execve.

use crate::life::Life;
use crate::strace::{is_there, now, Call, Strace};
use crate::{alone, Bill, Budget};
use std::collections::BTreeMap;
use std::time::Duration;
use testbed::shim;

/// Long enough for events to be sent, yet shorter than an idle worker lives: a thread more or less would add noise.
const SETTLE: Duration = Duration::from_millis(150);

/// Enough rounds that accidental extra calls (a futex, a shorter read) are absent from at least one of them.
const ROUNDS: usize = 3;

type Histogram = BTreeMap<String, u64>;

/// The calls made until a process ran.
struct Run {
    shim: Histogram,
    child: Histogram,
}

/// Returns the pid of the process that makes the exec's: only that one joins the container's namespaces.
fn invisible(calls: &[Call], begin: Duration) -> u32 {
    let joined = calls.iter().find(|call| call.at >= begin && call.name == "setns");
    joined.expect("somebody joins the container").pid
}

/// Sorts the calls into the shim's and the child's. `processes` are the container's and their makers; of these,
/// `child` is the new one and `maker` the one that made it.
fn sort(
    calls: &[Call],
    (begin, end): (Duration, Duration),
    processes: &[u32],
    child: u32,
    maker: Option<u32>,
) -> Run {
    let during = || calls.iter().filter(|call| (begin..end).contains(&call.at));
    let of_child: Vec<&Call> = during().filter(|call| call.pid == child).collect();
    let execve = of_child.iter().rposition(|call| call.name == "execve" || call.name == "execveat");
    let execve = execve.unwrap_or_else(|| panic!("process {child} has executed nothing: {of_child:?}"));
    let histogram = |calls: &mut dyn Iterator<Item = &Call>| {
        calls.fold(Histogram::new(), |mut all, call| {
            *all.entry(call.name.clone()).or_default() += 1;
            all
        })
    };
    let of_maker = during().filter(|call| Some(call.pid) == maker);
    Run {
        shim: histogram(&mut during().filter(|call| !processes.contains(&call.pid))),
        child: histogram(&mut of_maker.chain(of_child[..=execve].iter().copied())),
    }
}

/// Runs a container and an exec in it.
fn round() -> [Run; 2] {
    let mut life = Life::begin(shim());
    let strace = Strace::attach(life.server, life.containerd.dir.path());
    let begin = now();
    let container = life.create();
    life.start("");
    std::thread::sleep(SETTLE);
    let between = now();
    life.exec("e1");
    let exec = life.start("e1");
    std::thread::sleep(SETTLE);
    let end = now();
    let calls = strace.detach();
    life.kill();
    life.wait("");
    life.wait("e1");
    life.delete("e1");
    life.delete("");
    life.end();
    let maker = invisible(&calls, between);
    let processes = [container, maker, exec];
    [
        sort(&calls, (begin, between), &processes, container, None),
        sort(&calls, (between, end), &processes, exec, Some(maker)),
    ]
}

fn sum(histogram: &Histogram) -> u64 {
    histogram.values().sum()
}

/// Prints the names before it judges: the output of a failed test is shown.
fn judge<'a>(bill: &mut Bill, what: &str, rounds: impl Iterator<Item = &'a Histogram>, budget: &Budget) {
    let rounds: Vec<&Histogram> = rounds.collect();
    println!("{what}, in each round: {:?}", rounds.iter().map(|round| sum(round)).collect::<Vec<_>>());
    let least = rounds.into_iter().min_by_key(|round| sum(round)).unwrap();
    let mut names: Vec<_> = least.iter().collect();
    names.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    names.iter().for_each(|(name, count)| println!("{count:6} {name}"));
    bill.add(what, sum(least), budget);
}

#[test]
fn system_calls_until_a_process_runs() {
    let Some(_alone) = alone() else { return };
    if !is_there() {
        return testbed::skip::missing("strace");
    }
    let rounds: Vec<[Run; 2]> = (0..ROUNDS).map(|_| round()).collect();
    let mut bill = Bill::default();
    let each = |index: usize| rounds.iter().map(move |round| &round[index]);
    judge(
        &mut bill,
        "calls of the shim to run a container",
        each(0).map(|run| &run.shim),
        &crate::SHIM_CREATES,
    );
    judge(
        &mut bill,
        "calls of a container's first process",
        each(0).map(|run| &run.child),
        &crate::CHILD_CREATES,
    );
    judge(&mut bill, "calls of the shim for an exec", each(1).map(|run| &run.shim), &crate::SHIM_EXECS);
    judge(&mut bill, "calls of an exec's process", each(1).map(|run| &run.child), &crate::CHILD_EXECS);
    bill.settle();
}

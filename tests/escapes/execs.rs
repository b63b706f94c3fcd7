//! Execs in a container that attacks them, by the attacker's rights.

use crate::attacker::Attacker;
use crate::world::World;
use std::time::Duration;

const TRACE: &str = "CAP_SYS_PTRACE";

/// The kinds of attack, and the number of execs for each.
const ATTACKS: &[(&str, u32)] = &[("stop", 18), ("step", 8), ("trace", 6), ("kill", 4)];

/// The number of execs that are held until their time is over.
const HELD: u32 = 4;

macro_rules! attackers {
    ($($name:ident: $attacker:expr;)*) => { $(
        #[test]
        fn $name() {
            attack(stringify!($name), $attacker);
        }
    )* };
}

attackers! {
    an_exec_shows_nothing_to_one_with_the_default_capabilities: Attacker::default_and(&[]);
    an_exec_shows_nothing_to_one_without_capabilities: Attacker::with(&[]);
    an_exec_shows_nothing_to_one_that_is_not_root: Attacker { uid: 1000, ..Attacker::with(&[]) };
    an_exec_shows_nothing_to_one_that_traces: Attacker::default_and(&[TRACE]);
    an_exec_shows_nothing_to_one_that_does_nothing_but_trace: Attacker::with(&[TRACE, "CAP_KILL"]);
    an_exec_shows_nothing_to_one_that_traces_and_administers: Attacker::default_and(&[TRACE, "CAP_SYS_ADMIN"]);
    an_exec_shows_nothing_to_one_that_traces_and_reads_everything:
        Attacker::default_and(&[TRACE, "CAP_DAC_READ_SEARCH"]);
    an_exec_shows_nothing_to_one_that_traces_and_changes_its_root:
        Attacker::with(&[TRACE, "CAP_KILL", "CAP_SYS_CHROOT"]);
    an_exec_shows_nothing_to_one_that_traces_behind_a_filter:
        Attacker { seccomp: true, ..Attacker::default_and(&[TRACE]) };
    an_exec_shows_nothing_to_one_that_traces_without_new_privileges:
        Attacker { no_new_privileges: true, ..Attacker::default_and(&[TRACE]) };
    an_exec_shows_nothing_to_one_that_traces_behind_a_filter_without_new_privileges:
        Attacker { seccomp: true, no_new_privileges: true, ..Attacker::default_and(&[TRACE]) };
    an_exec_shows_nothing_to_one_that_is_not_root_behind_a_filter:
        Attacker { uid: 1000, seccomp: true, no_new_privileges: true, ..Attacker::with(&[]) };
    an_exec_shows_nothing_to_one_in_a_user_namespace: Attacker { mapped: true, ..Attacker::default_and(&[]) };
    an_exec_shows_nothing_to_one_that_traces_in_a_user_namespace:
        Attacker { mapped: true, ..Attacker::default_and(&[TRACE]) };
    an_exec_with_a_terminal_shows_nothing: Attacker { terminal: true, ..Attacker::default_and(&[]) };
    an_exec_with_a_terminal_shows_nothing_to_one_that_traces:
        Attacker { terminal: true, ..Attacker::default_and(&[TRACE]) };
    an_exec_with_a_terminal_shows_nothing_in_a_user_namespace:
        Attacker { terminal: true, mapped: true, ..Attacker::default_and(&[TRACE]) };
}

fn attack(name: &str, attacker: Attacker) {
    if !crate::root(name) {
        return;
    }
    let terminal = attacker.terminal;
    let mut world = World::new(attacker);
    // Terminals of the container's own devpts; execs that are held, or kept by a tracer, have theirs at the same
    // time.
    let terminals = (0..10).filter(|_| terminal).map(|number| format!("/dev/pts/{number}"));
    world.ambush.facts.streams.extend(terminals);
    let mut answers = true;
    for (mode, count) in ATTACKS {
        world.ambush.trap.mode(mode);
        let before = world.ambush.trap.seen();
        for number in 0..*count {
            // A program that runs for a moment, and one that ends at once.
            let program =
                if number % 2 == 0 { &["/probe", "linger", "3"][..] } else { &["/probe", "exit", "0"] };
            answers = answers && world.victim(program);
        }
        if *mode == "stop" && answers {
            let seen = world.ambush.trap.seen() - before;
            assert!(
                seen >= u64::from(count / 3),
                "the attacker has seen {seen} of {count}: it does not work"
            );
        }
    }
    let outside = if answers { hold(&mut world) } else { 0 };
    world.ambush.trap.mode("wait");
    let inside = world.ambush.judge();
    println!("{name}: {inside} caught from inside, {outside} from outside, of {}", world.ambush.trap.seen());
    world.end(name);
}

/// Holds execs so that they never end: the shim gives them up when their time is over.
fn hold(world: &mut World) -> usize {
    world.ambush.trap.mode("hold");
    let held = world.held(HELD, Duration::from_millis(1500));
    std::thread::sleep(Duration::from_millis(500));
    let outside = world.ambush.look_from_outside();
    for (exec, wire) in held {
        world.give_up(&exec, wire);
    }
    outside
}

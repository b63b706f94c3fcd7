//! `ctr run -t`: a container with its own console.

use testbed::{until, Case, Pty};

cases! { run_on_a_terminal, a_terminal_follows_its_window, ctrl_c_interrupts, a_terminal_for_a_user, short_output_is_not_lost }

fn run_on_a_terminal(case: &mut Case<'_>) {
    let mut pty = Pty::spawn(&case.run_command(&["--rm", "-t"], &case.id, &["sh"]), 25, 90);
    pty.type_in("tty; until stty size 2>/dev/null | grep 90; do sleep 0.05; done; ls -l /dev/console; echo sum-$((20+3))\n");
    pty.expect("sum-23");
    let screen = pty.screen();
    assert!(screen.contains("/dev/pts/0") || screen.contains("/dev/console"), "{screen:?}");
    assert!(screen.contains("25 90"), "{screen:?}");
    pty.type_in("exit 3\n");
    assert_eq!(pty.wait(), 3, "{:?}", pty.screen());
}

fn a_terminal_follows_its_window(case: &mut Case<'_>) {
    let mut pty = Pty::spawn(&case.run_command(&["--rm", "-t"], &case.id, &["sh"]), 25, 90);
    pty.type_in("echo up-$((1+1))\n");
    pty.expect("up-2");
    pty.type_in("until stty size | grep 122; do sleep 0.05; done\n");
    // The client may not listen for changes yet, and the kernel only reports a change.
    until("the new size", 20, || {
        pty.resize(43, 121);
        pty.resize(44, 122);
        std::thread::sleep(std::time::Duration::from_millis(100));
        pty.screen().contains("44 122").then_some(())
    });
    pty.type_in("exit\n");
    assert_eq!(pty.wait(), 0, "{:?}", pty.screen());
}

fn ctrl_c_interrupts(case: &mut Case<'_>) {
    let mut pty = Pty::spawn(&case.run_command(&["--rm", "-t"], &case.id, &["sh"]), 25, 90);
    pty.type_in("sh -c 'echo up-$((1+1)); sleep 1000'\n");
    pty.expect("up-2");
    pty.type_in("\x03");
    pty.type_in("echo after-$((5+6))\n");
    pty.expect("after-11");
    pty.type_in("exit 2\n");
    assert_eq!(pty.wait(), 2, "{:?}", pty.screen());
}

fn a_terminal_for_a_user(case: &mut Case<'_>) {
    let mut pty =
        Pty::spawn(&case.run_command(&["--rm", "-t", "--user", "1000:1000"], &case.id, &["sh"]), 25, 90);
    // The user owns the console and can reopen it by name.
    pty.type_in("stat -c owner-%u $(tty); echo again-$((3+4)) >$(tty); : </dev/console && echo console-ok\n");
    pty.expect("again-7");
    pty.expect("owner-1000");
    pty.expect("console-ok");
    pty.type_in("exit\n");
    assert_eq!(pty.wait(), 0, "{:?}", pty.screen());
}

fn short_output_is_not_lost(case: &mut Case<'_>) {
    for round in 0..20 {
        let id = case.id(&round.to_string());
        let mut pty = Pty::spawn(&case.run_command(&["--rm", "-t"], &id, &["echo", "short"]), 24, 80);
        assert_eq!(pty.wait(), 0, "{:?}", pty.screen());
        pty.expect("short");
    }
}

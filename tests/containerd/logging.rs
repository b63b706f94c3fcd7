//! `--log-uri`: output without a client.

use std::os::unix::fs::PermissionsExt;

use testbed::{until, Case, Runtime};

cases! { log_to_a_file, log_to_a_program, exec_logs_to_a_file, a_log_program_that_is_missing }

fn log_to_a_file(case: &mut Case<'_>) {
    let _ = std::fs::remove_dir_all(case.containerd.dir("logs")); // of an attempt that has failed
    let file = case.containerd.dir("logs/new/out.log");
    let uri = format!("file://{}", file.display());
    for round in 1..=2 {
        case.detach(&["--log-uri", &uri], &["sh", "-c", "echo out; echo err >&2"]);
        case.until_state("STOPPED");
        case.remove();
        let text = std::fs::read_to_string(&file).expect("the runtime makes the file and its folder");
        assert_eq!(text.len(), 8 * round, "both streams, appended: {text:?}");
        assert_eq!(text.lines().filter(|line| *line == "out").count(), round, "{text:?}");
        assert_eq!(text.lines().filter(|line| *line == "err").count(), round, "{text:?}");
    }
    std::fs::remove_dir_all(case.containerd.dir("logs")).expect("remove the logs");
}

fn log_to_a_program(case: &mut Case<'_>) {
    let (program, out) = (case.containerd.dir("logger"), case.containerd.dir("logged"));
    // A runtime may send SIGTERM once the container's ends are closed; the logger must still read what was written.
    // Descriptors 3 and 4 are the container's output; closing 5 reports that the logger is ready.
    let script = "#!/bin/sh\ntrap '' TERM; env | grep ^CONTAINER_ | sort >\"$2.env\"; echo \"$@\" >\"$2.args\"\n\
                  ulimit -Sn >\"$2.limit\"; exec 5>&-; cat <&3 >\"$2.out\" & cat <&4 >\"$2.err\" & exec 3<&- 4<&-; wait; touch \"$2.end\"\n";
    std::fs::write(&program, script).expect("write a logger");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).expect("make it executable");
    let uri = format!("binary://{}?into={}", program.display(), out.display());
    case.detach(&["--log-uri", &uri], &["sh", "-c", "echo out; echo err >&2; sleep 0.2; echo late"]);
    case.until_state("STOPPED");
    case.remove();
    let text = |end: &str| std::fs::read_to_string(format!("{}.{end}", out.display())).unwrap_or_default();
    until("the logger to end", 15, || std::fs::metadata(format!("{}.end", out.display())).ok());
    assert_eq!((text("out").as_str(), text("err").as_str()), ("out\nlate\n", "err\n"));
    assert_eq!(
        text("env"),
        format!("CONTAINER_ID={}\nCONTAINER_NAMESPACE={}\n", case.id, case.containerd.namespace())
    );
    assert_eq!(text("args"), format!("into {}\n", out.display()));
    assert_eq!(text("limit"), "1024\n", "as containerd was started, not as the shim needs it");
    for end in ["out", "err", "env", "args", "limit", "end"] {
        std::fs::remove_file(format!("{}.{end}", out.display())).expect("remove what the logger wrote");
    }
}

fn exec_logs_to_a_file(case: &mut Case<'_>) {
    let file = case.containerd.dir("exec.log");
    let _ = std::fs::remove_file(&file);
    let uri = format!("file://{}", file.display());
    case.detach(&[], &["sleep", "1000"]);
    // The Go shim of 1.7 loses the output of an exec that ends before its copying has begun.
    let rest = if case.runtime == Runtime::Runc { "; sleep 1" } else { "" };
    let script = format!("echo exec-out; echo exec-err >&2{rest}");
    case.exec(&["-d", "--exec-id", "l", "--log-uri", &uri], &["sh", "-c", &script]).ok();
    let complete = || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        text.len() == 18 && text.contains("exec-out\n") && text.contains("exec-err\n")
    };
    until("the exec's output", 10, || complete().then_some(()));
    case.remove();
    std::fs::remove_file(&file).expect("remove the log");
}

fn a_log_program_that_is_missing(case: &mut Case<'_>) {
    let uri = "binary:///no/such/logger?a=b";
    let out = testbed::run(&mut case.run_command(&["-d", "--log-uri", uri], &case.id, &["echo", "x"]));
    out.fails_with("no such file or directory");
    case.containerd.clear();
}

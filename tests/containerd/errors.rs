//! Bad input: the error says what is wrong, and nothing is left behind (each case ends with that check).

use testbed::{Case, Runtime};

cases! {
    a_missing_program, a_program_that_is_none, a_bad_interpreter, a_bad_cwd, a_bad_mount_source, a_bad_filesystem,
    a_bad_mount_option, a_limit_that_is_too_small, a_limit_that_the_kernel_refuses, a_bad_namespace, a_missing_rootfs, an_unknown_capability, a_bad_spec_file,
    a_task_that_does_not_exist, failures_do_not_add_up,
}

fn a_missing_program(case: &mut Case<'_>) {
    case.run(&[], &["/nope"]).fails_with("no such file or directory");
    case.run(&[], &["no-such-program"]).fails_with("executable file not found in $PATH");
}

fn a_program_that_is_none(case: &mut Case<'_>) {
    case.run(&[], &["/opt/plain"]).fails_with("permission denied");
    let out = case.run(&[], &["/opt"]);
    assert!(out.code != 0, "{out}");
    assert!(out.stderr.contains("is a directory") || out.stderr.contains("permission denied"), "{out}");
}

fn a_bad_interpreter(case: &mut Case<'_>) {
    case.run(&[], &["/opt/orphan"]).fails_with("no such file or directory");
}

fn a_bad_cwd(case: &mut Case<'_>) {
    case.run(&["--cwd", "/opt/plain"], &["pwd"]).fails_with("not a directory");
}

fn a_bad_mount_source(case: &mut Case<'_>) {
    let out = case.run(&["--mount", "type=bind,src=/no/such/source,dst=/m,options=rbind"], &["true"]);
    out.fails_with("no such file or directory");
    assert!(out.stderr.contains("/no/such/source"), "the message names the source: {out}");
}

fn a_bad_filesystem(case: &mut Case<'_>) {
    let out = case.run(&["--mount", "type=nosuchfs,src=x,dst=/m"], &["true"]);
    assert!(
        out.code != 0 && (out.stderr.contains("no such device") || out.stderr.contains("ENODEV")),
        "{out}"
    );
}

fn a_bad_mount_option(case: &mut Case<'_>) {
    let out = case.run(&["--mount", "type=tmpfs,src=tmpfs,dst=/m,options=size=nonsense"], &["true"]);
    out.fails_with("invalid argument");
    assert!(out.stderr.contains("/m"), "the message names the mount: {out}");
}

fn a_limit_that_the_kernel_refuses(case: &mut Case<'_>) {
    // A quota of less than a millisecond, which the kernel refuses.
    let out = case.run(&["--cpu-quota", "1", "--cpu-period", "100000"], &["true"]);
    out.fails_with("invalid argument");
    if case.runtime == Runtime::Shoal {
        assert!(out.stderr.contains(": linux.resources.cpu: write("), "the message names the field: {out}");
    }
}

fn a_limit_that_is_too_small(case: &mut Case<'_>) {
    let out = case.run(&["--memory-limit", "1024"], &["true"]);
    assert!(out.code != 0, "{out}");
}

fn a_bad_namespace(case: &mut Case<'_>) {
    case.run(&["--with-ns", "network:/proc/1/no-such-ns"], &["true"]).fails_with("no such file or directory");
    let out = case.run(&["--with-ns", "network:/etc/passwd"], &["true"]);
    assert!(out.code != 0, "{out}");
}

fn a_missing_rootfs(case: &mut Case<'_>) {
    let mut command = case.containerd.ctr_command([
        "run",
        "--rm",
        "--runtime",
        case.runtime.name(),
        "--rootfs",
        "/no/such/rootfs",
        &case.id,
        "true",
    ]);
    testbed::run(&mut command).fails_with("no such file or directory");
}

fn an_unknown_capability(case: &mut Case<'_>) {
    // The log has a warning, but the create succeeds: newer clients know capabilities that this kernel does not.
    case.run(&["--cap-add", "CAP_NO_SUCH"], &["true"]).ok();
}

fn a_bad_spec_file(case: &mut Case<'_>) {
    let file = case.containerd.dir("spec.json");
    let path = file.to_string_lossy().into_owned();
    // Valid JSON, but no process and no root.
    std::fs::write(&file, r#"{"ociVersion":"1.0.2"}"#).expect("write a spec");
    let mut command = case.containerd.ctr_command([
        "run",
        "--rm",
        "--runtime",
        case.runtime.name(),
        "--config",
        &path,
        &case.id,
    ]);
    let out = testbed::run(&mut command);
    assert!(out.code != 0, "{out}");
    if case.runtime == Runtime::Shoal {
        let words = format!("create {}: root: missing", case.id);
        assert!(out.stderr.contains(&words), "the field comes first: {out}");
    }
    std::fs::remove_file(&file).expect("remove the spec");
}

fn a_task_that_does_not_exist(case: &mut Case<'_>) {
    for verb in ["kill", "pause", "resume", "delete", "metrics", "ps"] {
        let out = case.ctr(&["tasks", verb, "nobody"]);
        assert!(out.code != 0 && out.stderr.contains("not found"), "{verb}: {out}");
    }
}

fn failures_do_not_add_up(case: &mut Case<'_>) {
    for _ in 0..5 {
        case.run(&[], &["/nope"]).fails_with("no such file or directory");
        case.run(&["--mount", "type=bind,src=/nope,dst=/m,options=rbind"], &["true"])
            .fails_with("no such file");
        assert_eq!(case.run(&[], &["echo", "fine"]).ok(), "fine\n");
    }
}

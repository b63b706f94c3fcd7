//! A shim beside those of another runtime, and lookup of a shim by the name of its socket.

use testbed::{run, Case, Runtime};

cases! {
    ctr_finds_the_shim_by_its_socket, a_group_that_another_runtimes_shim_has_is_not_joined,
    a_program_for_a_runtime_that_is_missing_is_named, the_root_of_the_options_has_a_folder_of_the_container,
}

fn ctr_finds_the_shim_by_its_socket(case: &mut Case<'_>) {
    case.detach(&[], &["sleep", "1000"]);
    let state = case.ctr(&["shim", "--id", &case.id, "state"]);
    let state: serde_json::Value = serde_json::from_str(state.ok()).expect("a state as JSON");
    assert_eq!((state["id"].as_str(), state["pid"].as_u64()), (Some(&*case.id), Some(case.pid().into())));
    case.remove();
}

/// A shoal container in the group of containerd's own shim would have none of shoal's guarantees.
fn a_group_that_another_runtimes_shim_has_is_not_joined(case: &mut Case<'_>) {
    let group = format!("io.containerd.runc.v2.group={}", case.id("group"));
    let first = case.id("first");
    let runc = ["run", "-d", "--runtime", Runtime::Runc.name(), "--annotation", &group];
    case.ctr(&[&runc[..], &[case.containerd.image(), &first, "sleep", "1000"]].concat()).ok();
    let mut second = case.run_command(&["--rm", "--annotation", &group], &case.id, &["echo", "fine"]);
    let out = run(&mut second);
    match case.runtime {
        Runtime::Runc => assert_eq!(out.ok(), "fine\n"),
        Runtime::Shoal => {
            out.fails_with("is not shoal's shim of it");
            assert!(out.stderr.contains(&case.id("group")), "{out}");
        }
    }
    // The other runtime's shim is unaffected.
    let list = case.ctr(&["tasks", "ls"]);
    assert!(list.ok().lines().any(|l| l.starts_with(&first) && l.contains("RUNNING")), "{list}");
    case.ctr(&["tasks", "delete", "--force", &first]);
    case.ctr(&["containers", "delete", &first]).ok();
}

/// Passes an option of runc's shim in the form that the runtime takes.
fn options(case: &Case<'_>, name: &str, value: &str, flag: &str) -> Vec<String> {
    match case.runtime {
        Runtime::Runc => vec![flag.into(), value.into()],
        Runtime::Shoal => {
            let file = case.containerd.dir("options.toml");
            std::fs::write(&file, format!("{name} = {value:?}\n")).expect("write the options");
            vec!["--runtime-config-path".into(), file.to_string_lossy().into_owned()]
        }
    }
}

fn a_program_for_a_runtime_that_is_missing_is_named(case: &mut Case<'_>) {
    let flags = options(case, "BinaryName", "no-such-runc", "--runc-binary");
    let out = case.run(&[&flags[0], &flags[1]], &["true"]);
    // In quotes, which are escaped where one message quotes the other.
    out.fails_with("executable file not found in $PATH");
    assert!(out.stderr.replace('\\', "").contains("\"no-such-runc\""), "{out}");
}

fn the_root_of_the_options_has_a_folder_of_the_container(case: &mut Case<'_>) {
    let root = case.containerd.dir("runtime-root");
    let flags = options(case, "Root", &root.to_string_lossy(), "--runc-root");
    case.detach(&[&flags[0], &flags[1]], &["sleep", "1000"]);
    let place = root.join(case.containerd.namespace()).join(&case.id);
    assert!(place.is_dir(), "{}", place.display());
    case.remove();
    assert!(!place.exists(), "{}", place.display());
}

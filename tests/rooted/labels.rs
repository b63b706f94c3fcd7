//! The program's label from a security module.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::{same, same_exec};
use shoal::plan::{AppArmor, Host};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

const NAME: &str = "shoal-rooted";
const PROFILE: &str = "profile shoal-rooted flags=(attach_disconnected) {
    file, capability, network, mount, umount, signal, ptrace, unix, pivot_root,
}
";

/// Runs apparmor_parser; returns false if there is none, or if it fails.
fn parser(option: &str) -> bool {
    let spawned =
        Command::new("apparmor_parser").arg(option).stdin(Stdio::piped()).stderr(Stdio::inherit()).spawn();
    let Ok(mut parser) = spawned else { return false };
    parser.stdin.take().unwrap().write_all(PROFILE.as_bytes()).unwrap();
    parser.wait().unwrap().success()
}

#[test]
fn a_profile_of_apparmor_is_as_with_runc() {
    if !rooted("a_profile_of_apparmor_is_as_with_runc") {
        return;
    }
    if Host::probe(Path::new("/")).unwrap().apparmor == AppArmor::Off || !parser("-r") {
        println!("SKIPPED a_profile_of_apparmor_is_as_with_runc: no AppArmor here, or no apparmor_parser");
        return;
    }
    let compared = std::panic::catch_unwind(|| {
        for make in [Bundle::new, crate::users::bundle] {
            let mut bundle = make(&["/probe", "report"]);
            bundle.spec["process"]["apparmorProfile"] = NAME.into();
            let label = serde_json::json!([format!("{NAME} (enforce)")]);
            assert_eq!(same(&bundle)["label"], label);
            let process = bundle.spec["process"].clone();
            bundle.spec["process"]["args"] = serde_json::json!(["/probe", "sleep"]);
            assert_eq!(same_exec(&bundle, &process)["label"], label);
        }
    });
    parser("-R");
    compared.unwrap();
}

//! The features document of the binary, beside runc's.

use crate::container::runc;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn features(program: &Path) -> Value {
    let output = Command::new(program).arg("features").output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Adds to `lacks` what `theirs` has and `ours` has not.
fn compare(at: &str, ours: &Value, theirs: &Value, lacks: &mut Vec<String>) {
    match theirs {
        Value::Object(fields) => {
            for (name, value) in fields {
                compare(&format!("{at}/{name}"), &ours[name], value, lacks);
            }
        }
        Value::Array(words) => {
            let ours: &[Value] = ours.as_array().map_or(&[], Vec::as_slice);
            lacks
                .extend(words.iter().filter(|word| !ours.contains(word)).map(|word| format!("{at}: {word}")));
        }
        _ if ours == theirs => {}
        _ => lacks.push(format!("{at}: {theirs}")),
    }
}

#[test]
fn what_runc_has_is_there_too() {
    let Some(runc) = runc() else { return };
    let ours = features(Path::new(env!("CARGO_BIN_EXE_containerd-shim-shoal-v2")));
    let mut theirs = features(&runc);
    // Who they are, and runc's newest version of the specification, which is not newer than ours.
    let document = theirs.as_object_mut().unwrap();
    document.remove("annotations");
    assert!(document.remove("ociVersionMax").unwrap().as_str() <= ours["ociVersionMax"].as_str());
    let mut lacks = Vec::new();
    compare("", &ours, &theirs, &mut lacks);
    // runc names all that libseccomp has a name for, also those of the other byte order, which it refuses to compile.
    lacks.retain(|what| !what.starts_with("/linux/seccomp/archs: "));
    // An annotation that runc itself writes, and ours does not read.
    assert_eq!(lacks, ["/potentiallyUnsafeConfigAnnotations: \"bundle\""]);
}

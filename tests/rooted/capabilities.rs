//! The five sets of `process.capabilities`, in every combination, ours and runc's.

use crate::bench::rooted;
use crate::container::Bundle;
use crate::reports::same_exec;
use serde_json::{json, Value};

const NAMES: [&str; 5] = ["bounding", "permitted", "effective", "inheritable", "ambient"];

/// Has a capability in each subset of the five sets: what runc refuses is refused, what it leaves out is left out.
#[test]
fn each_mixture_of_the_five_sets_is_as_with_runc() {
    if !rooted("each_mixture_of_the_five_sets_is_as_with_runc") {
        return;
    }
    let Some(runc) = crate::container::runc() else { return };

    let mut refused = 0;
    for (mixture, uid) in (0..32u32).flat_map(|mixture| [(mixture, 0), (mixture, 1000)]) {
        let of = |set: usize| if mixture & (1 << set) != 0 { json!(["CAP_CHOWN"]) } else { json!([]) };
        let sets: serde_json::Map<_, _> =
            NAMES.into_iter().zip((0..5).map(of)).map(|(k, v)| (k.to_owned(), v)).collect();
        let mut bundle = Bundle::new(&["/probe", "report"]);
        bundle.spec["process"]["user"] = json!({ "uid": uid, "gid": uid });
        bundle.spec["process"]["capabilities"] = sets.clone().into();
        let theirs = bundle.try_runc(&runc);
        match bundle.create() {
            Ok(running) => {
                let ours: Value = serde_json::from_str(&running.finish()).unwrap();
                let errors = String::from_utf8_lossy(&theirs.stderr);
                assert!(theirs.status.success(), "{sets:?}, {uid}: runc refuses it: {errors}");
                let theirs: Value = serde_json::from_slice(&theirs.stdout).unwrap();
                assert_eq!(ours["capabilities"], theirs["capabilities"], "{sets:?}, {uid}");
            }
            Err(e) => {
                assert!(!theirs.status.success(), "{sets:?}, {uid}: runc runs it, and here: {e}");
                assert!(e.to_string().starts_with("process.capabilities: "), "{e}");
                refused += 1;
            }
        }
        let ignored = bundle.plan().unwrap().warnings.iter().any(|warning| warning.contains("ambient"));
        assert_eq!(ignored, mixture & 0b10000 != 0 && mixture & 0b01010 != 0b01010, "{sets:?}");
    }
    // Effective without permitted, inheritable without bounding.
    assert_eq!(refused, 2 * 14);
}

#[test]
fn an_exec_gets_what_can_be_raised_as_with_runc() {
    if !rooted("an_exec_gets_what_can_be_raised_as_with_runc") {
        return;
    }
    let mut bundle = Bundle::new(&["/probe", "sleep"]);
    let all = json!(["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"]);
    let mut sets = json!({ "bounding": all, "permitted": all, "effective": all, "inheritable": all });
    bundle.spec["process"]["capabilities"] = sets.clone();
    sets["inheritable"] = json!(["CAP_CHOWN"]);
    sets["ambient"] = json!(["CAP_CHOWN", "CAP_KILL", "CAP_NOBODY_KNOWS"]);
    let limit = json!({ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1000 });
    let mut process = json!({ "args": ["/probe", "report"], "cwd": "/", "env": ["PATH=/"], "rlimits": [limit], "capabilities": sets });
    for uid in [0, 1000] {
        process["user"] = json!({ "uid": uid, "gid": uid });
        let warnings = bundle.exec_plan(&process).unwrap().warnings;
        let ignored = "process.capabilities.ambient: CAP_KILL is not both permitted and inheritable, ignored";
        assert!(warnings.iter().any(|warning| warning == ignored), "{warnings:?}");
        let report = same_exec(&bundle, &process);
        assert_eq!(report["capabilities"]["ambient"], "0000000000000001");
    }
}

//! The time of a container, from its spec to its exit, compared with `runc run` of the same bundle in the same run.

use crate::bench::rooted;
use crate::container::{runc, Bundle};
use serde_json::json;
use std::time::{Duration, Instant};

const ROUNDS: usize = 20;

/// The share of runc's time: twice what an unoptimised build of ours needs.
const BUDGET: f64 = 0.3;

#[test]
fn a_container_costs_a_third_of_runc_s_time_at_most() {
    if !rooted("a_container_costs_a_third_of_runc_s_time_at_most") {
        return;
    }
    let Some(runc) = runc() else { return };
    let changed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut bundle = Bundle::new(&["/probe", "exit", "0"]);
        change(&mut bundle.spec);
        bundle
    };
    let bundles = [
        ("default", changed(&|_| {})),
        ("a user namespace", crate::users::bundle(&["/probe", "exit", "0"])),
        (
            "the host's network",
            changed(&|spec| {
                let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
                namespaces.retain(|namespace| namespace["type"] != "network");
            }),
        ),
        (
            "no masked or read-only paths",
            changed(&|spec| {
                spec["linux"]["maskedPaths"] = json!([]);
                spec["linux"]["readonlyPaths"] = json!([]);
            }),
        ),
    ];
    for (what, bundle) in &bundles {
        let (mut ours, mut runcs) = (Vec::new(), Vec::new());
        // Alternating, so that other load on the machine affects both.
        for _ in 0..ROUNDS {
            ours.push(timed(|| drop(bundle.create().unwrap().finish())));
            runcs.push(timed(|| drop(bundle.run_runc(&runc))));
        }
        let (ours, runcs) = (median(ours), median(runcs));
        let ratio = ours.as_secs_f64() / runcs.as_secs_f64();
        println!("{what}: {ours:?}, runc {runcs:?}, ratio {ratio:.2}");
        assert!(ratio <= BUDGET, "{what}: {ours:?} beside {runcs:?} of runc's");
    }
}

fn timed(run: impl FnOnce()) -> Duration {
    let began = Instant::now();
    run();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

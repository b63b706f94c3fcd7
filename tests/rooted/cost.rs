//! What a create costs: not a test of a limit, but the number to look at. Run it with `--ignored --nocapture`.

use crate::bench::rooted;
use crate::container::{launch, Bundle};
use std::time::{Duration, Instant};

#[test]
#[ignore = "a measurement"]
fn a_create_takes_this_long() {
    if !rooted("a_create_takes_this_long") {
        return;
    }
    let default = Bundle::new(&["/probe", "exit", "0"]);
    measure("default", &default);
    measure("a user namespace", &crate::users::bundle(&["/probe", "exit", "0"]));
    let without = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut bundle = Bundle::new(&["/probe", "exit", "0"]);
        change(&mut bundle.spec);
        bundle
    };
    measure(
        "the host's network",
        &without(&|spec| spec["linux"]["namespaces"].as_array_mut().unwrap().truncate(4)),
    );
    measure(
        "no masked or read-only paths",
        &without(&|spec| {
            spec["linux"]["maskedPaths"] = serde_json::json!([]);
            spec["linux"]["readonlyPaths"] = serde_json::json!([]);
        }),
    );
}

fn measure(what: &str, bundle: &Bundle) {
    let plan = bundle.plan().unwrap();
    let mut of_create = Vec::new();
    let mut of_run = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        let running = launch(&plan, None).unwrap();
        of_create.push(began.elapsed());
        let began = Instant::now();
        running.finish();
        of_run.push(began.elapsed());
    }
    let middle = |times: &mut Vec<Duration>| {
        times.sort();
        times[times.len() / 2]
    };
    println!("{what}: create {:?}, start to exit {:?}", middle(&mut of_create), middle(&mut of_run));
}

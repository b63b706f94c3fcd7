//! Real processes by the real launcher: needs root. Where that is missing, every test here says so and is skipped (in CI: fails).

#[path = "rooted/affinity.rs"]
mod affinity;
#[path = "rooted/bench.rs"]
mod bench;
#[path = "rooted/capabilities.rs"]
mod capabilities;
#[path = "rooted/container.rs"]
mod container;
#[path = "rooted/cost.rs"]
mod cost;
#[path = "rooted/escapes.rs"]
mod escapes;
#[path = "rooted/faults.rs"]
mod faults;
#[path = "rooted/hooks.rs"]
mod hooks;
#[path = "rooted/kernels.rs"]
mod kernels;
#[path = "rooted/labels.rs"]
mod labels;
#[path = "rooted/launches.rs"]
mod launches;
#[path = "rooted/limits.rs"]
mod limits;
#[path = "rooted/matrix.rs"]
mod matrix;
#[path = "rooted/options.rs"]
mod options;
#[path = "rooted/owners.rs"]
mod owners;
#[path = "rooted/pods.rs"]
mod pods;
#[path = "rooted/reports.rs"]
mod reports;
#[path = "rooted/roots.rs"]
mod roots;
#[path = "testbed/skip.rs"]
mod skip;
#[path = "rooted/sources.rs"]
mod sources;
#[path = "rooted/users.rs"]
mod users;

//! `memory.checkBeforeUpdate`.

use super::{counts_memory, finish, inside, layout, make, read, until};
use shoal::cgroup::Stats;
use shoal::error::Kind;
use shoal::spec::resources::Resources;
use shoal::tasks::block_on;

const MANY: u64 = 20_000_000;

#[test]
fn a_limit_below_what_is_used_is_refused_if_the_request_says_so() {
    let Some(layout) = layout() else { return };
    if !counts_memory(&layout) {
        return;
    }
    let cgroup = make(&layout, "usage", r#"{"memory":{"limit":67108864}}"#);
    let script = format!("kept=$(head -c {MANY} /dev/zero | tr '\\0' x); read more; echo \"$kept\"");
    let mut child = inside(&*cgroup, &script);
    until("the use of memory", || match cgroup.stats().unwrap() {
        Stats::V1(stats) => stats.memory.unwrap().usage.usage > MANY,
        Stats::V2(stats) => stats.memory.usage > MANY,
    });
    let less = r#"{"memory":{"limit":8388608,"checkBeforeUpdate":true}}"#;
    let error =
        block_on(cgroup.update(&Resources::from_json(less.as_bytes(), "resources").unwrap())).unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    assert!(error.to_string().contains("8388608 is below the "), "{error}");
    let file = if layout.is_v2() { "memory.max" } else { "memory.limit_in_bytes" };
    assert_eq!(read(&*cgroup, "memory", file), "67108864");
    assert!(child.try_wait().unwrap().is_none(), "it was killed");
    cgroup.kill().unwrap();
    child.wait().unwrap();
    finish(&*cgroup);
}

//! Golden plans: what each spec of `golden/specs` is compiled to on a v1 and on a v2 host, as text.
//!
//! The specs of ctr and docker are what these programs wrote (containerd 1.7.24 and 2.1.9, docker 26.1.5 and
//! 28.5.2; long lists of devices and system calls are cut). Those of the kubelet's runtime, of
//! nerdctl and those with user namespaces follow their code. `SHOAL_BLESS=1 cargo test --test golden` writes the plans anew: read the difference.

mod case;
mod error;
mod hook;
mod image;
mod label;
mod mapping;
mod mutation;
mod pod;
mod property;
mod warning;

use case::{Case, Hosts};
use std::collections::BTreeMap;
use std::path::PathBuf;

fn folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden")).join(name)
}

#[test]
fn every_spec_has_its_plan_on_both_hosts() {
    let plan = |case: &Case, host: &shoal::plan::Host| match case.compile(host) {
        Ok(plan) => plan.to_string(),
        Err(e) => panic!("{}: {e}", case.name),
    };
    let of = |case: Case| {
        Hosts::both().map(|(host, facts)| (format!("{}.{host}.txt", case.name), plan(&case, &facts)))
    };
    let all: BTreeMap<String, String> = Case::all().into_iter().flat_map(of).collect();
    assert!(all.len() >= 40, "only {} plans", all.len());
    compare("plans", &all);
}

#[test]
fn every_kind_of_pod_has_its_plan() {
    compare("pods", &pod::all());
}

#[test]
fn every_place_of_a_hook_has_its_plan() {
    compare("hooks", &hook::all());
}

#[test]
fn what_is_restored_has_its_plans() {
    compare("images", &image::all());
}

/// `texts` are by the names of their files in the folder, which has no others.
fn compare(name: &str, texts: &BTreeMap<String, String>) {
    let bless = std::env::var_os("SHOAL_BLESS").is_some();
    let mut wrong = Vec::new();
    for (file, text) in texts {
        let path = folder(name).join(file);
        if bless {
            std::fs::write(&path, text).expect("writable");
        } else if std::fs::read_to_string(&path).ok().as_ref() != Some(text) {
            let old = std::fs::read_to_string(&path).unwrap_or_default();
            wrong.push(format!("{file}:\n{}", difference(&old, text)));
        }
    }
    let there = std::fs::read_dir(folder(name)).expect("readable");
    let there = there.map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"));
    for orphan in there.filter(|file| !texts.contains_key(file)) {
        wrong.push(format!("{orphan}: no case makes it"));
    }
    assert!(wrong.is_empty(), "{}\n(SHOAL_BLESS=1 writes them anew)", wrong.join("\n"));
}

/// Lines that are only in one of the two.
fn difference(old: &str, new: &str) -> String {
    // Step numbers move with every insertion.
    fn bare(line: &str) -> &str {
        line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ')
    }
    let mut text = String::new();
    for (sign, ours, theirs) in [('-', old, new), ('+', new, old)] {
        let theirs: Vec<&str> = theirs.lines().map(bare).collect();
        for line in ours.lines().filter(|line| !theirs.contains(&bare(line))) {
            text.push_str(&format!("  {sign}{line}\n"));
        }
    }
    if text.is_empty() {
        text.push_str("  the same lines in another order\n");
    }
    text
}

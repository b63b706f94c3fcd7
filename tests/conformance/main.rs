//! docs/spec-conformance.md: each field of the runtime specification has a row, and each row a test.
//!
//! The fields are those of oci-spec's types, which follow the specification's JSON schema: a newer oci-spec with more
//! fields makes this fail until they have rows.

mod fields;
mod table;

use oci_spec::runtime::{ContainerProcessState, Features, Spec, State};
use std::collections::BTreeSet;
use std::path::Path;
use table::{Named, PAGE};

fn rows() -> Vec<table::Row> {
    table::rows().unwrap_or_else(|wrong| panic!("\n{}", wrong.join("\n")))
}

#[track_caller]
fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn each_field_has_one_row() {
    let mut missing: BTreeSet<String> = [
        fields::of::<Spec>(""),
        fields::of::<Features>("features"),
        fields::of::<State>("state"),
        fields::of::<ContainerProcessState>("containerProcessState"),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(missing.contains("linux.resources.memory.limit") && missing.len() > 190, "{missing:?}");
    let mut found = Vec::new();
    for row in rows() {
        let unknown = row.fields.iter().filter(|field| !missing.remove(*field));
        found.extend(unknown.map(|field| format!("{PAGE}:{}: {field}: unknown, or a second time", row.line)));
    }
    found.extend(missing.into_iter().map(|field| format!("{field}: no row")));
    assert_none("fields and rows", found);
}

#[test]
fn each_row_has_tests_that_exist() {
    let mut found = Vec::new();
    for row in rows() {
        if row.tests.is_empty() {
            found.push(format!("{PAGE}:{}: no test", row.line));
        }
        let there = |test: &&String| Named::parse(test).is_some_and(|test| test.exists());
        let lost = row.tests.iter().filter(|test| !there(test));
        found.extend(lost.map(|test| format!("{PAGE}:{}: {test}: no such test", row.line)));
    }
    assert_none("rows", found);
}

/// Reads what the other groups have said, after all of them have run (tests/groups). A test that this machine cannot run
/// is printed.
#[test]
fn each_test_of_a_row_has_run() {
    let Some(logs) = std::env::var_os("SHOAL_TEST_LOGS") else { return };
    let mut found = BTreeSet::new();
    for test in rows().iter().flat_map(|row| &row.tests).filter(|test| !test.starts_with("conformance::")) {
        let named = Named::parse(test).expect("checked above");
        let file = Path::new(&logs).join(named.group).with_extension("log");
        let log = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{file:?}: {e}"));
        let ran = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            // A case has a test for each runtime and version below its name.
            matches!(words[..], ["test", name, "...", .., "ok"] if name == named.path
                || name.strip_prefix(named.path).is_some_and(|rest| rest.starts_with("::")))
        };
        if let Some(skipped) = log.lines().find(|l| l.contains(named.name) && l.contains(": skipped: ")) {
            println!("{skipped}");
        } else if !log.lines().any(ran) {
            found.insert(test.clone());
        }
    }
    assert_none("tests that have not run", found.into_iter().collect());
}

/// The features document names every annotation that changes what the runtime does: all are read by their names there.
#[test]
fn annotations_are_read_by_the_names_of_the_features_document() {
    let mut folders = vec![table::source("src")];
    let (mut reads, mut found) = (0, Vec::new());
    while let Some(folder) = folders.pop() {
        for path in std::fs::read_dir(folder).expect("readable").map(|entry| entry.expect("readable").path())
        {
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).expect("UTF-8");
            let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
            let read = ["annotations.get(", "annotations.contains_key("];
            let lines = code.lines().filter(|line| read.iter().any(|read| line.contains(read)));
            reads += lines.clone().count();
            // By a constant from there, directly or in a list.
            let known = |line: &&str| !code.contains("annotation::") || line.contains("(\"");
            found.extend(lines.filter(known).map(|line| format!("{}: {}", path.display(), line.trim())));
        }
    }
    assert!(reads > 2, "only {reads} are read");
    assert_none("annotations", found);
}

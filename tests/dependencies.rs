//! Enforces deny.toml on what cargo has resolved: licences, sources, banned crates, a reason per direct dependency.
//! `cargo deny` does more (advisories), but a fresh machine lacks it and it takes minutes to build; this test is
//! offline and reads the same file.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

fn source(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn deny() -> toml::Table {
    source("deny.toml").parse().expect("deny.toml is TOML")
}

/// Returns the words of an array of deny.toml, for instance of `licenses.allow`.
fn words(table: &str, key: &str) -> BTreeSet<String> {
    let file = deny();
    let list = file.get(table).and_then(|t| t.get(key)).and_then(toml::Value::as_array);
    let list = list.unwrap_or_else(|| panic!("deny.toml has no {table}.{key}"));
    list.iter().map(|word| word.as_str().expect("a string").to_owned()).collect()
}

/// Returns the packages of the tree resolved for our target, as listed by `cargo metadata`.
fn packages() -> Vec<Value> {
    let metadata = |arguments: &[&str]| -> Value {
        let out = Command::new(env!("CARGO"))
            .args([
                "metadata",
                "--format-version",
                "1",
                "--locked",
                "--filter-platform",
                "x86_64-unknown-linux-gnu",
            ])
            .args(arguments)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .expect("run cargo metadata");
        assert!(out.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("cargo metadata prints JSON")
    };
    let all = metadata(&[]);
    // With a filter, `resolve` lists what the target uses, and `packages` may list more.
    let used: BTreeSet<&str> = array(&all["resolve"], "nodes").iter().map(|node| text(node, "id")).collect();
    array(&all, "packages").iter().filter(|package| used.contains(text(package, "id"))).cloned().collect()
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().unwrap_or_else(|| panic!("cargo metadata has no {key}"))
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("no {key} in {value}"))
}

/// Returns whether the allowed licences satisfy an SPDX expression. `AND` binds tighter than `OR`; `/` is the old
/// `OR`.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let (value, rest) = any(&tokens, allowed);
    assert!(rest.is_empty(), "{expression}: cannot read {rest:?}");
    value
}

fn any<'a, 'b>(tokens: &'b [&'a str], allowed: &BTreeSet<String>) -> (bool, &'b [&'a str]) {
    let (mut value, mut rest) = all(tokens, allowed);
    while rest.first() == Some(&"OR") {
        let (next, after) = all(&rest[1..], allowed);
        (value, rest) = (value || next, after);
    }
    (value, rest)
}

fn all<'a, 'b>(tokens: &'b [&'a str], allowed: &BTreeSet<String>) -> (bool, &'b [&'a str]) {
    let (mut value, mut rest) = one(tokens, allowed);
    while rest.first() == Some(&"AND") {
        let (next, after) = one(&rest[1..], allowed);
        (value, rest) = (value && next, after);
    }
    (value, rest)
}

fn one<'a, 'b>(tokens: &'b [&'a str], allowed: &BTreeSet<String>) -> (bool, &'b [&'a str]) {
    match tokens {
        ["(", inner @ ..] => {
            let (value, rest) = any(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "a bracket is not closed");
            (value, &rest[1..])
        }
        [name, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{name} WITH {exception}")), rest),
        [name, rest @ ..] => (allowed.contains(*name), rest),
        [] => panic!("a licence is missing"),
    }
}

#[test]
fn licence_expressions_are_read_as_spdx_says() {
    let allowed = ["MIT", "Zlib", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for good in [
        "MIT",
        "GPL-3.0 OR MIT",
        "MIT/GPL-3.0",
        "(MIT OR GPL-3.0) AND Zlib",
        "Apache-2.0 WITH LLVM-exception",
    ] {
        assert!(satisfied(good, &allowed), "{good}");
    }
    for bad in ["GPL-3.0", "MIT AND GPL-3.0", "GPL-3.0 OR MIT AND AGPL-3.0", "Apache-2.0"] {
        assert!(!satisfied(bad, &allowed), "{bad}");
    }
}

#[test]
fn every_licence_is_allowed_and_every_source_known() {
    let (allowed, registries) = (words("licenses", "allow"), words("sources", "allow-registry"));
    for package in packages() {
        let name = text(&package, "name");
        let licence = package["license"].as_str().unwrap_or_else(|| panic!("{name} names no licence"));
        assert!(satisfied(licence, &allowed), "{name}: licence {licence} is not in deny.toml");
        // Our own packages have no source.
        if let Some(from) = package["source"].as_str() {
            let known = registries.iter().any(|registry| from == format!("registry+{registry}"));
            assert!(known, "{name} comes from {from}");
        }
    }
}

/// containerd reads a table of options as a message that it cannot use for the streams of a pod's users.
#[test]
fn no_handler_that_comes_with_shoal_has_a_table_of_options() {
    for file in ["runtime-config/containerd-1.7.toml", "runtime-config/containerd-2.toml"] {
        let table: toml::Table = source(file).parse().expect("TOML");
        let plugins = table["plugins"].as_table().expect("a table").values();
        let handlers =
            plugins.flat_map(|plugin| plugin["containerd"]["runtimes"].as_table().expect("a table"));
        let names: Vec<&String> = handlers
            .map(|(name, handler)| {
                assert!(handler.get("options").is_none(), "{file}: {name}");
                assert_eq!(handler["runtime_type"].as_str(), Some("io.containerd.shoal.v2"));
                name
            })
            .collect();
        assert_eq!(names, ["shoal", "shoal-shim"], "{file}");
    }
}

#[test]
fn no_banned_crate_is_in_the_shim() {
    // Only what is linked for our target, not what its build scripts use.
    let out = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("run cargo tree");
    assert!(out.status.success(), "cargo tree: {}", String::from_utf8_lossy(&out.stderr));
    let tree = String::from_utf8_lossy(&out.stdout).into_owned();
    let linked: BTreeSet<&str> = tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(linked.contains("ttrpc"), "cargo tree lists the dependencies: {tree}");
    let file = deny();
    let banned = file["bans"]["deny"].as_array().expect("bans.deny is a list");
    for entry in banned {
        let name = entry["name"].as_str().expect("a name");
        assert!(
            entry["reason"].as_str().is_some_and(|reason| !reason.is_empty()),
            "{name} is banned without a reason"
        );
        assert!(!linked.contains(name), "{name} is banned: {:?}", entry["reason"]);
    }
}

#[test]
fn every_direct_dependency_has_a_reason_and_a_version() {
    let file = source("deny.toml");
    let reasons: BTreeMap<&str, &str> =
        file.lines().filter_map(|line| line.strip_prefix("# direct: ")?.split_once(": ")).collect();
    let manifests = ["Cargo.toml", "tests/testbed/Cargo.toml"]
        .map(|manifest| source(manifest).parse::<toml::Table>().expect("a manifest is TOML"));
    let tables = ["dependencies", "dev-dependencies", "build-dependencies"];
    let all = manifests.iter().flat_map(|manifest| tables.map(|table| manifest.get(table)));
    let mut direct = BTreeSet::new();
    for (name, value) in all.flat_map(|table| table.and_then(toml::Value::as_table)).flatten() {
        if value.get("path").is_some() {
            continue; // a package of this workspace
        }
        let version = value.as_str().or_else(|| value.get("version").and_then(toml::Value::as_str));
        assert!(version.is_some_and(|version| version != "*"), "{name} has no version");
        assert!(
            reasons.contains_key(name.as_str()),
            "{name} has no line `# direct: {name}: ...` in deny.toml"
        );
        direct.insert(name.as_str());
    }
    for name in reasons.keys() {
        assert!(direct.contains(name), "deny.toml gives a reason for {name}, which is no direct dependency");
    }
}

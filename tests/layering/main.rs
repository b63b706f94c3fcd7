//! Checks the architecture: which modules may import which, where `unsafe` is, what stays out of which layer.
//!
//! It reads the sources as text, with comments and strings blanked, so that only code counts.

mod circles;
mod source;

use source::Source;
use std::path::Path;

/// The ranks, lowest first. A module imports only from lower ranks, not from its own.
const RANKS: &[&[&str]] = &[
    &["error", "mountinfo", "sync"],
    &["sys"],
    &["spec", "tasks"],
    &["paths"],
    &["plan", "seccomp", "cgroup", "resctrl", "stdio"],
    &["init"],
    &["launch"],
    &["criu"],
    &["sandbox"],
    &["service"],
    &["shim"],
];

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

fn assert_none(what: &str, found: Vec<String>) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn every_module_has_a_rank() {
    let sources = Source::below("src");
    assert!(sources.len() > 50, "only {} sources were read", sources.len());
    let found = sources.iter().filter(|s| !s.is_root() && rank(s.module()).is_none());
    assert_none("not in RANKS", found.map(|s| s.path.clone()).collect());
}

#[test]
fn imports_go_downward() {
    let mut found = Vec::new();
    let mut seen = 0;
    for source in Source::below("src").iter().filter(|s| !s.is_root()) {
        for (line, used) in source.crate_paths() {
            if used == source.module() {
                continue;
            }
            seen += 1;
            match (rank(source.module()), rank(&used)) {
                (Some(own), Some(other)) if other < own => {}
                _ => found.push(format!("{}:{line}: crate::{used}", source.path)),
            }
        }
    }
    assert!(seen > 50, "only {seen} imports were seen");
    assert_none("imports from the same or a higher rank", found);
}

#[test]
fn only_a_clone_makes_the_witness_of_one() {
    let sources = Source::below("src").into_iter();
    let found = sources.flat_map(|s| s.lines_with_word(&["after_clone"])).collect::<Vec<_>>();
    let of = |file: &str| {
        found.iter().filter(|line| line.starts_with(&format!("src/sys/child/{file}.rs:"))).count()
    };
    assert_eq!((of("forked"), of("clone"), found.len()), (1, 1, 2), "{found:?}");
}

#[test]
fn unsafe_is_in_sys_only() {
    let outside = Source::below("src").into_iter().filter(|s| s.module() != "sys");
    let found: Vec<String> = outside.flat_map(|s| s.lines_with_word(&["unsafe"])).collect();
    assert_none("unsafe outside of src/sys", found);
    let inside = Source::below("src/sys").iter().flat_map(|s| s.lines_with_word(&["unsafe"])).count();
    assert!(inside > 10, "the search finds nothing");
}

#[test]
fn protobuf_ends_in_service_and_criu() {
    let words = ["protobuf", "containerd_shim_protos", "containerd_shim", "ttrpc", "h2", "http", "tokio"];
    let service = rank("service");
    let below = Source::below("src").into_iter().filter(|s| !s.is_root() && rank(s.module()) < service);
    let below = below.filter(|s| s.module() != "criu");
    assert_none("protobuf below service", below.flat_map(|s| s.lines_with_word(&words)).collect());
}

#[test]
fn the_child_and_the_compiler_do_not_log() {
    let quiet =
        Source::below("src").into_iter().filter(|s| ["sys", "plan", "init", "spec"].contains(&s.module()));
    let found = quiet.flat_map(|s| s.lines_with_path("log::")).collect();
    assert_none("logging", found);
}

#[test]
fn a_launch_is_made_from_a_plan_and_knows_no_spec() {
    let launch = Source::below("src/launch").into_iter().map(Source::without_tests);
    let found = launch.flat_map(|s| s.lines_with_path("crate::spec")).collect();
    assert_none("the spec in launch", found);
}

/// The code that runs in the child of a clone, and what it calls.
const CHILD: [&str; 2] = ["src/init", "src/sys/child"];

#[test]
fn the_child_knows_the_plan_and_its_calls_only() {
    let mut found = Vec::new();
    for source in Source::below("src/init") {
        for (line, used) in source.crate_paths() {
            if !["plan", "sys", "init"].contains(&used.as_str()) {
                found.push(format!("{}:{line}: crate::{used}", source.path));
            }
        }
        let calls = source.lines_with_path("crate::sys");
        found.extend(calls.into_iter().filter(|line| !line.contains("crate::sys::child")));
    }
    for source in Source::below("src/sys/child") {
        let source = source.without_tests();
        let above = if source.path.ends_with("/mod.rs") { "super::" } else { "super::super" };
        let of_crate = source.lines_with_path("crate::").into_iter();
        found.extend(of_crate.filter(|line| line.replace("pub(in crate::sys)", "").contains("crate::")));
        found.extend(source.lines_with_path(above));
    }
    assert_none("more than plan and sys::child in the child", found);
    let shim = Source::below("src").into_iter().filter(|s| !["init", "sys"].contains(&s.module()));
    let past = shim.flat_map(|s| s.lines_with_path("crate::sys::child")).collect();
    assert_none("calls of the child that src/sys/mod.rs does not lend to the shim", past);
}

#[test]
fn the_child_is_under_one_deny_list() {
    let lists = CHILD.map(|folder| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join("mod.rs");
        let text = std::fs::read_to_string(path).expect("readable");
        let list = text.lines().skip_while(|line| !line.starts_with("#!["));
        list.take_while(|line| !line.is_empty()).map(str::to_owned).collect::<Vec<_>>()
    });
    assert!(lists[0].iter().any(|line| line == "#![no_implicit_prelude]"), "{:?}", lists[0]);
    assert!(lists[0].len() > 5, "{:?}", lists[0]);
    assert_eq!(lists[0], lists[1]);
    let sources = CHILD.into_iter().flat_map(Source::below).map(Source::without_tests);
    assert_none(
        "paths that allocate",
        sources.flat_map(|s| s.lines_with_word(&["PathBuf", "String"])).collect(),
    );
}

#[test]
fn traits_are_few() {
    let allowed = ["Context", "Cgroup", "Launcher", "Parts"];
    let mut found = Vec::new();
    for source in Source::below("src") {
        for (line, name) in source.traits() {
            if !allowed.contains(&name.as_str()) {
                found.push(format!("{}:{line}: trait {name}", source.path));
            }
        }
    }
    assert_none("traits besides those", found);
}

#[test]
fn files_are_short_and_named_by_nouns() {
    let mut found = Vec::new();
    for source in Source::below("src").into_iter().chain(Source::below("tests")) {
        let lines = source.code_lines();
        if lines > 400 {
            found.push(format!("{}: {lines} lines of code", source.path));
        }
        let name = Path::new(&source.path).file_stem().and_then(|n| n.to_str()).unwrap_or_default();
        if ["util", "utils", "helper", "helpers", "manager", "common", "misc"].contains(&name) {
            found.push(format!("{}: says nothing", source.path));
        }
    }
    assert_none("files", found);
}

/// Files that may block a thread: their threads do nothing else, or the server has no part in them.
const MAY_WAIT: [&str; 8] = [
    "src/launch/mapping.rs",     // a process that no container sees, and that was killed
    "src/launch/reaper.rs",      // its own thread
    "src/launch/waiting.rs",     // for callers without workers
    "src/service/about.rs",      // the verb `start`
    "src/service/connection.rs", // the end of the server
    "src/service/events.rs",     // its own thread
    "src/service/publish.rs",    // the thread of the events
    "src/service/server.rs",     // the thread that serves, without descriptors
];

/// A thread that waits for a filesystem cannot be freed. (The filesystems of a container's and a pod's record are
/// trusted.)
#[test]
fn what_a_request_names_is_opened_through_paths() {
    let mut found = Vec::new();
    for source in Source::below("src").into_iter().filter(|s| ["service", "stdio"].contains(&s.module())) {
        // Paths of the kernel, by number.
        if source.path.contains("/tests") || source.path == "src/service/server.rs" {
            continue;
        }
        let source = source.without_tests();
        found.extend(source.lines_with_word(&["fs", "OpenOptions", "fcntl"]));
        found.extend(source.lines_with_path("File::open"));
    }
    assert_none("files that are opened by a worker", found);
}

#[test]
fn requests_wait_without_a_thread() {
    let words = [
        "block_on",
        "sleep_ms",
        "park_timeout",
        "wait_timeout",
        "wait_timeout_while",
        "set_read_timeout",
        "recv_timeout",
    ];
    let mut found = Vec::new();
    let mut blocked = std::collections::BTreeSet::new();
    for source in Source::below("src") {
        let in_reach = ["cgroup", "launch", "sandbox", "service"].contains(&source.module());
        let of_tests = source.path.contains("/tests") || source.path.ends_with("/fake.rs");
        let source = source.without_tests();
        if !in_reach || of_tests {
            continue;
        }
        let mut lines = source.lines_with_word(&words);
        lines.extend(source.lines_with_path("std::thread::sleep"));
        lines.extend(source.lines_with_path("thread::sleep"));
        lines.extend(source.lines_with_path("poll::ready"));
        if MAY_WAIT.contains(&source.path.as_str()) {
            blocked.extend((!lines.is_empty()).then_some(source.path));
        } else {
            found.extend(lines.into_iter().filter(|line| !line.contains("Instant::now())")));
        }
    }
    assert_none("threads that wait", found);
    assert_eq!(blocked.len(), MAY_WAIT.len(), "more may wait than do: {blocked:?}");
}

#[test]
fn links_of_the_documentation_lead_to_files() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folders = ["", "docs", "protos", "tests"].map(|folder| root.join(folder));
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("readable"));
    let pages = entries.map(|entry| entry.expect("readable").path());
    let (mut seen, mut found) = (0, Vec::new());
    for page in pages.filter(|page| page.extension().is_some_and(|extension| extension == "md")) {
        let text = std::fs::read_to_string(&page).expect("UTF-8");
        let links = text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty() && !link.contains("://")) {
            seen += 1;
            if !page.with_file_name(link).exists() {
                found.push(format!("{}: {link}", page.display()));
            }
        }
    }
    assert!(seen > 10, "only {seen} links were seen");
    assert_none("links that lead nowhere", found);
}

/// Checks the table of waits in ARCHITECTURE.md: each limit or place that it names is in the module that it names.
#[test]
fn the_waits_are_where_the_architecture_says() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("ARCHITECTURE.md")).expect("readable");
    let begin = text.find("| wait | in |").expect("the table of waits");
    let rows: Vec<&str> = text[begin..].lines().take_while(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 10, "{rows:?}");
    let mut found = Vec::new();
    for row in rows {
        let place = row.split('|').nth(2).expect("a column");
        let words: Vec<&str> = place.split('`').skip(1).step_by(2).collect();
        let (name, module) = match words[..] {
            [module] => (None, module),
            [name, module] => (Some(name), module),
            _ => panic!("{row}"),
        };
        let path = root.join("src").join(module.replace("::", "/"));
        let sources = [path.with_extension("rs"), path.join("mod.rs")].map(std::fs::read_to_string);
        let source: String = sources.into_iter().flatten().collect();
        let there = name.is_none_or(|name| source.contains(&format!("const {name}: Duration")));
        if source.is_empty() || !there {
            found.push(row.to_owned());
        }
    }
    assert_none("waits that are not there", found);
}

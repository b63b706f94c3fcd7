//! Writes the results to their folder: `bench.json`, `bench.md`, `bench.svg`.

use std::fmt::Write;
use std::path::Path;

use serde_json::json;

use crate::peer::Peer;
use crate::samples::{Row, Rows};
use testbed::{run, Suite};

pub fn write(rows: &Rows, peers: &[Peer], out: &Path) {
    std::fs::create_dir_all(out).unwrap_or_else(|e| panic!("create {out:?}: {e}"));
    let put = |name: &str, text: String| {
        std::fs::write(out.join(name), text).unwrap_or_else(|e| panic!("write {name}: {e}"));
    };
    let machine = machine();
    let all: Vec<_> = rows.0.iter().map(Row::json).collect();
    let json = serde_json::to_string_pretty(&json!({ "machine": machine, "rows": all }));
    put("bench.json", json.expect("numbers and text") + "\n");
    let text = markdown(rows, peers, &machine);
    print!("{text}");
    put("bench.md", text);
    put("bench.svg", crate::plot::svg(rows));
}

/// What the numbers refer to: the machine, the kernel, the versions.
fn machine() -> Vec<(&'static str, String)> {
    let first = |file: &str, key: &str| {
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or("").to_owned();
        line.split_once(':').map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let said = |program: &str, flag: &str| {
        let out = run(std::process::Command::new(program).arg(flag));
        out.stdout.lines().next().unwrap_or("").to_owned()
    };
    let versions = std::fs::read_to_string(Suite::Forky.dir().join("versions")).unwrap_or_default();
    let cgroups = if Path::new("/sys/fs/cgroup/cgroup.controllers").exists() { "v2" } else { "v1 (hybrid)" };
    let cpus = std::thread::available_parallelism().map_or(0, |n| n.get());
    vec![
        ("processors", format!("{cpus} × {}", first("/proc/cpuinfo", "model name"))),
        ("memory", first("/proc/meminfo", "MemTotal")),
        ("kernel", said("uname", "-srv")),
        ("cgroups", cgroups.to_owned()),
        ("programs", versions.lines().collect::<Vec<_>>().join(", ")),
    ]
}

fn markdown(rows: &Rows, peers: &[Peer], machine: &[(&str, String)]) -> String {
    let mut text = String::new();
    for (name, value) in machine {
        let _ = writeln!(text, "* {name}: {value}");
    }
    let mut group = "";
    for row in &rows.0 {
        if row.group != group {
            group = row.group;
            let titles: Vec<_> = peers.iter().map(|peer| peer.title()).collect();
            let _ = writeln!(text, "\n### {group}\n\n| | {} | ratio | target |", titles.join(" | "));
            let _ = writeln!(text, "| --- |{} ---: | --- |", " ---: |".repeat(peers.len()));
        }
        let cells: Vec<_> = peers.iter().map(|peer| cell(row, *peer)).collect();
        let gain = row.gain(Peer::Runc).map_or(String::new(), |gain| format!("{gain:.1}×"));
        let _ = writeln!(text, "| {} | {} | {gain} | {} |", row.name, cells.join(" | "), targets(row));
    }
    text
}

/// The median, and the 90th percentile if there are enough samples.
fn cell(row: &Row, peer: Peer) -> String {
    let (Some(median), Some(p90)) = (row.median(peer), row.quantile(peer, 0.9)) else { return String::new() };
    let many = row.samples.get(&peer).is_some_and(|samples| samples.len() >= 10);
    if many {
        format!("{} ({})", row.unit.show(median), row.unit.show(p90))
    } else {
        row.unit.show(median)
    }
}

fn targets(row: &Row) -> String {
    let word = |met: Option<bool>| match met {
        Some(true) => "met",
        Some(false) => "**missed**",
        None => "not measured",
    };
    let all: Vec<_> =
        row.verdicts().into_iter().map(|(text, met)| format!("{text}: {}", word(met))).collect();
    all.join("; ")
}

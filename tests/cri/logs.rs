//! A container's log, as kubectl reads it.

use serde_json::json;

use testbed::cri::Case;
use testbed::until;

cases! { a_line_tells_its_stream, a_long_line_comes_in_parts, nothing_is_lost_when_the_log_is_rotated }

fn a_line_tells_its_stream(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let (code, _) = pod.script("app", "echo out; echo err >&2; printf rest", json!({}));
    assert_eq!(code, 0);
    let log = std::fs::read_to_string(pod.log_file("app")).expect("there is a log");
    let mut lines: Vec<_> = log.lines().map(|line| line.split_once(' ').expect("time and rest").1).collect();
    lines.sort_unstable();
    assert_eq!(lines, ["stderr F err", "stdout F out", "stdout P rest"], "{log}");
    pod.remove();
}

fn a_long_line_comes_in_parts(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let (code, log) = pod.script("app", "head -c 40000 /dev/zero | tr '\\0' x; echo", json!({}));
    assert_eq!(code, 0);
    assert_eq!(log.chars().filter(|c| *c == 'x').count(), 40000);
    assert_eq!(log.lines().count(), 3, "parts of 16 KiB");
    pod.remove();
}

fn nothing_is_lost_when_the_log_is_rotated(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo $i; sleep 0.002; done; echo end";
    let app = pod.start("app", json!({ "command": ["sh", "-c", script] }));
    let mut files = Vec::new();
    for n in 0..3 {
        app.until_output("\n");
        let old = app.log_file().with_extension(format!("log.{n}"));
        std::fs::rename(app.log_file(), &old).expect("rename the log");
        files.push(old);
        app.reopen_log();
        until("a new log", 10, || app.log_file().exists().then_some(()));
    }
    std::fs::write(format!("/proc/{}/root/tmp/stop", app.pid()), "").expect("reach into the container");
    assert_eq!(app.until_exited(), 0);
    app.until_output("end\n");
    files.push(app.log_file().clone());
    let texts = files.iter().map(|file| std::fs::read_to_string(file).expect("read a log"));
    let all: String = texts.map(|text| content(&text)).collect();
    let lines: Vec<_> = all.lines().collect();
    let (last, numbers) = lines.split_last().expect("it wrote");
    assert_eq!(*last, "end");
    assert!(
        numbers.iter().copied().eq((1..=numbers.len()).map(|n| n.to_string())),
        "each line once, in order"
    );
    pod.remove();
}

/// Returns what was written, from a log in CRI's format: time, stream, full or partial line, text.
fn content(log: &str) -> String {
    let mut all = String::new();
    for line in log.lines() {
        let mut words = line.splitn(4, ' ').skip(2);
        let whole = words.next() == Some("F");
        all += words.next().unwrap_or_default();
        all += if whole { "\n" } else { "" };
    }
    all
}

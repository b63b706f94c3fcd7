//! Commands in running containers, and their streams.

use serde_json::{json, Value};
use std::time::Instant;

use testbed::cri::{Case, WebSocket};
use testbed::{patience, until};

cases! {
    exec_sync_gives_output_and_exit_code,
    exec_sync_ends_in_time,
    what_an_exec_leaves_behind_does_not_keep_its_client,
    exec_streams_both_ways,
    exec_may_have_a_terminal,
    attach_streams_both_ways,
    attach_may_have_a_terminal,
    a_port_is_forwarded,
}

/// The protocol that kubectl uses: input, output, errors, status and the terminal's size are channels of one
/// connection.
const STREAMS: &str = "v4.channel.k8s.io";
const INPUT: u8 = 0;
const OUTPUT: u8 = 1;
const SIZE: u8 = 4;

fn exec_sync_gives_output_and_exit_code(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let exec = app.exec(&["sh", "-c", "echo out; echo err >&2; exit 7"]);
    assert_eq!((exec.code, exec.stdout.as_str(), exec.stderr.as_str()), (7, "out\n", "err\n"));
    assert_eq!(app.exec(&["sh", "-c", "kill -9 $$"]).code, 137);
    let much = app.exec(&["sh", "-c", "head -c 300000 /dev/zero | tr '\\0' x"]);
    assert_eq!((much.code, much.stdout.len()), (0, 300_000));
    let failure = app.try_exec(0, &["/no/such/program"]).expect_err("there is no such program");
    assert!(failure.message.contains("/no/such/program"), "{failure:?}");
    // Output is collected until no process has it open any more.
    assert_eq!(app.exec(&["sh", "-c", "(sleep 0.2; echo late) & echo done"]).ok(), "done\nlate");
    pod.remove();
}

fn exec_sync_ends_in_time(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let failure = app.try_exec(1, &["sleep", "1010"]).expect_err("it takes too long");
    assert!(failure.code == 4 && failure.message.contains("timeout"), "{failure:?}");
    until("the command to be gone", 5, || (!app.sh("ps -o args").contains("sleep 1010")).then_some(()));
    assert_eq!(app.state(), "CONTAINER_RUNNING");
    pod.remove();
}

/// A process that an exec leaves behind holds its output. The node's `drain_exec_sync_io_timeout` is 5 s, and a shim
/// may then take 10 s.
fn what_an_exec_leaves_behind_does_not_keep_its_client(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let begun = Instant::now();
    let failure = app.try_exec(0, &["sh", "-c", "sleep 1010 & echo done"]).expect_err("it is held");
    assert!(failure.message.contains("still held by other processes"), "{failure:?}");
    assert!(begun.elapsed() < patience(20), "{:?}", begun.elapsed());
    assert!(app.sh("ps -o args").contains("sleep 1010"), "it goes on");
    pod.remove();
}

fn exec_streams_both_ways(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let script = "read line; echo \"got $line\"; echo complaint >&2; exit 3";
    let url = app.stream(
        "Exec",
        json!({ "cmd": ["sh", "-c", script], "stdin": true, "stdout": true, "stderr": true }),
    );
    let mut stream = WebSocket::open(case.node.machine(), &url, STREAMS);
    stream.send(INPUT, b"hello\n");
    let [_, output, errors, status] = stream.drain();
    assert_eq!((output.as_str(), errors.as_str()), ("got hello\n", "complaint\n"));
    let status: Value = serde_json::from_str(&status).expect("the status is JSON");
    assert_eq!(status["details"]["causes"][0], json!({ "reason": "ExitCode", "message": "3" }), "{status}");
    pod.remove();
}

fn exec_may_have_a_terminal(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({}));
    let url = app.stream("Exec", json!({ "cmd": ["sh"], "stdin": true, "stdout": true, "tty": true }));
    let mut stream = WebSocket::open(case.node.machine(), &url, STREAMS);
    stream.send(INPUT, b"test -t 0 && test -t 2 && echo it is one: $((40+2))\n");
    stream.until(OUTPUT, "it is one: 42");
    resize_and_exit(stream);
    pod.remove();
}

#[track_caller]
fn resize_and_exit(mut stream: WebSocket) {
    stream.send(SIZE, br#"{"Width":101,"Height":43}"#);
    let deadline = std::time::Instant::now() + patience(10);
    loop {
        stream.send(INPUT, b"echo size: $(stty size) end\n");
        if stream.until(OUTPUT, " end\r\n").contains("size: 43 101 end") {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the size did not come through");
    }
    stream.send(INPUT, b"exit 0\n");
    let [_, _, _, status] = stream.drain();
    assert!(status.is_empty() || status.contains("Success"), "{status}");
}

fn attach_streams_both_ways(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "while read line; do echo \"heard $line\"; done; echo end; exit 6";
    let app = pod.start("app", json!({ "command": ["sh", "-c", script], "stdin": true, "stdin_once": true }));
    let url = app.stream("Attach", json!({ "stdin": true, "stdout": true, "stderr": true }));
    let mut stream = WebSocket::open(case.node.machine(), &url, STREAMS);
    stream.send(INPUT, b"one\ntwo\n");
    assert_eq!(stream.until(OUTPUT, "two\n"), "heard one\nheard two\n");
    drop(stream); // with `stdin_once` this is the end of the input
    assert_eq!(app.until_exited(), 6);
    app.until_output("heard one\nheard two\nend\n");
    pod.remove();
}

fn attach_may_have_a_terminal(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let app = pod.start("app", json!({ "command": ["sh"], "stdin": true, "tty": true }));
    let url = app.stream("Attach", json!({ "stdin": true, "stdout": true, "tty": true }));
    let mut stream = WebSocket::open(case.node.machine(), &url, STREAMS);
    stream.send(INPUT, b"test -t 0 && test -t 2 && echo it is one: $((40+2))\n");
    stream.until(OUTPUT, "it is one: 42");
    resize_and_exit(stream);
    assert_eq!(app.until_exited(), 0);
    pod.remove();
}

fn a_port_is_forwarded(case: &mut Case<'_>) {
    let pod = case.plain_pod();
    let script = "mkdir /tmp/www; echo forwarded >/tmp/www/index.html; httpd -p 127.0.0.1:8080 -h /tmp/www; \
                  echo ready; sleep 1000";
    pod.start("server", json!({ "command": ["sh", "-c", script] })).until_output("ready");
    let mut stream = WebSocket::open(case.node.machine(), &pod.port_forward(8080), STREAMS);
    stream.send(INPUT, b"GET / HTTP/1.0\r\n\r\n");
    let [answer, errors, ..] = stream.drain();
    // Both channels begin with the port.
    assert!(answer.ends_with("\r\n\r\nforwarded\n"), "{answer:?}");
    assert_eq!(errors.chars().count(), 2, "{errors:?}");
    pod.remove();
}

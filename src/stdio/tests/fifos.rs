//! Fifos without a terminal, which the container itself holds.

use super::super::io::{Io, Lost};
use super::*;
use crate::sys::pipe;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::time::Instant;

fn outputs(bench: &Bench) -> Stdio {
    Stdio { stdout: bench.fifo("out"), stderr: bench.fifo("err"), ..Stdio::default() }
}

#[test]
fn nothing_asked_is_the_null_device() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&Stdio::default());
    for end in [&ends.stdin, &ends.stdout, &ends.stderr] {
        assert_eq!(pipe::kind(end).unwrap(), pipe::Kind::Null);
    }
    io.ended();
    block_on(io.drain(Duration::ZERO)).unwrap();
}

#[test]
fn each_stream_that_is_not_asked_is_the_null_device() {
    let bench = Bench::new();
    let (ends, _io) = bench.open_ends(&Stdio { stderr: bench.fifo("err"), ..Stdio::default() });
    assert_eq!(pipe::kind(&ends.stdin).unwrap(), pipe::Kind::Null);
    assert_eq!(pipe::kind(&ends.stdout).unwrap(), pipe::Kind::Null);
    assert_eq!(pipe::kind(&ends.stderr).unwrap(), pipe::Kind::Fifo);
}

#[test]
fn the_container_gets_the_fifo_itself_and_it_blocks() {
    let bench = Bench::new();
    let request = Stdio { stdin: bench.fifo("in"), ..outputs(&bench) };
    let (ends, _io) = bench.open_ends(&request);
    for (name, end) in [("in", ends.stdin), ("out", ends.stdout), ("err", ends.stderr)] {
        assert!(blocks(&end), "{name}");
        let (fifo, end) = (std::fs::metadata(bench.path(name)).unwrap(), File::from(end).metadata().unwrap());
        assert_eq!((fifo.dev(), fifo.ino()), (end.dev(), end.ino()), "{name}");
    }
}

#[test]
fn an_output_has_room_for_two_large_writes_and_a_larger_one_keeps_its_room() {
    use nix::fcntl::{fcntl, FcntlArg};
    let bench = Bench::new();
    let request = outputs(&bench);
    let own = File::options().read(true).write(true).open(bench.path("err")).unwrap();
    fcntl(&own, FcntlArg::F_SETPIPE_SZ(1 << 20)).unwrap();
    let (ends, _io) = bench.open_ends(&request);
    assert_eq!(fcntl(&ends.stdout, FcntlArg::F_GETPIPE_SZ).unwrap(), 128 << 10);
    assert_eq!(fcntl(&ends.stderr, FcntlArg::F_GETPIPE_SZ).unwrap(), 1 << 20);
}

#[test]
fn a_reader_that_never_comes_holds_nobody_up() {
    let bench = Bench::new();
    let started = Instant::now();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    File::from(ends.stdout).write_all(b"nobody reads this").unwrap();
    drop(ends.stderr);
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    drop(io);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_reader_that_comes_late_gets_everything() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    let mut stdout = File::from(ends.stdout);
    stdout.write_all(b"before ").unwrap();
    let reader = bench.reader("out");
    stdout.write_all(b"after").unwrap();
    drop(stdout);
    io.ended();
    assert_eq!(read_all(reader), "before after");
}

#[test]
fn a_reader_that_leaves_does_not_end_the_container_and_the_next_reads_on() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    let mut stdout = File::from(ends.stdout);
    stdout.write_all(b"first").unwrap();
    let mut reader = bench.reader("out");
    assert_eq!(read_some(&mut reader), "first");
    stdout.write_all(b"second ").unwrap();
    drop(reader);
    stdout.write_all(b"third").unwrap();
    let reader = bench.reader("out");
    drop(stdout);
    io.ended();
    assert_eq!(read_all(reader), "second third");
}

#[test]
fn the_reader_sees_the_end_when_the_container_is_gone_and_not_before() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    let mut reader = bench.peek("out");
    drop(ends);
    assert!(is_blocked(reader.read(&mut [0])));
    io.ended();
    eventually(|| matches!(reader.read(&mut [0]), Ok(0)));
}

#[test]
fn what_outlives_an_exec_keeps_its_output_until_it_is_deleted() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    let mut reader = bench.peek("out");
    let mut child_of_the_exec = File::from(ends.stdout);
    io.ended();
    assert!(is_blocked(reader.read(&mut [0])));
    drop(reader);
    child_of_the_exec.write_all(b"still there").unwrap();
    drop(io);
    eventually(|| child_of_the_exec.write(b"x").is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe));
}

#[test]
fn the_last_words_wait_for_a_reader_that_was_not_there() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&outputs(&bench));
    File::from(ends.stdout).write_all(b"last words").unwrap();
    drop(ends.stderr);
    io.ended();
    std::thread::sleep(Duration::from_millis(50));
    let path = bench.path("out");
    let reader = within(LONG, move || File::open(path).unwrap());
    assert_eq!(read_all(reader), "last words");
}

#[test]
fn the_last_words_do_not_wait_for_ever() {
    let bench = Bench::with(Limits { reader: Duration::from_millis(50), ..Limits::default() });
    let (ends, io) = bench.open_ends(&outputs(&bench));
    File::from(ends.stdout).write_all(b"last words").unwrap();
    drop(ends.stderr);
    io.ended();
    // A fifo that nobody has open has no content: the next reader sees neither data nor a writer.
    std::thread::sleep(Duration::from_millis(500));
    eventually(|| matches!(bench.peek("out").read(&mut [0]), Ok(0)));
}

#[test]
fn the_input_stays_open_until_it_is_closed() {
    let bench = Bench::new();
    let (ends, io) = bench.open_ends(&Stdio { stdin: bench.fifo("in"), ..Stdio::default() });
    let mut stdin = File::from(ends.stdin);
    for text in ["one", "two"] {
        // Clients come and go.
        bench.writer("in").write_all(text.as_bytes()).unwrap();
        assert_eq!(read_some(&mut stdin), text);
    }
    assert!(!pipe::wait_readable(stdin.as_fd(), Duration::from_millis(20)).unwrap());
    let mut client = bench.writer("in");
    io.close_stdin();
    client.write_all(b"three").unwrap();
    drop(client);
    assert_eq!(read_all(stdin), "three");
}

#[test]
fn a_fifo_is_given_to_the_owner_that_was_asked_for() {
    if !nix::unistd::geteuid().is_root() {
        // Only root may chown(2) to others; every other test here covers the null case.
        assert!(block_on(Bench::new().board.open(
            &Stdio::default(),
            &LABELS,
            (1234, 5678),
            Whose::Container,
            soon()
        ))
        .is_ok());
        return;
    }
    let bench = Bench::new();
    let request = Stdio { stdin: bench.fifo("in"), ..outputs(&bench) };
    let opened =
        block_on(bench.board.open(&request, &LABELS, (1234, 5678), Whose::Container, soon())).unwrap();
    for name in ["in", "out", "err"] {
        let meta = std::fs::metadata(bench.path(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (1234, 5678), "{name}");
    }
    drop(opened);
    assert_eq!(std::fs::metadata("/dev/null").unwrap().uid(), 0);
}

#[test]
fn what_is_not_there_or_is_a_folder_is_named() {
    let bench = Bench::new();
    for (request, parts) in [
        (Stdio { stdout: bench.text("no"), ..Stdio::default() }, ["stdout", "no such file"]),
        (Stdio { stderr: bench.text(""), ..Stdio::default() }, ["stderr", "directory"]),
        (Stdio { stdin: bench.text("no"), ..outputs(&bench) }, ["stdin", "no such file"]),
        (Stdio { stdout: "tcp://x".into(), ..Stdio::default() }, ["stdout", "\"tcp\""]),
    ] {
        let error = bench.open(&request).map(drop).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

/// A process left behind by an exec holds its streams: the client gets the output from before the exit is reported, and
/// sees EOF with Delete.
#[test]
fn an_exec_lets_go_of_its_clients_streams() {
    let bench = Bench::new();
    let opened = block_on(bench.board.open(&outputs(&bench), &LABELS, (0, 0), Whose::Exec, soon()));
    let (ends, io) = opened.unwrap();
    let StdioFds { stdout, stderr, .. } = ends.unwrap();
    let mut reader = bench.peek("out");
    let mut left_behind = File::from(stdout);
    drop(stderr);
    left_behind.write_all(b"said before the exit").unwrap();
    io.ended();
    let begun = Instant::now();
    io.settle(LONG);
    assert!(begun.elapsed() < LONG / 2, "{:?}", begun.elapsed());
    assert_eq!(read_some(&mut reader), "said before the exit");
    assert!(is_blocked(reader.read(&mut [0])));
    block_on(io.drain(Duration::from_millis(50))).unwrap_err();
    assert!(is_blocked(reader.read(&mut [0])));
    drop(io);
    eventually(|| matches!(reader.read(&mut [0]), Ok(0)));
    eventually(|| left_behind.write(b"x").is_err_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe));
}

#[test]
fn what_an_exec_says_is_copied_however_slowly_it_is_read() {
    let bench = Bench::new();
    let opened = block_on(bench.board.open(&outputs(&bench), &LABELS, (0, 0), Whose::Exec, soon()));
    let (ends, io) = opened.unwrap();
    let mut stdout = File::from(ends.unwrap().stdout);
    let writer = std::thread::spawn(move || stdout.write_all(&[b'x'; 1_000_000]).unwrap());
    let reader = bench.reader("out");
    let slow = std::thread::spawn(move || {
        let mut reader = reader;
        let mut total = 0;
        loop {
            match reader.read(&mut [0; 20_000]).unwrap() {
                0 => return total,
                length => total += length,
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    });
    writer.join().unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    drop(io);
    assert_eq!(slow.join().unwrap(), 1_000_000);
}

#[test]
fn both_outputs_of_an_exec_keep_their_order_in_one_fifo() {
    let bench = Bench::new();
    let both = bench.fifo("both");
    let request = Stdio { stdout: both.clone(), stderr: both, ..Stdio::default() };
    let opened = block_on(bench.board.open(&request, &LABELS, (0, 0), Whose::Exec, soon()));
    let (ends, io) = opened.unwrap();
    let (mut stdout, mut stderr) = {
        let ends = ends.unwrap();
        (File::from(ends.stdout), File::from(ends.stderr))
    };
    let reader = bench.reader("both");
    let mut expected = String::new();
    for i in 0..500 {
        let (out, err) = (format!("o{i} "), format!("e{i} "));
        stdout.write_all(out.as_bytes()).unwrap();
        stderr.write_all(err.as_bytes()).unwrap();
        expected.extend([out, err]);
    }
    drop((stdout, stderr));
    io.ended();
    assert_eq!(read_all(reader), expected);
}

/// The streams of a container and of an exec, at whose end this many bytes are in the fifo.
fn ended(bench: &Bench, whose: Whose, bytes: usize) -> (File, Io) {
    let (ends, io) = block_on(bench.board.open(&outputs(bench), &LABELS, (0, 0), whose, soon())).unwrap();
    let reader = bench.reader("out");
    let StdioFds { stdout, stderr, .. } = ends.unwrap();
    File::from(stdout).write_all(&vec![b'x'; bytes]).unwrap();
    drop(stderr);
    io.ended();
    (reader, io)
}

#[test]
fn a_delete_waits_until_the_client_has_read_everything() {
    for whose in [Whose::Container, Whose::Exec] {
        let bench = Bench::new();
        let (reader, io) = ended(&bench, whose, 100_000);
        let begun = Instant::now();
        let slow = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(300));
            read_all(reader).len()
        });
        block_on(io.drain(LONG)).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(300), "{whose:?}");
        assert_eq!(slow.join().unwrap(), 100_000);
    }
}

#[test]
fn a_delete_waits_no_longer_for_a_client_than_its_limit_and_knows_what_is_lost() {
    for whose in [Whose::Container, Whose::Exec] {
        let bench = Bench::new();
        let (mut reader, io) = ended(&bench, whose, 50_000);
        assert_eq!(reader.read(&mut [0; 7]).unwrap(), 7);
        let lost = block_on(io.drain(Duration::from_millis(100))).unwrap_err();
        assert_eq!(lost, Lost::Unread(49_993), "{whose:?}");
    }
}

#[test]
fn a_client_that_has_hung_up_holds_up_no_delete() {
    for whose in [Whose::Container, Whose::Exec] {
        let bench = Bench::new();
        let (reader, io) = ended(&bench, whose, 50_000);
        let closes = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(reader);
        });
        let begun = Instant::now();
        block_on(io.drain(LONG)).unwrap();
        assert!(begun.elapsed() < LONG / 2, "{whose:?}");
        closes.join().unwrap();
    }
}

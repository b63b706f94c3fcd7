//! A terminal, tested with a real pseudo-terminal.

use super::*;
use crate::sys::console::{self, WindowSize};
use nix::pty::openpty;
use nix::sys::termios::{cfmakeraw, tcgetattr, tcsetattr, SetArg};
use std::io::Write;
use std::os::fd::AsFd;

/// The container's side of a terminal, in raw mode so that bytes pass unchanged.
fn terminal(bench: &Bench, stdin: bool) -> (File, Io) {
    let stdin = if stdin { bench.fifo("in") } else { String::new() };
    let stdout = bench.fifo("out");
    let (ends, io) = bench.open(&Stdio { stdin, stdout, terminal: true, ..Stdio::default() }).unwrap();
    assert!(ends.is_none());
    (attach(&io), io)
}

fn attach(io: &Io) -> File {
    let pty = openpty(None, None).unwrap();
    let mut modes = tcgetattr(&pty.slave).unwrap();
    cfmakeraw(&mut modes);
    tcsetattr(&pty.slave, SetArg::TCSANOW, &modes).unwrap();
    io.attach_console(pty.master).unwrap();
    File::from(pty.slave)
}

#[test]
fn what_is_typed_arrives_and_what_is_said_comes_back() {
    let bench = Bench::new();
    let (mut container, _io) = terminal(&bench, true);
    let mut client = bench.writer("in");
    let mut reader = bench.reader("out");
    for text in ["first", "second"] {
        client.write_all(text.as_bytes()).unwrap();
        assert_eq!(read_some(&mut container), text);
        container.write_all(text.to_uppercase().as_bytes()).unwrap();
        assert_eq!(read_some(&mut reader), text.to_uppercase());
    }
}

#[test]
fn clients_come_and_go() {
    let bench = Bench::new();
    let (mut container, io) = terminal(&bench, true);
    for round in ["one", "two", "three"] {
        let mut reader = bench.reader("out");
        bench.writer("in").write_all(round.as_bytes()).unwrap();
        assert_eq!(read_some(&mut container), round);
        container.write_all(round.as_bytes()).unwrap();
        assert_eq!(read_some(&mut reader), round);
    }
    container.write_all(b"nobody is there").unwrap();
    drop(container);
    let reader = bench.reader("out");
    io.ended();
    assert_eq!(read_all(reader), "nobody is there");
}

#[test]
fn twenty_megabytes_arrive_complete_and_in_order_at_a_slow_reader() {
    const SIZE: usize = 20_000_000;
    let bench = Bench::new();
    let (mut container, io) = terminal(&bench, false);
    let mut reader = bench.reader("out");
    let byte = |i: usize| (i % 251) as u8;
    let writer = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..SIZE).map(byte).collect();
        container.write_all(&bytes).unwrap();
    });
    let seen = std::thread::spawn(move || {
        let mut seen = 0;
        let mut buffer = vec![0; 50_000];
        loop {
            match reader.read(&mut buffer).unwrap() {
                0 => return seen,
                count => {
                    assert!(buffer[..count].iter().enumerate().all(|(i, b)| *b == byte(seen + i)));
                    seen += count;
                }
            }
            // Slow at first, so that the fifo and the terminal are full.
            if seen < 300_000 {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    });
    within(Duration::from_secs(60), move || writer.join()).unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    assert_eq!(within(LONG, move || seen.join()).unwrap(), SIZE);
}

#[test]
fn twenty_megabytes_of_input_arrive_complete_and_in_order() {
    const SIZE: usize = 20_000_000;
    let bench = Bench::new();
    let (mut container, _io) = terminal(&bench, true);
    let mut client = bench.writer("in");
    let byte = |i: usize| (i % 241) as u8;
    let writer = std::thread::spawn(move || {
        client.write_all(&(0..SIZE).map(byte).collect::<Vec<u8>>()).unwrap();
        client
    });
    within(Duration::from_secs(60), move || {
        let mut seen = 0;
        let mut buffer = vec![0; 50_000];
        while seen < SIZE {
            let count = container.read(&mut buffer).unwrap();
            assert!(buffer[..count].iter().enumerate().all(|(i, b)| *b == byte(seen + i)));
            seen += count;
        }
    });
    drop(writer.join());
}

#[test]
fn the_last_output_is_read_when_the_process_has_ended() {
    let bench = Bench::new();
    let (mut container, io) = terminal(&bench, false);
    let reader = bench.reader("out");
    // A child that outlives the process keeps the terminal open; its output does not count any more.
    let _child = container.try_clone().unwrap();
    container.write_all(b"the end").unwrap();
    io.ended();
    let reader = std::thread::spawn(move || read_all(reader));
    block_on(io.drain(LONG)).unwrap();
    assert_eq!(reader.join().unwrap(), "the end");
}

#[test]
fn a_terminal_that_nobody_has_open_for_a_moment_goes_on() {
    let bench = Bench::new();
    let (container, _io) = terminal(&bench, true);
    let path =
        std::fs::read_link(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&container))).unwrap();
    drop(container);
    let mut client = bench.writer("in");
    client.write_all(b"early").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let mut container =
        OpenOptions::new().read(true).write(true).custom_flags(nix::libc::O_NOCTTY).open(path).unwrap();
    container.write_all(b"back").unwrap();
    assert_eq!(read_some(&mut bench.reader("out")), "back");
    assert_eq!(read_some(&mut container), "early");
}

#[test]
fn without_a_reader_the_container_waits_and_delete_does_not() {
    let bench = Bench::new();
    let (mut container, io) = terminal(&bench, false);
    let writer = std::thread::spawn(move || container.write(&vec![b'x'; 1_000_000]));
    std::thread::sleep(Duration::from_millis(100));
    assert!(!writer.is_finished());
    block_on(io.drain(Duration::from_millis(20))).unwrap_err();
    drop(io);
    // The master is closed: the write is short or fails with EIO.
    let _ = within(LONG, move || writer.join()).unwrap();
}

#[test]
fn closing_the_input_hangs_the_terminal_up_after_the_last_word() {
    let bench = Bench::new();
    let (mut container, io) = terminal(&bench, true);
    let reader = bench.reader("out");
    let mut client = bench.writer("in");
    io.close_stdin();
    client.write_all(b"bye").unwrap();
    assert_eq!(read_some(&mut container), "bye");
    container.write_all(b"see you").unwrap();
    drop(client);
    assert_eq!(read_all(reader), "see you");
    let hung = within(LONG, move || {
        let mut rest = Vec::new();
        container.read_to_end(&mut rest).map(|_| rest)
    });
    // Whoever reads at that moment gets EIO, and who reads afterwards the end (n_tty_read, hung_up_tty_read).
    match hung {
        Ok(rest) => assert!(rest.is_empty()),
        Err(e) => assert_eq!(e.raw_os_error(), Some(libc::EIO)),
    }
}

#[test]
fn the_size_is_set_and_after_the_end_ignored() {
    let bench = Bench::new();
    let (container, io) = terminal(&bench, false);
    io.resize(101, 37).unwrap();
    assert_eq!(console::size(container.as_fd()).unwrap(), WindowSize { columns: 101, rows: 37 });
    io.ended();
    block_on(io.drain(LONG)).unwrap();
    drop(container);
    io.resize(1, 1).unwrap();
    let (_, io) = bench.open(&Stdio::default()).unwrap();
    io.resize(80, 24).unwrap();
}

#[test]
fn a_terminal_without_streams_still_runs() {
    let bench = Bench::new();
    let (_, io) = bench.open(&Stdio { terminal: true, ..Stdio::default() }).unwrap();
    let mut container = attach(&io);
    within(LONG, move || container.write_all(&vec![b'x'; 1_000_000])).unwrap();
    io.ended();
    block_on(io.drain(LONG)).unwrap();
}

#[test]
fn a_log_file_is_refused_and_a_second_console_too() {
    let bench = Bench::new();
    let stdout = format!("file://{}", bench.text("log"));
    let error = bench.open(&Stdio { stdout, terminal: true, ..Stdio::default() }).map(drop).unwrap_err();
    assert!(error.to_string().contains("file://"), "{error}");
    assert_eq!(error.kind(), crate::error::Kind::Invalid);
    let (_container, io) = terminal(&bench, false);
    assert!(io.attach_console(openpty(None, None).unwrap().master).is_err());
}

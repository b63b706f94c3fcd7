//! Calls that wait, and calls whose worker hangs.

use super::*;

#[test]
fn a_thousand_requests_that_wait_have_no_threads() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let begun = Instant::now();
    for _ in 0..1000 {
        wire.ask("x.Y", "Sleep", &Empty::new(), Duration::ZERO);
    }
    // Each request has its worker for a moment, and the worker ends a moment later.
    while served.threads() > 10 {
        assert!(begun.elapsed() < SLEEP, "{} threads", served.threads());
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut answered: Vec<u32> = (0..1000).map(|_| wire.next().unwrap().0).collect();
    answered.sort_unstable();
    answered.dedup();
    assert_eq!(answered.len(), 1000);
    assert!(begun.elapsed() >= SLEEP);
}

#[test]
fn a_call_that_waits_ends_at_its_deadline_and_only_then() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let begun = Instant::now();
    let late = wire.ask("x.Y", "Park", &Empty::new(), Duration::from_millis(300));
    let never = wire.ask("x.Y", "Park", &Empty::new(), Duration::ZERO);
    let (stream, response) = wire.next().unwrap();
    assert_eq!(stream, late);
    assert_eq!(refusal(response).0, Code::DEADLINE_EXCEEDED);
    let took = begun.elapsed();
    assert!((300..3000).contains(&took.as_millis()), "{took:?}");
    assert!(wire.silent(Duration::from_millis(200)));
    // An answer to the expired call has no effect; an answer to the other one does.
    for later in served.parked.lock().unwrap().drain(..) {
        later.send(Ok(Vec::new()));
    }
    assert_eq!(wire.next().unwrap().0, never);
    assert!(wire.silent(Duration::from_millis(100)));
}

#[test]
fn what_hangs_is_answered_at_its_time_however_late_it_was_decoded() {
    let served = serve(Admission::ours());
    // As many as there are workers for quick requests.
    let mut wires: Vec<Wire> = (0..64).map(|_| served.connect()).collect();
    let mut other = served.connect();
    for wire in &mut wires {
        wire.ask("x.Task", "Kill", &Empty::new(), Duration::ZERO);
    }
    std::thread::sleep(HANG / 20);
    other.ask("x.Y", "Hang", &Empty::new(), HANG / 10);
    let (_, response) = other.next().unwrap();
    assert_eq!(refusal(response).0, Code::DEADLINE_EXCEEDED);
    assert!(other.silent(HANG), "answered twice");
}

#[test]
fn what_was_answered_while_it_hung_is_not_kept_for_another_answer() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    wire.ask("x.Y", "HangAndPark", &Empty::new(), HANG / 10);
    assert_eq!(refusal(wire.next().unwrap().1).0, Code::DEADLINE_EXCEEDED);
    assert!(wire.silent(HANG + HANG / 2), "answered twice");
}

#[test]
fn a_stream_that_waits_cannot_be_used_again() {
    let served = serve(Admission::ours());
    let mut wire = served.connect();
    let request =
        ttrpc::proto::Request { service: "x.Y".into(), method: "Park".into(), ..Default::default() };
    let request = request.write_to_bytes().unwrap();
    wire.raw(1, 1, 0, &request);
    wire.raw(1, 1, 0, &request);
    let (stream, response) = wire.next().unwrap();
    assert_eq!((stream, refusal(response).0), (1, Code::INVALID_ARGUMENT));
}

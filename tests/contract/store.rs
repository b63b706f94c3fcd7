//! The Store service: ttrpc requests go to containerd's gRPC, and responses back, unchanged.

use crate::world::World;
use containerd_shim_protos::api::Empty;
use protobuf::well_known_types::any::Any;
use protobuf::{Enum, Message, MessageField};
use shoal::service::protos::record::{sandbox::Runtime, Sandbox};
use shoal::service::protos::sandbox::*;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};
use testbed::fake::{Answer, FakeStore, Seen};
use testbed::wire::{decode, Refusal, Wire, STORE};
use ttrpc::proto::{Code, KeyValue, Request};

/// Returns a sandbox with a field that no definition has.
fn sandbox(id: &str) -> Sandbox {
    let any = Any { type_url: "some.Type".into(), value: vec![1, 2, 3], ..Default::default() };
    let runtime = Runtime { name: "io.containerd.shoal.v2".into(), ..Default::default() };
    let mut sandbox = Sandbox {
        sandbox_id: id.into(),
        runtime: MessageField::some(runtime),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        extensions: [("x".to_owned(), any)].into(),
        ..Default::default()
    };
    let fields = sandbox.special_fields.mut_unknown_fields();
    fields.add_length_delimited(77, b"from the future".to_vec());
    sandbox
}

fn create(id: &str) -> StoreCreateRequest {
    StoreCreateRequest { sandbox: MessageField::some(sandbox(id)), ..Default::default() }
}

fn get(id: &str) -> StoreGetRequest {
    StoreGetRequest { sandbox_id: id.into(), ..Default::default() }
}

fn request(method: &str, message: &impl Message, namespace: &str, limit: Duration) -> Request {
    let pair =
        |key: &str, value: &str| KeyValue { key: key.into(), value: value.into(), ..Default::default() };
    let mut metadata = vec![pair("traceparent", "x")];
    if !namespace.is_empty() {
        metadata.push(pair("containerd-namespace-ttrpc", namespace));
    }
    Request {
        service: STORE.into(),
        method: method.into(),
        payload: message.write_to_bytes().unwrap(),
        timeout_nano: limit.as_nanos() as i64,
        metadata,
        ..Default::default()
    }
}

/// Sends the request and returns the payload of the answer.
fn ask(wire: &mut Wire, request: &Request) -> Result<Vec<u8>, Refusal> {
    wire.send(request);
    let response = wire.next().unwrap().1;
    decode::<Empty>(response.clone()).map(|_| response.payload)
}

fn refusal(world: &mut World, request: &Request) -> Refusal {
    ask(&mut world.wire, request).unwrap_err()
}

#[test]
fn a_message_goes_through_as_the_bytes_that_it_is() {
    let mut world = World::new();
    let store = FakeStore::listen(&world.grpc(), |seen| Answer::Good(seen.message.clone()));
    let update = StoreUpdateRequest { sandbox: create("s1").sandbox, ..Default::default() };
    let delete = StoreDeleteRequest { sandbox_id: "s1".into(), ..Default::default() };
    let list = StoreListRequest { filters: vec!["id==s1".into()], ..Default::default() };
    let limit = Duration::from_secs(2);
    for (request, namespace) in [
        (request("Create", &create("s1"), "", Duration::ZERO), "ns1"),
        (request("Update", &update, "k8s.io", limit), "k8s.io"),
        (request("Delete", &delete, "k8s.io", limit), "k8s.io"),
        (request("List", &list, "", limit), "ns1"),
        (request("Get", &get("s1"), "", limit), "ns1"),
        (request("List", &StoreListRequest::new(), "", limit), "ns1"),
    ] {
        assert_eq!(ask(&mut world.wire, &request).unwrap(), request.payload, "{}", request.method);
        let [seen] = &store.take()[..] else { panic!("one request for one") };
        assert_eq!(seen.message, request.payload);
        assert_eq!(seen.path, format!("/containerd.services.sandbox.v1.Store/{}", request.method));
        assert_eq!(seen.header("containerd-namespace"), namespace);
        assert_eq!((seen.header("te"), seen.header("content-type")), ("trailers", "application/grpc"));
        let left: u64 = seen.header("grpc-timeout").strip_suffix('m').unwrap().parse().unwrap();
        let most = if request.timeout_nano == 0 { 5000 } else { 2000 };
        assert!((most - 1500..=most).contains(&left), "{left} of {most} ms");
    }
}

#[test]
fn messages_larger_than_a_window_go_through() {
    let mut world = World::new();
    let _store = FakeStore::listen(&world.grpc(), |seen| Answer::Good(seen.message.clone()));
    let mut large = create("s1");
    let labels = &mut large.sandbox.mut_or_insert_default().labels;
    labels.insert("large".into(), "x".repeat(3 << 20));
    let request = request("Create", &large, "", Duration::from_secs(20));
    assert!(ask(&mut world.wire, &request).unwrap() == request.payload);
    // The next request succeeds too: nothing was left half read.
    assert!(ask(&mut world.wire, &request).unwrap() == request.payload);
}

#[test]
fn a_status_has_its_code_and_its_words() {
    let mut world = World::new();
    let path = world.grpc();
    let codes = 1..=16;
    for only in [false, true] {
        let rule = move |seen: &Seen| {
            let code = StoreGetRequest::parse_from_bytes(&seen.message).unwrap().sandbox_id.parse().unwrap();
            let text = format!("n%C3%B6 {code}: 100%25");
            if only {
                Answer::Only(code, text)
            } else {
                Answer::Status(code, text)
            }
        };
        let _store = FakeStore::listen(&path, rule);
        for number in codes.clone() {
            let request = request("Get", &get(&number.to_string()), "", Duration::ZERO);
            let (code, message) = refusal(&mut world, &request);
            assert_eq!(code, Code::from_i32(number).unwrap());
            assert_eq!(message, format!("Store.Get: nö {number}: 100%"));
        }
    }
}

#[test]
fn a_record_without_a_runtime_never_gets_to_containerd() {
    let mut world = World::new();
    let store = FakeStore::listen(&world.grpc(), |seen| Answer::Good(seen.message.clone()));
    let mut bare = sandbox("s1");
    bare.runtime = None.into();
    let bare = MessageField::some(bare);
    let update =
        StoreUpdateRequest { sandbox: bare.clone(), fields: vec!["labels".into()], ..Default::default() };
    let bare = StoreCreateRequest { sandbox: bare, ..Default::default() };
    let invalid = Code::INVALID_ARGUMENT;
    let now = Duration::ZERO;
    let mut nonsense = request("Create", &Empty::new(), "", now);
    nonsense.payload = vec![0xff];
    for (request, expected, part) in [
        (request("Create", &bare, "", now), invalid, "sandbox.runtime"),
        (request("Update", &update, "", now), invalid, "sandbox.runtime"),
        (request("Create", &Empty::new(), "", now), invalid, "sandbox is missing"),
        (request("Update", &Empty::new(), "", now), invalid, "sandbox is missing"),
        (nonsense, invalid, "decode"),
        (request("Get", &get("s1"), "a\nb", now), invalid, "namespace"),
        (request("Remove", &get("s1"), "", now), Code::UNIMPLEMENTED, "Remove"),
    ] {
        let (code, message) = refusal(&mut world, &request);
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(part) && message.starts_with("Store."), "{message}");
    }
    assert!(store.take().is_empty());
}

#[test]
fn containerd_may_be_away_and_come_back() {
    let mut world = World::new();
    let path = world.grpc();
    let request = request("Get", &get("s1"), "", Duration::ZERO);
    let echo = |seen: &Seen| Answer::Good(seen.message.clone());
    for _ in 0..3 {
        let (code, message) = refusal(&mut world, &request);
        assert_eq!(code, Code::UNAVAILABLE);
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        assert!(message.contains("containerd is away") && message.contains("ENOENT"), "{message}");
        let _store = FakeStore::listen(&path, echo);
        assert_eq!(ask(&mut world.wire, &request).unwrap(), request.payload);
    }
    drop(UnixListener::bind(&path).unwrap());
    let (code, message) = refusal(&mut world, &request);
    assert!(code == Code::UNAVAILABLE && message.contains("ECONNREFUSED"), "{message}");
}

#[test]
fn a_call_ends_at_its_time_limit() {
    let mut world = World::new();
    let store = FakeStore::listen(&world.grpc(), |_| Answer::Never);
    let limit = Duration::from_millis(300);
    let request = request("Get", &get("s1"), "", limit);
    let begun = Instant::now();
    let (code, message) = refusal(&mut world, &request);
    assert_eq!(code, Code::DEADLINE_EXCEEDED, "{message}");
    assert!((limit..10 * limit).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert!(message.contains("0.3 s"), "{message}");
    drop(store);
    // Nobody accepts: the first requests wait for an answer to their first bytes, the others for the connection.
    let full = UnixListener::bind(world.grpc()).unwrap();
    nix::sys::socket::listen(&full, nix::sys::socket::Backlog::new(1).unwrap()).unwrap();
    let mut wires: Vec<Wire> = (0..5).map(|_| world.connect()).collect();
    for wire in &mut wires {
        wire.send(&request);
    }
    for wire in &mut wires {
        let answer = decode::<Empty>(wire.next().unwrap().1);
        assert_eq!(answer.unwrap_err().0, Code::DEADLINE_EXCEEDED);
    }
}

#[test]
fn calls_at_once_do_not_wait_for_each_other() {
    let world = World::new();
    let slow = |seen: &Seen| {
        if seen.message.ends_with(b"slow") {
            Answer::Never
        } else {
            Answer::Good(seen.message.clone())
        }
    };
    let _store = FakeStore::listen(&world.grpc(), slow);
    let mut stuck: Vec<Wire> = (0..8).map(|_| world.connect()).collect();
    for wire in &mut stuck {
        wire.send(&request("Get", &get("slow"), "", Duration::from_secs(3)));
    }
    let begun = Instant::now();
    let mut wire = world.connect();
    for _ in 0..20 {
        ask(&mut wire, &request("Get", &get("quick"), "", Duration::ZERO)).unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    for wire in &mut stuck {
        assert_eq!(decode::<Empty>(wire.next().unwrap().1).unwrap_err().0, Code::DEADLINE_EXCEEDED);
    }
}

#[test]
fn what_is_no_answer_becomes_an_error() {
    let mut world = World::new();
    let path = world.grpc();
    let request = request("Get", &get("s1"), "", Duration::from_secs(5));
    type Case = (fn() -> Answer, Code, &'static str);
    let cases: [Case; 7] = [
        (|| Answer::Http(503), Code::UNKNOWN, "503"),
        (|| Answer::Raw(vec![]), Code::INTERNAL, "no message"),
        (|| Answer::Raw(vec![1, 0, 0, 0, 1, 7]), Code::INTERNAL, "compressed"),
        (|| Answer::Raw(vec![0, 0, 0, 0, 9, 7]), Code::INTERNAL, "length"),
        (|| Answer::Status(99, String::new()), Code::UNKNOWN, ""),
        (|| Answer::Reset, Code::INTERNAL, "connection to containerd"),
        (|| Answer::HangUp, Code::UNAVAILABLE, "connection to containerd"),
    ];
    for (answer, expected, part) in cases {
        let _store = FakeStore::listen(&path, move |_| answer());
        let (code, message) = refusal(&mut world, &request);
        assert_eq!(code, expected, "{message}");
        assert!(message.contains(part), "{message}");
    }
    // The peer does not even speak HTTP.
    let listener = UnixListener::bind(&path).unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut stream, b"220 mail.example ESMTP, at your service, always\r\n")
            .unwrap();
        std::thread::sleep(Duration::from_millis(200));
    });
    let (code, message) = refusal(&mut world, &request);
    assert!([Code::UNAVAILABLE, Code::INTERNAL].contains(&code), "{code:?}: {message}");
    thread.join().unwrap();
}

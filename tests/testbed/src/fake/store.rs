//! A gRPC server in containerd's place, which records requests and answers as a test decides.

use bytes::Bytes;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

/// A received request.
#[derive(Clone, Debug)]
pub struct Seen {
    pub path: String,
    pub headers: HeaderMap,
    /// The message, without its prefix.
    pub message: Vec<u8>,
}

impl Seen {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

pub enum Answer {
    Good(Vec<u8>),
    /// Code and message, escaped already: in trailers after the headers, or in the headers alone.
    Status(i32, String),
    Only(i32, String),
    /// An HTTP status without gRPC.
    Http(u16),
    /// A body that is not one message.
    Raw(Vec<u8>),
    Reset,
    HangUp,
    Never,
}

type Rule = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

pub struct FakeStore {
    path: PathBuf,
    pub seen: Arc<Mutex<Vec<Seen>>>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeStore {
    pub fn listen(path: &Path, rule: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> Self {
        let listener = UnixListener::bind(path).unwrap();
        listener.set_nonblocking(true).unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (rule, list): (Rule, _) = (Arc::new(rule), seen.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::UnixListener::from_std(listener).unwrap();
                let serve = tokio::spawn(accept(listener, rule, list));
                let _ = stopped.await;
                serve.abort();
            });
        });
        FakeStore { path: path.into(), seen, stop: Some(stop), thread: Some(thread) }
    }

    pub fn take(&self) -> Vec<Seen> {
        std::mem::take(&mut self.seen.lock().unwrap())
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        let _ = self.stop.take().unwrap().send(());
        let _ = self.thread.take().unwrap().join();
        let _ = std::fs::remove_file(&self.path);
    }
}

async fn accept(listener: tokio::net::UnixListener, rule: Rule, seen: Arc<Mutex<Vec<Seen>>>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        tokio::spawn(connection(stream, rule.clone(), seen.clone()));
    }
}

async fn connection(stream: tokio::net::UnixStream, rule: Rule, seen: Arc<Mutex<Vec<Seen>>>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    let hang_up = Arc::new(tokio::sync::Notify::new());
    loop {
        let next = tokio::select! {
            next = connection.accept() => next,
            _ = hang_up.notified() => return,
        };
        let Some(Ok((request, respond))) = next else { return };
        let (rule, seen, hang_up) = (rule.clone(), seen.clone(), hang_up.clone());
        tokio::spawn(async move {
            let (head, mut body) = request.into_parts();
            let mut bytes = Vec::new();
            while let Some(Ok(part)) = body.data().await {
                let _ = body.flow_control().release_capacity(part.len());
                bytes.extend_from_slice(&part);
            }
            let length = u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize;
            assert_eq!((bytes[0], length), (0, bytes.len() - 5), "the prefix of a message");
            let one =
                Seen { path: head.uri.path().into(), headers: head.headers, message: bytes[5..].to_vec() };
            let answer = rule(&one);
            seen.lock().unwrap().push(one);
            match answer {
                // Keep the stream open, or its end would reach the client before that of the connection.
                Answer::HangUp => {
                    hang_up.notify_one();
                    std::future::pending().await
                }
                Answer::Never => std::future::pending().await,
                answer => send(answer, respond),
            }
        });
    }
}

fn send(answer: Answer, mut respond: SendResponse<Bytes>) {
    let head = |code: u16| {
        Response::builder().status(code).header("content-type", "application/grpc").body(()).unwrap()
    };
    let status = |code: i32, message: &str| {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", code.into());
        trailers.insert("grpc-message", message.parse().unwrap());
        trailers
    };
    let mut body = |bytes: Vec<u8>| {
        let mut stream = respond.send_response(head(200), false).unwrap();
        stream.send_data(bytes.into(), false).unwrap();
        stream.send_trailers(status(0, "")).unwrap();
    };
    match answer {
        Answer::Good(message) => {
            let mut bytes = vec![0];
            bytes.extend((message.len() as u32).to_be_bytes());
            bytes.extend(message);
            body(bytes);
        }
        Answer::Raw(bytes) => body(bytes),
        Answer::Status(code, message) => {
            let mut stream = respond.send_response(head(200), false).unwrap();
            stream.send_trailers(status(code, &message)).unwrap();
        }
        Answer::Only(code, message) => {
            let mut head = head(200);
            head.headers_mut().extend(status(code, &message));
            respond.send_response(head, true).unwrap();
        }
        Answer::Http(code) => drop(respond.send_response(head(code), true).unwrap()),
        Answer::Reset => respond.send_reset(h2::Reason::INTERNAL_ERROR),
        Answer::HangUp | Answer::Never => unreachable!(),
    }
}

//! A connection to systemd: its private socket, which root may use and which needs no D-Bus daemon, or the system bus.
//! In a user namespace it is to the user's own systemd, since the host's takes no orders from there.
//! One time limit covers everything done over it; waiting takes no thread.

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::{nowhere, Host};
use super::wire::{self, Message, Reader, Target, Writer};
use crate::error::{words, Error, Kind, Result};
use crate::sys::epoll::Interest;
use crate::tasks;

/// As long as other runtimes wait. A loaded systemd takes seconds.
const LIMIT: Duration = Duration::from_secs(30);

const MANAGER: Target = Target {
    destination: "org.freedesktop.systemd1",
    path: "/org/freedesktop/systemd1",
    interface: "org.freedesktop.systemd1.Manager",
};
const PROPERTIES: Target = Target { interface: "org.freedesktop.DBus.Properties", ..MANAGER };
const DAEMON: Target = Target {
    destination: "org.freedesktop.DBus",
    path: "/org/freedesktop/DBus",
    interface: "org.freedesktop.DBus",
};

#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    /// The peer is the systemd of a user.
    users: bool,
    limit: Duration,
    deadline: Instant,
    serial: u32,
    /// Jobs that ended before anybody asked: object path and result.
    ended: Vec<(String, String)>,
}

/// An error reply from systemd, with its D-Bus name.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) name: String,
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn is(&self, name: &str) -> bool {
        self.name.rsplit('.').next() == Some(name)
    }
}

impl Bus {
    pub(super) async fn connect(host: &Host) -> Result<Bus> {
        if !nowhere::in_user_namespace(host) {
            return Bus::connect_within(&host.run, LIMIT, false).await;
        }
        // pam_systemd(8)
        let missing = || Error::new(Kind::Unavailable, "the user's systemd: XDG_RUNTIME_DIR is not set");
        let run = std::env::var_os("XDG_RUNTIME_DIR").ok_or_else(missing)?;
        Bus::connect_within(Path::new(&run), LIMIT, true).await
    }

    /// `run` is `/run`, or the user's own directory below it.
    async fn connect_within(run: &Path, limit: Duration, users: bool) -> Result<Bus> {
        let deadline = Instant::now() + limit;
        let private = run.join("systemd/private");
        let system = run.join(if users { "bus" } else { "dbus/system_bus_socket" });
        let (stream, daemon) = match tasks::connect(&private, deadline).await {
            Ok(stream) => (stream, false),
            Err(e) if e.kind() == ErrorKind::WouldBlock => return Err(too_slow(limit)),
            Err(first) => match tasks::connect(&system, deadline).await {
                Ok(stream) => (stream, true),
                Err(second) => {
                    return Err(Error::caused_by(
                        Kind::Unavailable,
                        format!(
                            "systemd cannot be reached: connect({private:?}): {}; connect({system:?})",
                            words(&first)
                        ),
                        second,
                    ))
                }
            },
        };
        let mut bus = Bus { stream, users, limit, deadline, serial: 0, ended: Vec::new() };
        bus.authenticate().await?;
        if daemon {
            bus.demand(DAEMON, "Hello", "", &Writer::default()).await?;
            let mut rule = Writer::default();
            rule.text("type='signal',interface='org.freedesktop.systemd1.Manager',member='JobRemoved'");
            bus.demand(DAEMON, "AddMatch", "s", &rule).await?;
            bus.demand(MANAGER, "Subscribe", "", &Writer::default()).await?;
        }
        Ok(bus)
    }

    /// Authenticates by SASL EXTERNAL: the kernel has told the peer who we are; the name is our uid, in hexadecimal
    /// digits. In a user namespace that is not the peer's name for us, and we send none, when it asks for one.
    ///
    /// BEGIN is sent with the first line, as systemctl(1) does. A busy systemd would otherwise find it together with
    /// the first message, and leave that message in its buffer until something else arrives (seen with 257).
    async fn authenticate(&mut self) -> Result<()> {
        let uid = nix::unistd::geteuid().to_string();
        let name: String = uid.bytes().map(|b| format!("{b:02x}")).collect();
        let hello = if self.users { "\r\nDATA".to_owned() } else { format!(" {name}") };
        self.send(format!("\0AUTH EXTERNAL{hello}\r\nBEGIN\r\n").as_bytes()).await?;
        let mut line = self.line().await?;
        if self.users && line == b"DATA\r\n" {
            line = self.line().await?;
        }
        if !line.starts_with(b"OK") {
            let line = String::from_utf8_lossy(&line).trim().to_owned();
            return Err(Error::new(Kind::Denied, format!("systemd's D-Bus socket refused us: {line}")));
        }
        Ok(())
    }

    async fn line(&mut self) -> Result<Vec<u8>> {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            if line.len() > 1024 {
                return Err(Error::new(Kind::Unavailable, "systemd's D-Bus greeting is not one"));
            }
            let mut byte = [0];
            self.receive(&mut byte).await?;
            line.extend(byte);
        }
        Ok(line)
    }

    async fn send(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match self.stream.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(e) => self.after(e, Interest { read: false, write: true }).await?,
            }
        }
        Ok(())
    }

    async fn receive(&mut self, bytes: &mut [u8]) -> Result<()> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) => return Err(Error::new(Kind::Unavailable, "systemd closed the D-Bus connection")),
                Ok(n) => filled += n,
                Err(e) => self.after(e, Interest::READ).await?,
            }
        }
        Ok(())
    }

    /// Waits until an operation that would block can go on.
    async fn after(&self, error: std::io::Error, interest: Interest) -> Result<()> {
        match error.kind() {
            ErrorKind::Interrupted => Ok(()),
            ErrorKind::WouldBlock => {
                if tasks::ready(self.stream.as_fd(), interest, self.deadline).await? {
                    Ok(())
                } else {
                    Err(too_slow(self.limit))
                }
            }
            _ => Err(Error::caused_by(Kind::Unavailable, "systemd's D-Bus socket", error)),
        }
    }

    async fn next(&mut self) -> Result<Message> {
        // Unrelated signals may arrive without end.
        if Instant::now() >= self.deadline {
            return Err(too_slow(self.limit));
        }
        let mut start = [0; wire::START];
        self.receive(&mut start).await?;
        let mut bytes = start.to_vec();
        bytes.resize(wire::START + wire::rest_length(&start)?, 0);
        self.receive(&mut bytes[wire::START..]).await?;
        wire::parse(&bytes)
    }

    async fn call(
        &mut self,
        target: Target,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Result<Vec<u8>, Refusal>> {
        self.serial += 1;
        let serial = self.serial;
        self.send(&wire::call(target, member, signature, body, serial)).await?;
        loop {
            let message = self.next().await?;
            match message.kind {
                wire::METHOD_RETURN if message.reply_to == serial => return Ok(Ok(message.body)),
                wire::ERROR if message.reply_to == serial => {
                    let text = Reader::new(&message.body).text().unwrap_or_default().to_owned();
                    return Ok(Err(Refusal { name: message.error, message: text }));
                }
                _ => self.note(&message),
            }
        }
    }

    /// Makes a call for which an error reply is an error.
    async fn demand(
        &mut self,
        target: Target,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Vec<u8>> {
        self.call(target, member, signature, body).await?.map_err(|refusal| refused(member, &refusal))
    }

    pub(super) async fn manager(
        &mut self,
        member: &str,
        signature: &str,
        body: &Writer,
    ) -> Result<Result<Vec<u8>, Refusal>> {
        self.call(MANAGER, member, signature, body).await
    }

    /// Returns the number in `252.39-1~deb12u1` or `v257`.
    pub(super) async fn version(&mut self) -> Result<u32> {
        let text = self.property("Version").await?;
        let digits = text.trim_start_matches('v').split(|c: char| !c.is_ascii_digit()).next();
        Ok(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0))
    }

    /// Returns the cgroup below which the units are: that of a user's systemd is not the root of the hierarchy.
    pub(super) async fn root(&mut self) -> Result<PathBuf> {
        if !self.users {
            return Ok(PathBuf::new());
        }
        let text = self.property("ControlGroup").await?;
        Ok(text.trim_start_matches('/').into())
    }

    async fn property(&mut self, name: &str) -> Result<String> {
        let mut body = Writer::default();
        body.text(MANAGER.interface);
        body.text(name);
        let answer = self.demand(PROPERTIES, "Get", "ss", &body).await?;
        let mut reader = Reader::new(&answer);
        reader.signature()?;
        reader.text().map(str::to_owned)
    }

    /// Records the end of a job; signals arrive at any time.
    fn note(&mut self, message: &Message) {
        if message.kind != wire::SIGNAL || message.member != "JobRemoved" {
            return;
        }
        // id, job, unit, result
        let mut reader = Reader::new(&message.body);
        let parts = reader.u32().and_then(|_| Ok((reader.text()?, reader.text()?, reader.text()?)));
        if let Ok((job, _, result)) = parts {
            self.ended.push((job.to_owned(), result.to_owned()));
        }
    }

    /// Waits for a job (its object path) to end, and returns its result: `done`, `failed`, `timeout`, …
    pub(super) async fn wait(&mut self, job: &str) -> Result<String> {
        loop {
            if let Some((_, result)) = self.ended.iter().find(|(path, _)| path == job) {
                return Ok(result.clone());
            }
            let message = self.next().await?;
            self.note(&message);
        }
    }
}

fn too_slow(limit: Duration) -> Error {
    Error::new(Kind::Deadline, format!("systemd did not answer within {limit:?}"))
}

pub(super) fn refused(member: &str, refusal: &Refusal) -> Error {
    let kind = match () {
        () if refusal.is("AccessDenied") || refusal.is("InteractiveAuthorizationRequired") => Kind::Denied,
        () if refusal.is("UnitExists") => Kind::Exists,
        () => Kind::System,
    };
    Error::new(kind, format!("systemd refused {member}: {} ({})", refusal.message, refusal.name))
}

#[cfg(test)]
mod tests;

//! The server: one process per sandbox, launched by `start` with its socket as descriptor 3.

use super::arguments::Arguments;
use super::solitude::Solitude;
use super::{log as server_log, socket, start};
use crate::cgroup::{self, Cgroup, CgroupsPath, Layout, Parent};
use crate::error::{Context, Error, Kind, Result};
use crate::launch::{CloneLauncher, Reaper, Strangers};
use crate::paths::Paths;
use crate::plan::Host;
use crate::sandbox::{CgroupOrder, Config, PodPlace, Sandbox};
use crate::service::events::Events;
use crate::service::router::{self, Router};
use crate::service::server::{Admission, Server, Stopper};
use crate::sync::Mutex;
use crate::sys::event::Event;
use crate::sys::handler::{self, SIGINT, SIGTERM, SIGUSR1};
use crate::sys::{identity, process};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;
use std::time::Duration;

/// How long the server waits at its end for containerd to take the last events: the Go shim's limit for a request.
const DRAIN: Duration = Duration::from_secs(5);

/// The socket's descriptor, as passed by `start`: the first one after the standard streams.
const LISTENER: i32 = 3;

/// The descriptors of the mounts through which the program was opened, if any. They stay open as long as the server
/// runs: closing them would delay the launch, and the program keeps their filesystems in use anyway.
const MOUNTS: std::ops::RangeInclusive<i32> = 4..=5;

/// How long logging programs may take to exit after their containers: the Go shim's limit.
const LOGGERS: Duration = Duration::from_secs(12);

pub(super) fn serve(arguments: &Arguments) -> Result<()> {
    let _mounts: Vec<_> = MOUNTS.map(process::inherited).collect();
    process::close_from(*MOUNTS.end() as u32 + 1).context(|| "close_range(6, ~0)")?;
    let listener = process::inherited(LISTENER).map(UnixListener::from);
    let listener = listener.filter(|l| l.local_addr().is_ok_and(|a| a.as_pathname().is_some()));
    let listener = listener.ok_or_else(|| {
        let text = "descriptor 3 is not a listening socket: the server is launched by `start`, see -h";
        Error::new(Kind::Invalid, text)
    })?;
    process::own_session().context(|| "setsid()")?;
    let bundle = std::env::current_dir().context(|| "getcwd()")?;
    let level = arguments.level.unwrap_or(log::LevelFilter::Info);
    let logged = server_log::begin(&bundle, &arguments.namespace, &arguments.id, level);
    if let Err(error) = process::room_for_descriptors() {
        log::debug!("could not enlarge the descriptor table: {error}");
    }
    let socket = Arc::new(Socket { path: arguments.socket.clone(), removed: AtomicBool::new(false) });
    let served = run(arguments, &bundle, listener, logged, &socket);
    if let Err(error) = &served {
        log::error!("{error}");
    }
    // containerd must not find a socket without a server any more.
    socket.remove();
    served
}

/// The socket is removed once, when the end is decided: after that, the path may belong to a successor.
struct Socket {
    path: PathBuf,
    removed: AtomicBool,
}

impl Socket {
    fn remove(&self) {
        if self.path == Path::new("") || self.removed.swap(true, Ordering::SeqCst) {
            return;
        }
        if let Err(error) = socket::remove(&self.path) {
            log::warn!("{error}");
        }
    }
}

fn run(
    arguments: &Arguments,
    bundle: &Path,
    listener: UnixListener,
    logged: Result<()>,
    socket: &Arc<Socket>,
) -> Result<()> {
    if let Err(error) = logged {
        log::warn!("{error}");
    }
    for note in std::env::var(start::NOTES).iter().flat_map(|notes| notes.lines()) {
        log::warn!("start: {note}");
    }
    // Leave the bundle, which containerd removes.
    std::env::set_current_dir("/").context(|| "chdir(\"/\")")?;
    process::set_name(c"shoal").context(|| "prctl(PR_SET_NAME)")?;
    // Inherited by clone: processes in the pid namespace that a child is born into cannot inspect it.
    identity::undumpable().context(|| "prctl(PR_SET_DUMPABLE)")?;
    if let Err(errno) = process::raise_descriptors() {
        log::warn!("could not raise the limit of descriptors: {errno}");
    }
    process::become_subreaper().context(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
    handler::ignore_broken_pipes().context(|| "sigaction(SIGPIPE)")?;

    let events = Events::new(&arguments.namespace, ttrpc_address());
    let sandbox = Arc::new(sandbox(arguments, Paths::new(bundle)?, events.clone())?);
    let stopper = Stopper::new()?;
    let (stop, path) = (stopper.clone(), socket.clone());
    let end: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        // Remove the socket first, so that a `start` arriving now launches another server instead of joining this one.
        path.remove();
        stop.stop_after_peers();
    });
    let router = Router::new(router::Config {
        sandbox: sandbox.clone(),
        id: arguments.id.clone(),
        namespace: arguments.namespace.clone(),
        bundle: bundle.to_owned(),
        address: grpc_address(arguments),
        end: end.clone(),
    });
    let handler = Box::new(move |request, reply| router.route(request, reply));
    let mut server = Server::new(listener, Admission::ours(), stopper.clone(), handler)?;
    let signals: &'static Event = Box::leak(Box::new(Event::new().context(|| "eventfd()")?));
    handler::raise_on(signals, &[SIGTERM, SIGINT, SIGUSR1]).context(|| "sigaction()")?;
    let (queue, asked, path) = (events.clone(), sandbox.clone(), socket.clone());
    server.on_signal(signals, move || {
        for signal in handler::caught() {
            match signal {
                SIGUSR1 => dump(&asked, &queue),
                // Containers must not lose their shim to a stray SIGTERM; `kill -9` still works.
                _ if !asked.shutdown() => log::warn!("ignored signal {signal}: containers are still running"),
                _ => {
                    path.remove();
                    stopper.stop();
                }
            }
        }
    })?;
    let (bundle, since) = (bundle.to_owned(), Mutex::default());
    let solitude = Solitude { sandbox: sandbox.clone(), bundle, end, since };
    server.on_look(move |peers| solitude.look(peers));
    log::info!(pid = std::process::id(); "serving");
    Arc::new(server).serve();
    let left = events.drain(DRAIN);
    if left > 0 {
        log::warn!("exiting with {left} unsent events");
    }
    sandbox.finish(LOGGERS);
    log::info!("exiting");
    Ok(())
}

fn ttrpc_address() -> Option<String> {
    std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty())
}

/// containerd's gRPC socket: passed by `start`, or taken from the environment if the server is started by hand.
fn grpc_address(arguments: &Arguments) -> String {
    match arguments.address.as_str() {
        "" => std::env::var("GRPC_ADDRESS").unwrap_or_default(),
        address => address.to_owned(),
    }
}

fn sandbox(arguments: &Arguments, paths: Paths, events: Events) -> Result<Sandbox> {
    let namespace = arguments.namespace.clone();
    let host = cgroup::Host::default();
    // Read only once: it has a line for each mount of the host.
    let mountinfo = std::fs::read("/proc/self/mountinfo").context(|| "read(\"/proc/self/mountinfo\")")?;
    let layout = Layout::probe_with(&host.proc, &mountinfo)?;
    let facts = Host::probe_with(Path::new("/"), &mountinfo, &layout)?;
    let (pods_host, pods_layout) = (host.clone(), layout.clone());
    let where_to = Arc::new((namespace, host, layout));
    let pod_cgroup = move |place: PodPlace<'_>| {
        let parent = match place {
            PodPlace::Client(text) => Parent::of_client(&pods_host, &pods_layout, text)?,
            PodPlace::Own(below) => Parent::own(&pods_host, &pods_layout, below),
        };
        Ok(Box::new(parent) as Box<dyn Cgroup>)
    };
    Sandbox::new(Config {
        namespace: arguments.namespace.clone(),
        host: facts,
        paths,
        launcher: Box::new(CloneLauncher::new(Reaper::start(Strangers::Reap)?)?),
        cgroups: Box::new(move |order| Box::pin(cgroup_of(where_to.clone(), order))),
        pod_cgroup: Box::new(pod_cgroup),
        pod_settings: Box::new(|| super::settings::read(Path::new(super::settings::FILE))),
        events: Box::new(move |event| events.push(event)),
    })
}

/// Makes a container's cgroup. `world` holds containerd's namespace and the cgroup layout.
async fn cgroup_of(
    world: Arc<(String, cgroup::Host, Layout)>,
    CgroupOrder { path, limits, annotations, options, id, asked }: CgroupOrder<'_>,
) -> Result<Box<dyn Cgroup>> {
    let (namespace, host, layout) = &*world;
    let path = path.unwrap_or_default();
    if path.is_empty() && !options.systemd_cgroup {
        return cgroup::create_unnamed(host, layout, namespace, id, limits);
    }
    let path = CgroupsPath::parse(path, options.systemd_cgroup, id)?;
    cgroup::create(host, layout, &path, limits, annotations, asked).await
}

/// Writes the state to the log, on SIGUSR1.
fn dump(sandbox: &Sandbox, events: &Events) {
    log::info!(events = events.waiting(); "begin of state dump");
    #[cfg(debug_assertions)]
    log::info!("{} allocations so far", crate::sys::tripwire::allocations());
    for line in sandbox.dump() {
        log::info!("{line}");
    }
    log::info!("end of state dump");
}

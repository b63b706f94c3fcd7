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

/// How long the end waits for containerd to take the last events: the Go shim's limit for a request.
const DRAIN: Duration = Duration::from_secs(5);

/// Where `start` leaves the socket: the first descriptor after the standard streams.
const LISTENER: i32 = 3;

/// The mounts that its program was opened through follow, where there are some. They stay open as long as it runs: to
/// close them would be waited for in the launch, and the program keeps their filesystems anyway.
const MOUNTS: std::ops::RangeInclusive<i32> = 4..=5;

/// How long logging programs may take to end once their containers have: the Go shim's limit.
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
        log::debug!("room for descriptors: {error}");
    }
    let socket = Arc::new(Socket { path: arguments.socket.clone(), removed: AtomicBool::new(false) });
    let served = run(arguments, &bundle, listener, logged, &socket);
    if let Err(error) = &served {
        log::error!("{error}");
    }
    // containerd may reach a socket without a server no more.
    socket.remove();
    served
}

/// Removed once, when the end is decided: after that the path may be that of a successor.
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
    // The bundle is containerd's to remove.
    std::env::set_current_dir("/").context(|| "chdir(\"/\")")?;
    process::set_name(c"shoal").context(|| "prctl(PR_SET_NAME)")?;
    // Inherited by the clone: nothing in a pid namespace that a child is born into can look into it.
    identity::undumpable().context(|| "prctl(PR_SET_DUMPABLE)")?;
    process::become_subreaper().context(|| "prctl(PR_SET_CHILD_SUBREAPER)")?;
    handler::ignore_broken_pipes().context(|| "sigaction(SIGPIPE)")?;

    let events = Events::new(&arguments.namespace, ttrpc_address());
    let sandbox = Arc::new(sandbox(arguments, Paths::new(bundle)?, events.clone())?);
    let stopper = Stopper::new()?;
    let (stop, path) = (stopper.clone(), socket.clone());
    let end: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        // First, so that a `start` that comes now launches another server instead of joining this one.
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
                // Containers must not lose their shim to a tidy operator; `kill -9` is still there.
                _ if !asked.shutdown() => log::warn!("ignored signal {signal}: containers are here"),
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
        log::warn!("ended with {left} events that containerd did not take");
    }
    sandbox.finish(LOGGERS);
    log::info!("ended");
    Ok(())
}

fn ttrpc_address() -> Option<String> {
    std::env::var("TTRPC_ADDRESS").ok().filter(|address| !address.is_empty())
}

/// `start` gives it on; by hand the environment may have it.
fn grpc_address(arguments: &Arguments) -> String {
    match arguments.address.as_str() {
        "" => std::env::var("GRPC_ADDRESS").unwrap_or_default(),
        address => address.to_owned(),
    }
}

fn sandbox(arguments: &Arguments, paths: Paths, events: Events) -> Result<Sandbox> {
    let namespace = arguments.namespace.clone();
    let host = cgroup::Host::default();
    // Once: it has a line for each mount of the host.
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

/// `world`: containerd's namespace, and where cgroups are.
async fn cgroup_of(
    world: Arc<(String, cgroup::Host, Layout)>,
    CgroupOrder { path, limits, options, id, asked }: CgroupOrder<'_>,
) -> Result<Box<dyn Cgroup>> {
    let (namespace, host, layout) = &*world;
    let path = match path {
        None if !options.systemd_cgroup => format!("/{namespace}/{id}"),
        path => path.unwrap_or_default().to_owned(),
    };
    let path = CgroupsPath::parse(&path, options.systemd_cgroup, id)?;
    cgroup::create(host, layout, &path, limits, asked).await
}

/// SIGUSR1: the state, into the log.
fn dump(sandbox: &Sandbox, events: &Events) {
    log::info!(events = events.waiting(); "dump of the state begins");
    #[cfg(debug_assertions)]
    log::info!("{} allocations so far", crate::sys::tripwire::allocations());
    for line in sandbox.dump() {
        log::info!("{line}");
    }
    log::info!("dump of the state ends");
}

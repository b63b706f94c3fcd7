//! The services over a real connection, with fake processes and cgroups, and the server and the events below them.

mod agents;
mod changes;
mod ends;
mod errors;
mod events;
mod oom;
mod options;
mod pod;
mod pod_states;
mod resctrl;
mod server;
mod states;
mod store;
mod task;
mod world;

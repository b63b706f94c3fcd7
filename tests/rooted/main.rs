//! Real processes by the real launcher. Needs root: otherwise every test here reports it and is skipped (in CI:
//! fails).

mod affinity;
mod bench;
mod capabilities;
mod container;
mod cost;
mod escapes;
mod faults;
mod hooks;
mod kernels;
mod labels;
mod launches;
mod limits;
mod matrix;
mod net_devices;
mod numa;
mod options;
mod owners;
mod pods;
mod reports;
mod resctrl;
mod roots;
mod sources;
mod times;
mod users;

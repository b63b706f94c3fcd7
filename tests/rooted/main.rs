//! Real processes by the real launcher. Needs root: otherwise every test here reports it and is skipped (in CI:
//! fails).

mod affinity;
mod bench;
mod capabilities;
mod container;
mod cost;
mod escapes;
mod faults;
mod handover;
mod hooks;
mod kernels;
mod labels;
mod launches;
mod limits;
mod listeners;
mod matrix;
mod numa;
mod options;
mod owners;
mod pods;
mod reports;
mod roots;
mod sources;
mod times;
mod users;

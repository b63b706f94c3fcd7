//! The verbs with which containerd calls the binary.
//!
//! `start` and `delete` are short-lived and on the path of every container; without a verb, the binary is the server.
//! Protocol: containerd's runtime/v2 README and the sources of its shim manager.

mod arguments;
mod bootstrap;
mod cgroup;
mod delete;
mod features;
mod info;
mod log;
mod names;
#[cfg(test)]
mod reference;
mod serve;
mod settings;
mod socket;
mod solitude;
mod start;
mod version;

use crate::error::Error;
use crate::paths;
use crate::sys::process;
use arguments::{Arguments, Verb};
use std::ffi::OsString;
use std::process::ExitCode;

pub(crate) const NAME: &str = "containerd-shim-shoal-v2";

/// Prints the error to standard error: containerd shows it to the user.
fn fail(error: &Error) -> ExitCode {
    eprintln!("{NAME}: {error}");
    ExitCode::FAILURE
}

pub fn run(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = arguments.peekable();
    if arguments.next_if(|verb| verb == paths::VERB).is_some() {
        return paths::serve(arguments);
    }
    process::keep_heap_small();
    let arguments = match Arguments::parse(arguments) {
        Ok(arguments) => arguments,
        // Go's flag package exits with 2, too.
        Err(text) => {
            eprintln!("{text}\n{}", arguments::USAGE);
            return ExitCode::from(2);
        }
    };
    let done = match arguments.verb {
        Verb::Help => {
            println!("{}", arguments::USAGE);
            Ok(())
        }
        Verb::Version => version::print(),
        Verb::Info => info::print(),
        Verb::Features => features::print(),
        Verb::Start => start::start(&arguments),
        Verb::Delete => delete::delete(&arguments),
        Verb::Serve => serve::serve(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

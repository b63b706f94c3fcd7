//! `containerd-shim-shoal-v2`.

fn main() -> std::process::ExitCode {
    shoal::shim::run(std::env::args_os().skip(1))
}

//! The server's log: lines in logrus format, written to the bundle's fifo `log`, from which containerd copies them.

use crate::error::{Context, Result};
use crate::sys::process;
use humantime::{format_rfc3339_nanos, Rfc3339Timestamp};
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

struct Logger {
    /// ` namespace=… id=…`, appended to every line.
    suffix: String,
    /// Lines lost because the fifo was full.
    lost: AtomicU64,
}

/// Makes the bundle's fifo the standard error and logs to it.
///
/// The fifo is also opened for reading, so that a restart of containerd causes no EPIPE and loses no line (the fifo
/// keeps 64 KiB). It is non-blocking, because a containerd that does not read must not stop the containers.
pub(super) fn begin(bundle: &Path, namespace: &str, id: &str, level: LevelFilter) -> Result<()> {
    let path = bundle.join("log");
    let fifo = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(&path);
    let opened = fifo.context(|| format!("open({path:?})")).and_then(|fifo| {
        process::replace_stderr(&fifo).context(|| "dup2(log, 2)")?;
        Ok(())
    });
    let suffix = format!(" namespace={} id={}", quoted(namespace), quoted(id));
    let logger = Box::leak(Box::new(Logger { suffix, lost: AtomicU64::new(0) }));
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
    std::panic::set_hook(Box::new(|panic| {
        let text = panic.payload_as_str().unwrap_or("?");
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        log::error!(place; "bug: panicked: {text}");
    }));
    opened
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut text = line(record, SystemTime::now(), &self.suffix);
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let _ = writeln!(
                text,
                "time=\"{}\" level=warning msg=\"lost {lost} lines of the log\"",
                rfc3339(SystemTime::now())
            );
        }
        // A single write, so that lines of several threads do not mix (up to PIPE_BUF, pipe(7)).
        if std::io::stderr().write_all(text.as_bytes()).is_err() {
            self.lost.fetch_add(lost + 1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

fn line(record: &Record<'_>, at: SystemTime, suffix: &str) -> String {
    let level = match record.level() {
        log::Level::Error => "error",
        log::Level::Warn => "warning",
        log::Level::Info => "info",
        log::Level::Debug => "debug",
        log::Level::Trace => "trace",
    };
    let mut text =
        format!("time=\"{}\" level={level} msg={}", rfc3339(at), quoted(&record.args().to_string()));
    // Writing to a String cannot fail, and the visitor returns no other errors.
    let _ = record.key_values().visit(&mut Fields(&mut text));
    text.push_str(suffix);
    text.push('\n');
    text
}

struct Fields<'a>(&'a mut String);

impl<'kvs> VisitSource<'kvs> for Fields<'_> {
    fn visit_pair(&mut self, key: Key<'kvs>, value: Value<'kvs>) -> Result<(), kv::Error> {
        let _ = write!(self.0, " {key}={}", quoted(&value.to_string()));
        Ok(())
    }
}

/// Quotes the text unless it consists only of characters common in names.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("{text:?}")
    }
}

/// Formats like `2026-11-23T14:05:06.123456789Z`. humantime panics on times before 1970, which a wrong clock may yield.
fn rfc3339(at: SystemTime) -> Rfc3339Timestamp {
    format_rfc3339_nanos(at.max(UNIX_EPOCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_reads_as_one_of_logrus() {
        let at = UNIX_EPOCH + Duration::new(1_709_210_096, 5_000);
        let args = format_args!("started \"x\"\n");
        let fields = [("container", "c1"), ("what", "a b")];
        let record = Record::builder().args(args).level(log::Level::Warn).key_values(&fields).build();
        assert_eq!(
            line(&record, at, " id=s1"),
            "time=\"2024-02-29T12:34:56.000005000Z\" level=warning msg=\"started \\\"x\\\"\\n\" container=c1 \
             what=\"a b\" id=s1\n"
        );
    }

    #[test]
    fn a_clock_that_is_wrong_does_not_keep_a_line_from_the_log() {
        let at = UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rfc3339(at).to_string(), "1970-01-01T00:00:00.000000000Z");
    }
}

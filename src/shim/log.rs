//! The server's log: lines as logrus writes them, into the fifo `log` of the bundle, which containerd copies to
//! its own.

use crate::error::{Context, Result};
use crate::sys::process;
use log::kv::{self, Key, Value, VisitSource};
use log::{LevelFilter, Log, Metadata, Record};
use std::fmt::Write as _;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

struct Logger {
    /// ` namespace=… id=…`, after every line's message.
    suffix: String,
    /// Lines that the fifo had no room for.
    lost: AtomicU64,
}

/// Makes the bundle's fifo the standard error, and logs to it.
///
/// Opened for reading as well: so a containerd that restarts costs no line (the fifo keeps 64 KiB) and no
/// EPIPE. Non-blocking: a containerd that does not read must not stop the containers.
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
        log::error!(place; "a defect: panicked: {text}");
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
        // One write, so that lines of several threads do not mix (up to PIPE_BUF, pipe(7)).
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
    // Writing to a String does not fail, and the visitor returns nothing else.
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

/// Quoted where it holds more than the characters of names.
fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._/@^+".contains(c);
    match !text.is_empty() && text.chars().all(plain) {
        true => text.to_owned(),
        false => format!("{text:?}"),
    }
}

/// `2026-11-23T14:05:06.123456789Z`; the calendar is Howard Hinnant's `civil_from_days`.
fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let (days, second) = (since.as_secs() / 86_400, since.as_secs() % 86_400);
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let nanos = since.subsec_nanos();
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn days_of_the_calendar() {
        for (seconds, day) in [(0, "1970-01-01"), (951_782_400, "2000-02-29"), (4_107_542_399, "2100-02-28")]
        {
            assert!(rfc3339(UNIX_EPOCH + Duration::from_secs(seconds)).starts_with(day), "{day}");
        }
    }
}

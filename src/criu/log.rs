//! What CRIU has written into its log.

/// So many of the last errors are told: the very last one often says no more than that another one was.
const TOLD: usize = 3;

/// The last errors, without their times and their places in CRIU's sources. That it has failed says nothing.
pub(super) fn errors(log: &str) -> Option<String> {
    let errors = log.lines().filter_map(|line| line.split_once("Error (").map(|(_, error)| error));
    let errors = errors.filter_map(|error| error.split_once("): ").map(|(_, words)| words.trim()));
    let errors: Vec<&str> = errors.filter(|words| !words.is_empty() && !words.ends_with("FAILED.")).collect();
    let told = errors.get(errors.len().saturating_sub(TOLD)..).unwrap_or_default();
    (!told.is_empty()).then(|| told.join("; "))
}

#[cfg(test)]
mod tests {
    use super::errors;

    #[test]
    fn the_last_errors_that_say_something_are_told() {
        let log = "Error (criu/rlimit.c:14): rlimit: Can't setup RLIMIT_NOFILE for self\n\
                   (00.056958) Error (criu/util.c:642): execvp(\"iptables-restore\", ...) failed: none\n\
                   (00.056958) Error (criu/util.c:657): exited, status=1\n\
                   (00.056970) Error (criu/net.c:3436): net: Locking network failed: returned -1.\n\
                   (00.056994) net: Unlock network\n\
                   (00.059942) Error (criu/cr-dump.c:1975): Dumping FAILED.\n";
        let told = "execvp(\"iptables-restore\", ...) failed: none; exited, status=1; \
                    net: Locking network failed: returned -1.";
        assert_eq!(errors(log).as_deref(), Some(told));
        assert_eq!(errors("(00.1) Error (criu/cr-dump.c:1): Dumping FAILED.\n"), None);
        assert_eq!(errors("garbage\n\0 Error ("), None);
    }
}

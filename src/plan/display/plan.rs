//! A whole plan as text, one step per line with the field it came from: for the log and the golden tests.

use super::flag_names::namespace_words;
use crate::plan::Plan;
use std::fmt::{self, Display, Formatter};

impl Display for Plan {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "clone {}", namespace_words(self.clone_flags))?;
        for (i, (open, field)) in self.opens.iter().enumerate() {
            writeln!(f, "${i} {open}  # {field}")?;
        }
        for (i, (step, field)) in self.steps.iter().enumerate() {
            if Some(i) == self.seen_from() {
                writeln!(f, "    -- what comes now can be seen in the container --")?;
            }
            writeln!(f, "{:>3} {:<10} {step}  # {field}", i + 1, format!("{:?}", step.phase()))?;
        }
        self.warnings.iter().try_for_each(|warning| writeln!(f, "warning: {warning}"))
    }
}

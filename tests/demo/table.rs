//! The times of the steps, and the table of them.

use std::fmt::Write;
use std::time::Duration;

use testbed::{Containerd, Runtime};

pub struct Times(Vec<(&'static str, Vec<Duration>, Vec<Duration>)>);

impl Times {
    pub fn new() -> Times {
        Times(Vec::new())
    }

    pub fn add(&mut self, step: &'static str, runtime: Runtime, took: Duration) {
        let at = self.0.iter().position(|row| row.0 == step).unwrap_or_else(|| {
            self.0.push((step, Vec::new(), Vec::new()));
            self.0.len() - 1
        });
        let row = &mut self.0[at];
        if runtime == Runtime::Shoal { &mut row.1 } else { &mut row.2 }.push(took);
    }

    /// Formats one line per step, and the cost of `ctr` itself, which is part of every time.
    pub fn table(&self, containerd: &Containerd) -> String {
        let mut text = self.lines();
        let alone: Vec<_> = (0..5).map(|_| containerd.ctr(["tasks", "ls"]).took).collect();
        let _ =
            writeln!(text, "(each with one start of ctr at least, which alone takes {})", ms(median(&alone)));
        text
    }

    pub fn lines(&self) -> String {
        let mut text = line("step", "shoal", "runc", "ratio");
        for (step, shoal, runc) in &self.0 {
            let (shoal, runc) = (median(shoal), median(runc));
            let ratio = format!("{:.2}", shoal.as_secs_f64() / runc.as_secs_f64());
            text += &line(step, &ms(shoal), &ms(runc), &ratio);
        }
        text
    }
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

pub fn line(step: &str, shoal: &str, runc: &str, ratio: &str) -> String {
    format!("  {step:<26}{shoal:>14}{runc:>14}{ratio:>9}\n")
}

pub fn median<T: Copy + Ord>(all: &[T]) -> T {
    let mut all = all.to_vec();
    all.sort();
    *all.get(all.len() / 2).expect("every step was measured")
}

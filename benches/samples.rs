//! The measurements: a row for each kind of work, with each peer's samples.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{json, Value};

use crate::peer::Peer;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Milliseconds,
    KiB,
    Count,
    /// More is better; all other units are costs.
    PerSecond,
    MiBPerSecond,
}

impl Unit {
    pub fn show(self, value: f64) -> String {
        match self {
            Unit::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            Unit::Milliseconds => format!("{value:.1} ms"),
            Unit::KiB => format!("{value:.0} KiB"),
            Unit::Count if value.fract() == 0.0 => format!("{value:.0}"),
            Unit::Count => format!("{value:.1}"),
            Unit::PerSecond => format!("{value:.1} /s"),
            Unit::MiBPerSecond => format!("{value:.0} MiB/s"),
        }
    }

    fn more_is_better(self) -> bool {
        matches!(self, Unit::PerSecond | Unit::MiBPerSecond)
    }
}

/// A row's target.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    /// At least this many times better than the Go shim with runc.
    Better(f64),
    /// At most this many times the floor program's cost.
    OfFloor(f64),
    /// At most this, in the row's unit.
    AtMost(f64),
}

pub struct Row {
    pub group: &'static str,
    pub name: String,
    pub unit: Unit,
    pub targets: Vec<Target>,
    pub samples: BTreeMap<Peer, Vec<f64>>,
}

impl Row {
    pub fn median(&self, peer: Peer) -> Option<f64> {
        self.quantile(peer, 0.5)
    }

    pub fn quantile(&self, peer: Peer, share: f64) -> Option<f64> {
        let mut all = self.samples.get(&peer)?.clone();
        all.sort_by(f64::total_cmp);
        let last = all.len().checked_sub(1)?;
        all.get((last as f64 * share).round() as usize).copied()
    }

    /// How many times better shoal is than `peer`.
    pub fn gain(&self, peer: Peer) -> Option<f64> {
        let (ours, theirs) = (self.median(Peer::Shoal)?, self.median(peer)?);
        let gain = if self.unit.more_is_better() { ours / theirs } else { theirs / ours };
        // A difference that is lost in noise may be below zero, and is then no gain.
        (gain.is_finite() && gain > 0.0).then_some(gain)
    }

    /// Each target in words, and whether it is met; None if a peer was not measured.
    pub fn verdicts(&self) -> Vec<(String, Option<bool>)> {
        let verdict = |target: &Target| match *target {
            Target::Better(times) => {
                (format!("{times}× better"), self.gain(Peer::Runc).map(|gain| gain >= times))
            }
            Target::OfFloor(times) => {
                (format!("{times}× the floor"), self.gain(Peer::Floor).map(|gain| 1.0 / gain <= times))
            }
            Target::AtMost(most) => (
                format!("at most {}", self.unit.show(most)),
                self.median(Peer::Shoal).map(|ours| ours <= most),
            ),
        };
        self.targets.iter().map(verdict).collect()
    }

    pub fn json(&self) -> Value {
        let peers = self.samples.iter().map(|(peer, samples)| {
            let value = json!({
                "median": self.median(*peer), "p90": self.quantile(*peer, 0.9), "samples": samples,
            });
            (peer.name().to_owned(), value)
        });
        json!({
            "group": self.group,
            "name": self.name,
            "unit": format!("{:?}", self.unit),
            "gain": self.gain(Peer::Runc),
            "peers": Value::Object(peers.collect()),
            "targets": self.verdicts().iter().map(|(text, met)| json!({ "target": text, "met": met }))
                .collect::<Vec<_>>(),
        })
    }
}

#[derive(Default)]
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// Returns the row of that name, creating it if necessary.
    pub fn row(&mut self, group: &'static str, name: &str, unit: Unit) -> &mut Row {
        let at = self.0.iter().position(|row| row.group == group && row.name == name);
        let at = at.unwrap_or_else(|| {
            let row =
                Row { group, name: name.to_owned(), unit, targets: Vec::new(), samples: BTreeMap::new() };
            self.0.push(row);
            self.0.len() - 1
        });
        &mut self.0[at]
    }

    pub fn add(&mut self, group: &'static str, name: &str, unit: Unit, peer: Peer, value: f64) {
        self.row(group, name, unit).samples.entry(peer).or_default().push(value);
    }

    pub fn time(&mut self, group: &'static str, name: &str, peer: Peer, took: Duration) {
        self.add(group, name, Unit::Milliseconds, peer, took.as_secs_f64() * 1e3);
    }

    /// Sets the `targets` of a row, if it was measured.
    pub fn target(&mut self, group: &'static str, name: &str, targets: &[Target]) {
        if let Some(row) = self.0.iter_mut().find(|row| row.group == group && row.name == name) {
            row.targets = targets.to_vec();
        }
    }
}

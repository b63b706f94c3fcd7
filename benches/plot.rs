//! The plot: for each kind of work, how many times better shoal is than the Go shim with runc, on a logarithmic scale.

use std::fmt::Write;

use crate::peer::Peer;
use crate::samples::Rows;

const LEFT: f64 = 560.0;
const WIDTH: f64 = 420.0;
const LINE: f64 = 20.0;
/// The ends of the scale.
const FROM: f64 = 0.5;
const TO: f64 = 64.0;

pub fn svg(rows: &Rows) -> String {
    let shown: Vec<_> = rows.0.iter().filter_map(|row| Some((row, row.gain(Peer::Runc)?))).collect();
    let height = LINE * (shown.len() as f64 + 3.0);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 70.0
    );
    for times in [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0] {
        let (x, color) = (at(times), if times == 1.0 { "black" } else { "#ccc" });
        let bottom = height - LINE;
        let _ = writeln!(
            text,
            "<line x1=\"{x:.0}\" x2=\"{x:.0}\" y1=\"{LINE}\" y2=\"{bottom}\" stroke=\"{color}\"/>\n\
             <text x=\"{x:.0}\" y=\"14\" text-anchor=\"middle\">{times}×</text>"
        );
    }
    for (line, (row, gain)) in shown.iter().enumerate() {
        let y = LINE * (line as f64 + 1.5);
        let (from, to) = (at(1.0).min(at(*gain)), at(1.0).max(at(*gain)));
        let color = if *gain >= 1.0 { "#2a7" } else { "#c43" };
        let _ = writeln!(
            text,
            "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">{}: {}</text>\n\
             <rect x=\"{from:.1}\" y=\"{y:.0}\" width=\"{:.1}\" height=\"13\" fill=\"{color}\"/>\n\
             <text x=\"{:.0}\" y=\"{:.0}\">{gain:.1}×</text>",
            LEFT - 8.0,
            y + 11.0,
            escaped(row.group),
            escaped(&row.name),
            to - from,
            to + 4.0,
            y + 11.0,
        );
    }
    let _ = writeln!(
        text,
        "<text x=\"{LEFT}\" y=\"{:.0}\">better than the Go shim with runc, medians (logarithmic)</text>\n</svg>",
        height - 5.0
    );
    text
}

fn at(times: f64) -> f64 {
    LEFT + WIDTH * (times.clamp(FROM, TO) / FROM).log2() / (TO / FROM).log2()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

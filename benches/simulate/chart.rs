//! The picture: the 99th percentile beside a central queue's, a group of bars a scenario, on a logarithmic scale.

use std::fmt::Write as _;

use crate::{report::Table, run::CHOICES};

const COLOURS: [&str; 5] = ["#1b7837", "#2166ac", "#762a83", "#b35806", "#999999"];
const LEFT: f64 = 330.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 7.0;
const GAP: f64 = 12.0;
/// Beyond this, bars are cut off.
const MOST: f64 = 1000.0;

pub(crate) fn svg(tables: &[Table]) -> String {
    let group = BAR * CHOICES.len() as f64 + GAP;
    let height = 50.0 + group * tables.len() as f64 + 30.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"920\" height=\"{height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, choice) in CHOICES.iter().enumerate() {
        let x = LEFT + i as f64 * 105.0;
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{}\"/>", COLOURS[i]);
        let _ = writeln!(out, "<text x=\"{}\" y=\"19\">{}</text>", x + 14.0, choice.name());
    }
    for times in [1.0, 2.0, 5.0, 10.0, 100.0, MOST] {
        let x = LEFT + place(times);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"40\" y2=\"{}\" stroke=\"#ddd\"/>", height - 30.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"36\" text-anchor=\"middle\" fill=\"#555\">{times}×</text>");
    }
    for (i, table) in tables.iter().enumerate() {
        let top = 50.0 + group * i as f64;
        let scenario = table.scenario;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}: {} on {}, {} %</text>",
            LEFT - 8.0,
            top + group / 2.0,
            scenario.name,
            scenario.clients,
            scenario.pods,
            scenario.load
        );
        for (j, outcome) in table.outcomes.iter().enumerate() {
            let times = outcome.percentile(99.0) / table.central.percentile(99.0);
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"><title>{times:.2}</title></rect>",
                top + BAR * j as f64,
                place(times).max(1.0),
                BAR - 1.0,
                COLOURS[j]
            );
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\" fill=\"#555\">99th percentile beside that of a central queue; clients on Pods, \
         load</text>\n</svg>",
        height - 10.0
    );
    out
}

/// From half to [`MOST`] times.
fn place(times: f64) -> f64 {
    ((times.clamp(0.5, MOST) / 0.5).ln() / (MOST / 0.5).ln()) * WIDTH
}

//! Draws a bar chart with one bar for each scenario and policy. A bar shows the 99th percentile of the latency with the
//! policy, divided by the 99th percentile with a central queue, on a logarithmic scale.

use std::fmt::Write as _;

use crate::{report::Table, strategy::POLICIES};

const COLORS: [&str; 5] = ["#1b7837", "#2166ac", "#762a83", "#b35806", "#999999"];
const LEFT: f64 = 330.0;
const WIDTH: f64 = 560.0;
const BAR: f64 = 7.0;
const GAP: f64 = 12.0;
/// Highest ratio on the scale. Longer bars are cut off.
const MAX_RATIO: f64 = 1000.0;

/// Returns the chart as SVG.
pub(crate) fn svg(tables: &[Table]) -> String {
    let group = BAR * POLICIES.len() as f64 + GAP;
    let height = 50.0 + group * tables.len() as f64 + 30.0;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"920\" height=\"{height:.0}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (i, policy) in POLICIES.iter().enumerate() {
        let x = LEFT + i as f64 * 105.0;
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"10\" width=\"10\" height=\"10\" fill=\"{}\"/>", COLORS[i]);
        let _ = writeln!(out, "<text x=\"{}\" y=\"19\">{}</text>", x + 14.0, policy.name());
    }
    for ratio in [1.0, 2.0, 5.0, 10.0, 100.0, MAX_RATIO] {
        let x = LEFT + position(ratio);
        let _ = writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"40\" y2=\"{}\" stroke=\"#ddd\"/>", height - 30.0);
        let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"36\" text-anchor=\"middle\" fill=\"#555\">{ratio}×</text>");
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
            let ratio = outcome.percentile(99.0) / table.central.percentile(99.0);
            let _ = writeln!(
                out,
                "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\">\
                 <title>{ratio:.2}</title></rect>",
                top + BAR * j as f64,
                position(ratio).max(1.0),
                BAR - 1.0,
                COLORS[j]
            );
        }
    }
    let _ = writeln!(
        out,
        "<text x=\"{LEFT}\" y=\"{:.0}\" fill=\"#555\">99th percentile of the response time, relative to a \
         single shared queue. Scenarios: clients on Pods, load</text>\n</svg>",
        height - 10.0
    );
    out
}

/// Returns the horizontal position of a ratio, on a scale from 0.5 to [`MAX_RATIO`].
fn position(ratio: f64) -> f64 {
    ((ratio.clamp(0.5, MAX_RATIO) / 0.5).ln() / (MAX_RATIO / 0.5).ln()) * WIDTH
}

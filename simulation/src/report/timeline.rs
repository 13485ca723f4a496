use std::{collections::BTreeMap, fmt::Write, time::Duration};

use super::{Run, hosts::hosts};

/// Width of the time axis, in pixels.
const WIDTH: f64 = 1600.0;
/// Space to the left of the axis, for the names.
const LEFT: f64 = 330.0;
/// Height of a lane.
const LANE: f64 = 18.0;
/// Height of the axis.
const AXIS: f64 = 30.0;
/// Maximum number of events that the text of a mark lists.
const LISTED: usize = 20;
/// Approximate number of labels of the axis.
const LABELS: f64 = 15.0;

const STYLE: &str = "text{font:12px sans-serif;fill:#222}line{stroke:#ddd}.fault{fill:#f4a259}.event{fill:#2f6690}\
.violation{stroke:#c1121f;stroke-width:2}";

/// Returns a timeline as a self-contained SVG: a lane for each fault and each host. A mark shows the texts of its
/// events while the pointer is over it; events that are less than a pixel apart share a mark. Red lines are violations.
#[must_use]
pub fn timeline(run: Run<'_>) -> String {
    let hosts = hosts(&run);
    let last = run.events.last().map_or(Duration::ZERO, |event| event.at);
    let drawing = Drawing { end: run.plan.duration().max(last).max(Duration::from_secs(1)) };
    let lanes = run.plan.faults.len() + hosts.len();
    let (width, height) = (LEFT + WIDTH + 20.0, AXIS + lanes as f64 * LANE + 10.0);
    let mut svg = String::new();
    let mut line = |text: String| {
        svg.push_str(&text);
        svg.push('\n');
    };
    line(format!(r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">"#));
    line(format!("<title>seed {}</title>", run.plan.seed));
    line(format!("<style>{STYLE}</style>"));
    line(format!(r##"<rect width="{width}" height="{height}" fill="#fff"/>"##));
    drawing.axis(height).into_iter().for_each(&mut line);
    for (index, window) in run.plan.faults.iter().enumerate() {
        let (top, text) = (top(index), escape(&window.to_string()));
        let name = format!("{} {}", window.fault.name(), window.fault.text());
        line(label(top, &name));
        let (x, end) = (drawing.x(window.start), drawing.x(window.end));
        let (width, height) = ((end - x).max(2.0), LANE - 4.0);
        let shape = format!(r#"<rect class="fault" x="{x:.1}" y="{top}" width="{width:.1}" height="{height}">"#);
        line(format!("{shape}<title>{text}</title></rect>"));
    }
    for (index, host) in hosts.iter().enumerate() {
        let top = top(run.plan.faults.len() + index);
        line(label(top, host));
        drawing.marks(&run, host, top).into_iter().for_each(&mut line);
    }
    for violation in run.violations {
        let (x, text) = (drawing.x(violation.at), escape(&violation.to_string()));
        let shape = format!(r#"<line class="violation" x1="{x:.1}" x2="{x:.1}" y1="{AXIS}" y2="{height}">"#);
        line(format!("{shape}<title>{text}</title></line>"));
    }
    line("</svg>".to_owned());
    svg
}

/// Returns the upper edge of a lane's marks.
fn top(lane: usize) -> f64 {
    AXIS + lane as f64 * LANE + 2.0
}

/// Returns the label of a lane.
fn label(top: f64, text: &str) -> String {
    let (x, y) = (LEFT - 8.0, top + LANE - 7.0);
    format!(r#"<text x="{x}" y="{y}" text-anchor="end">{}</text>"#, escape(text.trim_end()))
}

struct Drawing {
    /// The time at the right end of the axis.
    end: Duration,
}

impl Drawing {
    /// Returns the horizontal position of a time.
    fn x(&self, at: Duration) -> f64 {
        LEFT + WIDTH * at.as_secs_f64() / self.end.as_secs_f64()
    }

    /// Returns the lines and the labels of the axis.
    fn axis(&self, height: f64) -> Vec<String> {
        let steps = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 300.0];
        let seconds = self.end.as_secs_f64();
        let step = steps.into_iter().find(|step| seconds / step <= LABELS).unwrap_or(3600.0);
        let mut lines = Vec::new();
        let mut number = 0.0;
        while number * step <= seconds {
            let time = number * step;
            let x = self.x(Duration::from_secs_f64(time));
            lines.push(format!(r#"<line x1="{x:.1}" x2="{x:.1}" y1="{AXIS}" y2="{height}"/>"#));
            let decimals = usize::from(step < 1.0);
            lines.push(format!(r#"<text x="{x:.1}" y="20" text-anchor="middle">{time:.decimals$} s</text>"#));
            number += 1.0;
        }
        lines
    }

    /// Returns the marks of a host's events.
    fn marks(&self, run: &Run<'_>, host: &str, top: f64) -> Vec<String> {
        let mut pixels: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for event in run.events.iter().filter(|event| event.host == host) {
            let text = format!("{:.3} {}", event.at.as_secs_f64(), event.text);
            pixels.entry(self.x(event.at) as u64).or_default().push(escape(&text));
        }
        let mark = |(x, mut texts): (u64, Vec<String>)| {
            let more = texts.len().saturating_sub(LISTED);
            texts.truncate(LISTED);
            let mut text = texts.join("\n");
            if more > 0 {
                // A write to a String cannot fail.
                let _ = write!(text, "\nand {more} more");
            }
            let height = LANE - 4.0;
            let shape = format!(r#"<rect class="event" x="{x}" y="{top}" width="2" height="{height}">"#);
            format!("{shape}<title>{text}</title></rect>")
        };
        pixels.into_iter().map(mark).collect()
    }
}

/// Replaces the characters that have a meaning in XML, and those that XML does not permit.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\n' | '\t' => escaped.push(character),
            _ if character.is_control() => escaped.push('\u{fffd}'),
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::testing::with_run;

    #[test]
    fn faults_hosts_and_violations_are_drawn() {
        let svg = with_run(timeline);
        for part in [
            r#"text-anchor="end">server.hang pod=pod-1</text>"#,
            r#"<rect class="fault" x="596.7" y="32" width="533.3" height="14"><title>0.500..1.500 server.hang "#,
            r#"text-anchor="end">client-0</text>"#,
            "<title>1.200 call 1 fails: timeout &lt;5 s&gt;</title>",
            r#"<line class="violation" x1="970.0" x2="970.0" y1="30" y2="94"><title>deadlines: at 1.200 s: call 1"#,
            r#"text-anchor="middle">0.4 s</text>"#,
        ] {
            assert!(svg.contains(part), "{part} is missing in\n{svg}");
        }
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        assert_eq!(svg.matches("<rect ").count(), svg.matches("</rect>").count() + 1);
    }

    #[test]
    fn events_of_the_same_pixel_share_a_mark() {
        let svg = with_run(|run| {
            let events = vec![run.events[0].clone(); 25];
            timeline(Run { events: &events, ..run })
        });
        assert_eq!(svg.matches(r#"class="event""#).count(), 1);
        assert_eq!(svg.matches("0.100 accepts a connection").count(), 20);
        assert!(svg.contains("\nand 5 more</title>"));
    }

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(escape("a\u{0}\u{1b}&\"b\""), "a\u{fffd}\u{fffd}&amp;&quot;b&quot;");
    }
}

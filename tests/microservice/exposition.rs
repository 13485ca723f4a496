//! A strict parser for the Prometheus text format.
//!
//! The parser panics if a family does not have one HELP and one TYPE line before its samples, if a name, label, escape
//! or number is malformed, or if a sample occurs twice.

use std::collections::{BTreeMap, BTreeSet};

/// The labels of a sample, sorted by name.
pub(crate) type Labels = BTreeMap<String, String>;

/// The samples of one metric.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// Samples by labels. A histogram has only its `_count` samples here.
    pub(crate) samples: BTreeMap<Labels, f64>,
}

impl Family {
    /// Returns the sum over all samples.
    pub(crate) fn sum(&self) -> f64 {
        self.samples.values().sum()
    }

    /// Returns the value of the only sample that has all these labels. Panics if there is no such sample, or several.
    pub(crate) fn with(&self, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &Labels| labels.iter().all(|(name, value)| of.get(*name).is_some_and(|found| found == value));
        let mut found = self.samples.iter().filter(|(of, _)| fits(of));
        let (_, value) = found.next().unwrap_or_else(|| panic!("no sample with {labels:?} in {self:?}"));
        assert!(found.next().is_none(), "several samples with {labels:?} in {self:?}");
        *value
    }
}

/// Parses a scrape into its families, by name.
pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no line feed");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut series_seen = BTreeSet::new();
    let mut current = String::new();
    let mut lines = text.lines().filter(|line| !line.is_empty());
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(is_name(name) && !help.is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")[..]));
            let kind = kind.unwrap_or_else(|| panic!("no TYPE after: {line}"));
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "family {name} occurs twice");
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        assert!(series_seen.insert(series.to_owned()), "sample occurs twice: {line}");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, self::labels(labels)),
            None => (series, Labels::new()),
        };
        let family = families.get_mut(&current).unwrap_or_else(|| panic!("a sample before its family: {line}"));
        let suffix = name.strip_prefix(&*current).unwrap_or_else(|| panic!("a sample of another family: {line}"));
        let suffixes: &[&str] = if family.kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&suffix), "{line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("not a number: {line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        if ["", "_count"].contains(&suffix) {
            family.samples.insert(labels, value);
        }
    }
    families
}

/// Parses labels up to the closing brace: `a="b",c="d"}`.
fn labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest}"));
        assert!(is_name(name) && !name.contains(':'), "{name}");
        let (value, after) = value(after);
        assert!(labels.insert(name.to_owned(), value).is_none(), "label {name} occurs twice: {text}");
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => {
                assert_eq!(after, "}", "{text}");
                return labels;
            }
        }
    }
}

/// Parses a label's value up to its closing quote. Returns the value and the text after the quote.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                other => panic!("invalid escape {other:?} in {text}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

/// Returns true if the text is a valid metric name. Label names follow the same rule, but cannot contain colons.
fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    chars.next().is_some_and(first) && chars.all(|c| first(c) || c.is_ascii_digit())
}

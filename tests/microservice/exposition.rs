//! A strict reader of Prometheus' text format: every family has one HELP and one TYPE before its samples, which stand
//! together; names, labels, escapes and numbers are well-formed; no sample comes twice.

use std::collections::BTreeMap;

/// Labels in the order of their names.
pub(crate) type Labels = BTreeMap<String, String>;

#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    pub(crate) samples: BTreeMap<Labels, f64>,
}

impl Family {
    /// The value of the only sample without labels.
    pub(crate) fn single(&self) -> f64 {
        assert_eq!(self.samples.len(), 1, "{self:?}");
        self.samples[&Labels::new()]
    }

    /// The value with these labels among others.
    pub(crate) fn with(&self, labels: &[(&str, &str)]) -> f64 {
        let fits = |of: &Labels| labels.iter().all(|(name, value)| of.get(*name).is_some_and(|found| found == value));
        let mut found = self.samples.iter().filter(|(of, _)| fits(of));
        let (_, value) = found.next().unwrap_or_else(|| panic!("none with {labels:?} in {self:?}"));
        assert!(found.next().is_none(), "several with {labels:?} in {self:?}");
        *value
    }
}

pub(crate) fn parse(text: &str) -> BTreeMap<String, Family> {
    assert!(text.ends_with('\n'), "the last line has no end");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(is_name(name) && !help.is_empty(), "{line}");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {name} ")[..]));
            let kind = kind.unwrap_or_else(|| panic!("no TYPE after: {line}"));
            assert!(["counter", "gauge"].contains(&kind), "{kind}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            let family = Family { kind: kind.to_owned(), samples: BTreeMap::new() };
            assert!(families.insert(name.to_owned(), family).is_none(), "{name} comes twice");
            current = name.to_owned();
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value: {line}"));
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, self::labels(labels)),
            None => (series, Labels::new()),
        };
        assert_eq!(name, current, "a sample outside of its family: {line}");
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(value.is_finite() && value >= 0.0, "{line}");
        let family = families.get_mut(name).expect("the current one");
        assert!(family.samples.insert(labels, value).is_none(), "twice: {line}");
    }
    families
}

/// `a="b",c="d"}`
fn labels(text: &str) -> Labels {
    let mut labels = Labels::new();
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("no label: {rest}"));
        assert!(is_name(name) && !name.contains(':'), "{name}");
        let (value, after) = value(after);
        assert!(labels.insert(name.to_owned(), value).is_none(), "{name} comes twice: {text}");
        match after.strip_prefix(',') {
            Some(after) => rest = after,
            None => {
                assert_eq!(after, "}", "{text}");
                return labels;
            }
        }
    }
}

/// A label's value to its closing quote, and what comes after that.
fn value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => match chars.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, c @ ('\\' | '"'))) => value.push(c),
                other => panic!("no escape: {other:?} in {text}"),
            },
            c => value.push(c),
        }
    }
    panic!("no closing quote: {text}")
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    let first = |c: char| c.is_ascii_alphabetic() || c == '_' || c == ':';
    chars.next().is_some_and(first) && chars.all(|c| first(c) || c.is_ascii_digit())
}

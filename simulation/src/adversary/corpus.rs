//! The corpus: plans that once violated a property, in `simulation/corpus/*.plan`.

use std::{fmt, str::FromStr};

use super::{Plan, text::ParseError};

/// A plan that once violated a property, with the cause.
///
/// The text form is that of the plan after the line `property NAME` and comment lines that begin with `# cause: `.
#[derive(Clone, Debug, PartialEq)]
pub struct CorpusEntry {
    /// The name of the property.
    pub property: String,
    /// The cause of the violation, a line of text or several.
    pub cause: String,
    /// The plan.
    pub plan: Plan,
}

const CAUSE: &str = "# cause: ";
const PROPERTY: &str = "property ";

impl CorpusEntry {
    /// Returns the plan in the text of an entry. The cause may be missing, as in the result of `shrink`, and so may the
    /// property, as in the text of a plan.
    ///
    /// # Errors
    ///
    /// Returns an error if the plan is invalid.
    pub fn plan_of(text: &str) -> Result<Plan, ParseError> {
        // The line is replaced by an empty one, so that the numbers of the lines in errors are right.
        let plan = text.lines().map(|line| if line.starts_with(PROPERTY) { "" } else { line });
        plan.collect::<Vec<_>>().join("\n").parse()
    }
}

impl fmt::Display for CorpusEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause.lines().try_for_each(|line| writeln!(f, "{CAUSE}{line}"))?;
        write!(f, "{PROPERTY}{}\n{}", self.property, self.plan)
    }
}

impl FromStr for CorpusEntry {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let cause: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(CAUSE)).collect();
        if cause.is_empty() {
            return Err(ParseError::new(format!("a line that begins with `{}`", CAUSE.trim_end()), ""));
        }
        let mut properties = text.lines().filter_map(|line| line.strip_prefix(PROPERTY));
        let property = properties.next().map(str::trim).filter(|name| !name.is_empty());
        let property = property.ok_or_else(|| ParseError::new("a line `property NAME`", ""))?.to_owned();
        Ok(Self { property, cause: cause.join("\n"), plan: Self::plan_of(text)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adversary::Shape;

    #[test]
    fn parses_its_own_text() {
        let plan = Plan::draw(3, Shape::default());
        let cause = "the lag was taken from the previous primary\nafter a failover".to_owned();
        let entry = CorpusEntry { property: "freshness".to_owned(), cause, plan };
        let text = entry.to_string();
        assert!(text.starts_with("# cause: the lag was taken from the previous primary\n# cause: after a failover\n"));
        assert_eq!(text.parse(), Ok(entry));
    }

    #[test]
    fn requires_a_cause_and_a_property() {
        let plan = Plan::draw(3, Shape::default());
        let error = |text: String| text.parse::<CorpusEntry>().unwrap_err().expected;
        assert_eq!(error(format!("property freshness\n{plan}")), "a line that begins with `# cause:`");
        assert_eq!(error(format!("# cause: none\n{plan}")), "a line `property NAME`");
    }

    #[test]
    fn a_plan_needs_no_cause_and_no_property() {
        let plan = Plan::draw(3, Shape::default());
        for text in [format!("{plan}"), format!("# shrunk in 70 runs\nproperty freshness\n{plan}")] {
            assert_eq!(CorpusEntry::plan_of(&text), Ok(plan.clone()));
        }
    }

    #[test]
    fn errors_name_the_line() {
        let text = "# cause: none\nproperty freshness\npodpool-plan 1\nseed x\n";
        assert_eq!(text.parse::<CorpusEntry>().unwrap_err().line, 4);
    }
}

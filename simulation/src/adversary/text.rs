//! The text form of plans: words and `key=value` fields, one line for each thing.

use std::{error, fmt, time::Duration};

/// The reason why a text is not a plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ParseError {
    /// Number of the line, from 1. Zero if the error concerns the whole text.
    pub line: usize,
    /// Description of a valid text.
    pub expected: String,
    /// The text in its place.
    pub received: String,
}

impl ParseError {
    /// Creates an error without a line number.
    pub(crate) fn new(expected: impl Into<String>, received: impl Into<String>) -> Self {
        Self { line: 0, expected: expected.into(), received: received.into() }
    }

    /// Adds the number of the line.
    pub(crate) fn at(self, line: usize) -> Self {
        Self { line, ..self }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, expected, received } = self;
        if *line > 0 {
            write!(f, "line {line}: ")?;
        }
        write!(f, "expected {expected}, received `{received}`")
    }
}

impl error::Error for ParseError {}

/// A value of a field.
pub(crate) trait Value: Clone + PartialEq + Sized {
    /// Returns the text form, without spaces.
    fn text(&self) -> String;

    /// Parses the text form.
    fn parse(text: &str) -> Result<Self, ParseError>;

    /// Returns milder values, the mildest first. Shrinking tries them.
    fn milder(&self) -> Vec<Self> {
        Vec::new()
    }

    /// Returns the host that the value names.
    fn host(&self) -> Option<super::Host> {
        None
    }
}

impl Value for u32 {
    fn text(&self) -> String {
        self.to_string()
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        text.parse().map_err(|_| ParseError::new("a number", text))
    }
}

impl Value for bool {
    fn text(&self) -> String {
        if *self { "yes" } else { "no" }.to_owned()
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        match text {
            "yes" => Ok(true),
            "no" => Ok(false),
            _ => Err(ParseError::new("`yes` or `no`", text)),
        }
    }

    fn milder(&self) -> Vec<Self> {
        if *self { vec![false] } else { Vec::new() }
    }
}

impl<T: Value> Value for Option<T> {
    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "none".to_owned(), T::text)
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        if text == "none" { Ok(None) } else { T::parse(text).map(Some) }
    }

    fn milder(&self) -> Vec<Self> {
        self.as_ref().map_or_else(Vec::new, |value| value.milder().into_iter().map(Some).collect())
    }

    fn host(&self) -> Option<super::Host> {
        self.as_ref().and_then(T::host)
    }
}

/// A duration in whole milliseconds.
impl Value for Duration {
    fn text(&self) -> String {
        format!("{}ms", self.as_millis())
    }

    fn parse(text: &str) -> Result<Self, ParseError> {
        let millis = text.strip_suffix("ms").and_then(|digits| digits.parse().ok());
        millis.map(Self::from_millis).ok_or_else(|| ParseError::new("a number of milliseconds, such as `500ms`", text))
    }

    fn milder(&self) -> Vec<Self> {
        halves(self.as_millis() as u64).into_iter().map(Self::from_millis).collect()
    }
}

/// Returns a quarter and a half of a number, if they are smaller and not zero.
pub(crate) fn halves(number: u64) -> Vec<u64> {
    let mut smaller: Vec<_> = [number / 4, number / 2].into_iter().filter(|half| *half > 0).collect();
    smaller.dedup();
    smaller
}

/// The fields of a line, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(Vec<(String, String)>);

impl Fields {
    /// Parses words of the form `key=value`.
    pub(crate) fn parse<'a>(words: impl Iterator<Item = &'a str>) -> Result<Self, ParseError> {
        let mut fields = Self::default();
        for word in words {
            let (key, value) = word.split_once('=').ok_or_else(|| ParseError::new("a field `key=value`", word))?;
            if fields.0.iter().any(|(other, _)| other == key) {
                return Err(ParseError::new(format!("the field `{key}` only once"), word));
            }
            fields.0.push((key.to_owned(), value.to_owned()));
        }
        Ok(fields)
    }

    /// Appends a field.
    pub(crate) fn put(&mut self, key: &str, value: &impl Value) {
        self.0.push((key.to_owned(), value.text()));
    }

    /// Removes a field and returns its value. None if the field is missing.
    pub(crate) fn take<T: Value>(&mut self, key: &str) -> Result<Option<T>, ParseError> {
        let Some(index) = self.0.iter().position(|(other, _)| other == key) else { return Ok(None) };
        let (_, value) = self.0.remove(index);
        let named = |error: ParseError| ParseError { expected: format!("{} for `{key}`", error.expected), ..error };
        T::parse(&value).map(Some).map_err(named)
    }

    /// Removes a field that must exist, and returns its value.
    pub(crate) fn need<T: Value>(&mut self, key: &str) -> Result<T, ParseError> {
        self.take(key)?.ok_or_else(|| ParseError::new(format!("a field `{key}`"), self.to_string()))
    }

    /// Checks that every field has been removed.
    pub(crate) fn end(&self) -> Result<(), ParseError> {
        if self.0.is_empty() { Ok(()) } else { Err(ParseError::new("no further field", self.to_string())) }
    }

    /// Returns the fields as the query of a URL.
    pub(crate) fn query(&self) -> String {
        self.0.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("&")
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (key, value)) in self.0.iter().enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{key}={value}")?;
        }
        Ok(())
    }
}

/// Defines an enumeration whose values have a keyword each. The first one is the default, and the mildest.
macro_rules! keywords {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $variant:ident = $keyword:literal),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub enum $name { $($(#[doc = $doc])* $variant),* }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// Returns the keyword of the value.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $keyword),* }
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::ALL[0]
            }
        }

        impl $crate::adversary::text::Value for $name {
            fn text(&self) -> String {
                self.as_str().to_owned()
            }

            fn parse(text: &str) -> Result<Self, $crate::adversary::ParseError> {
                let expected = || [$($keyword),*].map(|keyword| format!("`{keyword}`")).join(" or ");
                let found = Self::ALL.iter().find(|value| value.as_str() == text);
                found.copied().ok_or_else(|| $crate::adversary::ParseError::new(expected(), text))
            }

            fn milder(&self) -> Vec<Self> {
                if *self == Self::default() { Vec::new() } else { vec![Self::default()] }
            }
        }
    };
}

/// Defines a struct with a default for each field. Its text form contains only the fields that differ from the default.
macro_rules! record {
    ($(#[$meta:meta])* $name:ident { $($(#[doc = $doc:literal])* $field:ident: $type:ty = $default:expr),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name { $($(#[doc = $doc])* pub $field: $type),* }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default),* }
            }
        }

        impl $name {
            /// Returns the fields that differ from the default.
            pub(crate) fn fields(&self) -> $crate::adversary::text::Fields {
                let (mut fields, default) = ($crate::adversary::text::Fields::default(), Self::default());
                $(if self.$field != default.$field { fields.put(stringify!($field), &self.$field); })*
                fields
            }

            /// Parses fields. Those that are missing have the default.
            pub(crate) fn parse(
                mut fields: $crate::adversary::text::Fields,
            ) -> Result<Self, $crate::adversary::ParseError> {
                let mut parsed = Self::default();
                $(if let Some(value) = fields.take(stringify!($field))? { parsed.$field = value; })*
                fields.end()?;
                Ok(parsed)
            }

            /// Returns copies with one field each at its default. Shrinking tries them.
            #[must_use]
            pub fn simpler(&self) -> Vec<Self> {
                let (mut copies, default) = (Vec::new(), Self::default());
                $(if self.$field != default.$field {
                    copies.push(Self { $field: default.$field.clone(), ..self.clone() });
                })*
                copies
            }
        }
    };
}

pub(crate) use keywords;
pub(crate) use record;

//! Values of results and parameters, in the text and binary formats.

use super::super::{error::Report, lsn::Lsn};

/// A data type.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Type {
    Bool,
    Float8,
    Int4,
    Int8,
    Lsn,
    Numeric,
    Text,
    Void,
}

impl Type {
    /// Returns the object identifier (`pg_type.oid`).
    pub(in crate::postgres) fn oid(self) -> u32 {
        match self {
            Self::Bool => 16,
            Self::Float8 => 701,
            Self::Int4 => 23,
            Self::Int8 => 20,
            Self::Lsn => 3220,
            Self::Numeric => 1700,
            Self::Text => 25,
            Self::Void => 2278,
        }
    }

    /// Returns the length of the type (`pg_type.typlen`), -1 if it varies.
    pub(in crate::postgres) fn length(self) -> i16 {
        match self {
            Self::Bool => 1,
            Self::Int4 | Self::Void => 4,
            Self::Float8 | Self::Int8 | Self::Lsn => 8,
            Self::Numeric | Self::Text => -1,
        }
    }

    /// Decodes a parameter.
    pub(in crate::postgres) fn decode(self, bytes: &[u8], binary: bool) -> Result<Value, Report> {
        let decoded = if binary { self.decode_binary(bytes) } else { self.decode_text(bytes) };
        let code = if binary { "22P03" } else { "22P02" };
        decoded.ok_or_else(|| Report::error(code, format!("invalid input for a parameter of type {self:?}")))
    }

    fn decode_binary(self, bytes: &[u8]) -> Option<Value> {
        match self {
            Self::Bool => Some(Value::Bool(*bytes.first()? != 0)),
            Self::Float8 => Some(Value::Float8(f64::from_be_bytes(bytes.try_into().ok()?))),
            Self::Int4 => Some(Value::Int4(i32::from_be_bytes(bytes.try_into().ok()?))),
            Self::Int8 => Some(Value::Int8(i64::from_be_bytes(bytes.try_into().ok()?))),
            Self::Lsn => Some(Value::Lsn(Lsn(u64::from_be_bytes(bytes.try_into().ok()?)))),
            Self::Text => Some(Value::Text(String::from_utf8(bytes.to_vec()).ok()?)),
            Self::Numeric | Self::Void => None,
        }
    }

    fn decode_text(self, bytes: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(bytes).ok()?.trim();
        match self {
            Self::Bool => Some(Value::Bool(matches!(text, "t" | "true" | "on" | "1"))),
            Self::Float8 => text.parse().ok().map(Value::Float8),
            Self::Int4 => text.parse().ok().map(Value::Int4),
            Self::Int8 => text.parse().ok().map(Value::Int8),
            Self::Lsn => {
                let (high, low) = text.split_once('/')?;
                let (high, low) = (u32::from_str_radix(high, 16).ok()?, u32::from_str_radix(low, 16).ok()?);
                Some(Value::Lsn(Lsn(u64::from(high) << 32 | u64::from(low))))
            }
            Self::Numeric => Some(Value::Numeric(text.to_owned())),
            Self::Text => Some(Value::Text(text.to_owned())),
            Self::Void => Some(Value::Void),
        }
    }
}

/// A value of a result or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) enum Value {
    Bool(bool),
    Float8(f64),
    Int4(i32),
    Int8(i64),
    Lsn(Lsn),
    Null,
    /// A number in decimal notation.
    Numeric(String),
    Text(String),
    /// The result of a function that returns nothing.
    Void,
}

impl Value {
    /// Encodes the value. Returns `None` for NULL.
    pub(in crate::postgres) fn encode(&self, binary: bool) -> Result<Option<Vec<u8>>, Report> {
        Ok(Some(match (self, binary) {
            (Self::Null, _) => return Ok(None),
            (Self::Void, _) => Vec::new(),
            (Self::Text(text), _) | (Self::Numeric(text), false) => text.clone().into_bytes(),
            (Self::Bool(value), true) => vec![u8::from(*value)],
            (Self::Bool(value), false) => vec![if *value { b't' } else { b'f' }],
            (Self::Float8(value), true) => value.to_be_bytes().to_vec(),
            (Self::Float8(value), false) => value.to_string().into_bytes(),
            (Self::Int4(value), true) => value.to_be_bytes().to_vec(),
            (Self::Int4(value), false) => value.to_string().into_bytes(),
            (Self::Int8(value), true) => value.to_be_bytes().to_vec(),
            (Self::Int8(value), false) => value.to_string().into_bytes(),
            (Self::Lsn(value), true) => value.0.to_be_bytes().to_vec(),
            (Self::Lsn(value), false) => value.to_string().into_bytes(),
            (Self::Numeric(_), true) => {
                return Err(Report::error("0A000", "the simulated server has no binary format of type numeric"));
            }
        }))
    }
}

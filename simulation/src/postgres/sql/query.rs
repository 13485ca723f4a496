//! The queries that return rows.

use super::{
    super::error::Report,
    expression::{Expression, Operand},
    token::{Token, canonical},
    value::Type,
};

/// A column of a query without a table.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) struct Column {
    pub(in crate::postgres) name: String,
    pub(in crate::postgres) expression: Expression,
}

/// A query that returns rows.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) enum Query {
    /// The number of rows of the table, or of those with one id.
    Count(Option<Operand>),
    /// The ids of the table, or of the rows with one id. With `true`, the ids are sorted.
    Ids(Option<Operand>, bool),
    /// The highest id of the table.
    Maximum,
    /// The statements that were prepared with `PREPARE`.
    Prepared,
    /// A row of expressions.
    Row(Vec<Column>),
    /// The value of a parameter.
    Show(String),
}

impl Query {
    /// Returns the names and types of the columns.
    pub(in crate::postgres) fn columns(&self) -> Vec<(&str, Type)> {
        match self {
            Self::Count(_) => vec![("count", Type::Int8)],
            Self::Ids(..) => vec![("id", Type::Int8)],
            Self::Maximum => vec![("max", Type::Int8)],
            Self::Prepared => vec![("prepared", Type::Text)],
            Self::Row(columns) => columns.iter().map(|it| (it.name.as_str(), it.expression.kind())).collect(),
            Self::Show(name) => vec![(name, Type::Text)],
        }
    }

    /// Returns the parameters and their types.
    pub(super) fn parameters(&self) -> Vec<(usize, Type)> {
        match self {
            Self::Count(Some(Operand::Parameter(number))) | Self::Ids(Some(Operand::Parameter(number)), _) => {
                vec![(*number, Type::Int8)]
            }
            Self::Row(columns) => columns.iter().filter_map(|column| column.expression.parameter()).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns true if the query reads the table.
    pub(in crate::postgres) fn reads_table(&self) -> bool {
        matches!(self, Self::Count(_) | Self::Ids(..) | Self::Maximum)
    }

    /// Parses the tokens after `SELECT`.
    pub(super) fn parse(tokens: &[Token]) -> Result<Self, Report> {
        match top_level(tokens, |token| *token == Token::Word("from".into())).next() {
            Some(from) => Self::of_table(&tokens[..from], &tokens[from + 1..]).ok_or_else(|| unsupported(tokens)),
            None => split(tokens).map(Column::parse).collect::<Result<_, _>>().map(Self::Row),
        }
    }

    fn of_table(list: &[Token], from: &[Token]) -> Option<Self> {
        let (list, source) = (canonical(list), canonical(from));
        if list == "pg_catalog . quote_ident ( name ) as prepared"
            && source == "pg_catalog . pg_prepared_statements where from_sql"
        {
            return Some(Self::Prepared);
        }
        let [Token::Word(table), rest @ ..] = from else {
            return None;
        };
        let (filter, rest) = match rest {
            [Token::Word(clause), Token::Word(column), Token::Symbol(equals), operand, rest @ ..]
                if clause == "where" && column == "id" && equals == "=" =>
            {
                (Some(Operand::parse(operand, Type::Int8)?), rest)
            }
            rest => (None, rest),
        };
        let sorted = canonical(rest) == "order by id";
        if table != "history" || !(rest.is_empty() || sorted) {
            return None;
        }
        match (list.as_str(), &filter) {
            ("count ( * )", _) => Some(Self::Count(filter)),
            ("id" | "*", _) => Some(Self::Ids(filter, sorted)),
            ("max ( id )", None) => Some(Self::Maximum),
            _ => None,
        }
    }
}

impl Column {
    fn parse(tokens: &[Token]) -> Result<Self, Report> {
        let (tokens, alias) = match tokens {
            [expression @ .., Token::Word(keyword), Token::Word(name) | Token::Quoted(name)] if keyword == "as" => {
                (expression, Some(name.clone()))
            }
            other => (other, None),
        };
        let expression = Expression::parse(tokens).ok_or_else(|| unsupported(tokens))?;
        let name = alias.unwrap_or_else(|| default_name(tokens));
        Ok(Self { name, expression })
    }
}

/// Returns the name of a column without an alias: that of the function, or `?column?`.
fn default_name(tokens: &[Token]) -> String {
    let open = tokens.iter().position(|token| *token == Token::Symbol("(".into()));
    match open.and_then(|open| tokens.get(open.checked_sub(1)?)) {
        Some(Token::Word(name)) => name.clone(),
        _ => "?column?".into(),
    }
}

/// Returns the indices of the matching tokens outside of parentheses.
fn top_level<'a>(tokens: &'a [Token], matches: impl Fn(&Token) -> bool + 'a) -> impl Iterator<Item = usize> + 'a {
    let mut depth = 0_usize;
    tokens.iter().enumerate().filter_map(move |(index, token)| {
        match token {
            Token::Symbol(symbol) if symbol == "(" => depth += 1,
            Token::Symbol(symbol) if symbol == ")" => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 && matches(token)).then_some(index)
    })
}

/// Splits a list at its commas outside of parentheses.
fn split(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let commas = top_level(tokens, |token| *token == Token::Symbol(",".into()));
    let ends = commas.chain([tokens.len()]);
    let mut begin = 0;
    ends.map(move |end| {
        let part = &tokens[begin..end];
        begin = end + 1;
        part
    })
}

/// Returns the error for a statement that the simulated server does not implement.
pub(super) fn unsupported(tokens: &[Token]) -> Report {
    Report::error("0A000", format!("the simulated server does not implement: {}", canonical(tokens)))
}

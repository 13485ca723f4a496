//! The statements.

use super::{
    super::error::Report,
    expression::Operand,
    query::{Query, unsupported},
    token::{Token, canonical, leading_comment, syntax_error, tokens},
    value::Type,
};

/// The state that a `DISCARD` resets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::postgres) enum Discard {
    All,
    Plans,
    Sequences,
    Temp,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) enum Statement {
    /// `BEGIN`, with the access mode `READ ONLY` or `READ WRITE`.
    Begin(Option<bool>),
    CloseAll,
    Commit,
    /// `COPY history FROM STDIN`.
    CopyIn,
    /// `CREATE TEMP TABLE`, with the name of the table.
    CreateTemp(String),
    /// `DEALLOCATE`, with the name of the statement, or of all statements.
    Deallocate(Option<String>),
    Discard(Discard),
    /// `INSERT INTO history (id)`, with the ids.
    Insert(Vec<Operand>),
    Listen(String),
    /// `PREPARE`, with its name and the prepared statement.
    Prepare(String, Box<Parsed>),
    Query(Query),
    /// `RESET`, with the name of the parameter, or of all parameters.
    Reset(Option<String>),
    Rollback,
    /// `SET`. The value `None` stands for `DEFAULT`.
    Set {
        name: String,
        value: Option<String>,
        local: bool,
    },
    /// `SET TRANSACTION`, with the access mode: true for `READ ONLY`.
    SetTransaction(bool),
    Unlisten(Option<String>),
}

/// A statement with its comment.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) struct Parsed {
    pub(in crate::postgres) statement: Statement,
    /// The text of the comment with which the statement begins.
    pub(in crate::postgres) comment: Option<String>,
}

impl Statement {
    /// Returns the types of the parameters, in the order of their numbers.
    pub(in crate::postgres) fn parameters(&self) -> Vec<Type> {
        let mut found = match self {
            Self::Insert(ids) => {
                let number = |operand: &Operand| match operand {
                    Operand::Parameter(number) => Some((*number, Type::Int8)),
                    Operand::Constant(_) => None,
                };
                ids.iter().filter_map(number).collect()
            }
            Self::Query(query) => query.parameters(),
            _ => Vec::new(),
        };
        found.sort_by_key(|(number, _)| *number);
        found.dedup_by_key(|(number, _)| *number);
        found.into_iter().map(|(_, kind)| kind).collect()
    }

    /// Returns true if the statement may run in a transaction that has failed.
    pub(in crate::postgres) fn ends_transaction(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback)
    }
}

/// Parses the statements of a simple query, or the statement of a Parse message.
pub(in crate::postgres) fn parse(text: &str) -> Result<Vec<Parsed>, Report> {
    let tokens = tokens(text)?;
    let comment = leading_comment(text).map(str::to_owned);
    let statements = tokens.split(|token| *token == Token::Symbol(";".into())).filter(|tokens| !tokens.is_empty());
    statements.map(|tokens| Ok(Parsed { statement: statement(tokens)?, comment: comment.clone() })).collect()
}

fn statement(tokens: &[Token]) -> Result<Statement, Report> {
    let [Token::Word(command), rest @ ..] = tokens else {
        return Err(syntax_error(&tokens.first().map(ToString::to_string).unwrap_or_default()));
    };
    let text = canonical(rest);
    Ok(match (command.as_str(), text.as_str()) {
        ("select", _) => Statement::Query(Query::parse(rest)?),
        ("insert", _) => Statement::Insert(insert(rest).ok_or_else(|| unsupported(tokens))?),
        ("begin", mode) | ("start", mode) => match mode.trim_start_matches("transaction").trim() {
            "" => Statement::Begin(None),
            "read only" => Statement::Begin(Some(true)),
            "read write" => Statement::Begin(Some(false)),
            _ => return Err(unsupported(tokens)),
        },
        ("commit" | "end", "" | "work" | "transaction") => Statement::Commit,
        ("rollback" | "abort", "" | "work" | "transaction") => Statement::Rollback,
        ("copy", "history from stdin" | "history ( id ) from stdin") => Statement::CopyIn,
        ("set", "session authorization default") => {
            Statement::Set { name: "session_authorization".into(), value: None, local: false }
        }
        ("set", "transaction read only") => Statement::SetTransaction(true),
        ("set", "transaction read write") => Statement::SetTransaction(false),
        ("set", _) => set(rest).ok_or_else(|| unsupported(tokens))?,
        ("reset", "all") => Statement::Reset(None),
        ("reset", _) => Statement::Reset(Some(name(rest))),
        ("show", _) => Statement::Query(Query::Show(name(rest))),
        ("discard", "all") => Statement::Discard(Discard::All),
        ("discard", "plans") => Statement::Discard(Discard::Plans),
        ("discard", "sequences") => Statement::Discard(Discard::Sequences),
        ("discard", "temp" | "temporary") => Statement::Discard(Discard::Temp),
        ("close", "all") => Statement::CloseAll,
        ("listen", _) => Statement::Listen(name(rest)),
        ("unlisten", "*") => Statement::Unlisten(None),
        ("unlisten", _) => Statement::Unlisten(Some(name(rest))),
        ("deallocate", "all" | "prepare all") => Statement::Deallocate(None),
        ("deallocate", _) => Statement::Deallocate(Some(name(rest))),
        ("prepare", _) => prepare(rest)?.ok_or_else(|| unsupported(tokens))?,
        ("create", _) => match rest {
            [Token::Word(temp), Token::Word(table), name, ..] if temp.starts_with("temp") && table == "table" => {
                Statement::CreateTemp(plain(name))
            }
            _ => return Err(unsupported(tokens)),
        },
        _ => return Err(unsupported(tokens)),
    })
}

/// Returns a name or a value without its quotes.
fn plain(token: &Token) -> String {
    match token {
        Token::Literal(text) | Token::Quoted(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Returns a name that may have several parts, separated by dots.
fn name(tokens: &[Token]) -> String {
    tokens.iter().map(plain).collect()
}

/// Parses the tokens after `INSERT`.
fn insert(tokens: &[Token]) -> Option<Vec<Operand>> {
    let values = tokens.iter().position(|token| *token == Token::Word("values".into()))?;
    if !matches!(canonical(&tokens[..values]).as_str(), "into history ( id )" | "into history") {
        return None;
    }
    let rows = tokens[values + 1..].split(|token| *token == Token::Symbol(",".into()));
    rows.map(|row| match row {
        [Token::Symbol(open), operand, Token::Symbol(close)] if open == "(" && close == ")" => {
            Operand::parse(operand, Type::Int8)
        }
        _ => None,
    })
    .collect()
}

/// Parses the tokens after `SET`.
fn set(tokens: &[Token]) -> Option<Statement> {
    let (local, tokens) = match tokens {
        [Token::Word(scope), rest @ ..] if scope == "local" || scope == "session" => (scope == "local", rest),
        other => (false, other),
    };
    let assigns = |token: &Token| *token == Token::Symbol("=".into()) || *token == Token::Word("to".into());
    let Some(at) = tokens.iter().position(assigns) else {
        // `SET ROLE name` and `SET TIME ZONE value` have no sign between name and value.
        return match tokens {
            [Token::Word(role), value] if role == "role" => {
                let value = Some(plain(value)).filter(|value| value != "none");
                Some(Statement::Set { name: "role".into(), value, local })
            }
            [Token::Word(time), Token::Word(zone), value] if time == "time" && zone == "zone" => {
                Some(Statement::Set { name: "timezone".into(), value: Some(plain(value)), local })
            }
            _ => None,
        };
    };
    let values: Vec<_> = tokens[at + 1..].iter().map(plain).collect();
    let value = Some(values.join("").replace(',', ", ")).filter(|value| value != "default");
    Some(Statement::Set { name: name(&tokens[..at]), value, local })
}

/// Parses the tokens after `PREPARE`. Returns `None` if the server does not implement them.
fn prepare(tokens: &[Token]) -> Result<Option<Statement>, Report> {
    let Some(at) = tokens.iter().position(|token| *token == Token::Word("as".into())) else {
        return Ok(None);
    };
    let Some(name) = tokens.first().map(plain) else {
        return Ok(None);
    };
    let parsed = Parsed { statement: statement(&tokens[at + 1..])?, comment: None };
    Ok(Some(Statement::Prepare(name, Box::new(parsed))))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The texts of the columns of podpool's query for the state of a server, as they are in its source.
    fn columns() -> Vec<String> {
        let source = include_str!("../../../../src/wire/server_facts.rs");
        let list = source.split_once("const COLUMNS").unwrap().1.split_once("\n];").unwrap().0;
        let list = list.split_once("= [").unwrap().1;
        list.replace("\\\n", "").split("\",\n").map(|it| it.trim().trim_matches(['"', ',']).to_owned()).collect()
    }

    #[test]
    fn understands_the_query_for_the_state_of_a_server() {
        let columns = columns();
        assert_eq!(columns.len(), 12, "{columns:?}");
        for column in &columns {
            assert!(parse(&format!("SELECT {column}")).is_ok(), "{column}");
        }
        let parsed = parse(&format!("SELECT {}", columns.join(", "))).unwrap();
        let Statement::Query(query) = &parsed[0].statement else { panic!("{parsed:?}") };
        assert_eq!(query.columns().len(), columns.len());
    }

    #[test]
    fn understands_the_reset_of_a_session() {
        let source = include_str!("../../../../src/wire/reset.rs");
        let text = source.split_once("const DISCARD: &str = \"\\").unwrap().1.split_once("\";").unwrap().0;
        assert_eq!(parse(&text.replace("\\\n", "")).unwrap().len(), 9);
    }

    #[test]
    fn refuses_other_statements() {
        for text in ["DROP TABLE history", "SELECT now()", "SELECT id FROM other", "INSERT INTO other VALUES (1)"] {
            assert_eq!(parse(text).unwrap_err().code, "0A000", "{text}");
        }
    }
}

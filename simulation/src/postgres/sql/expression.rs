//! The expressions of select lists.

use std::{collections::BTreeMap, sync::LazyLock};

use super::{
    token::{Token, canonical, tokens},
    value::{Type, Value},
};

/// A constant or a parameter.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) enum Operand {
    Constant(Value),
    Parameter(usize),
}

/// An expression of a select list.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::postgres) enum Expression {
    AdvisoryLock,
    AdvisoryUnlockAll,
    BackendPid,
    /// The highest position and timeline of the control file of a standby.
    ControlPosition,
    ControlTimeline,
    CurrentLsn,
    /// The role of the session.
    CurrentUser,
    InRecovery,
    /// A constant or a parameter of the given type.
    Operand(Operand, Type),
    /// The last written position of a primary, or the last replayed position of a standby.
    Position,
    ReceiveLsn,
    ReceivedTimeline,
    Receiving,
    ReplayLsn,
    /// Seconds since the commit of the last replayed transaction.
    ReplayedAgo,
    /// The host and port of the upstream server.
    SenderAddress,
    Setting(String),
    Sleep(Operand),
    /// Maximum number of connections for the session's role.
    Slots,
    /// Time of the server's start, in microseconds since 1970.
    Started,
    SystemIdentifier,
    /// The timeline of a primary, as eight hexadecimal digits.
    TimelineDigits,
}

impl Expression {
    pub(in crate::postgres) fn kind(&self) -> Type {
        match self {
            Self::AdvisoryLock | Self::AdvisoryUnlockAll | Self::Sleep(_) => Type::Void,
            Self::BackendPid | Self::ControlTimeline | Self::ReceivedTimeline | Self::Slots => Type::Int4,
            Self::ControlPosition | Self::CurrentLsn | Self::Position | Self::ReceiveLsn | Self::ReplayLsn => Type::Lsn,
            Self::CurrentUser | Self::SenderAddress | Self::Setting(_) | Self::TimelineDigits => Type::Text,
            Self::InRecovery | Self::Receiving => Type::Bool,
            Self::Operand(_, kind) => *kind,
            Self::ReplayedAgo => Type::Numeric,
            Self::Started | Self::SystemIdentifier => Type::Int8,
        }
    }

    /// Returns the number of the parameter that the expression contains, and its type.
    pub(super) fn parameter(&self) -> Option<(usize, Type)> {
        match self {
            Self::Sleep(Operand::Parameter(number)) => Some((*number, Type::Float8)),
            Self::Operand(Operand::Parameter(number), kind) => Some((*number, *kind)),
            _ => None,
        }
    }

    /// Parses an expression. Returns `None` if the server does not implement it.
    pub(super) fn parse(tokens: &[Token]) -> Option<Self> {
        if let Some(known) = KNOWN.get(&canonical(tokens)) {
            return Some(known.clone());
        }
        let call = match tokens {
            [Token::Word(schema), Token::Symbol(dot), call @ ..] if schema == "pg_catalog" && dot == "." => call,
            other => other,
        };
        if let [Token::Word(name), Token::Symbol(open), argument, Token::Symbol(close)] = call
            && open == "("
            && close == ")"
        {
            return match (name.as_str(), argument) {
                ("pg_sleep", argument) => Operand::parse(argument, Type::Float8).map(Self::Sleep),
                ("pg_advisory_lock", Token::Number(_)) => Some(Self::AdvisoryLock),
                ("current_setting", Token::Literal(name)) => Some(Self::Setting(name.to_lowercase())),
                _ => None,
            };
        }
        match tokens {
            [value, Token::Symbol(cast), Token::Word(kind)] if cast == "::" => {
                let kind = match kind.as_str() {
                    "int4" => Type::Int4,
                    "int8" | "bigint" => Type::Int8,
                    "text" => Type::Text,
                    "float8" => Type::Float8,
                    "bool" => Type::Bool,
                    _ => return None,
                };
                Operand::parse(value, kind).map(|operand| Self::Operand(operand, kind))
            }
            [value @ Token::Number(_)] => Operand::parse(value, Type::Int4).map(|it| Self::Operand(it, Type::Int4)),
            [value @ Token::Literal(_)] => Operand::parse(value, Type::Text).map(|it| Self::Operand(it, Type::Text)),
            [Token::Word(null)] if null == "null" => Some(Self::Operand(Operand::Constant(Value::Null), Type::Text)),
            _ => None,
        }
    }
}

impl Operand {
    /// Parses a constant or a parameter of the given type.
    pub(super) fn parse(token: &Token, kind: Type) -> Option<Self> {
        match token {
            Token::Parameter(number) => Some(Self::Parameter(*number)),
            Token::Number(text) | Token::Literal(text) => kind.decode(text.as_bytes(), false).ok().map(Self::Constant),
            _ => None,
        }
    }
}

/// The expressions that are recognized as a whole, by their canonical texts.
static KNOWN: LazyLock<BTreeMap<String, Expression>> = LazyLock::new(|| {
    let canonical = |text: &str| canonical(&tokens(text).unwrap_or_default());
    TEXTS.iter().map(|(text, expression)| (canonical(text), expression.clone())).collect()
});

const TEXTS: [(&str, Expression); 25] = [
    ("pg_catalog.pg_is_in_recovery()", Expression::InRecovery),
    ("pg_is_in_recovery()", Expression::InRecovery),
    ("(SELECT system_identifier FROM pg_catalog.pg_control_system())", Expression::SystemIdentifier),
    (
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN NULL \
         ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_insert_lsn()), 1, 8) END",
        Expression::TimelineDigits,
    ),
    (
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn() \
         ELSE pg_catalog.pg_current_wal_lsn() END",
        Expression::Position,
    ),
    ("EXISTS (SELECT 1 FROM pg_catalog.pg_stat_wal_receiver)", Expression::Receiving),
    (
        "EXTRACT(epoch FROM pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())",
        Expression::ReplayedAgo,
    ),
    (
        "LEAST(pg_catalog.current_setting('max_connections')::int4 \
         - pg_catalog.current_setting('superuser_reserved_connections')::int4 \
         - COALESCE(pg_catalog.current_setting('reserved_connections', true)::int4, 0), \
         (SELECT NULLIF(rolconnlimit, -1) FROM pg_catalog.pg_roles WHERE rolname = session_user), \
         (SELECT NULLIF(datconnlimit, -1) FROM pg_catalog.pg_database WHERE datname = current_database()))",
        Expression::Slots,
    ),
    ("(SELECT received_tli FROM pg_catalog.pg_stat_wal_receiver)", Expression::ReceivedTimeline),
    (
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN GREATEST( \
         (SELECT timeline_id FROM pg_catalog.pg_control_checkpoint()), \
         (SELECT min_recovery_end_timeline FROM pg_catalog.pg_control_recovery())) END",
        Expression::ControlTimeline,
    ),
    (
        "CASE WHEN pg_catalog.pg_is_in_recovery() THEN GREATEST( \
         (SELECT checkpoint_lsn FROM pg_catalog.pg_control_checkpoint()), \
         (SELECT min_recovery_end_lsn FROM pg_catalog.pg_control_recovery())) END",
        Expression::ControlPosition,
    ),
    ("(EXTRACT(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::int8", Expression::Started),
    ("(SELECT sender_host || ' ' || sender_port FROM pg_catalog.pg_stat_wal_receiver)", Expression::SenderAddress),
    ("pg_catalog.pg_advisory_unlock_all()", Expression::AdvisoryUnlockAll),
    ("pg_advisory_unlock_all()", Expression::AdvisoryUnlockAll),
    ("pg_backend_pid()", Expression::BackendPid),
    ("pg_catalog.pg_backend_pid()", Expression::BackendPid),
    ("pg_current_wal_lsn()", Expression::CurrentLsn),
    ("pg_current_wal_insert_lsn()", Expression::CurrentLsn),
    ("pg_catalog.pg_current_wal_lsn()", Expression::CurrentLsn),
    ("pg_last_wal_replay_lsn()", Expression::ReplayLsn),
    ("pg_catalog.pg_last_wal_replay_lsn()", Expression::ReplayLsn),
    ("pg_last_wal_receive_lsn()", Expression::ReceiveLsn),
    ("current_user", Expression::CurrentUser),
    ("session_user", Expression::CurrentUser),
];

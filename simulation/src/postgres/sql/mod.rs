//! The statements that the simulated server understands: those that podpool sends, and a small workload on one table,
//! `history (id bigint)`. Every other statement is refused with SQLSTATE 0A000, and reported as an event.

mod expression;
mod query;
mod statement;
mod token;
mod value;

pub(super) use self::{
    expression::{Expression, Operand},
    query::Query,
    statement::{Discard, Parsed, Statement, parse},
    token::leading_comment,
    value::{Type, Value},
};

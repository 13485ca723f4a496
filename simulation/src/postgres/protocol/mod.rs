//! The messages of the protocol (PostgreSQL manual, "Message Formats"), without their meaning.

mod fields;
mod output;
mod stream;
mod wire;

pub(super) use self::{fields::Fields, output::Output, wire::Wire};

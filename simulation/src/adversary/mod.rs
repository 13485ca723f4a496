//! The adversary: draws the hosts, the settings, the load and the faults of a simulation from one seed.
//!
//! A [`Plan`] is data. Its text form can be stored in the corpus, edited and shrunk. All faults start and end within
//! the active time of the plan. In the tail after it, the world heals, so that a check can require that every caller
//! is served again.

mod corpus;
mod draw;
mod fault;
mod host;
mod pattern;
mod plan;
mod settings;
pub(crate) mod text;
mod topology;
mod window;
mod workload;

pub use self::{
    corpus::CorpusEntry,
    draw::Shape,
    fault::{Fault, StopMode},
    host::{Factor, Host, Percent},
    plan::Plan,
    settings::{AbsentPods, Discovery, LagFallback, Policy, Reset, Settings},
    text::ParseError,
    topology::{DnsCache, OperatorKind, Topology},
    window::Window,
    workload::{Caller, Leak, Target, Work},
};

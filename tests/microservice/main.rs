//! Tests the example microservice as a black box: its environment variables, HTTP responses, page and signals.
#![allow(clippy::print_stdout, reason = "tests print their measurements")]

mod browser;
#[path = "../common/mod.rs"]
mod common;
mod exposition;
#[path = "../../examples/load/http.rs"]
mod http;
mod program;
mod service;
mod stream;

mod contract;
mod limit;
mod outage;
mod page;
mod settings;
mod shared;
mod shutdown;
mod socket;
mod writes;

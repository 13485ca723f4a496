//! The example microservice as its users meet it: a program, its environment, HTTP and signals.
#![allow(clippy::print_stdout, reason = "a test says what it counted")]

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
mod ending;
mod outage;
mod page;
mod writing;

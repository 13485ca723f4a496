//! Tests the testkit's cluster: servers, DNS, fault injection, and the cleanup of files and processes.

mod cleanup;
mod faults;
mod processes;
mod queries;
mod replication;
mod settings;
mod startup;

type Outcome = Result<(), Box<dyn std::error::Error>>;

//! Tests of the operators: a group of servers with a client that inserts ids, under faults.

mod cloudnativepg;
mod patroni;
mod world;

//! Tests of the name servers: against the recordings, and of what the recordings do not have.

mod caches;
mod faulty;
mod recordings;
mod setup;
mod views;

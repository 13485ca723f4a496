//! Runs the examples of this package on real clusters whose primary fails.

mod clorinde;
mod diesel;
mod http;
mod jobs;
mod refinery;
mod site;

//! Applications that use podpool with other libraries. Each module is an example to copy from, and the tests of this
//! package run it on real clusters whose primary fails.

pub mod actix_service;
pub mod axum_service;
pub mod cached_statements;
pub mod diesel_pool;
pub mod job_queue;
pub mod schema;

//! A health-checked, load-balanced Postgres connection pool to every Pod behind a headless Kubernetes Service.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod discovery;
pub mod endpoint;
mod error;
mod sync;
mod time;

pub use endpoint::Endpoint;
pub use error::{Applied, Attempt, BoxError, ConfigError, Error, Kind, Phase};

//! A health-checked, load-balanced Postgres connection pool to every Pod behind a headless Kubernetes Service.
#![cfg_attr(docsrs, feature(doc_cfg))]
#![warn(clippy::disallowed_methods, clippy::print_stderr, clippy::print_stdout)]

pub mod balance;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
pub mod config;
pub mod discovery;
pub mod endpoint;
mod error;
mod event;
mod health;
mod pool;
mod sync;
#[cfg(feature = "testkit")]
pub mod testkit;
mod time;
mod wire;

pub use config::{Config, Target};
pub use deadpool_postgres;
pub use endpoint::{Endpoint, Role};
pub use error::{Applied, Attempt, BoxError, ConfigError, Error, Kind, Phase};
pub use event::{EVENT_CAPACITY, Event, Events, Lagged};
pub use health::State;
pub use pool::{Builder, Client, CounterStatus, EndpointStatus, Pool, RETRIES, ResolveStatus, Status};
pub use tokio_postgres;
pub use wire::{CancelToken, Class, Verdict, classify};

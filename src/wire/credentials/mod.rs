//! The user and password of each connection. Both are read again whenever a connection is opened, so a rotated password
//! takes effect without a restart.

mod error;
mod file;
mod provider;
mod source;

pub use error::CredentialsError;
pub use provider::{Credentials, CredentialsRequest, ProvideCredentials};
pub(crate) use source::{Login, Source};

//! Provides the user and the password for each connection. Both are re-read whenever a connection is opened, so a
//! rotated password takes effect without a restart.

mod error;
mod file;
mod provider;
mod source;

pub use error::CredentialsError;
pub use provider::{Credentials, CredentialsRequest, ProvideCredentials};
pub(crate) use source::{Login, Source};

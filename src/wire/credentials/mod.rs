//! Who connects, and with what password: asked for anew for each connection that is opened, so that a new password
//! takes effect without a restart.

mod error;
mod file;
mod provider;
mod source;

pub use error::CredentialsError;
pub use provider::{Credentials, CredentialsRequest, ProvideCredentials};
pub(crate) use source::{Login, Source};

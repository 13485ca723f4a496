use std::{fmt, future::Future, pin::Pin};

use super::CredentialsError;
use crate::{address::Address, config::Secret, error::BoxError, unwind::catch_async};

/// A provider of credentials. The pool calls it for each connection that it opens. Use it for short-lived tokens, or
/// for passwords from a vault.
///
/// Every `async` closure that takes a [`CredentialsRequest`] and returns a password or [`Credentials`] implements this
/// trait.
///
/// ```
/// use podpool::{Config, CredentialsRequest, Pool, config::Secret};
///
/// # mod cloud {
/// #     pub async fn database_token(host: &str, port: u16, user: &str) -> Result<String, std::io::Error> {
/// #         Ok(format!("token for {user} at {host}:{port}"))
/// #     }
/// # }
/// # async fn example() -> Result<(), podpool::Error> {
/// let config: Config = "postgres://app@postgresql-svc.k8s-training.svc.cluster.local/shop".parse()?;
/// let pool = Pool::builder(config)
///     .credentials(|request: CredentialsRequest| async move {
///         // Called for each connection. The token is overwritten and dropped when the connection is open.
///         let port = request.address.port().unwrap_or(5432);
///         cloud::database_token(&request.host, port, &request.user).await
///     })
///     .build()?;
/// # Ok(())
/// # }
/// # let _ = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example());
/// ```
///
/// The duration of the call counts towards `connect_timeout` (2 s by default). Calls run concurrently, because the pool
/// opens connections to several Pods at a time and also opens connections for health checks. A provider should cache
/// its last token if fetching one is slow or costs money. The provider can return the cached token until shortly before
/// its expiry, or until [`refused`](CredentialsRequest::refused) is true because a server rejected the token. While the
/// provider fails, open connections remain usable, and the failure does not affect the health of a Pod.
///
/// The credentials are overwritten in memory when they are no longer needed. The provider's error appears in logs,
/// errors and [`Status`](crate::Status), so it must not contain a secret. A panic counts as an error.
///
/// # Cancel safety
///
/// The returned future may be dropped at any await point, for example when `connect_timeout` expires or when the Pod is
/// removed.
pub trait ProvideCredentials: Send + Sync + 'static {
    /// Returns the credentials for one connection.
    ///
    /// # Errors
    ///
    /// An implementation may return any error. The pool does not open the connection, and the error becomes the cause
    /// of a failure in [`Phase::Credentials`](crate::Phase::Credentials).
    fn credentials(
        &self,
        request: CredentialsRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send + '_>>;
}

impl<F, A, C, E> ProvideCredentials for F
where
    F: Fn(CredentialsRequest) -> A + Send + Sync + 'static,
    A: Future<Output = Result<C, E>> + Send + 'static,
    C: Into<Credentials>,
    E: Into<BoxError>,
{
    fn credentials(
        &self,
        request: CredentialsRequest,
    ) -> Pin<Box<dyn Future<Output = Result<Credentials, BoxError>> + Send + '_>> {
        let credentials = self(request);
        Box::pin(async move { credentials.await.map(Into::into).map_err(Into::into) })
    }
}

/// The connection for which a [provider](ProvideCredentials) is called.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CredentialsRequest {
    /// The host in the configuration: the name of the Service, an address, or the directory of a Unix socket.
    pub host: String,
    /// The address of the Pod.
    pub address: Address,
    /// The user in the configuration.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// True if the server has just rejected the credentials that the provider returned for this connection. A provider
    /// with a cache should fetch new credentials. The pool retries once, and only if the new credentials differ.
    pub refused: bool,
}

/// A password, and optionally a user that replaces the one in the configuration.
#[derive(Clone)]
#[must_use]
pub struct Credentials {
    user: Option<String>,
    password: Secret,
}

impl Credentials {
    /// Creates credentials with this password, for the user in the configuration.
    pub fn new(password: impl Into<Secret>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// Sets the user, for providers that create database users dynamically. The configured database remains unchanged.
    pub fn with_user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }
}

impl From<Secret> for Credentials {
    fn from(password: Secret) -> Self {
        Self::new(password)
    }
}

impl From<String> for Credentials {
    fn from(password: String) -> Self {
        Self::new(password)
    }
}

impl From<&str> for Credentials {
    fn from(password: &str) -> Self {
        Self::new(password)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, password } = self;
        f.debug_struct("Credentials").field("user", user).field("password", password).finish()
    }
}

/// Calls a provider and validates the credentials that it returns. Catches a panic of the provider, because the panic
/// would end a task of the pool.
pub(super) async fn request_credentials(
    provider: &dyn ProvideCredentials,
    request: CredentialsRequest,
) -> Result<(Option<String>, Secret), CredentialsError> {
    // The message of the panic may contain a secret, so it is not part of the error.
    let result =
        catch_async(async { provider.credentials(request).await }).await.map_err(|_| CredentialsError::Panicked)?;
    let Credentials { user, password } = result.map_err(|source| CredentialsError::Provider { source })?;
    let text = password.expose();
    if text.is_empty() || text.contains('\0') {
        return Err(CredentialsError::Unusable { expected: "a non-empty password without zero bytes" });
    }
    if user.as_ref().is_some_and(|user| user.is_empty() || user.contains('\0')) {
        return Err(CredentialsError::Unusable { expected: "a non-empty user without zero bytes" });
    }
    Ok((user, password))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn request() -> CredentialsRequest {
        let address = Address::Tcp("10.0.0.1:5432".parse().unwrap());
        CredentialsRequest { host: "db".into(), address, user: "app".into(), dbname: "shop".into(), refused: false }
    }

    async fn call(provider: impl ProvideCredentials) -> Result<(Option<String>, Secret), CredentialsError> {
        request_credentials(&provider, request()).await
    }

    #[tokio::test]
    async fn async_closures_implement_the_trait() {
        let (user, password) = call(|_| async { Ok::<_, io::Error>("pw") }).await.unwrap();
        assert_eq!((user, password.expose()), (None, "pw"));
        let with_user = |request: CredentialsRequest| async move {
            Ok::<_, io::Error>(Credentials::new(format!("{}-pw", request.user)).with_user("v-app-1"))
        };
        let (user, password) = call(with_user).await.unwrap();
        assert_eq!((user.as_deref(), password.expose()), (Some("v-app-1"), "app-pw"));
    }

    #[tokio::test]
    async fn reports_errors_and_unusable_credentials() {
        let failed = call(|_| async { Err::<Secret, _>("the vault is sealed") }).await.unwrap_err();
        assert!(
            matches!(&failed, CredentialsError::Provider { source } if source.to_string() == "the vault is sealed")
        );
        for password in ["", "a\0b"] {
            let error = call(move |_| async move { Ok::<_, io::Error>(password) }).await.unwrap_err();
            assert!(matches!(error, CredentialsError::Unusable { .. }), "{error}");
        }
        let no_user = call(|_| async { Ok::<_, io::Error>(Credentials::new("pw").with_user("")) }).await.unwrap_err();
        assert!(no_user.to_string().contains("non-empty user"), "{no_user}");
    }

    #[tokio::test]
    async fn reports_a_panic_as_an_error() {
        let before =
            call(|_| -> std::future::Ready<Result<Secret, io::Error>> { panic!("before the first await") }).await;
        assert!(matches!(before, Err(CredentialsError::Panicked)));
        let after = call(|_| async {
            tokio::task::yield_now().await;
            if true {
                panic!("after an await");
            }
            Ok::<_, io::Error>("pw")
        });
        assert!(matches!(after.await, Err(CredentialsError::Panicked)));
    }

    #[test]
    fn debug_output_hides_the_password() {
        let shown = format!("{:?}", Credentials::new("hunter2").with_user("app"));
        assert!(!shown.contains("hunter2") && shown.contains("app"), "{shown}");
    }
}

use std::{
    fmt,
    future::{Future, poll_fn},
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::Poll,
};

use super::CredentialsError;
use crate::{config::Secret, error::BoxError};

/// Gives the credentials of each connection when it is opened: a token that is good for a quarter of an hour, a
/// password from a vault.
///
/// Any `async` closure from a [`CredentialsRequest`] to a password, or to [`Credentials`], is one.
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
///         // Asked for each connection. The token is dropped, and overwritten, when that is open.
///         cloud::database_token(&request.host, request.address.port(), &request.user).await
///     })
///     .build()?;
/// # Ok(())
/// # }
/// # let _ = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(example());
/// ```
///
/// The time it takes is part of `connect_timeout` (2 s by default). It is asked for several connections at once, for
/// each Pod and for the probes' connections too; one that is slow, or pays for each token, keeps the last one and gives
/// it until it is about to expire, or until [`refused`](CredentialsRequest::refused) says that a server did not take
/// it. While it fails, the connections that are open go on to serve; a Pod is not held to be sick for it.
///
/// What it gives is overwritten in memory when it is no longer needed. Its error is shown in logs, errors and
/// [`Status`](crate::Status), so it must not hold a secret. A panic is an error.
///
/// # Cancel safety
///
/// The future may be dropped at any await: at the deadline, and when the Pod is gone.
pub trait ProvideCredentials: Send + Sync + 'static {
    /// The credentials of one connection.
    ///
    /// # Errors
    ///
    /// Whatever it likes: the connection is not opened, and the error is shown as the cause, in
    /// [`Phase::Credentials`](crate::Phase::Credentials).
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
        let asked = self(request);
        Box::pin(async move { asked.await.map(Into::into).map_err(Into::into) })
    }
}

/// What a [provider](ProvideCredentials) is asked for.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CredentialsRequest {
    /// The host of the configuration: the Service's name, or an address.
    pub host: String,
    /// The Pod that is to be connected to.
    pub address: SocketAddr,
    /// The user of the configuration.
    pub user: String,
    /// The database.
    pub dbname: String,
    /// Whether the server has just refused what the provider gave for this connection. A provider that keeps what it
    /// gives gets something new; the pool tries what is not the same, once.
    pub refused: bool,
}

/// A password, and the user that it belongs to where that is not the configuration's.
#[derive(Clone)]
#[must_use]
pub struct Credentials {
    user: Option<String>,
    password: Secret,
}

impl Credentials {
    /// A password of the configuration's user.
    pub fn new(password: impl Into<Secret>) -> Self {
        Self { user: None, password: password.into() }
    }

    /// Sets the user, for a source that makes users up as it goes. The database stays the configuration's.
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

/// Asks a provider, and lives through its panic: the task that dials is the pool's.
pub(super) async fn ask(
    provider: &dyn ProvideCredentials,
    request: CredentialsRequest,
) -> Result<(Option<String>, Secret), CredentialsError> {
    let mut asking = pin!(async { provider.credentials(request).await });
    let given = poll_fn(|cx| {
        // Nothing of ours is half done in there, and the future is not polled again.
        match catch_unwind(AssertUnwindSafe(|| asking.as_mut().poll(cx))) {
            Ok(polled) => polled.map_err(|source| CredentialsError::Provider { source }),
            Err(_) => Poll::Ready(Err(CredentialsError::Panicked)),
        }
    });
    let Credentials { user, password } = given.await?;
    let text = password.expose();
    if text.is_empty() || text.contains('\0') {
        return Err(CredentialsError::Unusable { expected: "a password that is not empty and has no zero byte" });
    }
    if user.as_ref().is_some_and(|user| user.is_empty() || user.contains('\0')) {
        return Err(CredentialsError::Unusable { expected: "a user that is not empty and has no zero byte" });
    }
    Ok((user, password))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn request() -> CredentialsRequest {
        let address = "10.0.0.1:5432".parse().unwrap();
        CredentialsRequest { host: "db".into(), address, user: "app".into(), dbname: "shop".into(), refused: false }
    }

    async fn asked(provider: impl ProvideCredentials) -> Result<(Option<String>, Secret), CredentialsError> {
        ask(&provider, request()).await
    }

    #[tokio::test]
    async fn closures_of_every_kind_provide() {
        let (user, password) = asked(|_| async { Ok::<_, io::Error>("pw") }).await.unwrap();
        assert_eq!((user, password.expose()), (None, "pw"));
        let with_user = |request: CredentialsRequest| async move {
            Ok::<_, io::Error>(Credentials::new(format!("{}-pw", request.user)).with_user("v-app-1"))
        };
        let (user, password) = asked(with_user).await.unwrap();
        assert_eq!((user.as_deref(), password.expose()), (Some("v-app-1"), "app-pw"));
    }

    #[tokio::test]
    async fn what_goes_wrong_is_named() {
        let failed = asked(|_| async { Err::<Secret, _>("the vault is sealed") }).await.unwrap_err();
        assert!(
            matches!(&failed, CredentialsError::Provider { source } if source.to_string() == "the vault is sealed")
        );
        for password in ["", "a\0b"] {
            let error = asked(move |_| async move { Ok::<_, io::Error>(password) }).await.unwrap_err();
            assert!(matches!(error, CredentialsError::Unusable { .. }), "{error}");
        }
        let nobody = asked(|_| async { Ok::<_, io::Error>(Credentials::new("pw").with_user("")) }).await.unwrap_err();
        assert!(nobody.to_string().contains("a user"), "{nobody}");
    }

    #[tokio::test]
    async fn a_panic_is_an_error() {
        let now = asked(|_| -> std::future::Ready<Result<Secret, io::Error>> { panic!("at once") }).await;
        assert!(matches!(now, Err(CredentialsError::Panicked)));
        let later = asked(|_| async {
            tokio::task::yield_now().await;
            if true {
                panic!("later");
            }
            Ok::<_, io::Error>("pw")
        });
        assert!(matches!(later.await, Err(CredentialsError::Panicked)));
    }

    #[test]
    fn credentials_never_print_the_password() {
        let shown = format!("{:?}", Credentials::new("hunter2").with_user("app"));
        assert!(!shown.contains("hunter2") && shown.contains("app"), "{shown}");
    }
}

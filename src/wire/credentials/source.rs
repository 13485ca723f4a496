//! Determines the credentials of a connection from the configuration, a file, or a provider.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{CredentialsError, CredentialsRequest, ProvideCredentials, file, provider::request_credentials};
use crate::{
    config::{Config, DEFAULT_PORT, Host, HostEntry, Secret, pgpass},
    endpoint::Endpoint,
    event::{Emitter, Event},
    sync::{Mutex, lock},
    system::{platform::SOCKET_DIRECTORIES, spawn_blocking},
    unwind::{Panic, PanicSource},
};

/// The source of the credentials for all connections of a pool.
pub(crate) struct Source {
    origin: Origin,
    /// The name of each configured host.
    hosts: Box<[String]>,
    /// The port of each configured host.
    ports: Box<[u16]>,
    user: String,
    dbname: String,
    events: Arc<Emitter>,
    /// The reason why libpq's password file is ignored, or `None` if the file is used. Each new reason is reported
    /// once.
    ignored: Mutex<Option<String>>,
}

enum Origin {
    None,
    Fixed(Secret),
    File(PathBuf),
    Passfile(PathBuf),
    Provider(Arc<dyn ProvideCredentials>),
}

/// The user and password of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    pub(crate) user: String,
    pub(crate) password: Option<Secret>,
}

impl Login {
    /// Returns true if both logins have the same user and the same password. A server that rejected one of them would
    /// also reject the other.
    pub(crate) fn is_same_as(&self, other: &Self) -> bool {
        let password = match (&self.password, &other.password) {
            (Some(a), Some(b)) => a.is(b),
            (a, b) => a.is_none() && b.is_none(),
        };
        password && self.user == other.user
    }
}

impl Source {
    pub(crate) fn new(config: &Config, provider: Option<Arc<dyn ProvideCredentials>>, events: Arc<Emitter>) -> Self {
        let origin = match (provider, config.password(), config.password_file(), config.passfile()) {
            (Some(provider), ..) => Origin::Provider(provider),
            (None, Some(password), ..) => Origin::Fixed(password.clone()),
            (None, None, Some(path), _) => Origin::File(path.to_owned()),
            (None, None, None, Some(path)) => Origin::Passfile(path.to_owned()),
            (None, None, None, None) => Origin::None,
        };
        // An IPv6 address has no brackets, because entries in libpq's password file have none either.
        let name = |host: &Host| match host {
            Host::Address(address) => address.to_string(),
            Host::Directory(path) if SOCKET_DIRECTORIES.iter().any(|default| path == Path::new(default)) => {
                "localhost".to_owned()
            }
            Host::Directory(path) => path.display().to_string(),
            Host::Service(name) => name.to_string(),
        };
        let hosts = config.hosts().iter().map(|entry| name(entry.host())).collect();
        let ports = config.hosts().iter().map(HostEntry::port).collect();
        let (user, dbname) = (config.user().to_owned(), config.dbname().to_owned());
        Self { origin, hosts, ports, user, dbname, events, ignored: Mutex::default() }
    }

    /// Returns the name of the configured host that returned this endpoint.
    fn host(&self, endpoint: &Endpoint) -> &str {
        self.hosts.get(endpoint.host_index()).or(self.hosts.first()).map_or("", String::as_str)
    }

    /// Returns the port of the server: that of the address, or the configured one for a Unix socket.
    fn port(&self, endpoint: &Endpoint) -> u16 {
        let configured = || self.ports.get(endpoint.host_index()).copied().unwrap_or(DEFAULT_PORT);
        endpoint.address().port().unwrap_or_else(configured)
    }

    /// Returns true if the credentials of both endpoints are the same, because the entry in the password file and the
    /// request to the provider are.
    pub(crate) fn is_same(&self, one: &Endpoint, other: &Endpoint) -> bool {
        match self.origin {
            Origin::None | Origin::Fixed(_) | Origin::File(_) => true,
            Origin::Passfile(_) | Origin::Provider(_) => {
                (self.host(one), self.port(one)) == (self.host(other), self.port(other))
            }
        }
    }

    /// Returns true if a second call of [`login`](Self::login) may return different credentials.
    pub(crate) fn can_change(&self) -> bool {
        !matches!(self.origin, Origin::None | Origin::Fixed(_))
    }

    /// Returns the credentials for one connection. `refused` is true if the server has just rejected the credentials
    /// from the previous call.
    ///
    /// Cancel-safe.
    pub(crate) async fn login(&self, endpoint: &Endpoint, refused: bool) -> Result<Login, CredentialsError> {
        let mut user = self.user.clone();
        let password = match &self.origin {
            Origin::None => None,
            Origin::Fixed(password) => Some(password.clone()),
            Origin::File(path) => Some(read_password_file(path).await?),
            Origin::Passfile(path) => self.find_in_passfile(path, endpoint).await?,
            Origin::Provider(provider) => {
                let (host, dbname) = (self.host(endpoint).to_owned(), self.dbname.clone());
                let address = endpoint.address().clone();
                let request = CredentialsRequest { host, address, user: user.clone(), dbname, refused };
                let (replacement, password) = request_credentials(&**provider, request).await.inspect_err(|error| {
                    if matches!(error, CredentialsError::Panicked) {
                        self.events.panicked(PanicSource::CredentialsProvider, &Panic::without_message());
                    }
                })?;
                user = replacement.unwrap_or(user);
                Some(password)
            }
        };
        Ok(Login { user, password })
    }

    /// Returns a description of the password's source for error messages, or `None` if the source is the configuration.
    pub(crate) fn origin(&self) -> Option<String> {
        match &self.origin {
            Origin::None | Origin::Fixed(_) => None,
            Origin::File(path) | Origin::Passfile(path) => Some(format!("the password from `{}`", path.display())),
            Origin::Provider(_) => Some("the provider's credentials".to_owned()),
        }
    }

    /// Returns the error for a connection to a server that requires a password, when no password was found.
    pub(crate) fn missing_password(&self, endpoint: &Endpoint) -> CredentialsError {
        let searched = match &self.origin {
            Origin::Passfile(path) => match &*lock(&self.ignored) {
                Some(cause) => format!("`{}` was ignored: {cause}", path.display()),
                None => {
                    let (host, port) = (self.host(endpoint), self.port(endpoint));
                    format!("`{}` has no entry for {host}:{port}:{}:{}", path.display(), self.dbname, self.user)
                }
            },
            _ => "none of `password`, `password_file` and `passfile` is set".to_owned(),
        };
        CredentialsError::Missing { searched }
    }

    /// Searches libpq's password file for the entry of this connection. An unusable file is ignored, as in libpq.
    async fn find_in_passfile(&self, path: &Path, endpoint: &Endpoint) -> Result<Option<Secret>, CredentialsError> {
        let file = match blocking(path, file::read_passfile).await {
            Ok(file) => {
                *lock(&self.ignored) = None;
                file
            }
            Err(error) => {
                self.ignore(path, &error);
                return Ok(None);
            }
        };
        let port = self.port(endpoint);
        let key = pgpass::Key { host: self.host(endpoint), port, dbname: &self.dbname, user: &self.user };
        pgpass::find(&file, key).map_err(|_| CredentialsError::Passfile { path: path.to_owned() })
    }

    fn ignore(&self, path: &Path, error: &io::Error) {
        let cause = error.to_string();
        let before = lock(&self.ignored).replace(cause.clone());
        // A missing file is not reported: libpq's default file need not exist.
        if error.kind() != io::ErrorKind::NotFound && before.as_ref() != Some(&cause) {
            self.events.emit(Event::PassfileIgnored { path: path.into(), cause: cause.into() });
        }
    }
}

async fn read_password_file(path: &Path) -> Result<Secret, CredentialsError> {
    let failed = |source| CredentialsError::File { path: path.to_owned(), source };
    let mut bytes = blocking(path, file::read_password).await.map_err(failed)?;
    let expected = match Secret::from_utf8(std::mem::take(&mut *bytes)) {
        Some(secret) if secret.expose().is_empty() => "a password, got an empty file",
        Some(secret) if secret.expose().contains('\0') => "a password without zero bytes",
        Some(secret) => return Ok(secret),
        None => "a password in UTF-8",
    };
    Err(CredentialsError::Content { path: path.to_owned(), expected })
}

/// Reads a file on a thread for blocking operations.
async fn blocking<T: Send + 'static>(path: &Path, read: fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let path = path.to_owned();
    spawn_blocking(move || read(&path)).await.map_err(io::Error::other)?
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("hosts", &self.hosts).field("user", &self.user).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;

    fn source(text: &str) -> Source {
        let config: Config = text.parse().unwrap();
        Source::new(&config, None, Arc::new(Emitter::new("test".into())))
    }

    fn pod() -> Endpoint {
        Endpoint::new("10.0.0.1:5433".parse().unwrap())
    }

    #[tokio::test]
    async fn uses_the_configured_source_of_highest_precedence() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("password"), "from a file\n").unwrap();
        let pgpass = directory.path().join("pgpass");
        let line = "10.0.0.1:*:*:*:a Pod's\nfd00::1:5433:shop:app:an address's\ndb.svc:5433:shop:app:a Service's\n";
        std::fs::write(&pgpass, line).unwrap();
        #[cfg(unix)]
        std::fs::set_permissions(&pgpass, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let (file, passfile) = (path("password"), path("pgpass"));
        for (text, expected) in [
            ("host=db.svc".to_owned(), None),
            (format!("host=db.svc password=given passfile={passfile}"), Some("given")),
            (format!("host=db.svc password_file={file} passfile={passfile}"), Some("from a file")),
            (format!("host=db.svc dbname=shop user=app passfile={passfile}"), Some("a Service's")),
            (format!("host=[fd00::1] dbname=shop user=app passfile={passfile}"), Some("an address's")),
            (format!("host=other.svc dbname=shop user=app passfile={passfile}"), None),
            (format!("host=db.svc passfile={}", path("none")), None),
        ] {
            let login = source(&text).login(&pod(), false).await.unwrap();
            assert_eq!(login.password.as_ref().map(Secret::expose), expected, "{text}");
        }
        std::fs::write(&pgpass, "localhost:5433:*:*:the default's\n/run/pg:*:*:*:another\n/tmp:*:*:*:its own\n")
            .unwrap();
        #[cfg(target_os = "linux")]
        let directories = [("/var/run/postgresql", "the default's"), ("/tmp", "its own"), ("/run/pg", "another")];
        #[cfg(not(target_os = "linux"))]
        let directories = [("/tmp", "the default's"), ("/run/pg", "another")];
        for (host, expected) in directories {
            let source = source(&format!("host={host} port=5433 passfile={}", pgpass.display()));
            let endpoint = Endpoint::at(Address::unix(host.as_ref(), 5433));
            let login = source.login(&endpoint, false).await.unwrap();
            assert_eq!(login.password.as_ref().map(Secret::expose), Some(expected), "{host}");
        }
        std::fs::write(&pgpass, line).unwrap();
        // Each entry of a list of hosts is searched by its own name.
        let source =
            source(&format!("host=other.svc,db.svc,[fd00::1] dbname=shop user=app passfile={}", pgpass.display()));
        for (entry, expected) in [None, Some("a Service's"), Some("an address's")].into_iter().enumerate() {
            let endpoint = pod().with_hosts([entry]);
            let login = source.login(&endpoint, false).await.unwrap();
            assert_eq!(login.password.as_ref().map(Secret::expose), expected, "entry {entry}");
        }
    }

    #[tokio::test]
    async fn reads_the_password_file_for_each_login_and_reports_errors() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = source(&format!("host=db password_file={}", file.path().display()));
        let mut before: Option<Login> = None;
        for password in ["one", "two"] {
            std::fs::write(file.path(), password).unwrap();
            let login = source.login(&pod(), false).await.unwrap();
            assert_eq!(login.password.as_ref().unwrap().expose(), password);
            assert!(
                login.is_same_as(&login)
                    && before.replace(login.clone()).is_none_or(|before| !before.is_same_as(&login))
            );
        }
        for (content, expected) in [(&b""[..], "empty"), (b"\n", "empty"), (b"a\0b", "zero byte"), (b"\xff", "UTF-8")] {
            std::fs::write(file.path(), content).unwrap();
            let error = source.login(&pod(), false).await.unwrap_err();
            assert!(
                matches!(error, CredentialsError::Content { .. }) && error.to_string().contains(expected),
                "{error}"
            );
        }
        let path = file.path().to_owned();
        drop(file);
        let error = source.login(&pod(), false).await.unwrap_err();
        assert!(matches!(&error, CredentialsError::File { path: named, .. } if *named == path), "{error}");
    }

    #[tokio::test]
    async fn reports_an_ignored_passfile_once() {
        let directory = tempfile::tempdir().unwrap();
        let source = source(&format!("host=db user=app passfile={}", directory.path().display()));
        let mut events = source.events.subscribe();
        for _ in 0..3 {
            assert!(source.login(&pod(), false).await.unwrap().password.is_none());
        }
        assert!(source.missing_password(&pod()).to_string().contains("was ignored: not a regular file"));
        source.events.close();
        let mut reported = Vec::new();
        while let Some(event) = events.next().await {
            reported.push(event.unwrap().to_string());
        }
        assert_eq!(reported, [format!("passfile_ignored {}: not a regular file", directory.path().display())]);
    }

    #[tokio::test]
    async fn missing_password_error_names_the_passfile_and_the_entry() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let source = source(&format!("host=db.svc user=app dbname=shop passfile={}", file.path().display()));
        assert!(source.login(&pod(), false).await.unwrap().password.is_none());
        let missing = source.missing_password(&pod()).to_string();
        assert!(missing.ends_with("has no entry for db.svc:5433:shop:app"), "{missing}");
    }
}

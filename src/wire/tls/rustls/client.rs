//! Builds the rustls configuration from the contents of the certificate files.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig, KeyLog, SupportedProtocolVersion,
    client::{Resumption, WebPkiServerVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, CertificateRevocationListDer, pem::PemObject},
    version,
};

use super::{
    files::{Contents, FileError, Files, Root},
    private_key, provider,
    trust::{Roots, Verifier},
};
use crate::config::{Secret, ssl::TlsVersion};

/// The ALPN protocol of PostgreSQL, as registered with IANA. libpq always offers it; servers require it with
/// `sslnegotiation=direct`.
pub(super) const ALPN: &[u8] = b"postgresql";

/// The settings that do not depend on the contents of the certificate files.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// True if the verification includes the server's name.
    pub(super) verify_name: bool,
    pub(super) sni: bool,
    /// The CA certificates from the system trust store, if they are trusted.
    pub(super) system: Option<Arc<Roots>>,
    /// The oldest and the newest TLS version.
    pub(super) versions: (TlsVersion, Option<TlsVersion>),
    /// The password of the client's private key.
    pub(super) key_password: Option<Secret>,
    /// Receives the secrets of each TLS session.
    pub(super) key_log: Option<Arc<dyn KeyLog>>,
}

/// Returns the TLS versions to offer.
fn versions((min, max): (TlsVersion, Option<TlsVersion>)) -> Vec<&'static SupportedProtocolVersion> {
    [(TlsVersion::V1_2, &version::TLS12), (TlsVersion::V1_3, &version::TLS13)]
        .into_iter()
        .filter(|(version, _)| min <= *version && max.is_none_or(|max| *version <= max))
        .map(|(_, supported)| supported)
        .collect()
}

/// A configuration for handshakes.
pub(super) struct Configured {
    pub(super) client: Arc<ClientConfig>,
    /// True if the server's certificate is verified.
    pub(super) verifies: bool,
}

/// Parses the contents of the files and builds a configuration.
pub(super) fn configure(settings: &Settings, files: &Files, contents: Contents) -> Result<Arc<Configured>, FileError> {
    let roots = match (&files.root, &contents.root) {
        (Root::File(path), Some(bytes)) => Some(Arc::new(authorities(path, bytes)?)),
        _ => settings.system.clone(),
    };
    let verifies = roots.is_some();
    let provider = Arc::new(provider::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let revocation = revocation(roots.as_deref(), &provider, files, &contents)?;
    let verifier = Arc::new(Verifier { roots, revocation, verify_name: settings.verify_name, algorithms });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions(settings.versions))
        .expect("the provider has cipher suites for TLS 1.2 and 1.3, and `Ssl::validate` rejects an empty range")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&files.client, contents.client) {
        (Some((cert, key)), Some((chain, secret))) => {
            let hint = "the client's PEM certificate";
            let chain = certificates(&chain).map_err(|reason| FileError::new("sslcert", cert, hint, reason))?;
            let secret = private_key::parse(key, &secret, settings.key_password.as_ref())?;
            let rejected = |reason| FileError::new("sslkey", key, private_key::EXPECTED, reason);
            builder.with_client_auth_cert(chain, secret).map_err(rejected)?
        }
        _ => builder.with_no_client_auth(),
    };
    if let Some(key_log) = &settings.key_log {
        config.key_log = key_log.clone();
    }
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = settings.sni;
    // Session resumption is disabled. The Pods usually share one server name, so rustls would offer the session ticket
    // of one Pod to the others. PostgreSQL does not resume sessions anyway.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(Configured { client: Arc::new(config), verifies }))
}

/// Parses the certificates of the trusted certificate authorities.
fn authorities(path: &Path, bytes: &[u8]) -> Result<Roots, FileError> {
    let rejected = |reason: &dyn std::fmt::Display| {
        FileError::new("sslrootcert", path, "PEM certificates of trusted authorities", reason)
    };
    let certificates = certificates(bytes).map_err(|reason| rejected(&reason))?;
    Roots::new(certificates).map_err(|reason| rejected(&reason))
}

/// Returns a verifier that checks the revocation of each certificate in a chain, or `None` if there are no certificate
/// revocation lists. As with libpq and OpenSSL, a certificate is rejected if the list of its issuer is missing or has
/// expired.
fn revocation(
    roots: Option<&Roots>,
    provider: &Arc<CryptoProvider>,
    files: &Files,
    contents: &Contents,
) -> Result<Option<Arc<WebPkiServerVerifier>>, FileError> {
    let mut lists = Vec::new();
    for (source, contents) in files.crls.iter().zip(&contents.crls) {
        if roots.is_none() {
            return Err(source.error("certificates are not verified, because `sslrootcert` is neither set nor found"));
        }
        let before = lists.len();
        for bytes in contents {
            for list in CertificateRevocationListDer::pem_slice_iter(bytes) {
                let list = list.map_err(|_| source.error("not valid PEM, or truncated"))?;
                lists.push((source, list));
            }
        }
        if lists.len() == before {
            return Err(source.error("it contains no certificate revocation list"));
        }
    }
    let (Some(roots), Some((first, _))) = (roots, lists.first()) else { return Ok(None) };
    let first = *first;
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.store(), provider.clone())
        .with_crls(lists.into_iter().map(|(_, list)| list))
        .enforce_revocation_expiration()
        .build()
        .map_err(|reason| first.error(reason))?;
    Ok(Some(verifier))
}

/// Parses a PEM file with at least one certificate.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err("the file contains no certificate".to_owned()),
        Ok(all) => Ok(all),
        Err(rustls::pki_types::pem::Error::MissingSectionEnd { .. }) => {
            Err("the file contains a truncated certificate".to_owned())
        }
        Err(reason) => Err(reason.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use zeroize::Zeroizing;

    use super::*;

    fn files() -> Files {
        let client = Some(("/tls/tls.crt".into(), "/tls/tls.key".into()));
        Files { root: Root::File("/tls/ca.crt".into()), client, crls: Vec::new() }
    }

    fn configured(root: &str, cert: &str, key: &str) -> Result<(), String> {
        let settings = Settings {
            verify_name: true,
            sni: true,
            system: None,
            versions: (TlsVersion::V1_2, None),
            key_password: None,
            key_log: None,
        };
        let client = Some((cert.as_bytes().to_vec(), Zeroizing::new(key.as_bytes().to_vec())));
        let contents = Contents { root: Some(root.as_bytes().to_vec()), client, crls: Vec::new() };
        configure(&settings, &files(), contents).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn errors_name_the_file_and_contain_no_part_of_a_key() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        let other = generate_simple_self_signed(["b".to_owned()]).unwrap().signing_key.serialize_pem();
        assert_eq!(configured(&cert, &cert, &key), Ok(()));
        for (root, chain, secret, expected) in [
            (
                "",
                &*cert,
                &*key,
                "sslrootcert: expected PEM certificates of trusted authorities at /tls/ca.crt: the file contains no",
            ),
            (
                &cert[..200],
                &cert,
                &key,
                "sslrootcert: expected PEM certificates of trusted authorities at /tls/ca.crt: the file contains a tr",
            ),
            (
                &cert,
                &key,
                &key,
                "sslcert: expected the client's PEM certificate at /tls/tls.crt: the file contains no certificate",
            ),
            (&cert, &cert, &cert, "sslkey: expected the private key of the client's certificate at"),
            (&cert, &cert, &other, "sslkey: expected the private key of the client's certificate at"),
            (&cert, &cert, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "sslkey"),
        ] {
            let error = configured(root, chain, secret).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

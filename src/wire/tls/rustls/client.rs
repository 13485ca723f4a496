//! From the contents of files to rustls's configuration.

use std::{path::Path, sync::Arc};

use tokio_rustls::rustls::{
    self, ClientConfig,
    client::Resumption,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};

use super::{
    files::{Contents, FileError, Files, Root},
    trust::{Roots, Verifier},
};

/// PostgreSQL's protocol in ALPN, as IANA has it. libpq names it always, a server asks for it with direct negotiation.
pub(super) const ALPN: &[u8] = b"postgresql";

/// What of the configuration goes into every session.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// Whether the name is checked.
    pub(super) name: bool,
    pub(super) sni: bool,
    /// The system's authorities, where they are trusted.
    pub(super) system: Option<Arc<Roots>>,
}

/// Makes sense of what was read.
pub(super) fn configure(
    settings: &Settings,
    files: &Files,
    contents: Contents,
) -> Result<Arc<ClientConfig>, FileError> {
    let roots = match (&files.root, &contents.root) {
        (Root::File(path), Some(bytes)) => Some(Arc::new(authorities(path, bytes)?)),
        _ => settings.system.clone(),
    };
    let provider = Arc::new(ring::default_provider());
    let algorithms = provider.signature_verification_algorithms;
    let verifier = Arc::new(Verifier { roots, name: settings.name, algorithms });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match (&files.client, contents.client) {
        (Some((cert, key)), Some((chain, secret))) => {
            let hint = "the client's PEM certificate";
            let chain = certificates(&chain).map_err(|why| FileError::new("sslcert", cert, hint, why))?;
            let hint = "the private key of the client's certificate, without a password";
            let refused = |why: &dyn std::fmt::Display| FileError::new("sslkey", key, hint, why);
            // What a parser says of a key could repeat a part of it.
            let secret = PrivateKeyDer::from_pem_slice(&secret).map_err(|_| refused(&"no PEM key that can be read"))?;
            builder.with_client_auth_cert(chain, secret).map_err(|why| refused(&why))?
        }
        _ => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.enable_sni = settings.sni;
    // Many servers answer to one name; PostgreSQL has no sessions to resume.
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

fn authorities(path: &Path, bytes: &[u8]) -> Result<Roots, FileError> {
    let refused = |why: &dyn std::fmt::Display| {
        FileError::new("sslrootcert", path, "PEM certificates of trusted authorities", why)
    };
    let certificates = certificates(bytes).map_err(|why| refused(&why))?;
    Roots::new(certificates).map_err(|why| refused(&why))
}

/// At least one certificate.
fn certificates(bytes: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(all) => Ok(all),
        Err(rustls::pki_types::pem::Error::MissingSectionEnd { .. }) => {
            Err("a certificate in it has no end".to_owned())
        }
        Err(why) => Err(why.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};
    use zeroize::Zeroizing;

    use super::*;

    fn files() -> Files {
        Files { root: Root::File("/tls/ca.crt".into()), client: Some(("/tls/tls.crt".into(), "/tls/tls.key".into())) }
    }

    fn configured(root: &str, cert: &str, key: &str) -> Result<(), String> {
        let settings = Settings { name: true, sni: true, system: None };
        let client = Some((cert.as_bytes().to_vec(), Zeroizing::new(key.as_bytes().to_vec())));
        let contents = Contents { root: Some(root.as_bytes().to_vec()), client };
        configure(&settings, &files(), contents).map(drop).map_err(|error| error.to_string())
    }

    #[test]
    fn says_which_file_is_wrong_and_repeats_nothing_of_a_key() {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["a".to_owned()]).unwrap();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        let other = generate_simple_self_signed(["b".to_owned()]).unwrap().signing_key.serialize_pem();
        assert_eq!(configured(&cert, &cert, &key), Ok(()));
        for (root, chain, secret, expected) in [
            (
                "",
                &*cert,
                &*key,
                "sslrootcert: expected PEM certificates of trusted authorities at /tls/ca.crt: there is no",
            ),
            (
                &cert[..200],
                &cert,
                &key,
                "sslrootcert: expected PEM certificates of trusted authorities at /tls/ca.crt: a certi",
            ),
            (
                &cert,
                &key,
                &key,
                "sslcert: expected the client's PEM certificate at /tls/tls.crt: there is no certificate",
            ),
            (
                &cert,
                &cert,
                &cert,
                "sslkey: expected the private key of the client's certificate, without a password at",
            ),
            (
                &cert,
                &cert,
                &other,
                "sslkey: expected the private key of the client's certificate, without a password at",
            ),
            (&cert, &cert, "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----\n", "sslkey"),
        ] {
            let error = configured(root, chain, secret).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}

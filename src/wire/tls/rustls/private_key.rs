//! Parses the private key of the client certificate, and decrypts an encrypted one.

use std::path::Path;

use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject};

use super::files::FileError;
use crate::config::Secret;

/// The expected contents of the file, for error messages.
pub(super) const EXPECTED: &str = "the private key of the client's certificate";

/// The text in the header of a key that is encrypted in OpenSSL's own format (RFC 1421).
const LEGACY: &str = "Proc-Type: 4,ENCRYPTED";
const BEGIN: &str = "-----BEGIN ENCRYPTED PRIVATE KEY-----";
#[cfg(feature = "encrypted-keys")]
const END: &str = "-----END ENCRYPTED PRIVATE KEY-----";

/// Parses a PEM file with a private key. A key that is encrypted with PKCS #8 (RFC 5958) is decrypted with `password`.
/// No error contains a part of the key or the password.
pub(super) fn parse(path: &Path, pem: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, FileError> {
    let contains = |text: &str| pem.windows(text.len()).any(|window| window == text.as_bytes());
    if contains(LEGACY) {
        let reason = "it is encrypted in a legacy format of OpenSSL; convert it with \
                      `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW`";
        return Err(FileError::new("sslkey", path, EXPECTED, reason));
    }
    if contains(BEGIN) {
        return decrypt(path, pem, password);
    }
    // The parser's error is omitted, because it could contain a part of the private key.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| FileError::new("sslkey", path, EXPECTED, "not a valid PEM key"))
}

#[cfg(not(feature = "encrypted-keys"))]
fn decrypt(path: &Path, _: &[u8], _: Option<&Secret>) -> Result<PrivateKeyDer<'static>, FileError> {
    let reason = "it is encrypted; enable podpool's feature `encrypted-keys` and set `sslpassword`, or decrypt it with \
                  `openssl pkcs8 -in OLD -out NEW`";
    Err(FileError::new("sslkey", path, EXPECTED, reason))
}

#[cfg(feature = "encrypted-keys")]
fn decrypt(path: &Path, pem: &[u8], password: Option<&Secret>) -> Result<PrivateKeyDer<'static>, FileError> {
    use pkcs8::{EncryptedPrivateKeyInfoRef, Error, SecretDocument, pkcs5};

    const PASSWORD: &str = "the password of the encrypted private key";
    const UNKNOWN: &str = "its encryption is obsolete or unknown; convert it with \
                           `openssl pkcs8 -topk8 -v2 aes-256-cbc -in OLD -out NEW`";
    let Some(password) = password else {
        return Err(FileError::new("sslpassword", path, PASSWORD, "no password is set"));
    };
    let rejected = |reason: &str| FileError::new("sslkey", path, EXPECTED, reason);
    let block = std::str::from_utf8(pem).ok().and_then(|text| {
        let begin = text.find(BEGIN)?;
        let end = text[begin..].find(END)?;
        Some(&text[begin..begin + end + END.len()])
    });
    let block = block.ok_or_else(|| rejected("it is truncated, or not text"))?;
    let (_, document) = SecretDocument::from_pem(block).map_err(|_| rejected("not a valid PEM key"))?;
    let encrypted = EncryptedPrivateKeyInfoRef::try_from(document.as_bytes());
    let encrypted = encrypted.map_err(|_| rejected(UNKNOWN))?;
    let decrypted = encrypted.decrypt(password.expose()).map_err(|error| match error {
        // A wrong password is detected by the padding or, if that happens to be valid, by the structure of the key.
        Error::EncryptedPrivateKey(pkcs5::Error::DecryptFailed) | Error::Asn1(_) => {
            FileError::new("sslpassword", path, PASSWORD, "the password is wrong, or the key is damaged")
        }
        _ => rejected(UNKNOWN),
    })?;
    Ok(PrivateKeyDer::Pkcs8(decrypted.as_bytes().to_vec().into()))
}

//! The TLS files of a server: certificate, key and client CA.

use std::{fmt, path::Path};

use super::{Account, Error, account};

/// A server's certificate chain and private key, both PEM.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// File names in a Pod's directory.
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
const CLIENT_CA: &str = "clients.crt";

impl Certificate {
    /// Writes the TLS files and returns the `postgresql.conf` parameters that enable TLS with these files.
    pub(super) fn install(
        &self,
        client_ca: Option<&str>,
        directory: &Path,
        account: Option<Account>,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let mut parameters = vec![("ssl", "on".to_owned())];
        let files = [
            ("ssl_cert_file", CERTIFICATE, Some(&*self.certificate)),
            ("ssl_key_file", KEY, Some(&*self.key)),
            ("ssl_ca_file", CLIENT_CA, client_ca),
        ];
        for (parameter, name, text) in files {
            let Some(text) = text else { continue };
            let path = directory.join(name);
            account::write_file(&path, text, account)?;
            parameters.push((parameter, path.to_string_lossy().into_owned()));
        }
        Ok(parameters)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

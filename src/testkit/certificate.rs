use std::{fmt, path::Path};

use super::{Account, Error, account};

/// What a server shows to those who connect over TLS: its certificate and its key, both PEM.
#[derive(Clone)]
pub(super) struct Certificate {
    pub(super) certificate: String,
    pub(super) key: String,
}

/// The files in a Pod's directory.
const CERTIFICATE: &str = "server.crt";
const KEY: &str = "server.key";
const CLIENT_CA: &str = "clients.crt";

impl Certificate {
    /// Writes the files and gives the lines for `postgresql.conf`.
    pub(super) fn install(
        &self,
        client_ca: Option<&str>,
        directory: &Path,
        account: Option<Account>,
    ) -> Result<Vec<(&'static str, String)>, Error> {
        let mut lines = vec![("ssl", "on".to_owned())];
        let files = [
            ("ssl_cert_file", CERTIFICATE, Some(&*self.certificate)),
            ("ssl_key_file", KEY, Some(&*self.key)),
            ("ssl_ca_file", CLIENT_CA, client_ca),
        ];
        for (setting, name, text) in files {
            let Some(text) = text else { continue };
            let path = directory.join(name);
            account::write_file(&path, text, account)?;
            lines.push((setting, path.to_string_lossy().into_owned()));
        }
        Ok(lines)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

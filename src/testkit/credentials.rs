//! Rotates the application's password and the servers' certificates.

use super::{
    Cluster, Error,
    certificate::Certificate,
    cluster_config::{identifier, quoted},
    lock,
};

/// Credential rotation. Each method returns when new connections use the new credentials.
impl Cluster {
    /// Changes the application's password on the primary and returns when every running standby has replayed the
    /// change.
    ///
    /// Existing sessions stay open. [`password`](Cluster::password) and the URLs contain the new password afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Setting`] for an empty password or one with a zero byte, [`Error::NoPrimary`], [`Error::Sql`] and
    /// [`Error::Timeout`].
    pub async fn set_password(&self, password: &str) -> Result<(), Error> {
        if password.is_empty() || password.contains('\0') {
            return Err(Error::Setting { setting: "password", expected: "a non-empty value without zero bytes" });
        }
        let primary = self.running_primary()?;
        let client = primary.connect("postgres").await?;
        let statement = format!("ALTER ROLE {} PASSWORD {}", identifier(&self.config.user), quoted(password));
        client.batch_execute(&statement).await.map_err(|source| Error::sql("change the password", source))?;
        self.wait_replicated().await?;
        *lock(&self.config.password) = password.to_owned();
        Ok(())
    }

    /// Replaces the certificate and key (PEM) of a Pod, or turns TLS on if the Pod has no certificate. New connections
    /// use the new certificate. Existing connections stay open.
    ///
    /// If the server cannot use the certificate, it logs the reason and keeps the previous certificate. This method
    /// then still returns `Ok`.
    ///
    /// # Errors
    ///
    /// [`Error::NoSuchPod`], and [`Error::Timeout`] (90 s) if the server does not reload its configuration.
    pub async fn set_certificate(
        &self,
        ordinal: usize,
        certificate: impl Into<String>,
        key: impl Into<String>,
    ) -> Result<(), Error> {
        let _operation = self.operation.lock().await;
        let certificate = Certificate { certificate: certificate.into(), key: key.into() };
        self.server(ordinal)?.set_certificate(certificate).await
    }
}

//! Records whether the server requested a client certificate, which `sslcertmode=require` demands.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio_rustls::rustls::{ClientConfig, SignatureScheme, client::ResolvesClientCert, sign::CertifiedKey};

/// A source of client certificates that records that it was asked for one. For a single handshake.
#[derive(Debug)]
pub(super) struct CertRequest {
    inner: Arc<dyn ResolvesClientCert>,
    received: AtomicBool,
}

impl CertRequest {
    /// Returns a copy of the configuration for one handshake, and the recorder of its certificate request.
    pub(super) fn watch(config: &ClientConfig) -> (Arc<ClientConfig>, Arc<Self>) {
        let mut config = config.clone();
        let inner = config.client_auth_cert_resolver.clone();
        let watcher = Arc::new(Self { inner, received: AtomicBool::new(false) });
        config.client_auth_cert_resolver = watcher.clone();
        (Arc::new(config), watcher)
    }

    /// Returns true if the server requested a certificate.
    pub(super) fn received(&self) -> bool {
        self.received.load(Ordering::Relaxed)
    }
}

impl ResolvesClientCert for CertRequest {
    fn resolve(&self, authorities: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.received.store(true, Ordering::Relaxed);
        self.inner.resolve(authorities, schemes)
    }

    fn has_certs(&self) -> bool {
        self.inner.has_certs()
    }
}

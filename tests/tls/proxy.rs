//! A proxy between the client and the server. The proxy forwards all data and records the first bytes of each
//! connection.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use podpool::BoxError;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, copy_bidirectional},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject},
    },
};

use crate::Identity;

/// Code of an SSLRequest message (PostgreSQL manual, "Message Formats").
pub(crate) const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
/// Code of a CancelRequest message (PostgreSQL manual, "Message Formats").
pub(crate) const CANCEL_REQUEST: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// Mode of operation of a [`Proxy`].
#[derive(Clone)]
pub(crate) enum Mode {
    /// Forwards bytes unchanged.
    Bytes,
    /// Terminates the client's direct TLS with this configuration, and forwards plain text to the server.
    Direct(Arc<ServerConfig>),
    /// Terminates the client's TLS with this configuration, and opens a separate TLS session to the server.
    Attack(Arc<ServerConfig>),
}

/// A running proxy. Dropping it closes the listener.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    first_bytes: Arc<Mutex<Vec<[u8; 8]>>>,
    task: AbortHandle,
}

impl Proxy {
    pub(crate) async fn start(server: SocketAddr, mode: Mode) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("the listener binds");
        let address = listener.local_addr().expect("the socket has an address");
        let first_bytes = Arc::new(Mutex::new(Vec::new()));
        let recorded = first_bytes.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mode, recorded) = (mode.clone(), recorded.clone());
                // An error closes the connection, and the client then reports a failure.
                tokio::spawn(async move { drop(forward(client, server, mode, &recorded).await) });
            }
        });
        Self { address, first_bytes, task: task.abort_handle() }
    }

    /// Returns the first eight bytes of each connection.
    pub(crate) fn first_bytes(&self) -> Vec<[u8; 8]> {
        self.first_bytes.lock().expect("the lock is not poisoned").clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn forward(
    mut client: TcpStream,
    server: SocketAddr,
    mode: Mode,
    recorded: &Mutex<Vec<[u8; 8]>>,
) -> Result<(), BoxError> {
    let mut first = [0; 8];
    while client.peek(&mut first).await? < first.len() {
        client.readable().await?;
    }
    recorded.lock().expect("the lock is not poisoned").push(first);
    let mut server = TcpStream::connect(server).await?;
    match mode {
        Mode::Bytes => copy_both_ways(client, server).await,
        Mode::Direct(config) => copy_both_ways(TlsAcceptor::from(config).accept(client).await?, server).await,
        Mode::Attack(config) => {
            // Forwards SSLRequest and its one-byte response before both TLS handshakes.
            client.read_exact(&mut first).await?;
            server.write_all(&first).await?;
            client.write_u8(server.read_u8().await?).await?;
            let client = TlsAcceptor::from(config).accept(client).await?;
            let name = ServerName::try_from("any").expect("the name parses");
            let server = TlsConnector::from(accept_any_certificate()).connect(name, server).await?;
            copy_both_ways(client, server).await
        }
    }
}

async fn copy_both_ways(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), BoxError> {
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// Returns a TLS server configuration with this certificate and these ALPN protocols.
pub(crate) fn server_config(identity: &Identity, alpn: &[&str]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("the key parses");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the protocol versions are supported")
        .with_no_client_auth()
        .with_single_cert(chain.expect("the certificate parses"), key)
        .expect("the configuration is valid");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Returns a TLS client configuration that accepts any server certificate.
pub(crate) fn accept_any_certificate() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the protocol versions are supported")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AcceptAny))
        .with_no_client_auth();
    Arc::new(config)
}

/// A verifier that accepts any certificate.
#[derive(Debug)]
struct AcceptAny;

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

//! Somebody between the client and the server: he passes on what he is sent, and keeps what it began with.

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

/// SSLRequest's and CancelRequest's codes (PostgreSQL manual, "Message Formats").
pub(crate) const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();
pub(crate) const CANCEL_REQUEST: [u8; 4] = 80_877_102_u32.to_be_bytes();

/// What he does.
#[derive(Clone)]
pub(crate) enum Middle {
    /// Passes bytes on.
    Bytes,
    /// Ends the client's TLS, begun at once, with this certificate and ALPN, and speaks plain text to the server.
    Direct(Arc<ServerConfig>),
    /// Ends the client's TLS with a certificate of his own and begins another to the server.
    Attack(Arc<ServerConfig>),
}

/// A listener, until dropped.
pub(crate) struct Listener {
    pub(crate) address: SocketAddr,
    /// The first eight bytes of each connection.
    pub(crate) beginnings: Arc<Mutex<Vec<[u8; 8]>>>,
    task: AbortHandle,
}

impl Listener {
    pub(crate) async fn start(server: SocketAddr, middle: Middle) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a listener");
        let address = listener.local_addr().expect("its address");
        let beginnings = Arc::new(Mutex::new(Vec::new()));
        let seen = beginnings.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (middle, seen) = (middle.clone(), seen.clone());
                // One that fails ends its connection, which the client tells of.
                tokio::spawn(async move { drop(pass(client, server, middle, &seen).await) });
            }
        });
        Self { address, beginnings, task: task.abort_handle() }
    }

    pub(crate) fn beginnings(&self) -> Vec<[u8; 8]> {
        self.beginnings.lock().expect("a lock").clone()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut client: TcpStream,
    server: SocketAddr,
    middle: Middle,
    seen: &Mutex<Vec<[u8; 8]>>,
) -> Result<(), BoxError> {
    let mut beginning = [0; 8];
    while client.peek(&mut beginning).await? < beginning.len() {
        client.readable().await?;
    }
    seen.lock().expect("a lock").push(beginning);
    let mut server = TcpStream::connect(server).await?;
    match middle {
        Middle::Bytes => join(client, server).await,
        Middle::Direct(config) => join(TlsAcceptor::from(config).accept(client).await?, server).await,
        Middle::Attack(config) => {
            client.read_exact(&mut beginning).await?;
            server.write_all(&beginning).await?;
            client.write_u8(server.read_u8().await?).await?;
            let client = TlsAcceptor::from(config).accept(client).await?;
            let name = ServerName::try_from("whoever").expect("a name");
            join(client, TlsConnector::from(trusting()).connect(name, server).await?).await
        }
    }
}

async fn join(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    mut server: impl AsyncRead + AsyncWrite + Unpin,
) -> Result<(), BoxError> {
    copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}

/// A server's side of TLS with this certificate.
pub(crate) fn serving(identity: &Identity, alpn: &[&str]) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate.as_bytes()).collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain.expect("a certificate"), key)
        .expect("a configuration");
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// A client's side of TLS that takes any certificate.
pub(crate) fn trusting() -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Gullible))
        .with_no_client_auth();
    Arc::new(config)
}

#[derive(Debug)]
struct Gullible;

impl ServerCertVerifier for Gullible {
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

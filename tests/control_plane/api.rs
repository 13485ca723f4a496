//! A client of the API server: single requests and watches.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, ServerName, pem::PemObject},
    },
};

/// Content type of a server-side apply.
const APPLY: &str = "application/apply-patch+yaml";
/// Content type of a patch that replaces lists as a whole.
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

/// Time limit for a request other than a watch.
const LIMIT: Duration = Duration::from_secs(10);

/// A client that authenticates with a token.
#[derive(Clone)]
pub(crate) struct Api {
    address: SocketAddr,
    token: String,
    tls: TlsConnector,
}

/// The response to a request that the API server refused or could not answer.
#[derive(Debug)]
pub(crate) struct ApiError {
    /// The status of the response, or `None` if there was none.
    pub(crate) status: Option<StatusCode>,
    text: String,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => write!(f, "{status}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

impl ApiError {
    fn unanswered(error: impl std::fmt::Display) -> Self {
        Self { status: None, text: error.to_string() }
    }
}

impl Api {
    /// Creates a client. `authority` is the certificate that the API server's certificate is verified with.
    pub(crate) fn new(address: SocketAddr, token: &str, authority: &str) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_slice(authority.as_bytes()).expect("the certificate parses");
        roots.add(authority).expect("the certificate is valid");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider supports the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { address, token: token.to_owned(), tls: TlsConnector::from(Arc::new(config)) }
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Value, ApiError> {
        self.json("GET", path, JSON, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.json("POST", path, JSON, Some(body)).await
    }

    /// Creates an object or changes it to this state.
    pub(crate) async fn apply(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.json("PATCH", &format!("{path}?fieldManager=podpool&force=true"), APPLY, Some(body)).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Result<Value, ApiError> {
        self.json("PATCH", path, MERGE, Some(body)).await
    }

    /// Deletes an object. `options` are its DeleteOptions.
    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, ApiError> {
        self.json("DELETE", path, JSON, Some(options)).await
    }

    /// Returns true if the API server reports that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        self.send("GET", "/readyz", JSON, None).await.is_ok_and(|response| response.status().is_success())
    }

    /// Starts a watch. `path` contains the resource version after which it begins.
    pub(crate) async fn watch(&self, path: &str) -> Result<Watch, ApiError> {
        let response = self.send("GET", path, JSON, None).await?;
        let status = response.status();
        match status.is_success() {
            true => Ok(Watch { body: response.into_body(), buffer: Vec::new() }),
            false => Err(ApiError { status: Some(status), text: format!("GET {path}") }),
        }
    }

    async fn json(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let exchange = tokio::time::timeout(LIMIT, self.exchange(method, path, kind, body)).await;
        exchange.unwrap_or_else(|_| Err(ApiError::unanswered(format!("{method} {path}: no response within {LIMIT:?}"))))
    }

    async fn exchange(&self, method: &str, path: &str, kind: &str, body: Option<&Value>) -> Result<Value, ApiError> {
        let response = self.send(method, path, kind, body).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await.map_err(ApiError::unanswered)?.to_bytes();
        if status.is_success() {
            return serde_json::from_slice(&bytes).map_err(ApiError::unanswered);
        }
        let text = format!("{method} {path}: {}", String::from_utf8_lossy(&bytes));
        Err(ApiError { status: Some(status), text })
    }

    /// Sends a request on a connection of its own.
    async fn send(
        &self,
        method: &str,
        path: &str,
        kind: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let stream = TcpStream::connect(self.address).await.map_err(ApiError::unanswered)?;
        let stream = self.tls.connect(ServerName::from(self.address.ip()), stream).await;
        let stream = TokioIo::new(stream.map_err(ApiError::unanswered)?);
        let (mut sender, connection) = http1::handshake(stream).await.map_err(ApiError::unanswered)?;
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.to_string())
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .header(header::CONTENT_TYPE, kind)
            .body(Full::new(body.map_or_else(Bytes::new, |body| body.to_string().into())))
            .expect("the request is valid");
        sender.send_request(request).await.map_err(ApiError::unanswered)
    }
}

/// A stream of events, one JSON object per line.
pub(crate) struct Watch {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Watch {
    /// Returns the next event, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<_> = self.buffer.drain(..=end).collect();
                return serde_json::from_slice(&line).ok();
            }
            let frame = self.body.frame().await?.ok()?;
            self.buffer.extend_from_slice(frame.data_ref()?);
        }
    }
}
